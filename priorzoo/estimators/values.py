"""Rows of a model in the units and in the form that its user knows."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from priorzoo.estimators.rows import is_frame
from priorzoo.inference.data.tables.cells import Frame
from priorzoo.inference.data.tables.schema import Schema


@dataclass(frozen=True)
class Form:
    """The columns of the rows that were fitted.

    Args:
        names: of all columns, in order.
        constants: values of the columns that the model has not, None where they differ.
        backend: of a data frame: ``pandas``, ``polars``, ``pyarrow``, ...; None of an array.
    """

    names: tuple[str, ...]
    constants: Mapping[str, Any]
    backend: Any


def native(x: object, rows: Frame, schema: Schema) -> Form:
    """The form of rows.

    Args:
        x: as they were given.
        rows: their frame.
        schema: of the columns.
    """
    backend = None
    if is_frame(x):
        import narwhals as nw

        backend = str(nw.get_native_namespace(nw.from_native(x)).__name__)
    kept = {column.name for column in schema.data}
    constants = {}
    for name, cells in rows.columns.items():
        if name not in kept:
            values = cells.numbers if cells.numbers is not None else cells.as_texts()
            known = list(dict.fromkeys(values[cells.present].tolist()))
            constants[name] = known[0] if len(known) == 1 else None
    return Form(tuple(rows.columns), constants, backend)


def in_units(rows: Tensor, schema: Schema, form: Form) -> Any:
    """``(N, P)``: rows of a model as an array of numbers, or as a data frame of the same kind.

    Columns that the model has not hold their constant, or else are missing.
    """
    decoded = schema.decode(rows)
    missing = {name: np.nan if v is None else v for name, v in form.constants.items()}
    if form.backend is None:
        shape = (len(rows), len(form.names))
        made = np.empty(shape, dtype=np.float64)
        for place, name in enumerate(form.names):
            made[:, place] = decoded.get(name, missing.get(name))
        return made
    import narwhals as nw

    columns = {
        name: decoded[name].tolist() if name in decoded else [form.constants[name]] * len(rows)
        for name in form.names
    }
    return nw.from_dict(columns, backend=form.backend).to_native()
