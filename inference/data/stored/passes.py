"""Endless passes over files, shuffled within a buffer, with a position."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby
from typing import TYPE_CHECKING, TypedDict, final

import torch

from priorzoo.inference.data.stored.files import Part
from priorzoo.inference.data.stored.numbered import Numbered, joined
from priorzoo.inference.randomness import derive

if TYPE_CHECKING:
    from priorzoo.inference.data.stored.rows import StoredRows

Piece = tuple[int, int, int]  # number of a file, of a group in it, and of a piece in that


@final
class StoredPosition(TypedDict):
    """The position in endless passes over files: the pass, and the rows that it has given."""

    number: int
    place: int


class Passes:
    """Endless passes over files, with a position.

    A pass divides the pieces of the files into windows of as many rows as the buffer has, at
    least. The order of the pieces and that of the rows of each window depend only on the seed, the
    number of the pass and that of the window, so that a position is two numbers.
    """

    def __init__(self, rows: "StoredRows") -> None:
        self.rows, self.number, self.place = rows, 0, 0
        self._pool = ThreadPoolExecutor(rows.workers) if rows.workers else None
        self._begin()

    def __iter__(self) -> Iterator[Numbered]:
        return self

    def __next__(self) -> Numbered:
        rows = self.rows
        if self.place == rows.size:
            self.number, self.place = self.number + 1, 0
            self._begin()
        parts: list[Numbered] = []
        left = count = min(rows.batch_size, rows.size - self.place)
        while left:
            if self._offset >= len(self._order):
                self._take_window()
            chosen = self._order[self._offset : self._offset + left]
            assert self._held is not None
            parts.append(self._held.at(chosen))
            self._offset += len(chosen)
            left -= len(chosen)
        self.place += count
        return joined(parts)

    def state(self) -> StoredPosition:
        """The position."""
        return {"number": self.number, "place": self.place}

    def restore(self, state: StoredPosition) -> None:
        """Go to a position that :meth:`state` returned, by reading one window.

        Raises:
            ValueError: for a position that these files do not have.
        """
        if not 0 <= state["place"] <= self.rows.size or state["number"] < 0:
            raise ValueError(
                f"Expected a place from 0 to {self.rows.size} but got {state}; resume with the "
                "files of the training."
            )
        self.number, self.place = state["number"], state["place"]
        self._begin()

    def _begin(self) -> None:
        self._windows = self._planned(self.number)
        self._order = torch.empty(0, dtype=torch.int64)
        self._held: Numbered | None = None
        self._ahead: list[Future[Numbered] | Numbered] = []
        self._rest: tuple[Piece, Iterator[Part]] | None = None
        self._next, skipped = 0, 0
        for runs in self._windows:
            rows = sum(self.rows.rows_in(piece) for run in runs for piece in run)
            if skipped + rows > self.place:
                break
            skipped += rows
            self._next += 1
        self._offset, self._skipped = 0, self.place - skipped

    def _planned(self, number: int) -> list[list[list[Piece]]]:
        """The windows of a pass, each as runs of pieces of one group."""
        runs = self.rows.runs()
        order = torch.randperm(len(runs), generator=_generator(self.rows.seed, number))
        windows: list[list[Piece]] = []
        held = self.rows.buffer
        for piece in (piece for place in order.tolist() for piece in runs[place]):
            if held >= self.rows.buffer:
                windows.append([])
                held = 0
            windows[-1].append(piece)
            held += self.rows.rows_in(piece)
        return [
            [[*run] for _, run in groupby(window, lambda piece: piece[:2])] for window in windows
        ]

    def _take_window(self) -> None:
        """Go to the next window of the pass, and begin to read the one after."""
        self._held = None  # all its batches are given; it needs no memory beside the next
        runs = self._ahead or self._start(self._next)
        self._ahead = []
        self._held = joined([run if isinstance(run, Numbered) else run.result() for run in runs])
        generator = _generator(self.rows.seed, self.number, self._next)
        self._order = torch.randperm(len(self._held.numbers), generator=generator)
        self._offset, self._skipped = self._skipped, 0
        self._next += 1
        self._ahead = self._start(self._next) if self._pool else []

    def _start(self, index: int) -> list[Future[Numbered] | Numbered]:
        runs = self._windows[index] if index < len(self._windows) else []
        if self._pool is None:
            return [self.rows.read(run, self._parts(run)) for run in runs]
        return [self._pool.submit(self.rows.read, run, self._parts(run)) for run in runs]

    def _parts(self, run: list[Piece]) -> Iterator[Part]:
        """What reads a run: what read the pieces before it, if the window before ended there.

        All that a file keeps while a group is read is in it, so that few are alive at a time.
        """
        rest, self._rest = self._rest, None
        parts = rest[1] if rest and rest[0] == run[0] else self.rows.parts(run[0])
        file, group, last = run[-1]
        following = (file, group, last + 1)
        if self.rows.has(following):
            self._rest = following, parts
        return parts


def _generator(seed: int, *place: int) -> torch.Generator:
    return torch.Generator().manual_seed(derive(seed, *place))
