"""Rows of files in shuffled batches, of which a buffer is in memory at a time."""

import math
import os
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TypedDict, final

import torch
from torch import Tensor

from priorzoo.inference.batch import Batch
from priorzoo.inference.data.beside import as_labels
from priorzoo.inference.data.stored.files import File, Names, NpyFile, ParquetFile, Part
from priorzoo.inference.data.tensors import check_count
from priorzoo.inference.randomness import derive

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
Piece = tuple[int, int, int]  # number of a file, of a group in it, and of a piece in that
KINDS: Mapping[str, Callable[[Path, Names, int], File]] = {
    ".npy": NpyFile,
    ".parquet": ParquetFile,
}
PIECES = 8  # that fill a buffer, so that it mixes distant parts of a file


@final
class StoredPosition(TypedDict):
    """The position in endless passes over files: the pass, and the rows that it has given."""

    number: int
    place: int


class StoredRows:
    r"""Rows in files that may be larger than memory, with their labels and context.

    :func:`fit`, :func:`evaluate` and all predictions take them in place of rows in memory. In each
    pass every row comes once. The order is random twice: pieces of the files come in a random
    order, and rows are shuffled within a buffer of several pieces. If the files are sorted, batches
    are therefore only as mixed as the buffer is. A resumed training goes on with the same batches.

    Args:
        paths: a ``.parquet`` or ``.npy`` file, a folder of them, or several of one kind, whose rows
            have one shape. Files of a folder are taken in the order of their names.
        columns: of Parquet files, those that make x, all others by default; one column of lists of
            equal length is x alone.
        labels: for sites of the model, the column that holds their labels (integers, -1 for
            unknown), or the name of a ``.npy`` file beside the rows' file.
        context: likewise for keyword arguments of the programs, such as an exposure.
        batch_size: rows in a batch; the last of a pass may be smaller.
        buffer: rows in memory that are shuffled together; at most twice as many are held, and as
            many again are read ahead.
        seed: of the order.
        workers: threads that read ahead; 0 to read when rows are needed.

    Raises:
        FileNotFoundError: for a missing file, or a folder without files.
        ValueError: for files that cannot be read, or that differ in the shape of their rows.
    """

    def __init__(
        self,
        paths: Paths,
        *,
        columns: Sequence[str] | None = None,
        labels: Mapping[str, str] | None = None,
        context: Mapping[str, str] | None = None,
        batch_size: int = 100,
        buffer: int = 50_000,
        seed: int = 0,
        workers: int = 1,
    ) -> None:
        check_count(batch_size, "batch_size")
        check_count(buffer, "buffer")
        check_count(workers, "workers", 0)
        self.batch_size, self.buffer, self.seed, self.workers = batch_size, buffer, seed, workers
        self.labels, self.context = dict(labels or {}), dict(context or {})
        named = Names(None if columns is None else tuple(columns), self.labels | self.context)
        piece = max(1, buffer // PIECES)
        self.files: list[File] = [KINDS[path.suffix](path, named, piece) for path in _found(paths)]
        self.shape = self.files[0].shape
        for file in self.files:
            if file.shape != self.shape:
                raise ValueError(
                    f"Expected rows of shape {self.shape}, as in {self.files[0].path}, but "
                    f"{file.path} has {file.shape}; give files with the same columns."
                )
        every = [
            (number, place, piece)
            for number, file in enumerate(self.files)
            for place, group in enumerate(file.groups)
            for piece in range(len(group))
        ]
        self._keep({each: slice(0, self._whole(each)) for each in every})

    def _whole(self, piece: Piece) -> int:
        file, group, number = piece
        return self.files[file].groups[group][number]

    def _keep(self, kept: Mapping[Piece, slice]) -> None:
        """Take these rows of these pieces, which are in the order of the files."""
        self._kept, self._pieces = kept, list(kept)
        self._starts = [0]
        for each in self._pieces:
            self._starts.append(self._starts[-1] + self.rows_in(each))
        self.size = self._starts.pop()

    def split(self, held: int) -> tuple["StoredRows", "StoredRows"]:
        """All rows but the last ``held``, and these, in the order of the files.

        Raises:
            ValueError: if no row is left for one of them.
        """
        if not 0 < held < self.size:
            raise ValueError(
                f"Expected to hold out from 1 to {self.size - 1} of {self.size} rows but got "
                f"{held}; leave rows for both parts."
            )
        first, last, cut = {}, {}, self.size - held
        for piece, start in zip(self._pieces, self._starts, strict=True):
            rows = self._kept[piece]
            middle = min(max(rows.start + cut - start, rows.start), rows.stop)
            first[piece], last[piece] = slice(rows.start, middle), slice(middle, rows.stop)
        return self._part(first), self._part(last)

    def _part(self, kept: Mapping[Piece, slice]) -> "StoredRows":
        part = copy(self)
        part._keep({piece: rows for piece, rows in kept.items() if rows.stop > rows.start})
        return part

    def batched(self, batch_size: int, seed: int) -> "StoredRows":
        """The same rows in batches of another size and another order."""
        check_count(batch_size, "batch_size")
        other = copy(self)
        other.batch_size, other.seed = batch_size, seed
        return other

    def without_labels(self) -> "StoredRows":
        """The same rows without their labels."""
        other = copy(self)
        other.labels = {}
        return other

    def __len__(self) -> int:
        """Number of batches in a pass."""
        return math.ceil(self.size / self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        """The batches of the first pass of a training."""
        passes = self.passes()
        return (next(passes).batch for _ in range(len(self)))

    def passes(self) -> "Passes":
        """Endless passes with a position of their own, each in another order."""
        return Passes(self)

    def in_order(self, rows: int) -> Iterator["Numbered"]:
        """One pass in the order of the files, by so many rows but for the last."""
        held: list[Numbered] = []
        for piece in self._pieces:
            held.append(self.read([piece]))
            while sum(len(part.numbers) for part in held) >= rows:
                whole = joined(held)
                yield whole.at(slice(rows))
                held = [whole.at(slice(rows, None))]
        if sum(len(part.numbers) for part in held):
            yield joined(held)

    def first(self, rows: int) -> "Numbered":
        """The first rows of the first piece."""
        return self.read(self._pieces[:1]).at(slice(rows))

    def runs(self) -> list[list[Piece]]:
        """Pieces in the order of the files, in runs that are read from their beginning."""
        return [[*run] for _, run in groupby(self._pieces, lambda piece: piece[:2])]

    def rows_in(self, piece: Piece) -> int:
        """Number of rows of a piece."""
        rows = self._kept[piece]
        return int(rows.stop - rows.start)

    def read(self, pieces: Sequence[Piece]) -> "Numbered":
        """The rows of some pieces, in this order."""
        found: list[Part] = []
        numbers = []
        for piece in pieces:
            file, group, number = piece
            whole = self.files[file].read(group, number)
            found.append({name: values[self._kept[piece]] for name, values in whole.items()})
            start = self._starts[bisect_right(self._pieces, piece) - 1]
            numbers.append(torch.arange(start, start + self.rows_in(piece)))
        joined = {name: torch.cat([part[name] for part in found]) for name in found[0]}
        labels = {name: as_labels(joined[name], name) for name in self.labels}
        context = {name: joined[name] for name in self.context}
        return Numbered(Batch(joined["x"], self.size, labels, context), torch.cat(numbers))

    def where(self, number: int) -> str:
        """The file of a row, and its number there."""
        place = bisect_right(self._starts, number) - 1
        piece, start = self._pieces[place], self._starts[place]
        file, group, index = piece
        groups = self.files[file].groups
        before = sum(map(sum, groups[:group])) + sum(groups[group][:index])
        row = before + self._kept[piece].start + number - start
        return f"{self.files[file].path}, row {row}"

    def checked(self, rows: "Numbered", check: Callable[[Batch], Batch]) -> Batch:
        """The rows as a check returns them.

        Raises:
            ValueError: for rows that it refuses, with the file and the number of the first.
        """
        try:
            return check(rows.batch)
        except ValueError:
            for place in range(len(rows.numbers)):
                one = rows.at(slice(place, place + 1))
                try:
                    check(one.batch)
                except ValueError as error:
                    raise ValueError(f"{self.where(int(one.numbers))}: {error}") from error
            raise


@dataclass(frozen=True)
class Numbered:
    """Rows with their numbers in the order of the files.

    Args:
        batch: ``(B, ...)``.
        numbers: ``(B,)``.
    """

    batch: Batch
    numbers: Tensor

    def at(self, index: Tensor | slice) -> "Numbered":
        """The rows at an index."""
        tensors = [tensor[index] for tensor in self.batch.tensors]
        return Numbered(self.batch.with_tensors(tensors), self.numbers[index])


class Passes:
    """Endless passes over files, with a position.

    A pass divides the pieces of the files into windows of as many rows as the buffer has, at
    least. The order of the pieces and that of the rows of each window depend only on the seed, the
    number of the pass and that of the window, so that a position is two numbers.
    """

    def __init__(self, rows: StoredRows) -> None:
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
        self._ahead: list[Future[Numbered] | Numbered] = []
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
        runs = self._ahead or self._start(self._next)
        self._held = joined([run if isinstance(run, Numbered) else run.result() for run in runs])
        generator = _generator(self.rows.seed, self.number, self._next)
        self._order = torch.randperm(len(self._held.numbers), generator=generator)
        self._offset, self._skipped = self._skipped, 0
        self._next += 1
        self._ahead = self._start(self._next) if self._pool else []

    def _start(self, index: int) -> list[Future[Numbered] | Numbered]:
        if index == len(self._windows):
            return []
        runs = self._windows[index]
        if self._pool is None:
            return [self.rows.read(run) for run in runs]
        return [self._pool.submit(self.rows.read, run) for run in runs]


def joined(parts: Sequence[Numbered]) -> Numbered:
    """Rows one after the other."""
    if len(parts) == 1:
        return parts[0]
    tensors = zip(*(part.batch.tensors for part in parts), strict=True)
    batch = parts[0].batch.with_tensors([torch.cat(each) for each in tensors])
    return Numbered(batch, torch.cat([part.numbers for part in parts]))


def _generator(seed: int, *place: int) -> torch.Generator:
    return torch.Generator().manual_seed(derive(seed, *place))


def _found(paths: Paths) -> list[Path]:
    several = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    found: list[Path] = []
    for path in map(Path, several):
        path = path.expanduser()
        if path.is_dir():
            inside = [each for each in sorted(path.iterdir()) if each.suffix in KINDS]
            found += [each for each in inside if each.name[0] not in "._"]
        elif path.exists():
            found.append(path)
        else:
            raise FileNotFoundError(f"Expected rows in {path} but it does not exist.")
    if not found or {path.suffix for path in found} - KINDS.keys():
        others = ", ".join(str(path) for path in found if path.suffix not in KINDS)
        raise ValueError(
            f"Expected files that end in {' or '.join(KINDS)} but got {others or 'none'}; convert "
            "them."
        )
    return found
