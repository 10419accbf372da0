"""Arrays of a data set, checked, as the tensors of its parts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from priorzoo.benchmarks.data.members import stored
from priorzoo.inference.data.stored.rows import StoredRows
from priorzoo.inference.data.tensors import as_tensor, check_finite

Array = NDArray[Any]
Half = tuple[Array, Array | None]  # rows, and their labels if there are any
Chosen = slice | Array  # which rows


@dataclass(frozen=True, eq=False)
class Parts:
    """A data set as its source splits it: finite rows ``(N, ...)``, float32, and labels, int64.

    The rows to train on may be bytes, whose values are those of the bytes divided by ``scale``.
    Where the rows to train on are ``stored`` in files, ``x_train`` and ``y_train`` are a sample.
    """

    x_train: Tensor
    x_test: Tensor
    y_train: Tensor | None
    y_test: Tensor | None
    vocabulary: tuple[str, ...] = ()
    stored: StoredRows | None = None
    scale: float = 1


@dataclass(frozen=True)
class Request:
    """What a reader may need: the data root, the labels wanted, a seed, and leave to download."""

    root: Path
    labels: str = ""
    seed: int = 0
    download: bool = False


def select(
    where: object, x: Array, y: Array | None, train: Chosen, test: Chosen, scale: float = 1
) -> Parts:
    """The parts of arrays whose rows are both those to train on and those to test with."""
    first, last = ((x[rows], None if y is None else y[rows]) for rows in (train, test))
    return halves(where, first, last, scale)


def halves(where: object, train: Half, test: Half, scale: float = 1) -> Parts:
    """Checks the arrays and makes tensors of them, whose values are divided by ``scale``."""
    named = (("train", *train), ("test", *test))
    x_train, x_test = (_rows(x, f"x_{part} of {where}") for part, x, _ in named)
    check_alike(where, x_train.shape, x_test.shape)
    y_train, y_test = (
        None if y is None else labels_of(y, len(x), f"y_{part} of {where}") for part, x, y in named
    )
    x_train = x_train.div_(scale) if x_train.is_floating_point() else x_train
    x_test = x_test.to(torch.float32).div_(scale)
    return Parts(x_train, x_test, y_train, y_test, scale=scale)


def _rows(x: Array, what: str) -> Tensor:
    found = as_tensor(x, what)
    check_rows(x.shape, what)
    made = stored(found)
    check_finite(made, what)
    return made


def check_rows(shape: Sequence[int], what: str) -> None:
    """Check that there are rows, each with at least one value."""
    if len(shape) < 2 or 0 in shape:
        raise ValueError(
            f"Expected rows (N, ...), N > 0, in {what} but got shape {tuple(shape)}; give some."
        )


def check_alike(where: object, train: Sequence[int], test: Sequence[int]) -> None:
    """Check that rows to train on and to test with have one shape."""
    if train[1:] != test[1:]:
        raise ValueError(
            f"Expected rows of shape {tuple(train[1:])} in x_test of {where}, as in x_train, but "
            f"got {tuple(test[1:])}; give both one shape."
        )


def labels_of(y: Array, count: int, what: str) -> Tensor:
    """Labels ``(N,)`` as int64, checked."""
    check_labels(y.dtype, y.shape, count, what)
    labels = torch.from_numpy(y.astype(np.int64))
    if (labels < -1).any():
        raise ValueError(
            f"Expected labels from 0, or -1 for unknown, in {what} but got {int(labels.min())}, "
            f"first in row {int((labels < -1).nonzero()[0])}; number the classes from 0."
        )
    return labels


def check_labels(dtype: np.dtype[Any], shape: Sequence[int], count: int, what: str) -> None:
    """Check that there is an integer for each row."""
    if dtype.kind not in "bui" or tuple(shape) != (count,):
        raise ValueError(
            f"Expected integers of shape ({count},) in {what}, one a row, "
            f"but got {dtype} of shape {tuple(shape)}."
        )
