"""The data plate that every model and every guide opens."""

from collections.abc import Callable

import pyro
import torch
from torch import Tensor

from priorzoo.models.pyro_internals import SubsampleMessenger, effectful


def data_plate(x: Tensor | None, size: int | None) -> SubsampleMessenger:
    """Plate ``data`` at dim -1 over the rows of ``x``, scaled to a data set of ``size`` rows.

    The plate gets explicit indices because with ``subsample_size`` Pyro would draw a permutation of
    the whole data set at every step, which takes time and random numbers.

    Args:
        x: rows ``(B, P)``, or None to draw ``size`` rows from the prior.
        size: number N of data that the rows stand for, each with weight N/B; B if None.

    Raises:
        ValueError: without rows and without a size.
    """
    if x is None:
        if size is None:
            raise ValueError("Expected x or a size but got neither; give size=n to draw n rows.")
        return pyro.plate("data", size, dim=-1)
    rows = len(x)
    index = torch.arange(rows, device=x.device)
    return pyro.plate("data", rows if size is None else size, subsample=index, dim=-1)


@effectful(type="over_batch")
def over_batch(function: Callable[..., Tensor], *values: Tensor) -> Tensor:
    """A function of all rows of the batch, such as a coupling between them.

    Where several processes share a batch, a handler calls the function on the rows of all.

    Args:
        function: maps the values to one for each row, ``(..., B)``.
        values: of the rows, each ``(..., B, D)``.
    """
    return function(*values)
