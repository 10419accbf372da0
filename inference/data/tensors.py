"""Arrays, lists and tensors of any kind as dense tensors of numbers."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from priorzoo.inference.failures import first_line

UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)  # torch computes little with these
FOREIGN = (RuntimeError, TypeError, ValueError, NotImplementedError, AttributeError, OverflowError)


def as_tensor(value: object, name: str) -> Tensor:
    """A dense tensor of real numbers, in the value's own dtype if torch computes with it.

    Args:
        value: a tensor of any layout, a NumPy array, or what NumPy makes an array of, such as
            nested lists, data frames and sparse matrices of SciPy; also a list of tensors.
        name: name of the value in error messages.

    Raises:
        ValueError: for anything else, such as text, objects, complex numbers, ragged lists and
            masked values.
    """
    try:
        if isinstance(value, (list, tuple)) and value and isinstance(value[0], Tensor):
            return torch.stack([_dense(part, name) for part in value])
        return _dense(value if isinstance(value, Tensor) else _from_numpy(value, name), name)
    except _NotNumbersError:
        raise
    except FOREIGN as error:
        reason = first_line(error)
        raise ValueError(
            f"Expected numbers in {name}, all rows of one shape, but got {_shown(value)}: "
            f"{reason}; give an array or a tensor."
        ) from error


def check_finite(x: Tensor, name: str, first: int = 0) -> None:
    """Check for NaN and infinity.

    Args:
        x: rows ``(N, ...)``.
        name: name of the rows in error messages.
        first: number of the first of these rows.

    Raises:
        ValueError: naming the first row and column that hold one.
    """
    if not x.is_floating_point() or bool(x.isfinite().all()):
        return
    bad = ~x.isfinite().reshape(len(x), -1)
    row, column = bad.nonzero()[0].tolist()
    count = int(bad.any(-1).sum())
    raise ValueError(
        f"Expected finite numbers in {name} but got NaN or infinity in {count} of {len(x)} rows, "
        f"first in row {first + row}, column {column}; drop or fill these rows, or, for missing "
        "cells of x, give context={'observed': ~x.isnan()}."
    )


def check_count(value: object, name: str, least: int = 1) -> None:
    """Check that a setting is a whole number that is large enough.

    Raises:
        ValueError: if it is not.
    """
    if not isinstance(value, (int, np.integer)) or value < least:
        wanted = f"a positive {name}" if least == 1 else f"{name} of at least {least}"
        raise ValueError(f"Expected {wanted} but got {value!r}; give a whole number.")


class _NotNumbersError(ValueError):
    """Raised with a message that needs no further reason."""


def _dense(tensor: Tensor, name: str) -> Tensor:
    if tensor.is_complex():
        raise _NotNumbersError(
            f"Expected real numbers in {name} but got dtype {tensor.dtype}; give real and "
            "imaginary parts as columns."
        )
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if tensor.layout is not torch.strided:
        tensor = tensor.to_dense()
    if tensor.dtype in UNSIGNED:
        tensor = tensor.to(torch.int64)
    elif tensor.dtype.itemsize == 1 and tensor.is_floating_point():
        tensor = tensor.to(torch.float32)  # torch computes nothing with floats of eight bits
    return tensor.as_subclass(Tensor)


def _from_numpy(value: object, name: str) -> Tensor:
    array: NDArray[np.generic]
    if np.ma.is_masked(value):
        raise _NotNumbersError(
            f"Expected numbers in {name} but got an array with masked values; fill or drop them."
        )
    sparse = getattr(value, "toarray", None)
    array = np.asarray(value if sparse is None else sparse())
    if array.dtype.kind not in "buif" or array.ndim == 0:
        found = _shown(value) if array.ndim == 0 else f"dtype {array.dtype}"
        raise _NotNumbersError(f"Expected numbers in {name} but got {found}; convert them.")
    if array.dtype.kind == "u" and array.itemsize > 1:
        array = array.astype(np.float64 if array.itemsize == 8 else np.int64)
    if array.dtype.kind == "f" and array.itemsize > 8:
        array = array.astype(np.float64)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if not array.flags.writeable or any(step < 0 for step in array.strides):
        array = array.copy()
    return torch.from_numpy(array)


def _shown(value: object) -> str:
    if isinstance(value, (Tensor, np.ndarray)):
        return f"{type(value).__name__} of {value.dtype}"
    if isinstance(value, (str, int, float)) or value is None:
        return repr(value)[:40]
    of = f" of {len(value)}" if isinstance(value, Sequence) else ""
    return f"{type(value).__name__}{of}"
