"""Tables of what is no result of training: speed, gradient estimators and failures."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from priorzoo.benchmarks.report.paper_tables import NONE, Cell, Table
from priorzoo.benchmarks.rows.files import Row
from priorzoo.benchmarks.speed.report import speed_table

GRADIENT = {"gradient": "exact gradient", "estimate": "estimate", "variance": "variance"}
LONG = {
    "steps": "steps taken",
    "seconds": "seconds",
    "full_steps": "full length, steps",
    "extrapolated_seconds": "seconds for all of it",
}
FAILURE = ("recipe", "changes", "seed", "error")


def failure_table(rows: Iterable[Row]) -> Table:
    """Runs that gave no result."""
    lines = [tuple(Cell(_words(row.get(name))) for name in FAILURE) for row in rows]
    return Table(FAILURE, tuple(lines))


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {setting}" for name, setting in value.items()) or NONE
    return NONE if value is None else str(value)


def gradient_table(rows: Iterable[Row]) -> Table:
    """Gradient estimators beside the exact gradient."""
    lines = [
        (
            Cell(row["expectation"]),
            Cell(row["estimator"]),
            *(Cell(f"{row[name]:.4g}", row[name]) for name in GRADIENT),
            Cell(f"{row['draws']:,}", row["draws"]),
        )
        for row in rows
    ]
    return Table(("expectation", "estimator", *GRADIENT.values(), "draws"), tuple(lines))


def step_table(rows: Iterable[Row]) -> Table:
    """:func:`speed_table` in cells, each ordered by the number that it begins with, if it does."""
    plain = [{name: _barred(value) for name, value in row.items()} for row in rows]
    head, _, *lines = (
        line.removeprefix("| ").removesuffix(" |").split(" | ")
        for line in speed_table(plain).splitlines()
    )
    return Table(tuple(head), tuple(tuple(map(_number, line)) for line in lines))


def _barred(value: Any) -> Any:
    """With a look-alike for the bar, which would begin a cell."""
    return value.replace("|", "\N{BROKEN BAR}") if isinstance(value, str) else value


def _number(text: str) -> Cell:
    found = re.match(r"-?\d[\d,]*(\.\d+)?(?=$| \()", text)
    return Cell(text, float(found.group().replace(",", "")) if found else None)


def long_table(rows: Iterable[Row]) -> Table:
    """Whole trainings against the clock."""
    lines = [
        (
            Cell(f"{row['recipe']}{', bf16' * (row.get('precision') == 'bf16')}"),
            Cell(str(row["arm"])),
            Cell(str(row["replicas"]), row["replicas"]),
            *(Cell(f"{row[name]:,.0f}", row[name]) for name in LONG),
            Cell(f"{row['device']}, {row['threads']} threads"),
        )
        for row in rows
    ]
    return Table(("recipe", "arm", "at once", *LONG.values(), "device"), tuple(lines))
