"""How many outputs a decoder needs for a likelihood."""

from typing import cast

from torch import nn


def outputs_of(likelihood: nn.Module, rows: int) -> int:
    """Number of decoder outputs for rows of ``rows`` values.

    ``width`` for each value, or as many as the likelihood's ``outputs`` says, as of
    :class:`Columns`.

    Raises:
        ValueError: for :class:`Columns` of another number of columns.
    """
    columns = cast(list[int] | None, getattr(likelihood, "columns", None))
    if columns is not None and len(columns) != rows:
        raise ValueError(
            f"Expected a likelihood for each of {rows} columns but got {len(columns)}; name as "
            "many columns as x has."
        )
    total = cast(int | None, getattr(likelihood, "outputs", None))
    return rows * cast(int, getattr(likelihood, "width", 1)) if total is None else total
