"""Many cells in worker processes, of which one may fail or be killed and the others go on."""

import json
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing import connection, get_context, parent_process
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from priorzoo.benchmarks.grid.cells import Cell, work
from priorzoo.benchmarks.rows.files import FAILURES, Row, append_row, read_rows
from priorzoo.benchmarks.rows.locks import holder, locked
from priorzoo.benchmarks.runs.interruption import handling
from priorzoo.inference.saving import replace_file

LOG = logging.getLogger(__name__)
ROWS, LOCK = "rows.jsonl", "rows.lock"
BUSY = 75  # the status of a process whose cell another has, as EX_TEMPFAIL
POLL = 0.5  # seconds between two looks at what other processes do
PATIENCE = 10.0  # seconds that the process of a cell has to end in


def run_grid(
    cells: Sequence[Cell],
    out: Path,
    *,
    jobs: int = 1,
    root: str | None = None,
    device: str = "auto",
    progress: bool = True,
) -> tuple[int, int]:
    """Run the cells that have no row yet, and append a row for each that finishes.

    A cell that fails leaves its error in ``failures.jsonl``. Whatever ends this process, the rows
    are whole, each cell has one at most, and the same call goes on with what is left. Several
    processes may run the cells of one folder at the same time: each takes those that no other has.

    Args:
        cells: see :func:`plan`.
        out: folder of rows, runs, histories and charts.
        jobs: processes at a time.
        root, device: as in training.
        progress: whether to show a bar over the grid.

    Returns:
        How many cells were run here, and how many of all failed.

    Raises:
        ValueError: for a folder that holds something else, or rows of other settings.
        KeyboardInterrupt: for a signal, once the processes of the cells have ended.
    """
    if jobs < 1:
        raise ValueError(f"Expected at least one job but got {jobs}.")
    check_folder(cells, out)
    out.mkdir(parents=True, exist_ok=True)
    with locked(out / LOCK, wait=True):
        mend(out / ROWS)
    shared = Shared(out)
    left = [cell for cell in cells if not shared.state(cell)]
    taken = failed = 0
    with tqdm(total=len(cells), initial=len(cells) - len(left), disable=not progress) as bar:
        for cell, row in _finished(left, shared, jobs, root, device):
            if row is not None:
                taken += shared.append(cell, row)
            if shared.state(cell) == "failed":
                failed += 1
                bar.write(f"{cell.name}: {shared.error(cell)}")
            bar.set_postfix_str(cell.name)
            bar.update()
    return taken, failed


def check_folder(cells: Sequence[Cell], out: Path) -> None:
    """Refuse a folder whose rows would not go together with those of the cells.

    Raises:
        ValueError: naming what differs.
    """
    torn = {LOCK, f"{ROWS}.part"}  # what a kill may leave before there are rows
    others = {path.name for path in out.iterdir()} - torn if out.is_dir() else set()
    if out.is_file() or (others and not (out / ROWS).is_file()):
        raise ValueError(f"Expected a new folder or one of a grid but {out} holds something else.")
    for row in rows_of(out):
        alike = (cell for cell in cells if cell.recipe == row["recipe"])
        keys = {cell.key for cell in alike if cell.origin()["changes"] == row["changes"]}
        if row["budget"] != cells[0].budget or (keys and row["cell"] not in keys):
            other = f"{row['recipe']} with budget {row['budget']}, {row['steps']} steps"
            raise ValueError(
                f"Expected rows of the same settings but {out / ROWS} has {other} and other "
                "settings; choose another --out."
            )


def rows_of(out: Path) -> list[Row]:
    """The rows of a grid's folder, without a last one that is torn.

    Raises:
        ValueError: for rows of another format.
    """
    path = out / ROWS
    return read_rows(path, torn=True) if path.is_file() else []


def mend(path: Path) -> None:
    """Cut off a last line that was torn, so that the next begins on its own."""
    lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
    whole = b"".join(line for line in lines if line.endswith(b"\n"))
    if not path.is_file() or len(whole) < path.stat().st_size:
        replace_file(path, lambda file: file.write_bytes(whole))


