"""Rows of files in shuffled batches, of which a buffer is in memory at a time."""

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from itertools import groupby

import torch

from priorzoo.inference.batch import Batch
from priorzoo.inference.data.beside import as_labels
from priorzoo.inference.data.stored.files import Names, Part
from priorzoo.inference.data.stored.numbered import Numbered, filled, joined
from priorzoo.inference.data.stored.opening import Paths, opened_files
from priorzoo.inference.data.stored.passes import Passes, Piece
from priorzoo.inference.data.tensors import check_count

PIECES = 8  # that fill a buffer, so that it mixes distant parts of a file


class StoredRows:
    r"""Rows in files that may be larger than memory, with their labels and context.

    :func:`fit`, :func:`evaluate` and all predictions take them in place of rows in memory. In each
    pass every row comes once. The order is random twice: pieces of the files come in a random
    order, and rows are shuffled within a buffer of several pieces. If the files are sorted, batches
    are therefore only as mixed as the buffer is. A resumed training goes on with the same batches.

    Args:
        paths: a ``.parquet``, ``.npy`` or ``.zarr`` file, a folder of them, or several of one kind,
            whose rows have one shape. Files of a folder are taken in the order of their names.
        columns: of Parquet files, those that make x, all others by default; one column of lists of
            equal length is x alone.
        labels: for sites of the model, the column that holds their labels (integers, -1 for
            unknown), or the name of a ``.npy`` or ``.zarr`` file beside the rows' file.
        context: likewise for keyword arguments of the programs, such as an exposure.
        batch_size: rows in a batch; the last of a pass may be smaller.
        buffer: rows in memory that are shuffled together; as many again are read ahead.
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
        self.files = opened_files(paths, named, piece)
        self.shape = self.files[0].shape
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

    def passes(self) -> Passes:
        """Endless passes with a position of their own, each in another order."""
        return Passes(self)

    def in_order(self, rows: int) -> Iterator[Numbered]:
        """One pass in the order of the files, by so many rows but for the last."""
        held: list[Numbered] = []
        for piece, parts in self._opened():
            held.append(self.read([piece], parts))
            while sum(len(part.numbers) for part in held) >= rows:
                whole = joined(held)
                yield whole.at(slice(rows))
                held = [whole.at(slice(rows, None))]
        if sum(len(part.numbers) for part in held):
            yield joined(held)

    def _opened(self) -> Iterator[tuple[Piece, Iterator[Part]]]:
        for run in self.runs():
            parts = self.parts(run[0])
            yield from ((piece, parts) for piece in run)

    def first(self, rows: int) -> Numbered:
        """The first rows of the first piece."""
        return self.read(self._pieces[:1]).at(slice(rows))

    def parts(self, piece: Piece) -> Iterator[Part]:
        """The pieces of a group from one on, whole."""
        file, group, number = piece
        return self.files[file].read(group, number)

    def runs(self) -> list[list[Piece]]:
        """Pieces in the order of the files, in runs that are read from their beginning."""
        return [[*run] for _, run in groupby(self._pieces, lambda piece: piece[:2])]

    def has(self, piece: Piece) -> bool:
        """Whether there is such a piece, of which rows are kept."""
        return piece in self._kept

    def rows_in(self, piece: Piece) -> int:
        """Number of rows of a piece."""
        rows = self._kept[piece]
        return int(rows.stop - rows.start)

    def read(self, pieces: Sequence[Piece], parts: Iterator[Part] | None = None) -> Numbered:
        """The rows of pieces that follow one another in a group.

        Args:
            pieces: in their order.
            parts: what :meth:`parts` gives from the first of them on, to go on with; opened if
                None.
        """
        parts = self.parts(pieces[0]) if parts is None else parts
        kept = (
            {name: values[self._kept[piece]] for name, values in next(parts).items()}
            for piece in pieces
        )
        start = self._starts[bisect_right(self._pieces, pieces[0]) - 1]
        count = sum(map(self.rows_in, pieces))
        whole = filled(kept, count)
        labels = {name: as_labels(whole[name], name) for name in self.labels}
        context = {name: whole[name] for name in self.context}
        rows = Batch(whole["x"], self.size, labels, context)
        return Numbered(rows, torch.arange(start, start + count))

    def where(self, number: int) -> str:
        """The file of a row, and its number there."""
        place = bisect_right(self._starts, number) - 1
        piece, start = self._pieces[place], self._starts[place]
        file, group, index = piece
        groups = self.files[file].groups
        before = sum(map(sum, groups[:group])) + sum(groups[group][:index])
        row = before + self._kept[piece].start + number - start
        return f"{self.files[file].path}, row {row}"

    def checked(self, rows: Numbered, check: Callable[[Batch], Batch]) -> Batch:
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
