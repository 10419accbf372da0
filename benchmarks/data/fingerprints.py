"""Fingerprints of data sets, by which a run knows its own data again."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

from priorzoo.benchmarks.data.folders import stored_fingerprint
from priorzoo.benchmarks.data.sets import PORTION, Dataset, Unpacked

PARTS = ("x_train", "y_train", "x_valid", "y_valid", "x_test", "y_test")
Fingerprint = Mapping[str, str]


def fingerprint(dataset: Dataset) -> dict[str, str]:
    """Of each array of a data set its type, shape and hash: ``float32 [300, 64] 9f86d081884c7d65``.

    An array that is not there has none.
    """
    stored = {"x_train": dataset.train, "x_valid": dataset.valid}
    arrays = stored | {name: getattr(dataset, name) for name in PARTS if name not in stored}
    unpacked = Unpacked(dataset.scale)
    for site, (known, tested) in dataset.named.items():
        arrays |= {f"{site} of x_train": known, f"{site} of x_test": tested}
    for part, beside in dataset.context.items():
        arrays |= {f"{name} of x_{part}": value for name, value in beside.items()}
    found = {name: _of(array, unpacked) for name, array in arrays.items() if array is not None}
    if dataset.stored is not None:
        found["x_train"] = stored_fingerprint(dataset.stored)
    return found


def differing(before: Fingerprint, now: Fingerprint, only: str = "") -> list[str]:
    """What differs between two data sets, an array a text that names it.

    Args:
        before, now: see :func:`fingerprint`.
        only: the end of the names of arrays that count; all by default.
    """
    names = [name for name in {**before, **now} if name.endswith(only)]
    other = [name for name in names if before.get(name) != now.get(name)]
    return [f"{n} was {before.get(n, 'missing')} and is {now.get(n, 'missing')}" for n in other]


def _of(array: Tensor, unpacked: Unpacked) -> str:
    """Rows of bytes have the fingerprint of their values."""
    array, digest = array.detach().cpu().contiguous(), hashlib.sha256()
    dtype = array.dtype
    for part in array.split(PORTION) if len(array) else [array]:
        part = unpacked(part) if part.dtype == torch.uint8 else part
        dtype = part.dtype
        digest.update(part.numpy().data)
    kind = str(dtype).removeprefix("torch.")
    return f"{kind} {list(array.shape)} {digest.hexdigest()[:16]}"
