"""One reader for tables, files and images of any kind."""

import os
from collections.abc import Container, Mapping
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from priorzoo.inference.data.tables.annotated import (
    annotated_file,
    annotated_frame,
    is_annotated,
)
from priorzoo.inference.data.tables.cells import Frame
from priorzoo.inference.data.tables.files import (
    ANNOTATED,
    ARRAYS,
    SUFFIXES,
    TABLES,
    Arrays,
    array_file,
    table_file,
)
from priorzoo.inference.data.tables.frames import frame_of, is_sparse
from priorzoo.inference.data.tables.images import Mode, image_array, is_image_folder, read_images
from priorzoo.inference.data.tables.kinds import listed
from priorzoo.inference.data.tables.refusing import of_new_rows
from priorzoo.inference.data.tables.said import read_said
from priorzoo.inference.data.tables.schema import Scaling, Schema, Table, infer_schema

WIDE = 50  # columns of counts from which the totals of the rows are taken for their exposure


def read_table(
    source: object,
    *,
    columns: str | Mapping[str, str] = "",
    schema: Schema | None = None,
    scaling: Scaling = "auto",
    layer: str | None = None,
    size: tuple[int, int] | None = None,
    mode: Mode | None = None,
) -> Table:
    """Rows as a model takes them, from data in memory or from the path of a file or folder.

    Args:
        source: an array ``(N, P)`` or of images ``(N, H, W)``, a data frame of pandas, Polars,
            PyArrow or another that narwhals takes, a sparse matrix of scipy, an AnnData, or the
            path of a ``.csv``, ``.tsv``, ``.parquet``, ``.npz``, ``.npy`` or ``.h5ad`` file or of a
            folder of images. A missing cell is NaN, None or empty.
        columns: what columns are, ``age=student-t,id=ignore,species=label``, or a mapping; the
            others are inferred.
        schema: of the rows of a training, for rows to predict; ``columns`` and ``scaling`` are then
            of no use.
        scaling: of real columns, see :func:`infer_schema`.
        layer: of an AnnData, in place of its ``X``.
        size, mode: of images, see :func:`read_images`.

    Raises:
        ValueError: in one line with column and row, for data that cannot be used.
        FileNotFoundError: if there is no such file.
        ModuleNotFoundError: for a package that the extra ``tables`` or ``anndata`` installs.
    """
    said = read_said(columns)
    if schema is None:
        _check_asked(source, {"layer": layer}, {"size": size, "mode": mode})
    if isinstance(source, (str, os.PathLike)):
        path = Path(source).expanduser()
        if path.is_dir() and (is_image_folder(path) or path.suffix.lower() not in SUFFIXES):
            return read_images(path, size, mode, schema)
        return _of_file(path, said, schema, scaling, layer)
    if is_annotated(source):
        frame = annotated_frame(source, _known(said, schema, source.obs), layer, "the AnnData")
        named = _table(frame, said, schema, scaling, alike=True)
        return replace(named, names=tuple(map(str, source.obs_names)))
    shape = getattr(source, "shape", ())
    if len(shape) in (3, 4):
        return image_array(np.asarray(source), "the array", schema)
    return _table(frame_of(source), said, schema, scaling, alike=is_sparse(source))


def _of_file(
    path: Path,
    said: Mapping[str, str],
    schema: Schema | None,
    scaling: Scaling,
    layer: str | None,
) -> Table:
    suffix = path.suffix.lower()
    if suffix in TABLES:
        return _table(table_file(path), said, schema, scaling)
    if suffix in ANNOTATED:
        data = annotated_file(path)
        frame = annotated_frame(data, _known(said, schema, data.obs), layer, str(path))
        named = _table(frame, said, schema, scaling, alike=True)
        return replace(named, names=tuple(map(str, data.obs_names)))
    if suffix in ARRAYS:
        return _of_arrays(array_file(path), path, said, schema, scaling)
    if not path.exists():
        raise FileNotFoundError(f"Expected a file or folder {path} but there is none.")
    raise ValueError(
        f"Expected a file {', '.join(SUFFIXES)} or a folder of images but got {path}; convert it."
    )