class Shared:
    """The rows of a grid's folder, to which several processes append.

    Args:
        out: the folder.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self._before = len(self._failures())
        self._done: set[tuple[str, int]] = set()
        self._read = (-1, -1)  # size and time of the file when it was read

    def state(self, cell: Cell) -> str:
        """``done`` for a cell with a row, ``failed`` for one that failed since, else empty."""
        stat = (self.out / ROWS).stat()
        if self._read != (seen := (stat.st_size, stat.st_mtime_ns)):
            self._done = {(row["cell"], row["seed"]) for row in rows_of(self.out)}
            self._read = seen
        if (cell.key, cell.seed) in self._done:
            return "done"
        return "failed" if self.error(cell) else ""

    def error(self, cell: Cell) -> str:
        """The last line of the error of a cell that failed since this was made."""
        for row in self._failures()[self._before :]:
            if (row["cell"], row["seed"]) == (cell.key, cell.seed):
                return row["error"].splitlines()[-1]
        return ""

    def append(self, cell: Cell, row: Row) -> bool:
        """Append the row of a cell unless another process has; returns whether this one did."""
        with locked(self.out / LOCK, wait=True):
            if self.state(cell):
                return False
            path = self.out / (FAILURES if "error" in row else ROWS)
            mend(path)
            append_row(row, path)
        return True

    def _failures(self) -> list[Row]:
        path = self.out / FAILURES
        return read_rows(path, torn=True) if path.is_file() else []


def _finished(
    cells: Sequence[Cell], shared: Shared, jobs: int, root: str | None, device: str
) -> Iterator[tuple[Cell, Row | None]]:
    """Each cell as it ends, with its row, which holds the ``error`` if it failed.

    A cell that another process finished has None.
    """
    context, out = get_context("spawn"), shared.out
    waiting = list(cells)
    running: dict[Any, tuple[Cell, SpawnProcess]] = {}
    threads = max(1, torch.get_num_threads() // jobs)
    told = False
    try:
        while waiting or running:
            for cell in list(waiting):
                if len(running) == jobs:
                    break
                if shared.state(cell):
                    waiting.remove(cell)
                    yield cell, None
                elif not holder(_lock(out, cell)):
                    waiting.remove(cell)
                    given = (cell, out, root, device, threads)
                    process = context.Process(target=_work, args=given, name=cell.name)
                    process.start()
                    running[process.sentinel] = cell, process
            if waiting and not running:  # other processes have these, and may be killed yet
                if not told:
                    LOG.warning("%s", _elsewhere(out, waiting))
                told = True
                time.sleep(POLL)
            ended = connection.wait(list(running), POLL) if running else []
            for sentinel in ended:
                cell, process = running.pop(sentinel)
                process.join()
                killed = cell.failure(f"the process ended with status {process.exitcode}")
                if process.exitcode == BUSY:
                    waiting.append(cell)
                else:
                    yield cell, _made(out, cell) or killed
    finally:
        _end([process for _, process in running.values()])


def _elsewhere(out: Path, cells: Sequence[Cell]) -> str:
    found = {holder(_lock(out, cell)) for cell in cells} - {""}
    return f"Waiting for {len(cells)} cells in {out}, which {', '.join(sorted(found))} runs."


def _end(processes: Sequence[SpawnProcess]) -> None:
    """End processes, with time for a last checkpoint."""
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + PATIENCE
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
        process.kill()
        process.join()


def _work(cell: Cell, out: Path, root: str | None, device: str, threads: int) -> None:
    """Leave a cell's row in a file, from a process of its own that ends with its parent."""
    threading.Thread(target=_follow, daemon=True).start()
    torch.set_num_threads(threads)
    path = _file(out, cell)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with handling(), locked(_lock(out, cell)):
            if "error" not in (_made(out, cell) or {"error": ""}):
                return  # it had finished, and its row was not written yet
            path.unlink(missing_ok=True)
            row = _row(cell, out, root, device)
            replace_file(path, lambda file: file.write_text(json.dumps(row)))
    except BlockingIOError:
        sys.exit(BUSY)
    except KeyboardInterrupt as error:
        sys.exit(128 + next(iter(error.args), signal.SIGINT))


def _row(cell: Cell, out: Path, root: str | None, device: str) -> Row:
    try:
        return work(cell, out, root, device)
    except KeyboardInterrupt:
        raise
    except BaseException:
        return cell.failure(traceback.format_exc())


def _follow() -> None:
    parent = parent_process()
    if parent is not None:
        with suppress(OSError):
            parent.join()
        os._exit(1)


def _file(out: Path, cell: Cell) -> Path:
    return out / "runs" / f"{cell.name}.json"


def _lock(out: Path, cell: Cell) -> Path:
    return out / "runs" / f"{cell.name}.lock"


def _made(out: Path, cell: Cell) -> Row | None:
    path = _file(out, cell)
    return json.loads(path.read_text()) if path.is_file() else None
