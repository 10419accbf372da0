"""Files that are read in pieces, and those of arrays: ``.npy``."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from priorzoo.inference.data.tensors import as_tensor
from priorzoo.inference.failures import first_line

Part = dict[str, Tensor]  # rows under "x", and what belongs to them under its own name
NUMBERS = "biuf"  # NumPy's kinds of dtypes


class File(Protocol):
    """A file with rows.

    Attributes:
        path: where it is.
        groups: for each part of the file that is read from its beginning, the number of rows in
            each piece of it.
        shape: of a row.
    """

    path: Path
    groups: Sequence[Sequence[int]]
    shape: tuple[int, ...]

    def read(self, group: int, first: int = 0) -> Iterator[Part]:
        """The pieces of a group from one on. What reading them needs is kept by the iterator."""
        ...


@dataclass(frozen=True)
class Names:
    """Which columns of a table, or files beside an array, are what.

    Args:
        columns: those that make x; None for all that nothing else names.
        beside: for each name of labels or context, a column or the path of a ``.npy`` file.
    """

    columns: tuple[str, ...] | None
    beside: Mapping[str, str]


def sized(rows: int, piece: int) -> list[int]:
    """Numbers of rows of equal pieces, of which the last may be smaller."""
    return [min(piece, rows - start) for start in range(0, rows, piece)]


class Rows(Protocol):
    """An array in a file, of which slices are read."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the values."""

    @property
    def shape(self) -> tuple[int, ...]:
        """``(N, ...)``."""

    def __getitem__(self, rows: slice, /) -> Any: ...


class NpyFile:
    """Rows of an array file ``(N, ...)``, of which only the pieces that are read are in memory.

    Labels and context are further files of the same kind with N rows, beside it or at a path of
    their own.

    Raises:
        ValueError: for a file that holds no array of numbers, or another number of rows.
    """

    @staticmethod
    def mapped(path: Path) -> Rows:
        """The array of a file, not read yet.

        Raises:
            FileNotFoundError: for a missing file.
            ValueError: for a file that holds no array.
        """
        array = _mapped(path)
        return (_RowsRead if array.flags.c_contiguous else _ColumnsRead)(path, array)

    @staticmethod
    def least(array: Rows) -> int:
        """Rows of which a multiple is read at a time."""
        return 1

    def __init__(self, path: Path, names: Names, piece: int) -> None:
        if names.columns is not None:
            raise ValueError(f"Expected columns of a Parquet file but {path} is an array.")
        self.path, self.array = path, numeric(self.mapped(path), path)
        if len(self.array.shape) < 2 or self.array.shape[0] == 0:
            raise ValueError(
                f"Expected rows (N, ...) in {path} but got shape {self.array.shape}; reshape it."
            )
        count, *shape = self.array.shape
        self.shape = tuple(shape)
        each = self.least(self.array)
        self.piece = max(1, piece // each) * each
        self.groups: Sequence[Sequence[int]] = [[rows] for rows in sized(count, self.piece)]
        others = {name: path.parent / file for name, file in names.beside.items()}
        self.beside = {name: numeric(self.mapped(file), file) for name, file in others.items()}
        for name, values in self.beside.items():
            if values.shape[:1] != (count,):
                raise ValueError(
                    f"Expected {name} with a value for each of {count} rows of {path} "
                    f"but got shape {values.shape}; give one for each row."
                )

    def read(self, group: int, first: int = 0) -> Iterator[Part]:
        """See :meth:`File.read`; each group is one piece."""
        assert first == 0
        rows = slice(group * self.piece, (group + 1) * self.piece)
        found = {"x": self.array, **self.beside}
        yield {name: as_tensor(values[rows], name) for name, values in found.items()}


class _RowsRead:
    """Rows that are read from a file; those of a memory map would count as the process's memory."""

    def __init__(self, path: Path, array: np.memmap[Any, Any]) -> None:
        self.path, self.start = path, array.offset
        self.dtype: np.dtype[Any] = array.dtype
        self.shape: tuple[int, ...] = array.shape

    def __getitem__(self, rows: slice) -> np.ndarray:
        first, last, _ = rows.indices(self.shape[0])
        found = np.empty((last - first, *self.shape[1:]), self.dtype)
        with self.path.open("rb") as file:
            self._read(file, first * math.prod(self.shape[1:]), found.reshape(-1))
        return found

    def _read(self, file: BufferedReader, first: int, into: np.ndarray) -> None:
        file.seek(self.start + first * self.dtype.itemsize)
        if file.readinto(into.view(np.uint8).data) < into.nbytes:
            raise ValueError(f"Expected {self.shape[0]} rows in {self.path} but it ends before.")


class _ColumnsRead(_RowsRead):
    """Rows of an array in Fortran's order, in which each column's numbers follow one another."""

    def __getitem__(self, rows: slice) -> np.ndarray:
        first, last, _ = rows.indices(self.shape[0])
        starts = range(first, math.prod(self.shape), self.shape[0])
        columns = np.empty((len(starts), last - first), self.dtype)
        with self.path.open("rb") as file:
            for column, start in zip(columns, starts, strict=True):
                self._read(file, start, column)
        return columns.reshape(*self.shape[:0:-1], last - first).T


def numeric(array: Rows, path: Path) -> Rows:
    """The array, if it holds numbers.

    Raises:
        ValueError: if it does not.
    """
    if array.dtype.kind not in NUMBERS:
        raise ValueError(
            f"Expected an array of numbers in {path} but got {array.dtype}; convert it."
        )
    return array


def _mapped(path: Path) -> np.memmap[Any, Any]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise
    except (ValueError, OSError, EOFError) as error:
        reason = first_line(error)
        raise ValueError(f"Expected an array file at {path} but got: {reason}") from error
    if not isinstance(array, np.memmap):
        raise ValueError(f"Expected one array in {path} but got several; write it as .npy.")
    return array