def _of_arrays(
    arrays: Arrays,
    path: Path,
    said: Mapping[str, str],
    schema: Schema | None,
    scaling: Scaling,
) -> Table:
    """Rows ``x`` and labels ``y``, or those of ``x_train`` and then of ``x_test``."""
    x, y = (_joined(arrays, name) for name in "xy")
    if x is None:
        raise ValueError(
            f"Expected an array x, or x_train and x_test, in {path} but got {', '.join(arrays)}; "
            "write it by numpy.savez(file, x=rows)."
        )
    if y is not None and y.shape != x.shape[:1]:
        raise ValueError(
            f"Expected a label y for each of {len(x)} rows in {path} but got shape {y.shape}; give "
            "one for each."
        )
    if x.ndim > 4:
        raise ValueError(
            f"Expected rows (N, P) or images (N, H, W) or (N, H, W, C) in {path} but got shape "
            f"{x.shape}; reshape x."
        )
    if x.ndim > 2:
        table = image_array(x, str(path), schema)
    else:
        table = _table(frame_of(x, str(path)), said, schema, scaling)
    if y is None:
        return table
    _check_labels(y, path)
    if y.dtype.kind in "iuf":
        return replace(table, labels=torch.from_numpy(y.astype(np.int64)))
    if y.dtype.kind == "S":
        y = np.char.decode(cast(NDArray[np.bytes_], y), "utf-8", "replace")
    known = table.schema.classes or tuple(sorted({str(one) for one in y} - {"", "-1"}))
    numbers = {name: i for i, name in enumerate(known)}
    for row, one in enumerate(y):
        if str(one) not in (*numbers, "", "-1"):
            raise ValueError(
                f"Expected labels y of the training, {listed(known)}, in {path} but got "
                f"{str(one)!r} in row {row}; correct it, or write -1 for unknown."
            )
    labels = torch.tensor([numbers.get(str(one), -1) for one in y])
    return replace(table, schema=replace(table.schema, classes=known), labels=labels)


def _check_labels(y: NDArray[np.generic], path: Path) -> None:
    """Refuse numbers that are no classes."""
    wrong = np.zeros(len(y), dtype=bool)
    if y.dtype.kind in "iuf":
        numbers = y.astype(np.float64)
        wrong = (numbers != np.round(numbers)) | (numbers < -1)
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(
            f"Expected whole numbers from 0 as labels y in {path}, -1 for unknown, but got "
            f"{y[row]} in row {row}; number the classes, or leave y out."
        )


def _joined(arrays: Arrays, name: str) -> NDArray[np.generic] | None:
    parts = [arrays[key] for key in (name, f"{name}_train", f"{name}_test") if key in arrays]
    if not parts:
        return None
    if name not in arrays and len({part.shape[1:] for part in parts}) > 1:
        raise ValueError(
            f"Expected {name}_train and {name}_test with rows of one shape but got "
            f"{' and '.join(str(part.shape) for part in parts)}; write rows of the same columns."
        )
    return cast(NDArray[np.generic], parts[0] if name in arrays else np.concatenate(parts))


def _table(
    frame: Frame,
    said: Mapping[str, str],
    schema: Schema | None,
    scaling: Scaling,
    alike: bool = False,
) -> Table:
    """The rows of a frame, and the schema if it is not given."""
    known = schema is not None
    if schema is None:
        schema = infer_schema(frame, said, scaling, alike=alike)
        own = bool(schema.of_kind("exposure"))
        counts = len(schema.of_kind("count")) == len(schema.data) >= WIDE
        if counts and not own:
            schema = schema.with_totals(frame)
    elif schema.shape:
        raise ValueError(
            f"Expected images of shape {schema.shape} like those of the training but got the "
            f"columns of {frame.source}; give images."
        )
    try:
        rows = schema.encode(frame)
    except ValueError as error:
        if not known:
            raise
        raise ValueError(of_new_rows(str(error), "train again with --columns")) from error
    return replace(rows, names=_names(frame, schema))


def _names(frame: Frame, schema: Schema) -> tuple[str, ...]:
    """The texts of the first identifier, which was left out of the data; none without."""
    for column in schema.of_kind("ignore"):
        cells = frame.columns.get(column.name)
        if column.identifies and cells is not None:
            return tuple("" if text is None else str(text) for text in cells.as_texts())
    return ()


def _check_asked(source: object, *asked: Mapping[str, object]) -> None:
    """Refuse a layer of what is no AnnData, and a size or mode of what is no folder."""
    path = Path(source).expanduser() if isinstance(source, (str, os.PathLike)) else None
    annotated = path.suffix.lower() in ANNOTATED if path else is_annotated(source)
    folder = path is not None and path.is_dir()
    fits = (annotated, "an AnnData"), (folder, "a folder of images")
    for (fitting, what), settings in zip(fits, asked, strict=True):
        unused = [name for name, value in settings.items() if value is not None]
        if unused and not fitting:
            got = path or type(source).__name__
            raise ValueError(f"Expected {what} for {unused[0]} but got {got}; leave it out.")


def _known(
    said: Mapping[str, str], schema: Schema | None, rows: Container[str]
) -> Mapping[str, str]:
    """What is said of the columns of ``obs``; at a prediction, of those of the training.

    Those that are not there any more are refused later, unless they may be left out.
    """
    if schema is None:
        return said
    return {
        column.name: column.kind
        for column in schema.columns
        if column.kind in ("label", "covariate", "exposure", "weight") and column.name in rows
    }
