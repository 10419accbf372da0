"""What a column is: inferred from its cells, or said by the user."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from priorzoo.inference.data.tables.cells import (
    Cells,
    Numbers,
    Texts,
    cell,
    cells_of,
    is_number,
    option,
    shown,
)
from priorzoo.inference.data.tables.refusing import MANY, check_order, check_plain, check_shared

Data = Literal["real", "positive", "count", "binary", "categorical", "ordinal"]
Beside = Literal["label", "covariate", "exposure", "weight", "ignore"]
Kind = Data | Beside
DATA: tuple[Data, ...] = get_args(Data)
BESIDE: tuple[Beside, ...] = get_args(Beside)
LIKELIHOODS: Mapping[str, Data] = {
    "gaussian": "real",
    "student-t": "real",
    "log-normal": "positive",
    "negative-binomial": "count",
    "poisson": "count",
    "zero-inflated-negative-binomial": "count",
    "bernoulli": "binary",
    "categorical": "categorical",
    "ordinal": "ordinal",
}
DEFAULTS: Mapping[Data, str] = {kind: name for name, kind in reversed([*LIKELIHOODS.items()])}

LEVELS = 10  # whole numbers from 1 in sequence, such as ratings, are ordinal up to so many
LARGEST = 1e100  # beyond which squares of numbers are infinite
COUNTED = 1_000  # median of whole numbers up to which they are counts, if nothing is said
FAR = 6.0  # robust standard deviations beyond which a value asks for heavy tails
NAMED = ("ignore", "label", "covariate", "binary", "bernoulli", "categorical", "ordinal")
IDENTIFIER, INDEX = "all values differ, as in an identifier", "it numbers the rows"
SHOWN = 5  # names or categories that a message lists


@dataclass(frozen=True)
class Column:
    """What is known of a column.

    Args:
        name: of the column.
        kind: what it is to the model: data of a kind, or something beside the data.
        likelihood: of data, by the name of the command line.
        loc, scale: values are ``(x - loc) / scale`` inside the model.
        categories: of binary, categorical and ordinal data, of labels and of covariates of text, in
            the order of their codes from 0.
        numeric: whether the cells were numbers.
        low, high: range of the numbers.
        missing: share of missing cells.
        reason: why it is ignored.
    """

    name: str
    kind: Kind
    likelihood: str = ""
    loc: float = 0.0
    scale: float = 1.0
    categories: tuple[str, ...] = ()
    numeric: bool = True
    low: float | None = None
    high: float | None = None
    missing: float = 0.0
    reason: str = ""

    @property
    def is_data(self) -> bool:
        """Whether the column is a value of x."""
        return self.kind in DATA

    @property
    def identifies(self) -> bool:
        """Whether it was left out since each row has a value of its own."""
        return self.reason in (IDENTIFIER, INDEX)


def infer(cells: Cells, said: str | None, source: str) -> Column:
    """The column of some cells.

    Args:
        cells: of the column.
        said: a kind or a likelihood, perhaps with the order of its categories,
            ``ordinal:low<middle<high``; None to infer it.
        source: what the cells were read from, for messages.

    Raises:
        ValueError: for cells that do not fit what is said, and for numbers mixed with text.
    """
    present = cells.present
    of_all = Column(
        cells.name,
        "ignore",
        numeric=cells.numbers is not None,
        missing=1 - float(present.mean()),
        reason="as told",
    )
    name, _, order = (said or "").partition(":")
    if cells.categories and name not in ("", *NAMED):  # numbers of which it is told that they are
        cells = cells_of(cells.name, cast(Texts, cells.texts), source)
    if name == "ignore":
        return of_all
    if not present.any():
        return _useless(of_all, said, source, "all cells are missing")
    distinct = _distinct(cells)
    if cells.numbers is not None:
        numbers = finite(cells, source)[present]
        of_all = replace(of_all, low=float(numbers.min()), high=float(numbers.max()))
    if name in ("label", "covariate", "exposure", "weight"):
        return _told_beside(of_all, cast(Beside, name), distinct, source, int(present.sum()))
    if len(distinct) == 1:
        return _useless(of_all, said, source, f"it is constant: {distinct[0]}")
    if not said:
        return _inferred(of_all, cells, distinct, source)
    kind = LIKELIHOODS.get(name) or cast(Data, name)
    found = replace(of_all, kind=kind, likelihood=name if name in LIKELIHOODS else DEFAULTS[kind])
    levels = order.split("<") if order else []
    check_order(cells.name, found.likelihood, levels)
    if kind in ("categorical", "ordinal"):
        check_shared(cells.name, kind, len(distinct), int(present.sum()), source)
    return _with_categories(found, distinct, levels, source)


def finite(cells: Cells, source: str) -> Numbers:
    """The numbers of a column.

    Raises:
        ValueError: for text and for infinity, naming the first row.
    """
    if cells.numbers is None:
        texts = cast(Texts, cells.texts)
        odd = [i for i, text in enumerate(texts) if text is not None and not is_number(text)]
        if not odd:  # numbers that were declared as categories
            return np.array([np.nan if text is None else float(text) for text in texts])
        row = odd[0]
        raise ValueError(
            f"Expected numbers in column {cells.name!r} of {source} but got {cell(texts[row])} in "
            f"row {row}; correct the cell, leave it empty for missing, or say --columns "
            f"{option(cells.name, 'categorical')}."
        )
    far = np.abs(cells.numbers) > LARGEST  # False for NaN
    if far.any():
        row = int(far.argmax())
        raise ValueError(
            f"Expected finite numbers in column {cells.name!r} of {source} but got "
            f"{cells.numbers[row]} in row {row}; correct the cell, or leave it empty for missing."
        )
    return cells.numbers


def listed(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _useless(column: Column, said: str | None, source: str, reason: str) -> Column:
    """A column that says nothing is left out, unless the user asked for it."""
    if said:
        raise ValueError(
            f"Expected values that differ in column {column.name!r} of {source} for {said} but "
            f"{reason}; leave the column out: --columns {option(column.name, 'ignore')}."
        )
    return replace(column, reason=reason)


def _told_beside(
    column: Column, kind: Beside, distinct: Sequence[str], source: str, count: int
) -> Column:
    """A column of which the user says that it is something beside the data.

    Raises:
        ValueError: for a constant covariate, covariates and labels that no rows share, and weights
            of which none is positive.
    """
    if kind == "weight" and column.high is not None and column.high <= 0:
        return _useless(column, kind, source, f"the largest is {shown(column.high)}")
    if kind == "covariate" and len(distinct) == 1:
        return _useless(column, kind, source, f"it is constant: {distinct[0]}")
    found = _beside(column, kind, distinct)
    if found.categories:
        check_shared(column.name, kind, len(distinct), count, source)
    return found


def _beside(column: Column, kind: Beside, distinct: Sequence[str]) -> Column:
    of_text = kind == "label" or (kind == "covariate" and not column.numeric)
    return replace(column, kind=kind, reason="", categories=tuple(distinct) if of_text else ())


def _inferred(column: Column, cells: Cells, distinct: Sequence[str], source: str) -> Column:
    if cells.dates:
        return replace(column, reason="dates or times; give numbers, such as days, to use them")
    if cells.name.lower() == "label":
        return _beside(column, "label", distinct)
    if cells.numbers is None:
        return _of_text(column, cells, distinct, source)
    numbers = cells.numbers[cells.present]
    whole = bool((numbers == np.round(numbers)).all())
    if len(distinct) == 2:
        return _with_categories(replace(column, kind="binary"), distinct, [], source)
    if whole and _numbers_rows(numbers, len(cells)):
        return replace(column, reason=INDEX)
    low, high = float(numbers.min()), float(numbers.max())
    if whole and low == 1 and len(distinct) == high <= LEVELS:
        return _with_categories(replace(column, kind="ordinal"), distinct, [], source)
    kind, likelihood = _of_numbers(numbers, whole)
    return replace(column, reason="", kind=kind, likelihood=likelihood)


def _of_numbers(numbers: Numbers, whole: bool) -> tuple[Data, str]:
    """Kind and likelihood of a column of numbers.

    Whole numbers that are far from 0 for their spread, such as years and heights, are no counts.
    """
    low, mean, spread = numbers.min(), numbers.mean(), numbers.std()
    if whole and low >= 0 and mean < 3 * spread:
        return "count", DEFAULTS["count"]
    if low > 0 and abs(skewness(np.log(numbers))) + 1 < skewness(numbers):
        return "positive", DEFAULTS["positive"]
    middle, width = robust(numbers)
    heavy = bool((np.abs(numbers - middle) > FAR * width).any())
    return "real", "student-t" if heavy else "gaussian"


def uncounted(column: Column, cells: Cells) -> Column:
    """A column of whole numbers as what it measures, if these are too large to be counts.

    Incomes and populations are whole numbers too; a decoder begins with means of 1.
    """
    if column.kind != "count" or cells.numbers is None:
        return column
    numbers = cells.numbers[cells.present]
    if np.median(numbers) <= COUNTED:
        return column
    kind, likelihood = _of_numbers(numbers, whole=False)
    return replace(column, kind=kind, likelihood=likelihood)


def _of_text(column: Column, cells: Cells, distinct: Sequence[str], source: str) -> Column:
    texts = cast(Texts, cells.texts)
    numeric = np.array([text is not None and is_number(text) for text in texts])
    count = int(cells.present.sum())
    if 2 * numeric.sum() >= count and not cells.categories:
        odd = (~numeric & cells.present).nonzero()[0]
        more = f" and {len(odd) - 1} more" if len(odd) > 1 else ""
        raise ValueError(
            f"Expected numbers in column {cells.name!r} of {source}, as in {int(numeric.sum())} "
            f"rows, but got {cell(texts[odd[0]])} in row {odd[0]}{more}; correct these cells, "
            f"leave them empty for missing, or say --columns {option(cells.name, 'categorical')} "
            f"or {option(cells.name, 'ignore')}."
        )
    if not cells.categories:
        check_plain(cells, source)
    if len(distinct) == count:
        return replace(column, reason=IDENTIFIER)
    if len(distinct) > max(20, count // 2) or len(distinct) > MANY:
        return replace(column, reason=f"{len(distinct)} different texts in {count} rows")
    several: Data = "ordinal" if cells.levels else "categorical"
    kind: Data = "binary" if len(distinct) == 2 else several
    levels = cells.levels if kind == "ordinal" else ()
    return _with_categories(replace(column, kind=kind), distinct, levels, source)


def _with_categories(
    column: Column, distinct: Sequence[str], order: Sequence[str], source: str
) -> Column:
    """The column with its categories, if its kind has some.

    Raises:
        ValueError: for too many of them, and for an order that lacks one.
    """
    kind = cast(Data, column.kind)
    found = replace(column, reason="", likelihood=column.likelihood or DEFAULTS[kind])
    if kind not in ("binary", "categorical", "ordinal"):
        return found
    if lacking := [name for name in distinct if order and name not in order]:
        raise ValueError(
            f"Expected all values of column {column.name!r} in the order {'<'.join(order)} but "
            f"{source} has {listed(lacking)}; add them to the order."
        )
    most = 2 if kind == "binary" else MANY
    if not 2 <= len(distinct) <= most:
        raise ValueError(
            f"Expected 2 to {most} different values in column {column.name!r} of {source} for "
            f"{kind} but got {len(distinct)}; say another kind, or {option(column.name, 'ignore')}."
        )
    return replace(found, categories=tuple(order or distinct))


def _distinct(cells: Cells) -> list[str]:
    """The different values of a column in ascending order, as text."""
    if cells.numbers is not None:
        values = np.unique(cells.numbers[cells.present])
        return [shown(value) for value in values[: MANY + 1]]
    names = {text for text in cast(Texts, cells.texts) if text is not None}
    by_number = all(map(is_number, names))  # those that are equal as floats differ as text
    return sorted(names, key=lambda name: (float(name), name)) if by_number else sorted(names)


def _numbers_rows(numbers: Numbers, rows: int) -> bool:
    """Whether whole numbers count the rows, as an index does."""
    steps = np.diff(numbers)
    return len(numbers) == rows > 2 and bool((steps == 1).all())


def robust(numbers: NDArray[np.float64]) -> tuple[float, float]:
    """Median, and the interquartile range as a standard deviation; that itself where it is 0."""
    first, middle, third = np.quantile(numbers, (0.25, 0.5, 0.75))
    width = (third - first) / 1.349
    return float(middle), float(width if width > 0 else numbers.std())


def skewness(numbers: NDArray[np.float64]) -> float:
    """The third standardised moment; 0 of a constant."""
    spread = float(numbers.std())
    return float((((numbers - numbers.mean()) / spread) ** 3).mean()) if spread > 0 else 0.0
