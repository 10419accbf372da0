"""Cells as tasks of Ray, on this machine or on the nodes of a cluster."""

import logging
import os
import platform
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

from priorzoo.benchmarks.grid.cells import Cell
from priorzoo.benchmarks.grid.places import Place
from priorzoo.benchmarks.rows.files import Row
from priorzoo.benchmarks.runs.interruption import handling, stop
from priorzoo.inference.failures import first_line

RETRIES = 5  # of a cell whose worker or node died; it goes on from its checkpoint
PATIENCE = 30.0  # seconds that a worker has to save a last checkpoint in
BUSY = "busy"  # what a task returns whose cell another has


@dataclass(frozen=True)
class Ray:
    """Starts a task of Ray for each cell.

    The folder of the grid, and that of the data, must be on a file system that all nodes have, at
    the same path; priorzoo must be installed on all of them.

    Args:
        address: of a cluster, or ``auto`` for the one that this machine belongs to; None starts a
            Ray of this machine alone, which ends with the grid.
        cpus, gpus: what each cell takes, and so how many run at a time; a share of a GPU may be
            below 1. A cell has as many threads as CPUs.

    Raises:
        ValueError: for less than one CPU, or a negative number of GPUs.
    """

    address: str | None = None
    cpus: int = 1
    gpus: float = 0.0

    def __post_init__(self) -> None:
        if self.cpus < 1 or not 0 <= self.gpus < float("inf"):
            raise ValueError(
                f"Expected at least one CPU and no negative number of GPUs for each cell but got "
                f"{self.cpus} and {self.gpus}."
            )

    @contextmanager
    def open(self, place: Place, jobs: int | None) -> Iterator["Tasks"]:
        """See :class:`Pool`.

        Raises:
            ConnectionError: if there is no Ray at the address.
            ValueError: if no node has what a cell takes.
        """
        address = self.address or "local"
        with _one_line(address):
            _check_address(address)
            import ray

            ray.init(address=address, logging_level=logging.WARNING)
        try:
            with _numbered():
                self._check_nodes(ray.nodes())
                root = None if place.root is None else os.path.abspath(place.root)
                here = replace(place, out=place.out.resolve(), root=root)
                tasks = Tasks(self, here, jobs)
                try:
                    yield tasks
                finally:
                    tasks.stop()
        finally:
            ray.shutdown()

    def _check_nodes(self, nodes: list[dict[str, Any]]) -> None:
        found = [node["Resources"] for node in nodes if node["Alive"]]
        wanted = {"CPU": self.cpus, "GPU": self.gpus}
        if not any(all(one.get(k, 0) >= v for k, v in wanted.items()) for one in found):
            most = {name: max(one.get(name, 0) for one in found) for name in wanted}
            raise ValueError(
                f"Expected a node with {self.cpus} CPUs and {self.gpus:g} GPUs for a cell but the "
                f"largest have {most['CPU']:g} and {most['GPU']:g}; give smaller --cpus or --gpus."
            )


@contextmanager
def _one_line(address: str) -> Iterator[None]:
    """Inside ``with``, errors of a connection say what to do."""
    try:
        yield
    except OSError as error:
        reason = first_line(error)
        raise ConnectionError(
            f"Expected a Ray cluster at {address} but found none ({reason}); start one with "
            "ray start --head, or leave out --address for a Ray of this machine alone."
        ) from error


def _check_address(address: str) -> None:
    """Connect to a host and port once; Ray would try for minutes.

    Raises:
        OSError: if nothing listens there.
    """
    found = re.fullmatch(r"(?:ray://)?\[?(.+?)\]?:(\d+)", address)
    if found:
        socket.create_connection((found[1], int(found[2])), timeout=10).close()


@contextmanager
def _numbered() -> Iterator[None]:
    """Inside ``with``, signals raise ``KeyboardInterrupt`` with their number, as without Ray.

    Ray has set a handler of SIGTERM of its own, and raises another ``KeyboardInterrupt``, without a
    number, where a signal comes while it waits.
    """
    numbers: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        numbers.append(number)
        stop(number, frame)

    with handling(note):
        try:
            yield
        except KeyboardInterrupt as error:
            raise KeyboardInterrupt(*(numbers or error.args)[:1]) from error


class Tasks:
    """The tasks of some cells, each in a worker process of its own.

    Args:
        pool: what each takes.
        place: where the cells are made.
        jobs: tasks at a time; None for as many as there is room for.
    """

    def __init__(self, pool: Ray, place: Place, jobs: int | None) -> None:
        import ray

        self.place, self.jobs, self._threads = place, jobs, pool.cpus
        # One cell a process, so that the memory in its row is its own.
        self._work = ray.remote(
            num_cpus=pool.cpus, num_gpus=pool.gpus, max_calls=1, max_retries=RETRIES
        )(_work)
        self._running: dict[Any, Cell] = {}

    @property
    def room(self) -> bool:
        return self.jobs is None or len(self._running) < self.jobs

    @property
    def running(self) -> int:
        return len(self._running)

    def start(self, cell: Cell) -> None:
        self._running[self._work.remote(self.place, cell, self._threads, os.getcwd())] = cell

    def ended(self, seconds: float) -> Iterator[tuple[Cell, Row | None]]:
        import ray

        if not self._running:
            return
        for task in ray.wait(list(self._running), timeout=seconds)[0]:
            cell = self._running.pop(task)
            try:
                said = ray.get(task)
            except ray.exceptions.RayError as error:
                said = f"Ray could not finish the task: {error}"
            if said == BUSY:
                yield cell, None
            else:
                missing = f"Expected the row of the cell in {self.place.out} but there is none; "
                missing += "choose an --out on a file system that all nodes have."
                yield cell, self.place.made(cell) or cell.failure(said or missing)

    def stop(self) -> None:
        """End all tasks, with time for a last checkpoint."""
        import ray

        for task in self._running:
            ray.cancel(task)
        deadline = time.monotonic() + PATIENCE
        left = list(self._running)
        while left and time.monotonic() < deadline:
            left = ray.wait(left, timeout=max(0.0, deadline - time.monotonic()))[1]
        for task in left:
            ray.cancel(task, force=True)
        self._running.clear()


def _work(place: Place, cell: Cell, threads: int, folder: str) -> str:
    """Make a cell, from the folder in which the grid was started; returns what went wrong."""
    if not place.out.is_dir() or not Path(folder).is_dir():
        return (
            f"Expected the folders {place.out} and {folder} on the node {platform.node()} but "
            "they are not there; start the grid in a folder that all nodes have."
        )
    os.chdir(folder)
    try:
        place.make(cell, threads)
    except BlockingIOError:
        return BUSY
    return ""
