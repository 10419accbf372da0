"""Files that are read in pieces: Parquet by row groups, and ``.npy``."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from torch import Tensor

from priorzoo.inference.data.tensors import as_tensor

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

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

    def read(self, group: int, piece: int) -> Part:
        """The rows of a piece. The pieces of a group are read fastest in their order."""
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
        return _RowsRead(path, array) if array.flags.c_contiguous else array

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

    def read(self, group: int, piece: int) -> Part:
        rows = slice(group * self.piece, (group + 1) * self.piece)
        found = {"x": self.array, **self.beside}
        return {name: as_tensor(values[rows], name) for name, values in found.items()}


class _RowsRead:
    """Rows that are read from a file; those of a memory map would count as the process's memory."""

    def __init__(self, path: Path, array: np.memmap[Any, Any]) -> None:
        self.path, self.start = path, array.offset
        self.dtype: np.dtype[Any] = array.dtype
        self.shape: tuple[int, ...] = array.shape

    def __getitem__(self, rows: slice) -> np.ndarray:
        first, last, _ = rows.indices(self.shape[0])
        each = math.prod(self.shape[1:])
        begin = self.start + first * each * self.dtype.itemsize
        found = np.fromfile(self.path, self.dtype, (last - first) * each, offset=begin)
        if len(found) < (last - first) * each:
            raise ValueError(f"Expected {self.shape[0]} rows in {self.path} but it ends before.")
        return found.reshape(last - first, *self.shape[1:])


class ParquetFile:
    """Rows of a Parquet file: a column for each value, or one column of lists of equal length.

    Pieces of a row group are read one after the other, so that a row group that is larger than
    memory can be read too.

    Raises:
        ImportError: without pyarrow.
        ValueError: for a file that is damaged, missing columns, and columns that are not numbers.
    """

    def __init__(self, path: Path, names: Names, piece: int) -> None:
        self.path, self.piece, self.lock = path, piece, Lock()
        self.file = _opened(path)
        self.beside = dict(names.beside)
        self.columns = self._columns(names.columns)
        meta = self.file.metadata
        counts = [meta.row_group(group).num_rows for group in range(meta.num_row_groups)]
        self.groups: Sequence[Sequence[int]] = [sized(rows, piece) for rows in counts if rows]
        self.numbers = [number for number, rows in enumerate(counts) if rows]
        if not self.groups:
            raise ValueError(f"Expected at least one row in {path} but got none; leave it out.")
        self._readers: dict[int, tuple[int, Iterator[pa.RecordBatch]]] = {}  # by group
        self.shape: tuple[int, ...] = tuple(self._first()["x"].shape[1:])

    def _columns(self, wanted: Sequence[str] | None) -> list[str]:
        known = self.file.schema_arrow.names
        others = [*self.beside.values()]
        found = [name for name in known if name not in others] if wanted is None else list(wanted)
        missing = [name for name in (*found, *others) if name not in known]
        if missing or not found:
            raise ValueError(
                f"Expected columns {', '.join(missing) or 'of x'} in {self.path} but it has "
                f"{', '.join(known[:20])}; name columns that it has."
            )
        for name in (*found, *others):
            kind = self.file.schema_arrow.field(name).type
            if not _is_number(kind):
                raise ValueError(
                    f"Expected numbers in column {name!r} of {self.path} but got {kind}; convert "
                    "it, or choose the columns of x by columns=[...]."
                )
        return found

    def _first(self) -> Part:
        rows = next(self._batches(0, 1))
        return self._tensors(rows)

    def read(self, group: int, piece: int) -> Part:
        with self.lock:
            at, batches = self._readers.pop(group, (-1, iter(())))
            if at != piece:
                batches = self._batches(group, self.piece)
                for _ in range(piece):
                    next(batches)
            rows = next(batches)
            if piece + 1 < len(self.groups[group]):
                self._readers[group] = piece + 1, batches
        return self._tensors(rows)

    def _batches(self, group: int, rows: int) -> "Iterator[pa.RecordBatch]":
        """Batches of a row group, of exactly as many rows but for the last."""
        import pyarrow as pa

        wanted = list(dict.fromkeys([*self.columns, *self.beside.values()]))
        held: list[pa.RecordBatch] = []
        # StoredRows has threads of its own; those of pyarrow would take longer in all.
        pieces = self.file.iter_batches(rows, [self.numbers[group]], wanted, use_threads=False)
        for batch in pieces:
            held.append(batch)
            while sum(map(len, held)) >= rows:
                whole = pa.concat_batches(held)
                yield whole.slice(0, rows)
                held = [whole.slice(rows)]
        if sum(map(len, held)):
            yield pa.concat_batches(held)

    def _tensors(self, rows: "pa.RecordBatch") -> Part:
        x = [self._array(rows, name) for name in self.columns]
        whole = x[0] if len(x) == 1 and x[0].ndim > 1 else np.stack(x, 1)
        beside = {name: self._array(rows, column) for name, column in self.beside.items()}
        return {name: as_tensor(v, name) for name, v in {"x": whole, **beside}.items()}

    def _array(self, rows: "pa.RecordBatch", name: str) -> np.ndarray:
        column = rows.column(name)
        kind = column.type
        if not hasattr(kind, "value_type"):
            return np.asarray(column.to_numpy(zero_copy_only=False))
        flat = np.asarray(column.flatten().to_numpy(zero_copy_only=False))
        each, rest = divmod(len(flat), len(rows))
        if rest or column.null_count or (column.value_lengths().to_numpy() != each).any():
            raise ValueError(
                f"Expected lists of one length in column {name!r} of {self.path} but got several; "
                "give each row as many values."
            )
        return flat.reshape(len(rows), each)


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


def column_names(path: Path) -> list[str]:
    """Names of the columns of a Parquet file, or of the first one in a folder."""
    files = [path] if path.is_file() else sorted(path.glob("*.parquet"))
    return list(_opened(files[0]).schema_arrow.names) if files else []


def _opened(path: Path) -> "pq.ParquetFile":
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ImportError(
            "Expected pyarrow to read Parquet files but it is missing; pip install "
            "'priorzoo[tables]'."
        ) from error
    try:
        return pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        reason = str(error).splitlines()[0]
        raise ValueError(f"Expected a Parquet file at {path} but got: {reason}") from error


def _is_number(kind: "pa.DataType") -> bool:
    import pyarrow.types as types

    inner = getattr(kind, "value_type", kind)
    return bool(types.is_integer(inner) or types.is_floating(inner) or types.is_boolean(inner))


def _mapped(path: Path) -> np.memmap[Any, Any]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise
    except (ValueError, OSError, EOFError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"Expected an array file at {path} but got: {reason}") from error
    if not isinstance(array, np.memmap):
        raise ValueError(f"Expected one array in {path} but got several; write it as .npy.")
    return array
