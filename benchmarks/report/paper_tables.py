"""The tables of the papers: a row for each line and length, ours beside the published values."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from statistics import mean

from priorzoo.benchmarks.papers.paper import Measure, metric
from priorzoo.benchmarks.report.groups import Group
from priorzoo.benchmarks.report.table import NONE, Cell, Table, build, number, span, spread


def _used(group: Group) -> Cell:
    found = group.values(metric("used_clusters", "used K"))
    return Cell(span(found)) if found else Cell()


def _steps(group: Group) -> Cell:
    return number(group.steps, ",") if group.rows else Cell()


def _seeds(group: Group) -> Cell:
    seeds = ", ".join(str(row["seed"]) for row in group.rows)
    return Cell(str(len(group.rows)), len(group.rows), note=seeds) if group.rows else Cell()


def _seconds(group: Group) -> Cell:
    taken = [row["seconds"] for row in group.rows if row.get("seconds") is not None]
    return number(mean(taken)) if taken else Cell()


def _said(group: Group, name: str) -> Cell:
    return Cell(", ".join(sorted({str(row[name]) for row in group.rows} - {""})) or NONE)


ORIGIN: Mapping[str, Callable[[Group], Cell]] = {
    "used K": _used,
    "steps": _steps,
    "seeds": _seeds,
    "seconds": _seconds,
    **{name: partial(_said, name=name) for name in ("budget", "device")},
}


def paper_tables(groups: Sequence[Group]) -> list[Table]:
    """Ours beside published; groups that have no measure in common stand in different tables."""
    parts: list[tuple[set[str], list[Group]]] = []
    for group in groups:
        titles = set(group.shown)
        alike = [part for part in parts if titles & part[0] or not titles] or [(set(), [])]
        alike[0][0].update(titles)
        alike[0][1].append(group)
        parts += [alike[0]] if alike[0] not in parts else []
    return [paper_table(part) for _, part in parts]


def paper_table(groups: Sequence[Group]) -> Table:
    """Ours beside published, a row for each group."""
    measured = {title: partial(_measure, title=title) for group in groups for title in group.shown}
    origin = {k: cell for k, cell in ORIGIN.items() if any(cell(g) != Cell() for g in groups)}
    protocols: dict[str, dict[str, None]] = {}
    for measure in (m for group in groups if not group.other for m in group.line.measures):
        if measure.published is not None and measure.protocol:
            protocols.setdefault(measure.protocol, {})[measure.title] = None
    notes = (f"Published {'; '.join(titles)}: {how}." for how, titles in protocols.items())
    return build(groups, {"line": line_cell, **measured, **origin}, tuple(notes))


def line_cell(group: Group) -> Cell:
    """The line, what differs from it, and the commands."""
    commands = tuple(dict.fromkeys(row["command"] for row in group.rows))
    verdict = "" if group.rows else "no rows yet"
    return Cell(group.line.title, verdict=verdict, note=group.settings, commands=commands)


def _measure(group: Group, title: str) -> Cell:
    """Ours, the published value and the verdict."""
    measure = group.shown.get(title)
    if measure is None:
        return Cell()
    values, lacking = group.values(measure), Cell("not measured" if group.rows else NONE)
    ours = spread(values, measure.digits) if values else lacking
    few = f"of {len(values)} seeds" if 0 < len(values) < len(group.rows) else ""
    published, verdict = _published(group, measure), group.verdict(measure)
    return replace(ours, published=published, verdict=verdict, note=few)


def _published(group: Group, measure: Measure) -> str:
    """At the steps of the group; of a group without rows, at all steps."""
    published, digits = measure.published, measure.digits
    if published is None or group.other:
        return ""
    if (value := measure.published_at(group.steps)) is not None:
        around = "" if measure.spread is None else f" ± {measure.spread:.{digits}f}"
        return f"{value:.{digits}f}{around}"
    if group.rows or not isinstance(published, Mapping):
        return ""
    return "; ".join(f"{value:.{digits}f} at {steps:,}" for steps, value in published.items())
