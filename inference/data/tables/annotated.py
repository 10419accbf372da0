"""AnnData: the matrix ``X`` or a layer as data, columns of ``obs`` as what stands beside them."""

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from priorzoo.inference.data.tables.cells import Cells, Frame, category_cells, cells_of
from priorzoo.inference.data.tables.files import check_file
from priorzoo.inference.data.tables.frames import dense, is_sparse
from priorzoo.inference.data.tables.kinds import listed
from priorzoo.inference.data.tables.said import match_said

AnnData = Any  # an optional package's class


def is_annotated(data: object) -> TypeGuard[AnnData]:
    """Whether a value is an AnnData."""
    return all(hasattr(data, name) for name in ("obs", "var_names", "layers", "X"))


def annotated_file(path: Path) -> AnnData:
    """The AnnData of a ``.h5ad`` file.

    Raises:
        ValueError: for a damaged file.
        FileNotFoundError: if there is no file.
    """
    check_file(path)
    import anndata

    try:
        with warnings.catch_warnings():  # of names of variables twice, which are refused later
            warnings.simplefilter("ignore", UserWarning)
            return anndata.read_h5ad(path)
    except (OSError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"Expected an AnnData in {path} but got: {reason}; write it by write_h5ad."
        ) from error


def annotated_frame(
    data: AnnData, said: Mapping[str, str], layer: str | None, source: str
) -> Frame:
    """The columns of the variables, and those of ``obs`` that are said to be something.

    Raises:
        ValueError: for a layer that is not there, and an AnnData without a matrix.
    """
    if layer is not None and layer not in data.layers:
        raise ValueError(
            f"Expected a layer {layer!r} in {source} but it has "
            f"{listed(list(data.layers)) or 'none'}; name one of these, or leave it out for X."
        )
    held = data.X if layer is None else data.layers[layer]
    if held is None:
        raise ValueError(
            f"Expected a matrix X in {source} but it has none; "
            f"{f'name a layer: {listed(names)}' if (names := list(data.layers)) else 'write one'}."
        )
    if hasattr(held, "to_memory"):  # a sparse matrix that is still in its file
        held = held.to_memory()
    matrix = dense(held) if is_sparse(held) else np.asarray(held)
    names = [str(name) for name in data.var_names]
    columns = [cells_of(name, matrix[:, i], source) for i, name in enumerate(names)]
    for name in _of_rows(said, map(str, data.obs.columns), names):
        columns.append(_of_obs(name, data.obs[name], source))
    return Frame.of(columns, source=source)


def _of_obs(name: str, column: AnnData, source: str) -> Cells:
    """The cells of a column of ``obs``, whose text is categories, as ``write_h5ad`` makes it."""
    ordered = getattr(column.dtype, "ordered", None)  # None of what is no categories
    values = column.to_numpy()
    if ordered is None and not any(isinstance(value, str) for value in values):
        return cells_of(name, values, source)
    return category_cells(name, values, column.cat.categories if ordered else ())


def _of_rows(said: Mapping[str, str], rows: Iterable[str], variables: Iterable[str]) -> list[str]:
    """The columns of ``obs`` that something is said of."""
    known = list(rows)
    match_said(said, [*known, *variables])
    wanted = {pattern: kind for pattern, kind in said.items() if pattern in known}
    return list(match_said(wanted, known))
