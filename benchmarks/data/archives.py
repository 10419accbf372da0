"""Files of arrays, ``.npz``: those of the catalogue, and those of the user."""

from collections.abc import Mapping
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import torch

from priorzoo.benchmarks.data.members import Header, header, members, opened, rows, whole
from priorzoo.benchmarks.data.parts import (
    Array,
    Parts,
    Request,
    check_alike,
    check_labels,
    check_rows,
    labels_of,
)
from priorzoo.inference.data.tensors import as_tensor

KEYS = ("x_train", "x_test", "y_train", "y_test")  # of a user's file


def archive(path: Path, request: Request) -> Parts:
    """A user's ``.npz``: ``x_train``, ``x_test`` and perhaps ``y_train``, ``y_test``; unscaled."""
    if not path.is_file():
        raise FileNotFoundError(f"No file {path.absolute()}; give the path of a .npz file.")
    with opened(path) as file:
        found = present(path, file, "x_train", "x_test")
        headers = {key: header(file, key) for key in KEYS if key in found}
        _check_headers(path, headers)
        rows_of = {key: rows(file, key) for key in KEYS[:2]}
        y_train, y_test = (
            labels_of(whole(file, key), headers[f"x{key[1:]}"].shape[0], f"{key} of {path}")
            if key in headers
            else None
            for key in KEYS[2:]
        )
    return Parts(rows_of["x_train"], rows_of["x_test"].to(torch.float32), y_train, y_test)


def _check_headers(path: Path, headers: Mapping[str, Header]) -> None:
    """Refuse by shape and type what cannot be rows and labels, before anything is read."""
    for key in KEYS[:2]:
        check_rows(headers[key].shape, f"{key} of {path}")
        as_tensor(np.empty((0, 1), headers[key].dtype), f"{key} of {path}")
    check_alike(path, headers["x_train"].shape, headers["x_test"].shape)
    for key in KEYS[2:]:
        if key in headers:
            count = headers[f"x{key[1:]}"].shape[0]
            check_labels(headers[key].dtype, headers[key].shape, count, f"{key} of {path}")


def local(request: Request, stem: str, *keys: str) -> tuple[Path, dict[str, Array]]:
    """The path and the arrays of ``stem.npz`` in the data root.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: for a file without one of the arrays.
    """
    path = request.root / f"{stem}.npz"
    if not path.is_file():
        raise FileNotFoundError(
            f"No {path.name} in {request.root}; put it there (it has no download), "
            "or name its folder by PRIORZOO_DATA or --data-root."
        )
    return path, _read(path, *keys)


def _read(path: Path, *keys: str) -> dict[str, Array]:
    with opened(path) as file:
        present(path, file, *keys)
        return {key: whole(file, key) for key in keys}


def present(path: Path, file: ZipFile, *keys: str) -> list[str]:
    """The names of all arrays, among which these must be."""
    found = members(file)
    if missing := [key for key in keys if key not in found]:
        raise ValueError(
            f"Expected {', '.join(missing)} in {path} but got only "
            f"{', '.join(found) or 'an empty file'}; name the arrays in numpy.savez."
        )
    return found
