"""Parquet files, whose row groups are read in pieces."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from priorzoo.inference.data.stored.files import Names, Part, sized
from priorzoo.inference.data.tensors import as_tensor
from priorzoo.inference.failures import first_line

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

AHEAD = 1 << 16  # bytes of each column that are read from the disk at a time


class ParquetFile:
    """Rows of a Parquet file: a column for each value, or one column of lists of equal length.

    Pieces of a row group are read one after the other, so that a row group that is larger than
    memory can be read too. While it is read, a page of each column is in memory, and its
    dictionary: both at most 1 MiB as pyarrow writes them.

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
        self._shapes: dict[str, tuple[int, ...]] = self._shaped()
        self.shape = self._shapes["x"]

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

    def _shaped(self) -> dict[str, tuple[int, ...]]:
        """The shapes of one row, for which a row is read only if there are lists."""
        wanted = [*self.columns, *self.beside.values()]
        if any(_is_list(self.file.schema_arrow.field(name).type) for name in wanted):
            first = self._tensors(next(self._batches(0, 1)))
            return {name: tuple(values.shape[1:]) for name, values in first.items()}
        return {"x": (len(self.columns),)} | dict.fromkeys(self.beside, ())

    def read(self, group: int, first: int = 0) -> Iterator[Part]:
        """See :meth:`File.read`; pieces before the first are decoded and left out."""
        return map(self._part, islice(self._batches(group, self.piece), first, None))

    def _part(self, rows: "pa.RecordBatch") -> Part:
        part = self._tensors(rows)
        for name, values in part.items():
            if values.shape[1:] != self._shapes[name]:
                column = self.beside.get(name, self.columns[0])
                raise self._ragged(column)
        return part

    def _ragged(self, column: str) -> ValueError:
        return ValueError(
            f"Expected lists of one length in column {column!r} of {self.path} but got several; "
            "give each row as many values."
        )

    def _batches(self, group: int, rows: int) -> "Iterator[pa.RecordBatch]":
        """Batches of a row group, of exactly as many rows but for the last."""
        import pyarrow as pa

        wanted = list(dict.fromkeys([*self.columns, *self.beside.values()]))
        held: list[pa.RecordBatch] = []
        # StoredRows has threads of its own; those of pyarrow would take longer in all.
        pieces = self.file.iter_batches(rows, [self.numbers[group]], wanted, use_threads=False)
        while (batch := self._next(pieces)) is not None:
            held.append(batch)
            while sum(map(len, held)) >= rows:
                whole = pa.concat_batches(held)
                held = [whole.slice(rows)] if len(whole) > rows else []
                yield whole.slice(0, rows)
        if held:
            yield pa.concat_batches(held)

    def _next(self, pieces: "Iterator[pa.RecordBatch]") -> "pa.RecordBatch | None":
        import pyarrow as pa

        try:
            with self.lock:
                return next(pieces, None)
        except (pa.ArrowException, OSError) as error:
            raise _damaged(self.path, error) from error

    def _tensors(self, rows: "pa.RecordBatch") -> Part:
        x = [self._array(rows, name) for name in self.columns]
        whole = x[0] if len(x) == 1 and x[0].ndim > 1 else np.stack(x, 1)
        beside = {name: self._array(rows, column) for name, column in self.beside.items()}
        return {name: as_tensor(v, name) for name, v in {"x": whole, **beside}.items()}

    def _array(self, rows: "pa.RecordBatch", name: str) -> np.ndarray:
        column = rows.column(name)
        if not _is_list(column.type):
            return _values(column)
        flat = _values(column.flatten())
        each, rest = divmod(len(flat), len(rows))
        if rest or column.null_count or (_values(column.value_lengths()) != each).any():
            raise self._ragged(name)
        return flat.reshape(len(rows), each)


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
        return pq.ParquetFile(path, pre_buffer=False, buffer_size=AHEAD)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> ValueError:
    reason = first_line(error)
    return ValueError(f"Expected a Parquet file at {path} but got: {reason}")


def _is_number(kind: "pa.DataType") -> bool:
    import pyarrow.types as types

    inner = getattr(kind, "value_type", kind)
    return bool(types.is_integer(inner) or types.is_floating(inner) or types.is_boolean(inner))


def _is_list(kind: "pa.DataType") -> bool:
    import pyarrow.types as types

    return hasattr(kind, "value_type") and not types.is_dictionary(kind)


def _values(column: "pa.Array") -> np.ndarray:
    """The numbers of a column, with NaN where it has none; its to_numpy would import pandas."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = np.dtype(column.type.to_pandas_dtype())
    whole, stored = column, kind
    if pa.types.is_boolean(column.type):  # eight in a byte
        whole, stored = column.cast(pa.uint8()), np.dtype(np.uint8)
    if not len(column):
        return np.empty(0, kind)
    values = np.frombuffer(whole.buffers()[1], stored, len(whole), whole.offset * stored.itemsize)
    values = values.astype(kind, copy=False)
    if column.null_count:
        values = values.astype(kind if kind.kind == "f" else np.float64)
        values[~_values(column.is_valid())] = np.nan
    return values
