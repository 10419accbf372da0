"""Tables of results beside the published figures, for :mod:`priorzoo.benchmarks.report.page`."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from priorzoo.benchmarks.papers.paper import Measure
from priorzoo.benchmarks.report.groups import Group, deviation, rank
from priorzoo.benchmarks.report.tables import spread
from priorzoo.benchmarks.rows.files import Row

NONE = "–"


@dataclass(frozen=True)
class Cell:
    """A cell of a table: ``value`` orders it, ``note`` and ``verdict`` stand below."""

    text: str = NONE
    value: float | None = None
    note: str = ""
    verdict: str = ""


@dataclass(frozen=True)
class Table:
    """A head and rows of as many cells."""

    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


def paper_table(groups: Sequence[Group]) -> Table:
    """Ours beside published, a row for each group."""
    titles, compared = _titles(groups)
    both = [(title, f"{title}, published") for title in titles]
    heads = [name for pair in both for name in pair if name in titles or name in compared]
    clustered = any(_used(group).value is not None for group in groups)
    rows = []
    for group in groups:
        measured = {measure.title: measure for measure in group.line.measures}
        cells = [Cell(group.line.title), *_origin(group)]
        for title in titles:
            measure = measured.get(title)
            cells.append(Cell() if measure is None else _ours(group, measure))
            if f"{title}, published" in compared:
                cells.append(Cell() if measure is None else _published(group, measure))
        cells += [_used(group)] * clustered
        rows.append((*cells, _seconds(group), Cell(_all(group, "device"))))
    used = ["used K"] * clustered
    return Table(
        ("line", "budget", "steps", "seeds", *heads, *used, "seconds", "device"), tuple(rows)
    )


def _titles(groups: Sequence[Group]) -> tuple[dict[str, None], set[str]]:
    """Measures that are published or were taken, and the heads of the published ones."""
    pairs = [(group, measure) for group in groups for measure in group.line.measures]
    published = {m.title for group, m in pairs if m.published is not None}
    taken = {m.title for group, m in pairs if group.values(m)}
    titles = {m.title: None for _, m in pairs if m.title in published | taken}
    return titles, {f"{title}, published" for title in published}


def _origin(group: Group) -> list[Cell]:
    """Budget, steps and seeds."""
    if not group.rows:
        return [Cell("no rows yet"), Cell(), Cell("0", 0)]
    budget = group.rows[0]["budget"]
    seeds = ", ".join(str(row["seed"]) for row in group.rows)
    return [
        Cell(budget or NONE, rank(budget)),
        Cell(f"{group.steps:,}", group.steps),
        Cell(str(len(group.rows)), len(group.rows), seeds),
    ]


def _ours(group: Group, measure: Measure) -> Cell:
    values = group.values(measure)
    if not values:
        return Cell("not measured" if group.rows else NONE)
    verdict = group.verdict(measure)
    wild = sum(not math.isfinite(value) for value in values)
    if wild:
        return Cell(f"not finite in {wild} of {len(values)}", verdict=verdict)
    few = "" if len(values) == len(group.rows) else f"of {len(values)} seeds"
    return Cell(spread(values, measure.digits), mean(values), few, verdict)


def _published(group: Group, measure: Measure) -> Cell:
    """At the steps of the group; of a group without rows, at all steps."""
    published, digits = measure.published, measure.digits
    if published is None or group.other:
        return Cell()
    figure = measure.published_at(group.steps)
    if figure is not None:
        around = "" if measure.spread is None else f" ± {measure.spread:.{digits}f}"
        return Cell(f"{figure:.{digits}f}{around}", figure, measure.protocol)
    assert isinstance(published, Mapping)
    every = (f"{value:.{digits}f} at {steps:,}" for steps, value in published.items())
    return Cell("; ".join(every), None, measure.protocol)


def _used(group: Group) -> Cell:
    used = [row["metrics"]["used_clusters"] for row in group.rows if _clustered(row)]
    if not used:
        return Cell()
    low, high = int(min(used)), int(max(used))
    return Cell(str(low) if low == high else f"{low} to {high}", mean(used))


def _clustered(row: Row) -> bool:
    return row["metrics"].get("used_clusters") is not None


def _seconds(group: Group) -> Cell:
    taken = [row["seconds"] for row in group.rows if row.get("seconds") is not None]
    return Cell(f"{mean(taken):,.0f}", mean(taken)) if taken else Cell()


def _all(group: Group, name: str) -> str:
    return ", ".join(sorted({str(row[name]) for row in group.rows} - {""})) or NONE


def paper_records(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """The same for a CSV: a record for each group, figures in full."""
    return [_record(group) for group in groups]


def _record(group: Group) -> dict[str, Any]:
    first: Row = group.rows[0] if group.rows else {}
    record = {
        "line": group.line.title,
        "recipe": group.line.recipe,
        "changes": " ".join(f"{name}={value}" for name, value in group.line.changes.items()),
        "budget": first.get("budget", ""),
        "steps": first.get("steps", ""),
        "cell": first.get("cell", ""),
        "seeds": " ".join(str(row["seed"]) for row in group.rows),
    }
    for measure in group.line.measures:
        values, title = group.values(measure), measure.title
        record |= {
            title: mean(values) if values else "",
            f"{title}: sd": deviation(values) if len(values) > 1 else "",
        }
        if measure.published is not None and not group.other:
            record |= {
                f"{title}: published": measure.published_at(group.steps),
                f"{title}: protocol": measure.protocol,
            }
        record |= {f"{title}: verdict": verdict} if (verdict := group.verdict(measure)) else {}
    used, seconds = _used(group), _seconds(group)
    return record | {
        "used K": used.text if used.value is not None else "",
        "seconds": "" if seconds.value is None else seconds.value,
        "device": "" if not group.rows else _all(group, "device"),
        "command": first.get("command", ""),
    }
