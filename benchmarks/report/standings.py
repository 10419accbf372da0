"""Where the zoo stands: for each task the best published value, and the best of the rows."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from statistics import mean

from priorzoo.benchmarks.papers.paper import Measure, Paper, metric
from priorzoo.benchmarks.papers.tasks import TASKS, Task
from priorzoo.benchmarks.report.groups import Group, deviation, group_rows
from priorzoo.benchmarks.report.table import Cell, Table, build, number, span, spread
from priorzoo.benchmarks.rows.files import Row

LEAST = 3  # seeds from which on a mean counts before any of fewer
USED = metric("used_clusters", "used K")
NOTE = (
    "Ours is the best mean of runs without labels whose every run uses an admitted number of "
    "clusters, of three seeds or more where there are any. Level: the means differ by no more than "
    "a standard deviation, ours or the published one."
)


def standings_table(papers: Sequence[Paper], rows: Sequence[Row]) -> Table:
    """A row for each task: published, ours, and which is ahead."""
    groups = group_rows(papers, [row for row in rows if _counts(row)]).values()
    made = [group for found in groups for group in found if group.rows]
    merged = [*_merged(made)]
    lines = [(task, _best(task, made if task.inferred else made + merged)) for task in TASKS]
    columns = {
        "task": lambda line: Cell(line[0].title),
        "measure": lambda line: Cell(line[0].measure.title),
        "best published": lambda line: _published(*line),
        "by": lambda line: Cell(line[0].by),
        "protocol": lambda line: Cell(line[0].measure.protocol or "the same rows"),
        "ours": lambda line: _ours(*line),
        "by line": lambda line: Cell(line[1].name) if line[1] else Cell(),
        "used K": lambda line: _used(line[1]),
        "steps": lambda line: number(line[1].steps, ",") if line[1] else Cell(),
        "seeds": lambda line: number(len(line[1].rows)) if line[1] else Cell(),
        "where we stand": lambda line: Cell(_standing(*line)),
    }
    return build(lines, columns, (NOTE,))


def _merged(groups: Iterable[Group]) -> Iterator[Group]:
    """The groups of runs whose components were merged to as many as classes, with their metrics."""
    for group in groups:
        if all(row.get("merged") for row in group.rows):
            merged = tuple({**row, "metrics": row["merged"]} for row in group.rows)
            line = replace(group.line, title=f"{group.line.title}, merged")
            yield replace(group, line=line, rows=merged)


def _counts(row: Row) -> bool:
    """Whether a row is of a probabilistic program that was trained without labels."""
    settings = row["settings"]
    return bool(row["terms"]) and not settings.get("labelled") and row["budget"] != "quick"


def _best(task: Task, groups: Iterable[Group]) -> Group | None:
    """The group with the best mean among those of the task."""
    fit = [group for group in groups if _fits(task, group)]
    fit = [group for group in fit if len(group.rows) >= LEAST] or fit
    sign = 1 if task.measure.higher else -1
    return max(fit, key=lambda group: sign * mean(group.values(task.measure)), default=None)


def _fits(task: Task, group: Group) -> bool:
    settings = [row["settings"] for row in group.rows]
    if any(each["data"] != task.data for each in settings):
        return False
    if task.binary and any(each["binarise"] == "none" for each in settings):
        return False
    wanted = (task.measure,) if task.beside is None else (task.measure, task.beside)
    if any(len(group.values(measure)) < len(group.rows) for measure in wanted):
        return False
    if task.clusters is None:
        return True
    used, (least, most) = group.values(USED), task.clusters
    return len(used) == len(group.rows) and all(least <= count <= most for count in used)


def _published(task: Task, group: Group | None) -> Cell:
    if task.beside is not None:
        return _ours_of(task.beside, group)
    value, digits = task.measure.published_at(0), task.measure.digits
    if value is None:
        return Cell()
    around = "" if task.measure.spread is None else f" ± {task.measure.spread:.{digits}f}"
    return Cell(f"{value:.{digits}f}{around}", value)


def _ours(task: Task, group: Group | None) -> Cell:
    return _ours_of(task.measure, group)


def _ours_of(measure: Measure, group: Group | None) -> Cell:
    return Cell("not measured") if group is None else spread(group.values(measure), measure.digits)


def _used(group: Group | None) -> Cell:
    found = [] if group is None else group.values(USED)
    return Cell(span(found)) if found else Cell()


def _standing(task: Task, group: Group | None) -> str:
    """``ahead by``, ``behind by`` or ``level`` within a standard deviation, ours or theirs."""
    theirs = _published(task, group).value
    if group is None or theirs is None:
        return "no rows"
    values = group.values(task.measure)
    gap = (mean(values) - theirs) * (1 if task.measure.higher else -1)
    around = max(task.measure.spread or 0.0, deviation(values))
    if abs(gap) <= around and task.beside is None:
        return "level, within the spread"
    return f"{'ahead' if gap > 0 else 'behind'} by {abs(gap):.{task.measure.digits}f}"
