"""The cells of a column as the numbers that a model takes, and what is wrong with them."""

import numpy as np
from numpy.typing import NDArray

from priorzoo.inference.data.tables.cells import Cells, Numbers, cell, option, shown
from priorzoo.inference.data.tables.kinds import Column, finite, listed

FARTHEST = 1e9  # scaled values whose squares float32 can still add up
LARGEST = 2**24  # above which float32 does not hold all whole numbers


def coded(column: Column, cells: Cells, source: str) -> Numbers:
    """``(N,)``: scaled numbers, counts, or codes of categories; NaN for a missing cell.

    Raises:
        ValueError: in one line with column and row, for text among numbers, infinity, numbers too
            far from the others for float32, values that are not positive, negative and fractional
            counts, and categories or classes that the training rows did not have.
    """
    if column.kind == "label" or column.categories:
        return _codes(column, cells, source)
    numbers = finite(cells, source)
    if column.kind == "positive":
        return quantities(column, cells, source)
    if column.kind == "count":
        _check_counts(column, numbers, source)
    scaled = (numbers - column.loc) / column.scale
    if (np.abs(scaled) > FARTHEST).any():  # False for NaN
        row = int((np.abs(scaled) > FARTHEST).argmax())
        raise ValueError(
            f"Expected numbers within {FARTHEST:g} standard deviations in column {column.name!r} "
            f"of {source} but got {numbers[row]:g} in row {row}; correct the cell, leave it empty "
            "for missing, or give logarithms."
        )
    return scaled


def decoded(column: Column, values: Numbers) -> NDArray[np.generic]:
    """``(N,)``: what :func:`coded` made of a column, in the units of the table.

    Numbers of categories are rounded to the nearest.
    """
    if not column.categories:
        return values * column.scale + column.loc
    codes = np.clip(np.rint(values), 0, len(column.categories) - 1).astype(int)
    names = np.array(column.categories, dtype=object)[codes]
    return names.astype(np.float64) if column.numeric else names


def quantities(column: Column, cells: Cells, source: str) -> Numbers:
    """``(N,)``: positive numbers of a column, scaled; weights may be 0.

    NaN for a missing cell of data; an exposure and a weight must be there.

    Raises:
        ValueError: for other numbers, naming the row.
    """
    numbers = finite(cells, source)
    beside = column.kind in ("exposure", "weight")
    low = numbers < 0 if column.kind == "weight" else numbers <= 0
    bad = low | (np.isnan(numbers) if beside else np.zeros(len(numbers), dtype=bool))
    if bad.any():
        row = int(bad.argmax())
        got = "a missing cell" if np.isnan(numbers[row]) else shown(numbers[row])
        say = option(column.name, "student-t")
        remedy = "correct the cell" if beside else f"correct it, or say {say}"
        wanted = "a weight of at least 0" if column.kind == "weight" else "a positive number"
        raise ValueError(
            f"Expected {wanted} in column {column.name!r} of {source} but got {got} in row {row}; "
            f"{remedy}."
        )
    return numbers / column.scale


def one_hot(column: Column, cells: Cells, source: str) -> NDArray[np.float64]:
    """``(N, C)``: a covariate, text in one column for each category.

    Raises:
        ValueError: for a missing cell, and as :func:`coded`.
    """
    values = coded(column, cells, source)
    if np.isnan(values).any():
        raise ValueError(
            f"Expected a value of covariate {column.name!r} in each row of {source} but row "
            f"{int(np.isnan(values).argmax())} has none; fill it, or drop the row."
        )
    if not column.categories:
        return values[:, None]
    return np.eye(len(column.categories))[values.astype(int)]


def _codes(column: Column, cells: Cells, source: str) -> Numbers:
    numbers = {name: float(code) for code, name in enumerate(column.categories)}
    keys = cells.as_texts()
    made = np.array([np.nan if key is None else numbers.get(key, -1.0) for key in keys])
    if (made == -1).any():
        row = int((made == -1).argmax())
        label = column.kind == "label"
        what = "class" if label else "category"
        meaning = "" if column.kind == "covariate" else ", leave it empty for missing"
        meaning = ", leave it empty for unknown" if label else meaning
        raise ValueError(
            f"Expected a {what} of the training rows in column {column.name!r} of {source}, "
            f"{listed(column.categories)}, but got {cell(keys[row])} in row {row}; correct the "
            f"cell{meaning}, or train again with such rows."
        )
    return made


def _check_counts(column: Column, numbers: Numbers, source: str) -> None:
    with np.errstate(invalid="ignore"):
        bad = (numbers < 0) | (numbers != np.round(numbers)) & ~np.isnan(numbers)
    bad |= numbers > LARGEST
    if bad.any():
        row = int(bad.argmax())
        raise ValueError(
            f"Expected whole numbers from 0 to {LARGEST} in column {column.name!r} of {source} but "
            f"got {numbers[row]:g} in row {row}; correct the cell, or say "
            f"{option(column.name, 'student-t')}."
        )
