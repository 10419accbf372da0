"""Cells in processes of this machine."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import connection, get_context, parent_process
from multiprocessing.context import SpawnProcess
from typing import Any

import torch

from priorzoo.benchmarks.grid.cells import Cell
from priorzoo.benchmarks.grid.places import Place
from priorzoo.benchmarks.rows.files import Row
from priorzoo.benchmarks.runs.interruption import holding_back

BUSY = 75  # the status of a process whose cell another has, as EX_TEMPFAIL
PATIENCE = 10.0  # seconds that the process of a cell has to end in


class Processes:
    """Starts a process of this machine for each cell, one at a time unless told otherwise."""

    @contextmanager
    def open(self, place: Place, jobs: int | None) -> Iterator["Running"]:
        """See :class:`Pool`."""
        running = Running(place, jobs or 1)
        try:
            yield running
        finally:
            running.stop()


class Running:
    """The processes of some cells; they share the machine's threads.

    Args:
        place: where the cells are made.
        jobs: processes at a time.
    """

    def __init__(self, place: Place, jobs: int) -> None:
        self.place, self.jobs = place, jobs
        self._threads = max(1, torch.get_num_threads() // jobs)
        self._running: dict[Any, tuple[Cell, SpawnProcess]] = {}

    @property
    def room(self) -> bool:
        return len(self._running) < self.jobs

    @property
    def running(self) -> int:
        return len(self._running)

    def start(self, cell: Cell) -> None:
        given = self.place, cell, self._threads
        process = get_context("spawn").Process(target=_work, args=given, name=cell.name)
        with holding_back():  # the process leaves Ctrl-C to this one, which ends it
            process.start()
        self._running[process.sentinel] = cell, process

    def ended(self, seconds: float) -> Iterator[tuple[Cell, Row | None]]:
        for sentinel in connection.wait(list(self._running), seconds) if self._running else []:
            cell, process = self._running.pop(sentinel)
            process.join()
            if process.exitcode == BUSY:
                yield cell, None
            else:
                killed = cell.failure(f"the process ended with status {process.exitcode}")
                yield cell, self.place.made(cell) or killed

    def stop(self) -> None:
        """End all processes, with time for a last checkpoint."""
        _end([process for _, process in self._running.values()])


def _end(processes: Sequence[SpawnProcess]) -> None:
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + PATIENCE
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
        process.kill()
        process.join()


def _work(place: Place, cell: Cell, threads: int) -> None:
    """Make a cell in a process of its own, which ends with its parent."""
    threading.Thread(target=_follow, daemon=True).start()
    try:
        place.make(cell, threads)
    except BlockingIOError:
        sys.exit(BUSY)
    except KeyboardInterrupt as error:
        sys.exit(128 + next(iter(error.args), signal.SIGINT))


def _follow() -> None:
    parent = parent_process()
    if parent is not None:
        with suppress(OSError):
            parent.join()
        os._exit(1)
