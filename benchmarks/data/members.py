"""Reads the arrays of a ``.npz`` one at a time, in portions of rows, without a second copy.

What can be wrong with an array is found as early as possible: its shape and type in the header, a
value in the portion that holds it. Arrays of bytes stay bytes; others become float32.
"""

import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from priorzoo.inference.data.tensors import as_tensor, check_finite

PORTION = 2**22  # values that are converted at a time
BYTES = ("uint8", "bool")
READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class Header(NamedTuple):
    """What the header of an array says; ``by_columns`` is Fortran's order."""

    shape: tuple[int, ...]
    by_columns: bool
    dtype: np.dtype[Any]


@contextmanager
def opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """The archive, in which errors of a damaged file become one.

    Raises:
        ValueError: for a file that is no archive, or a damaged one.
    """
    if not zipfile.is_zipfile(path):
        raise ValueError(f"Expected a .npz archive but {path} is none; write it with numpy.savez.")
    try:
        with zipfile.ZipFile(path) as file:
            yield file
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(
            f"Expected a whole .npz archive but {path} is damaged ({error}); copy or write it anew."
        ) from error


def members(file: zipfile.ZipFile) -> list[str]:
    """The names of the arrays."""
    return [name.removesuffix(".npy") for name in file.namelist()]


def header(file: zipfile.ZipFile, key: str) -> Header:
    """The header of an array.

    Raises:
        ValueError: for an array of objects, which could run code when it is read.
        EOFError: for a member that is shorter than its header says.
    """
    with file.open(f"{key}.npy") as member:
        found = _read_header(member, key)
        start = member.tell()
    size = file.getinfo(f"{key}.npy").file_size - start
    if found.dtype.hasobject:
        raise ValueError(
            f"Expected plain numbers in {key} of {file.filename} but got objects; save an array "
            "that is not of dtype object."
        )
    if math.prod(found.shape) * found.dtype.itemsize > size:
        raise EOFError(f"{key} ends early")
    return found


def whole(file: zipfile.ZipFile, key: str) -> NDArray[Any]:
    """An array as it is."""
    header(file, key)
    with file.open(f"{key}.npy") as member:
        found: NDArray[Any] = np.lib.format.read_array(member, allow_pickle=False)
        return found


def rows(file: zipfile.ZipFile, key: str) -> Tensor:
    """Rows ``(N, ...)``, finite: bytes as they are, all else float32.

    Raises:
        ValueError: for what are no numbers, or not finite in float32.
    """
    told, what = header(file, key), f"{key} of {file.filename}"
    if told.by_columns:
        made = stored(as_tensor(whole(file, key), what))
        check_finite(made, what)
        return made
    kind = torch.uint8 if told.dtype.name in BYTES else torch.float32
    made = torch.empty(told.shape, dtype=kind)
    each = math.prod(told.shape[1:])
    with file.open(f"{key}.npy") as member:
        _read_header(member, key)
        first = 0
        for part in made.split(max(1, PORTION // max(1, each))):
            text = member.read(part.numel() * told.dtype.itemsize)
            if len(text) < part.numel() * told.dtype.itemsize:
                raise EOFError(f"{key} ends early")
            read = np.frombuffer(text, told.dtype).reshape(part.shape)
            part.copy_(as_tensor(read, what))
            check_finite(part, what, first)
            first += len(part)
        member.read()  # to the end, where the checksum is compared
    return made


def stored(x: Tensor) -> Tensor:
    """Bytes and booleans as bytes, in place; all else as float32, in a copy."""
    if x.dtype in (torch.uint8, torch.bool):
        return x.to(torch.uint8)
    return x.to(torch.float32, copy=True)


def _read_header(member: IO[bytes], key: str) -> Header:
    try:
        version = np.lib.format.read_magic(member)
        return Header(*READERS[version](member))
    except (ValueError, KeyError) as error:
        raise EOFError(f"{key} has no header of an array") from error
