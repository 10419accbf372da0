"""Reading files of parameters: names, shapes and types first, then finite values."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from priorzoo.inference.files import MIB, check_regular

LARGEST = 2**20 * MIB
FLOATS = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64}
OTHERS = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "C64": torch.complex64,
}


class Shape(NamedTuple):
    """Shape and type of a tensor, from the header of a file."""

    size: tuple[int, ...]
    dtype: str

    def __str__(self) -> str:
        return f"{self.dtype} of shape {self.size}"


Shapes = Mapping[str, Shape]


def read_shapes(file: str | os.PathLike[str], limit: int = LARGEST) -> dict[str, Shape]:
    """Shapes and types of the tensors of a safetensors file, of which only the header is read.

    Raises:
        OSError: if there is no file, or it cannot be read.
        ValueError: for a file that is damaged, or that is larger or no regular file.
    """
    check_regular(file, limit)
    try:
        with safe_open(file, "pt") as opened:
            names = opened.keys()  # ``opened`` is not a mapping and cannot be iterated over
            slices = {name: opened.get_slice(name) for name in names}
            return {
                name: Shape(tuple(one.get_shape()), one.get_dtype()) for name, one in slices.items()
            }
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(f"Expected parameters in {file} but got {error}; train again.") from error


def check_shapes(pair: nn.Module, shapes: Shapes, folder: Path) -> None:
    """Check that the tensors of a file fit a pair: their names, shapes and types.

    Parameters may be of any precision; one that a lazy module has not made yet, of any shape.

    Raises:
        ValueError: naming the first that is not.
    """
    state = pair.state_dict(keep_vars=True)
    for name, found in shapes.items():
        if name not in state:
            problem = f"the unexpected name {name}"
        elif not is_lazy(state[name]) and found.size != tuple(state[name].shape):
            problem = f"{name} as {found} in place of {tuple(state[name].shape)}"
        elif not is_lazy(state[name]) and not _is_kind(found.dtype, state[name].dtype):
            problem = f"{name} as {found} in place of {state[name].dtype}"
        else:
            continue
        raise ValueError(
            f"Expected parameters in {folder} that fit its classes but got {problem:.300}; train "
            "again."
        )


def read_parameters(file: str | os.PathLike[str], pair: nn.Module) -> dict[str, Tensor]:
    """Read the tensors of a file: finite ones, except buffers that are infinite from the start.

    Raises:
        SafetensorError: for a file that is damaged.
        ValueError: for values that are not finite, with the name of the parameter.
    """
    state = pair.state_dict(keep_vars=True)
    with safe_open(file, "pt") as opened:
        names = opened.keys()
        saved = {name: opened.get_tensor(name) for name in names}
    for name, tensor in saved.items():
        if count := not_finite(tensor):
            new = state[name]
            if isinstance(new, nn.Parameter) or not not_finite(new):
                raise ValueError(
                    f"Expected finite values in {name} of {file} but {count} of "
                    f"{tensor.numel()} are NaN or infinite; train the run again."
                )
    return saved


def not_finite(tensor: Tensor) -> int:
    """How many values are NaN or infinite."""
    return int((~tensor.detach().isfinite()).sum())


def _is_kind(found: str, dtype: torch.dtype) -> bool:
    if dtype.is_floating_point:
        return found in FLOATS
    return OTHERS.get(found) == dtype
