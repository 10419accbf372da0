"""Columns that cannot be what they are said to be, or what they seem to be, refused in one line."""

import re
from collections.abc import Mapping, Sequence

from priorzoo.inference.data.tables.cells import DECORATED, Cells, cell, is_number, option

FEW = 10  # rows up to which all values may differ
MANY = 1000  # categories at most; the decoder has an output for each


def check_shared(name: str, kind: str, values: int, rows: int, source: str) -> None:
    """Check that rows share the values of categories, classes or a covariate.

    Args:
        name, kind: of the column.
        values: number of different ones.
        rows: number of rows that have one.
        source: what the rows were read from.

    Raises:
        ValueError: for an identifier, which tells each row from all others.
    """
    if values <= MANY and not values == rows > FEW:
        return
    raise ValueError(
        f"Expected values that rows share in column {name!r} of {source} for {kind} but got "
        f"{values} different ones in {rows} rows; say another kind, or --columns "
        f"{option(name, 'ignore')}."
    )


def check_order(name: str, likelihood: str, levels: Sequence[str]) -> None:
    """Check the order of categories that the user names.

    Raises:
        ValueError: for an order of anything but ordinal levels, and for a level named twice.
    """
    if levels and (likelihood != "ordinal" or len(set(levels)) < len(levels)):
        raise ValueError(
            f"Expected ordinal:FIRST<SECOND<... with different levels for column {name!r} but got "
            f"{likelihood}:{'<'.join(levels)}; name each level once."
        )


def check_exposure(kinds: Mapping[str, str], source: str) -> None:
    """Check that a column of exposures stands beside counts, by the kinds of the columns.

    Raises:
        ValueError: for an exposure without counts.
    """
    found = next((name for name, kind in kinds.items() if kind == "exposure"), None)
    if found is not None and "count" not in kinds.values():
        raise ValueError(
            f"Expected a column of counts in {source} beside the exposure {found!r} but got none; "
            f"say which columns are counts, or --columns {option(found, 'ignore')}."
        )


def check_plain(cells: Cells, source: str) -> None:
    """Check that texts are no numbers in disguise, which would be taken for categories.

    Raises:
        ValueError: for thousands that are separated, a decimal comma, a currency or a percent sign
            in half of the cells.
    """
    texts = [(row, text) for row, text in enumerate(cells.as_texts()) if text is not None]
    dressed = [(row, text) for row, text in texts if DECORATED.fullmatch(text)]
    odd = [(row, text) for row, text in dressed if not is_number(text)]
    if not odd or 2 * len(dressed) < len(texts):
        return
    row, text = odd[0]
    raise ValueError(
        f"Expected numbers with a decimal point and no other signs in column {cells.name!r} of "
        f"{source} but got {cell(text)} in row {row}; write them as 1234.5, or say --columns "
        f"{option(cells.name, 'categorical')} or {option(cells.name, 'ignore')}."
    )


def of_new_rows(problem: str, remedy: str) -> str:
    """What is wrong with rows to predict, whose columns cannot be said any more.

    >>> of_new_rows("got 'x' in row 0; correct it, or say --columns a=ignore.", "fit again with")
    "got 'x' in row 0; correct it, or fit again with a=ignore."

    Args:
        problem: what a training would say.
        remedy: by which the columns are said.
    """
    return re.sub(r"\bor say (--columns )?", f"or {remedy} ", problem)
