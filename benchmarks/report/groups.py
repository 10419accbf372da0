"""Rows of one setting together, and what they are worth beside the published figures."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import mean, stdev
from typing import Any

from priorzoo.benchmarks.papers.paper import BUDGETS, Line, Measure, Paper
from priorzoo.benchmarks.rows.files import Row

OTHER = "other settings"
SHOWN = (  # of runs that no paper names, where a row has it
    Measure("-ELBO, nats", ("terms", "elbo"), higher=False, sign=-1, digits=2),
    Measure("majority accuracy", ("metrics", "accuracy_majority")),
    Measure("one-to-one accuracy", ("metrics", "accuracy_hungarian")),
    Measure("NMI", ("metrics", "nmi")),
)


@dataclass(frozen=True)
class Group:
    """Rows of a line that differ in nothing but their seed; none for a line without rows.

    ``other`` says that they are of the line's recipe but not of its settings.
    """

    line: Line
    rows: tuple[Row, ...] = ()
    other: bool = False

    @property
    def steps(self) -> int:
        """0 for no rows."""
        return int(self.rows[0]["steps"]) if self.rows else 0

    def values(self, measure: Measure) -> list[float]:
        """What the rows have, fewer than rows where it is not in all of them."""
        return [value for row in self.rows if (value := measure.of(row)) is not None]

    def verdict(self, measure: Measure) -> str:
        """``met``, ``short by X`` or ``not comparable: why``; empty without two figures."""
        values = self.values(measure)
        if measure.published is None or not values:
            return ""
        published = measure.published_at(self.steps)
        why = OTHER if self.other else measure.incomparable
        if not why and published is None:
            why = f"no figure published at {self.steps:,} steps"
        if why or published is None:
            return f"not comparable: {why}"
        gap = (published - mean(values)) * (1 if measure.higher else -1)
        if not math.isfinite(gap):
            return "short by any measure: not finite"
        if gap <= (measure.spread or 0.0) + 1e-9 * abs(published):
            return "met"
        text = f"{gap:.{measure.digits}f}"
        return f"short by {text if float(text) else f'{gap:.1g}'}"


def group_rows(papers: Sequence[Paper], rows: Iterable[Row]) -> dict[str, list[Group]]:
    """For the name of each paper the groups of its lines, then those of other settings.

    Rows of a recipe that no paper names are the groups of the name ``other``. Of two rows of one
    seed the last counts.
    """
    rows = list(rows)
    lines = [line for paper in papers for line in paper.lines]
    strays = [row for row in rows if not any(line.fits(row) for line in lines)]
    found = {paper.name: _paper_groups(paper, rows, strays) for paper in papers}
    recipes = {line.recipe for line in lines}
    found["other"] = _stray_groups([row for row in strays if row["recipe"] not in recipes], SHOWN)
    return found


def _paper_groups(paper: Paper, rows: Sequence[Row], strays: Sequence[Row]) -> list[Group]:
    groups = []
    for line in paper.lines:
        parts = _split([row for row in rows if line.fits(row)])
        groups += [Group(_titled(line, part[0]), part) for part in parts] or [Group(line)]
    for recipe in dict.fromkeys(line.recipe for line in paper.lines):
        known = [m for line in paper.lines if line.recipe == recipe for m in line.measures]
        measures = tuple({measure.title: measure for measure in known}.values())
        groups += _stray_groups([r for r in strays if r["recipe"] == recipe], measures, other=True)
    return groups


def _titled(line: Line, row: Row) -> Line:
    """The line, with the precision of its networks where that is not the recipe's."""
    precision = row["changes"].get("precision")
    return line if precision is None else replace(line, title=f"{line.title}, {precision}")


def _stray_groups(
    rows: Sequence[Row], measures: tuple[Measure, ...], other: bool = False
) -> list[Group]:
    named: dict[str, list[Row]] = {}
    for row in rows:
        changes = (f"{name} {value}" for name, value in sorted(row["changes"].items()))
        named.setdefault(", ".join([row["recipe"], *changes]), []).append(row)
    return [
        Group(Line(title, part[0]["recipe"], {}, part[0]["changes"], measures), part, other)
        for title, mine in named.items()
        for part in _split(mine)
    ]


def _split(rows: Sequence[Row]) -> list[tuple[Row, ...]]:
    """Rows by budget, steps and cell, each part in the order of its seeds."""
    parts: dict[tuple[Any, ...], dict[int, Row]] = {}
    for row in rows:
        key = (rank(row["budget"]), row["budget"], row["steps"], row["cell"])
        parts.setdefault(key, {})[row["seed"]] = row
    return [tuple(parts[key][seed] for seed in sorted(parts[key])) for key in sorted(parts)]


def rank(budget: str) -> int:
    """From the shortest to the longest, then what is none."""
    return BUDGETS.index(budget) if budget in BUDGETS else len(BUDGETS)


def deviation(values: Sequence[float]) -> float:
    """Standard deviation; 0 for one value, NaN if any is not finite."""
    if not all(map(math.isfinite, values)):
        return math.nan
    return stdev(values) if len(values) > 1 else 0.0
