"""The tables of the papers: a row for each line and length, ours beside the published values."""

from collections.abc import Callable, Mapping, Sequence
from statistics import mean

from priorzoo.benchmarks.papers.paper import Measure
from priorzoo.benchmarks.report.groups import Group
from priorzoo.benchmarks.report.table import Cell, Table, build, number, span, spread

ORIGIN: Mapping[str, Callable[[Group], Cell]] = {
    "used K": lambda group: _used(group),
    "steps": lambda group: number(group.steps, ",") if group.rows else Cell(),
    "seeds": lambda group: _seeds(group),
    "seconds": lambda group: _seconds(group),
    "budget": lambda group: _said(group, "budget"),
    "device": lambda group: _said(group, "device"),
}


def paper_tables(groups: Sequence[Group]) -> list[Table]:
    """Ours beside published; groups that have no measure in common stand in different tables."""
    parts: list[tuple[set[str], list[Group]]] = []
    for group in groups:
        measures = group.line.measures
        titles = {m.title for m in measures if m.published is not None or group.values(m)}
        alike = [part for part in parts if titles & part[0] or not titles] or [(set(), [])]
        alike[0][0].update(titles)
        alike[0][1].append(group)
        parts += [alike[0]] if alike[0] not in parts else []
    return [paper_table(part) for _, part in parts]


def paper_table(groups: Sequence[Group]) -> Table:
    """Ours beside published, a row for each group."""
    pairs = [(group, m) for group in groups for m in group.line.measures]
    shown = {m.title: m for group, m in pairs if m.published is not None or group.values(m)}
    protocols = {title: _protocols(groups, title) for title in shown}
    once = {title: texts.pop() for title, texts in protocols.items() if len(texts) == 1}
    columns: dict[str, Callable[[Group], Cell]] = {"line": line_cell}
    for title in shown:
        columns[title] = lambda group, title=title: _measure(group, title, title not in once)
    origin = {k: cell for k, cell in ORIGIN.items() if any(cell(g) != Cell() for g in groups)}
    notes = {text: [t for t in once if once[t] == text] for text in once.values() if text}
    told = (f"Published {' and '.join(titles)}: {text}." for text, titles in notes.items())
    return build(groups, columns | origin, tuple(told))


def _protocols(groups: Sequence[Group], title: str) -> set[str]:
    """How the published values of a column were taken."""
    measures = (_named(group, title) for group in groups if not group.other)
    return {m.protocol for m in measures if m is not None and m.published is not None}


def _named(group: Group, title: str) -> Measure | None:
    return next((m for m in group.line.measures if m.title == title), None)


def line_cell(group: Group) -> Cell:
    """The line, what differs from it, and the commands."""
    commands = tuple(dict.fromkeys(row["command"] for row in group.rows))
    verdict = "" if group.rows else "no rows yet"
    return Cell(group.line.title, verdict=verdict, note=group.settings, commands=commands)


def _measure(group: Group, title: str, protocol: bool) -> Cell:
    """Ours and the published value; with the protocol where the column has several."""
    measure = _named(group, title)
    if measure is None:
        return Cell()
    values, published = group.values(measure), _published(group, measure)
    ours = spread(values, measure.digits) if values else Cell("not measured" * bool(group.rows))
    few = f"of {len(values)} seeds" if 0 < len(values) < len(group.rows) else ""
    notes = (few, measure.protocol if protocol and published else "")
    return Cell(
        ours.text or Cell().text,
        ours.value,
        ours.deviation,
        published,
        group.verdict(measure),
        ", ".join(filter(None, notes)),
    )


def _published(group: Group, measure: Measure) -> str:
    """At the steps of the group; of a group without rows, at all steps."""
    published, digits = measure.published, measure.digits
    if published is None or group.other:
        return ""
    value = measure.published_at(group.steps)
    if value is not None:
        around = "" if measure.spread is None else f" ± {measure.spread:.{digits}f}"
        return f"{value:.{digits}f}{around}"
    if group.rows or not isinstance(published, Mapping):
        return ""
    return "; ".join(f"{value:.{digits}f} at {steps:,}" for steps, value in published.items())


def _used(group: Group) -> Cell:
    used = [row["metrics"].get("used_clusters") for row in group.rows]
    found = [clusters for clusters in used if clusters is not None]
    return Cell(span(found)) if found else Cell()


def _seeds(group: Group) -> Cell:
    seeds = ", ".join(str(row["seed"]) for row in group.rows)
    return Cell(str(len(group.rows)), len(group.rows), note=seeds) if group.rows else Cell()


def _seconds(group: Group) -> Cell:
    taken = [row["seconds"] for row in group.rows if row.get("seconds") is not None]
    return number(mean(taken)) if taken else Cell()


def _said(group: Group, name: str) -> Cell:
    words = sorted({str(row[name]) for row in group.rows} - {""})
    return Cell(", ".join(words)) if words else Cell()
