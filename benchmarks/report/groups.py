"""Rows of one setting under several seeds, and their values beside the published ones."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import mean, stdev

from priorzoo.benchmarks.papers import paper as catalogue
from priorzoo.benchmarks.papers.paper import BUDGETS, Line, Measure, Paper
from priorzoo.benchmarks.rows.files import Row

LENGTHS = {"steps", "epochs", "every", "curve"}  # the table has the steps
# Of runs that no paper names.
SHOWN = (
    catalogue.NEGATIVE,
    catalogue.PSEUDO,
    catalogue.MAJORITY,
    catalogue.HUNGARIAN,
    catalogue.NMI,
)


@dataclass(frozen=True)
class Group:
    """Rows of one line and one length that differ in their seed alone; none for a line not run.

    Args:
        line: of a paper's table.
        rows: in the order of their seeds.
        settings: in which the rows differ from the line, such as ``optimiser.eps=1e-08``.
        other: whether these settings make the rows another experiment than the line's.
    """

    line: Line
    rows: tuple[Row, ...] = ()
    settings: str = ""
    other: bool = False

    @property
    def name(self) -> str:
        """Of the line, and in brackets what differs."""
        return f"{self.line.title} ({self.settings})" if self.settings else self.line.title

    @property
    def steps(self) -> int:
        """0 for no rows."""
        return int(self.rows[0]["steps"]) if self.rows else 0

    @property
    def shown(self) -> dict[str, Measure]:
        """The measures, by title, that are published or that the rows have."""
        return {m.title: m for m in self.line.measures if m.published is not None or self.values(m)}

    def values(self, measure: Measure) -> list[float]:
        """One for each row that has the measure."""
        return [value for row in self.rows if (value := measure.of(row)) is not None]

    def verdict(self, measure: Measure) -> str:
        """``met``, ``within the spread``, ``short by X`` or ``not comparable: why``.

        Within the spread is a mean that misses the published value by no more than our standard
        deviation over the seeds or the published one. Empty without a value on both sides.
        """
        values = self.values(measure)
        if measure.published is None or not values:
            return ""
        published = measure.published_at(self.steps)
        why = "other settings" if self.other else measure.incomparable
        if why or published is None:
            return f"not comparable: {why or f'nothing published at {self.steps:,} steps'}"
        gap = (published - mean(values)) * (1 if measure.higher else -1)
        if not math.isfinite(gap):
            return "short by any measure: not finite"
        rounding = 1e-9 * abs(published)
        if gap <= rounding:
            return "met"
        if gap <= max(measure.spread or 0.0, deviation(values)) + rounding:
            return "within the spread"
        text = f"{gap:.{measure.digits}f}"
        return f"short by {text if float(text) else f'{gap:.1g}'}"


def is_run(row: Row) -> bool:
    """Whether a row is the result of a run; rows of measurements are of a ``kind``."""
    return "metrics" in row and "kind" not in row


def group_rows(papers: Sequence[Paper], rows: Sequence[Row]) -> dict[str, list[Group]]:
    """The groups of each paper, by its name, and those of recipes that no paper names, ``other``.

    A paper's groups are those of its lines and then, in the first paper that has their recipe,
    those of other settings. Of two rows of one seed the last counts.
    """
    lines = [line for paper in papers for line in paper.lines]
    strays = [row for row in rows if not any(line.fits(row) for line in lines)]
    found = {}
    for paper in papers:
        groups = []
        for line in paper.lines:
            parts = _parts(row for row in rows if line.fits(row))
            groups += [Group(line, part, _precision(part[0])) for part in parts] or [Group(line)]
        recipes = {line.recipe for line in paper.lines}
        for part in _parts(row for row in strays if row["recipe"] in recipes):
            line = _nearest(paper, part[0])
            groups.append(Group(line, part, settings_of(part[0], line), other=True))
        strays = [row for row in strays if row["recipe"] not in recipes]
        found[paper.name] = groups
    found["other"] = []
    for part in _parts(strays):
        line = Line(part[0]["recipe"], part[0]["recipe"], {}, measures=SHOWN)
        found["other"].append(Group(line, part, settings_of(part[0], line)))
    return found


def _nearest(paper: Paper, row: Row) -> Line:
    """The line of the row's recipe with the most of its settings; else one with the recipe's."""
    lines = [line for line in paper.lines if line.recipe == row["recipe"]]
    bare = replace(lines[0], title=row["recipe"], changes={})
    near = [line for line in lines if line.changes.items() <= row["changes"].items()]
    return max(near, key=lambda line: len(line.changes), default=bare)


def _precision(row: Row) -> str:
    """The precision of the networks where it is not the recipe's."""
    return f"precision={row['changes']['precision']}" if "precision" in row["changes"] else ""


def settings_of(row: Row, line: Line | None = None) -> str:
    """What a row changes beside its line, but for lengths, as options."""
    known = LENGTHS if line is None else LENGTHS | line.changes.keys()
    changes = [(name, v) for name, v in sorted(row["changes"].items()) if name not in known]
    return ", ".join(f"{name}={v if isinstance(v, str) else json.dumps(v)}" for name, v in changes)


def _parts(rows: Iterable[Row]) -> list[tuple[Row, ...]]:
    """Rows that differ in their seed alone together, the shortest budgets and runs first."""
    parts: dict[tuple[str, str, int, str, int, str], dict[int, Row]] = {}
    for row in rows:
        budget = row["budget"]
        place = [*BUDGETS, budget].index(budget)
        key = (row["recipe"], settings_of(row), place, budget, row["steps"], row["cell"])
        parts.setdefault(key, {})[row["seed"]] = row
    return [tuple(parts[key][seed] for seed in sorted(parts[key])) for key in sorted(parts)]


def deviation(values: Sequence[float]) -> float:
    """Standard deviation; 0 for one value, NaN if any is not finite."""
    if not all(map(math.isfinite, values)):
        return math.nan
    return stdev(values) if len(values) > 1 else 0.0
