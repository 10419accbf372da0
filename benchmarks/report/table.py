"""A table of cells, and the one way to write it as Markdown or CSV; the page draws it as HTML."""

import csv
import io
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from statistics import mean, stdev
from typing import TypeVar

from priorzoo.benchmarks.rows.spreadsheets import inert

T = TypeVar("T")

NONE = "–"
SHARED = ("steps", "seeds", "budget", "device", "at once", "draws")  # said once if always the same


@dataclass(frozen=True)
class Cell:
    """What stands in one row of one column.

    Args:
        text: of the cell.
        value: by which the page orders rows; the CSV has it in full.
        deviation: standard deviation over the seeds.
        published: the published value, in words.
        verdict: of ours beside it.
        note: small print.
        code: whether the text is something to type.
        commands: those that make the row, in its first cell.
    """

    text: str = NONE
    value: float | None = None
    deviation: float | None = None
    published: str = ""
    verdict: str = ""
    note: str = ""
    code: bool = False
    commands: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Text and note, for a list of rows."""
        return f"{self.text} ({self.note})" if self.note else self.text


@dataclass(frozen=True)
class Table:
    """A head, rows of as many cells, notes that hold for all of them, and a caption."""

    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    caption: str = ""

    def condensed(self) -> "Table":
        """Without columns such as the budget where all rows agree; a note then says it once."""
        said = {name: {row[i] for row in self.rows} - {Cell()} for i, name in enumerate(self.head)}
        same = {name: said[name] for name in said if name in SHARED and len(said[name]) <= 1}
        kept = [name not in same for name in self.head]
        shared = ", ".join(f"{name} {cell.name}" for name in same for cell in same[name])
        rows = tuple(tuple(compress(row, kept)) for row in self.rows)
        notes = (f"In every row: {shared}.", *self.notes) if shared else self.notes
        return Table(tuple(compress(self.head, kept)), rows, notes, self.caption)


def build(
    items: Iterable[T],
    columns: Mapping[str, Callable[[T], Cell]],
    notes: tuple[str, ...] = (),
    caption: str = "",
) -> Table:
    """A row for each item, a column for each function."""
    rows = tuple(tuple(cell(item) for cell in columns.values()) for item in items)
    return Table(tuple(columns), rows, notes, caption)


def number(value: float, form: str = ",.0f") -> Cell:
    """A number, written in a format such as ``.3f``."""
    return Cell(f"{value:{form}}", value)


def spread(values: Sequence[float], digits: int) -> Cell:
    """Mean, and standard deviation where there are several values; values not finite are counted.

    >>> spread([1.0, 2.0], 2).text
    '1.50 ± 0.71'
    """
    if wild := sum(not math.isfinite(value) for value in values):
        return Cell(f"not finite in {wild} of {len(values)}")
    middle = f"{mean(values):.{digits}f}"
    if len(values) == 1:
        return Cell(middle, values[0])
    around = stdev(values)
    return Cell(f"{middle} ± {around:.{digits}f}", mean(values), around)


def span(values: Sequence[float]) -> str:
    """Whole numbers from the least to the greatest.

    >>> span([9.0, 11.0]), span([9.0])
    ('9 to 11', '9')
    """
    low, high = int(min(values)), int(max(values))
    return str(low) if low == high else f"{low} to {high}"


def to_markdown(table: Table) -> str:
    """The table as a Markdown table, its caption above and its notes below."""
    caption = f"{escaped(table.caption)}\n\n" if table.caption else ""
    rows = [caption, _joined(map(escaped, table.head)), "|---" * len(table.head) + "|\n"]
    rows += [_joined(map(_words, row)) for row in table.rows]
    return "".join([*rows, *(f"\n{escaped(note)}\n" for note in table.notes)])


def to_csv(table: Table) -> str:
    """Values in full; what else a cell says stands in columns of its own, such as ``NMI: sd``."""
    records: list[dict[str, object]] = []
    for row in table.rows:
        record: dict[str, object] = {}
        for name, cell in zip(table.head, row, strict=True):
            text = "" if cell.text == NONE else cell.text
            record[name] = text if cell.value is None else cell.value
            more = {"published": cell.published, "verdict": cell.verdict, "note": cell.note}
            told = more | {"sd": "" if cell.deviation is None else cell.deviation}
            record |= {f"{name}: {key}": value for key, value in told.items() if value != ""}
        records.append(record | {"command": "; ".join(row[0].commands)})
    file = io.StringIO()
    names = list(dict.fromkeys(name for record in records for name in record))
    writer = csv.DictWriter(
        file, names, restval="", lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC
    )
    writer.writerow({name: inert(name) for name in names})
    writer.writerows({name: inert(v) for name, v in record.items()} for record in records)
    return file.getvalue()


def _joined(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


def _words(cell: Cell) -> str:
    if cell.code and not re.search(r"[`\r\n]", cell.text):
        return f"`{cell.text.replace('|', chr(0xA6))}`"  # a bar would end the cell
    published = f"published {cell.published}" if cell.published else ""
    more = "; ".join(text for text in (published, cell.note, cell.verdict) if text)
    return escaped(f"{cell.text} ({more})" if more else cell.text)


def escaped(text: str) -> str:
    """Text in which no character is Markdown's."""
    return re.sub(r"([\\`*\[\]|<])", r"\\\1", " ".join(text.split()))
