"""Arrays, data frames and sparse matrices in memory as a :class:`Frame`."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeGuard, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from priorzoo.inference.data.tables.cells import Cells, Frame, category_cells, cells_of

PORTION = 1000  # rows of a sparse matrix that are made dense at a time


class Sparse(Protocol):
    """What is used of a sparse matrix of scipy."""

    shape: tuple[int, int]

    def tocsr(self) -> "Sparse": ...
    def toarray(self) -> NDArray[np.generic]: ...
    def __getitem__(self, rows: object) -> "Sparse": ...


class SparseRows(Dataset[Tensor]):
    """The rows of a sparse matrix of scipy as a data set, made dense a batch at a time.

    >>> history = fit(model, guide, SparseRows(matrix))  # doctest: +SKIP

    Args:
        matrix: ``(N, P)``, of any format.
    """

    def __init__(self, matrix: Sparse) -> None:
        self._rows = matrix.tocsr()

    def __len__(self) -> int:
        return self._rows.shape[0]

    def __getitem__(self, row: int) -> Tensor:
        return self.__getitems__([row])[0]

    def __getitems__(self, rows: list[int]) -> list[Tensor]:
        """The rows of a batch, each ``(P,)`` float32."""
        return list(torch.from_numpy(dense(self._rows[rows])))


def is_sparse(value: object) -> TypeGuard[Sparse]:
    """Whether a value is a sparse matrix or array of scipy."""
    return all(hasattr(value, name) for name in ("tocsr", "toarray", "nnz"))


def frame_of(data: object, source: str = "the table", names: Sequence[str] = ()) -> Frame:
    """A frame of anything in memory that has columns.

    Args:
        data: an array or tensor ``(N, P)``, a sparse matrix of scipy, a mapping of columns, or a
            data frame that narwhals takes: of pandas, Polars, PyArrow, Modin, cuDF, DuckDB, ...
        source: what it was read from, for messages.
        names: of the columns of an array; ``x0``, ``x1``, ... if left out.

    Raises:
        ValueError: for anything else, and for columns that cannot be used.
    """
    if is_sparse(data):
        return matrix_frame(dense(data), source, names)
    if isinstance(data, Mapping):
        columns = [cells_of(str(name), _column(v), source) for name, v in data.items()]
        _check_lengths(columns, source)
        return Frame.of(columns, source=source)
    if isinstance(data, (np.ndarray, Tensor, list, tuple)):
        return matrix_frame(_array(data, source), source, names)
    return _of_data_frame(data, source)


def matrix_frame(matrix: NDArray[np.generic], source: str, names: Sequence[str] = ()) -> Frame:
    """A frame of an array ``(N, P)`` of numbers or objects.

    Raises:
        ValueError: for another shape, and for another number of names.
    """
    if matrix.ndim == 1 and matrix.dtype.names:  # a structured array
        named = [(name, cast(NDArray[np.void], matrix)[name]) for name in matrix.dtype.names]
        return Frame.of([cells_of(name, column, source) for name, column in named], source=source)
    if matrix.ndim != 2:
        raise ValueError(
            f"Expected rows and columns (N, P) in {source} but got shape {matrix.shape}; reshape "
            "it, or give images as (N, height, width)."
        )
    if names and len(names) != matrix.shape[1]:
        raise ValueError(
            f"Expected a name for each of {matrix.shape[1]} columns of {source} but got "
            f"{len(names)}; give one for each."
        )
    called = list(names) or [f"x{i}" for i in range(matrix.shape[1])]
    columns = [cells_of(name, matrix[:, i], source) for i, name in enumerate(called)]
    return Frame.of(columns, bool(names), source)


def dense(matrix: Sparse) -> NDArray[np.float32]:
    """A sparse matrix as float32 rows, made dense a portion at a time."""
    compressed = matrix.tocsr()
    made = np.empty(matrix.shape, dtype=np.float32)
    for start in range(0, matrix.shape[0], PORTION):
        made[start : start + PORTION] = compressed[start : start + PORTION].toarray()
    return made


def _array(data: object, source: str) -> NDArray[np.generic]:
    if isinstance(data, Tensor):
        return _of_tensor(data)
    try:
        made = np.asarray(data)
        numeric = made.dtype.kind in "biufcMm"
        if np.ma.is_masked(data):
            hidden = np.ma.getmaskarray(cast(NDArray[np.generic], data))
            return np.where(hidden, np.nan, made.astype(np.float64))
        return made if numeric or made.dtype.names else np.array(data, dtype=object)
    except ValueError as error:
        raise ValueError(
            f"Expected rows of one length in {source} but got {error}; fill cells with None."
        ) from error


def _of_tensor(values: Tensor) -> NDArray[np.generic]:
    whole = values.detach().cpu().to_dense()
    return (whole.float() if whole.dtype == torch.bfloat16 else whole).numpy()


def _column(values: object) -> NDArray[np.generic]:
    if isinstance(values, Tensor):
        return _of_tensor(values)
    return np.asarray(
        values if hasattr(values, "__len__") else list(cast(Iterable[object], values))
    )


def _check_lengths(columns: Sequence[Cells], source: str) -> None:
    for column in columns:
        if len(column) != len(columns[0]):
            raise ValueError(
                f"Expected {len(columns[0])} cells in column {column.name!r} of {source}, as in "
                f"{columns[0].name!r}, but got {len(column)}; give one for each row."
            )


def _of_data_frame(data: object, source: str) -> Frame:
    import narwhals as nw
    from narwhals.exceptions import DuplicateError

    try:
        frame = nw.from_native(cast(Any, data))
    except DuplicateError as error:
        twice = str(error).partition("- ")[2] or str(error)
        raise ValueError(
            f"Expected columns of different names in {source} but got {twice}; rename all but one."
        ) from error
    except TypeError as error:
        raise ValueError(
            f"Expected an array, a data frame, a sparse matrix or the path of a file but got "
            f"{type(data).__name__}; convert it to one of these."
        ) from error
    whole = frame.collect() if isinstance(frame, nw.LazyFrame) else frame
    columns = []
    for series in whole.iter_columns():
        if series.dtype in (nw.Categorical, nw.Enum):  # an Enum has an order
            levels = getattr(series.dtype, "categories", ())
            columns.append(category_cells(str(series.name), series.to_list(), levels))
            continue
        native = series.dtype.is_numeric() or series.dtype.is_temporal()
        values = series.to_numpy() if native and series.null_count() == 0 else series.to_list()
        if native and not isinstance(values, np.ndarray) and series.dtype.is_numeric():
            values = series.cast(nw.Float64()).to_numpy()
        columns.append(cells_of(str(series.name), values, source))
    return Frame.of(columns, source=source)
