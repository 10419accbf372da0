"""What a worker does with one cell, whatever starts the worker."""

import json
import traceback
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from priorzoo.benchmarks.grid.cells import Cell, work
from priorzoo.benchmarks.rows.files import Row
from priorzoo.benchmarks.rows.locks import locked
from priorzoo.benchmarks.runs.interruption import handling
from priorzoo.inference.saving import replace_file


@dataclass(frozen=True)
class Place:
    """Where the cells of a grid are made.

    Args:
        out: folder of rows, runs, histories and charts.
        root, device: as in training.
    """

    out: Path
    root: str | None = None
    device: str = "auto"

    def lock(self, cell: Cell) -> Path:
        """The file whose lock the worker of a cell holds."""
        return self.out / "runs" / f"{cell.name}.lock"

    def made(self, cell: Cell) -> Row | None:
        """What a worker has left of a cell: its row, or its ``error``."""
        path = self._file(cell)
        return json.loads(path.read_text()) if path.is_file() else None

    def make(self, cell: Cell, threads: int) -> None:
        """Leave a cell's row in a file, unless it is there already.

        Raises:
            BlockingIOError: if another worker has the cell.
            KeyboardInterrupt: for a signal, once a checkpoint is saved.
        """
        torch.set_num_threads(threads)
        path = self._file(cell)
        path.parent.mkdir(parents=True, exist_ok=True)
        with handling(), locked(self.lock(cell)):
            if "error" not in (self.made(cell) or {"error": ""}):
                return  # it had finished, and its row was not written yet
            path.unlink(missing_ok=True)
            row = self._row(cell)
            replace_file(path, lambda file: file.write_text(json.dumps(row)))

    def _row(self, cell: Cell) -> Row:
        try:
            return work(cell, self.out, self.root, self.device)
        except KeyboardInterrupt:
            raise
        except BaseException:
            return cell.failure(traceback.format_exc())

    def _file(self, cell: Cell) -> Path:
        return self.out / "runs" / f"{cell.name}.json"


class Workers(Protocol):
    """Processes that make cells, each one cell."""

    @property
    def room(self) -> bool:
        """Whether another cell can be started."""

    @property
    def running(self) -> int:
        """How many cells were started and have not ended."""

    def start(self, cell: Cell) -> None:
        """Let a process make a cell."""

    def ended(self, seconds: float) -> Iterator[tuple[Cell, Row | None]]:
        """Cells that have ended, with what was made of them; waits so long for the first.

        A cell that a worker of another grid has is None.
        """


class Pool(Protocol):
    """What starts the workers of a grid."""

    def open(self, place: Place, jobs: int | None) -> AbstractContextManager[Workers]:
        """Workers until ``with`` ends, which ends those that still run.

        Args:
            place: where the cells are made.
            jobs: cells at a time; None for what the pool takes without being told.
        """
