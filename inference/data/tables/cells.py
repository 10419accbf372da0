"""Columns as they were read, before anything is known of their meaning: numbers or text."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import cast

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Texts = NDArray[np.object_]

EXACT = 2**53  # above which float64 does not hold all whole numbers
LONG = 60  # characters of a cell in a message
NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
DATE = re.compile(
    r"\d{4}[-/]\d\d?[-/]\d\d?(?:[ T]\d\d:\d\d.*)?"  # 2026-03-31, also with a time
    r"|\d\d?[/.-]\d\d?[/.-]\d{4}(?: \d\d?:\d\d.*)?|\d\d?:\d\d(?::\d\d(?:\.\d+)?)?"
)
# As spreadsheets show numbers: 1,234.50 and 1.234,50 and 51,26 and $10 and 5 % and a minus sign
DECORATED = re.compile(r"[$€£¥]?\s?[+\u2212-]?\d+(?:[,.' ]\d{3})*(?:[.,]\d+)?\s?[%$€£¥]?")
# As pandas and Arrow read them, and the question mark of the UCI repository.
MISSING = ("", "?", "#N/A", "N/A", "n/a", "NA", "<NA>", "NaN", "nan", "NULL", "null", "None", "NaT")


@dataclass(frozen=True, eq=False)
class Cells:
    """One column of N cells.

    Args:
        name: of the column.
        numbers: ``(N,)`` with NaN for a missing cell; None of text.
        texts: ``(N,)`` with None for a missing cell; None of numbers.
        dates: whether the text is dates.
        boolean: whether the numbers were true and false.
        categories: whether the text was declared as categories, even if it looks like numbers.
        levels: the order of such categories, where it was declared too; empty without.
    """

    name: str
    numbers: Numbers | None = None
    texts: Texts | None = None
    dates: bool = False
    boolean: bool = False
    categories: bool = False
    levels: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.present)

    @property
    def present(self) -> NDArray[np.bool_]:
        """``(N,)``: which cells are not missing."""
        if self.numbers is not None:
            return ~np.isnan(self.numbers)
        assert self.texts is not None
        return np.array([text is not None for text in self.texts], dtype=bool)

    def as_texts(self) -> Texts:
        """``(N,)``: each cell as text, None where it is missing; whole numbers without a point."""
        if self.texts is not None:
            return self.texts
        assert self.numbers is not None
        made = [None if np.isnan(number) else shown(number) for number in self.numbers]
        return np.array(made, dtype=object)

    def take(self, rows: NDArray[np.intp]) -> "Cells":
        """The cells of some rows."""
        numbers = None if self.numbers is None else self.numbers[rows]
        texts = None if self.texts is None else self.texts[rows]
        return replace(self, numbers=numbers, texts=texts)


@dataclass(frozen=True, eq=False)
class Frame:
    """Columns of N rows, by name.

    Args:
        columns: by name, in the order in which they were read.
        rows: N.
        named: whether the names are the user's and not made from positions.
        source: what the rows were read from, for messages.
    """

    columns: Mapping[str, Cells]
    rows: int
    named: bool = True
    source: str = "the table"

    @classmethod
    def of(cls, columns: Sequence[Cells], named: bool = True, source: str = "the table") -> "Frame":
        """A frame of columns.

        Raises:
            ValueError: without rows or columns, and for a name that two columns have.
        """
        names = [column.name for column in columns]
        if twice := next((name for name in names if names.count(name) > 1), None):
            places = ", ".join(str(i) for i, name in enumerate(names) if name == twice)
            raise ValueError(
                f"Expected columns of different names in {source} but got {twice!r} at positions "
                f"{places}; rename all but one."
            )
        rows = len(columns[0]) if columns else 0
        if rows == 0:
            raise ValueError(
                f"Expected at least one row and column in {source} but got {rows} rows and "
                f"{len(columns)} columns; check the file or the selection."
            )
        return cls(dict(zip(names, columns, strict=True)), rows, named, source)

    def take(self, rows: NDArray[np.intp]) -> "Frame":
        """The frame of some rows."""
        kept = {name: cells.take(rows) for name, cells in self.columns.items()}
        return Frame(kept, len(rows), self.named, self.source)


def cell(value: object) -> str:
    """A cell as messages show it: in quotes, and shortened."""
    text = repr(value)
    return text if len(text) <= LONG else f"{text[: LONG - 4]}...{text[-1]}"


def option(name: str, kind: str) -> str:
    """What the user says of a column by ``--columns``, in quotes where it needs them."""
    said = f"{repr(name)[1:-1]}={kind}"
    return f'"{said}"' if "," in said or " " in said else said


def shown(number: float) -> str:
    """A number as it is written in a file: 3 and not 3.0."""
    return str(int(number)) if float(number).is_integer() else repr(float(number))


def cells_of(name: str, values: Sequence[object] | NDArray[np.generic], source: str) -> Cells:
    """A column of values of any kind: numbers where all are, dates, or text.

    Raises:
        ValueError: for values that are neither, such as complex numbers.
    """
    array = _column(name, values, source)
    if array.dtype.kind == "b":
        return Cells(name, array.astype(np.float64), boolean=True)
    if array.dtype.kind in "iu" and len(array) and _largest(array) > EXACT:
        return category_cells(name, array.tolist())  # an identifier, whose neighbours it would join
    if array.dtype.kind in "iuf":
        return Cells(name, array.astype(np.float64))
    if array.dtype.kind in "Mm":
        return Cells(name, texts=_texts(array.astype(str).tolist()), dates=True)
    if array.dtype.kind not in "OUST":
        raise ValueError(
            f"Expected numbers or text in column {name!r} of {source} but got {array.dtype}; "
            "convert the column, or leave it out."
        )
    return _of_objects(name, array.tolist())


def category_cells(
    name: str, values: Sequence[object] | NDArray[np.generic], levels: Sequence[object] = ()
) -> Cells:
    """A column of declared categories, whose numbers are names too: 3 is no more than 1.

    Args:
        name: of the column.
        values: ``(N,)``.
        levels: the categories in their order; empty without an order.
    """
    made = _texts([_named(value) for value in values])
    return Cells(name, texts=made, categories=True, levels=tuple(_texts([*map(_named, levels)])))


def _largest(whole: NDArray[np.generic]) -> int:
    return max(abs(int(cast(int, whole.max()))), abs(int(cast(int, whole.min()))))


def _named(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    number = isinstance(value, (int, float, np.number)) and not _is_missing(value)
    return shown(float(cast(float, value))) if number else value


def _column(
    name: str, values: Sequence[object] | NDArray[np.generic], source: str
) -> NDArray[np.generic]:
    """Values as an array ``(N,)``.

    Raises:
        ValueError: for a cell with several values, naming the row.
    """
    if isinstance(values, np.ndarray) and values.dtype.kind != "O" and values.ndim == 1:
        return values
    cells, nested = list(values), (list, tuple, set, dict, np.ndarray)
    row = next((i for i, each in enumerate(cells) if isinstance(each, nested)), None)
    if row is None:
        return np.asarray(values)
    raise ValueError(
        f"Expected one number or text in each cell of column {name!r} of {source} but got "
        f"{cell(cells[row])} in row {row}; give a column for each value, or leave the column out."
    )


def _of_objects(name: str, values: Sequence[object]) -> Cells:
    kinds = {type(value) for value in values if not _is_missing(value)}
    if kinds and kinds <= {bool, np.bool_}:
        made = [np.nan if _is_missing(value) else float(bool(value)) for value in values]
        return Cells(name, np.array(made), boolean=True)
    texts = _texts(values)
    present = [text for text in texts if text is not None]
    dates = bool(kinds) and all(issubclass(kind, date) for kind in kinds)
    if dates or (present and all(map(DATE.fullmatch, present))):
        return Cells(name, texts=texts, dates=True)
    if all(map(is_number, present)):
        made = [np.nan if text is None else float(text) for text in texts]
        return Cells(name, np.array(made, dtype=np.float64))
    return Cells(name, texts=texts)


def is_number(text: str) -> bool:
    """Whether a text is a number with a decimal point, or infinity."""
    return NUMBER.fullmatch(text) is not None or text.lower().lstrip("+-") in ("inf", "infinity")


def _is_missing(value: object) -> bool:
    if isinstance(value, str):
        return value.strip() in MISSING
    # The NA of pandas is neither equal to itself nor different.
    return value is None or str(value) in ("<NA>", "NaT") or bool(value != value)


def _text(value: object) -> str:
    """A value as text; bytes, as older files have them, as UTF-8."""
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return text.strip()


def _texts(values: Sequence[object]) -> Texts:
    made = np.empty(len(values), dtype=object)
    made[:] = [None if _is_missing(value) else _text(value) for value in values]
    return made
