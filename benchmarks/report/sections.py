"""What stands below each heading of a report, made from rows."""

import base64
import mimetypes
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory

from matplotlib.axes import Axes

from priorzoo.benchmarks.charts.axes import save
from priorzoo.benchmarks.charts.sweep import draw_sweep
from priorzoo.benchmarks.papers.paper import Paper
from priorzoo.benchmarks.report import charts as draw
from priorzoo.benchmarks.report import measured
from priorzoo.benchmarks.report.groups import Group, group_rows
from priorzoo.benchmarks.report.paper_tables import paper_tables
from priorzoo.benchmarks.report.table import Table
from priorzoo.benchmarks.rows.files import Found, Row
from priorzoo.benchmarks.speed import charts as speed_charts

VERDICTS = ("met", "within the spread", "short", "not comparable")
OTHERS = Paper("other", "Other runs", "Recipes that no paper here names", ())
ABREAST = 3  # recipes in one chart of ratios
SHU = "shu2016"  # the paper whose author's logs are drawn beside our curves


@dataclass(frozen=True)
class Image:
    """A picture as a ``data:`` URI, what it shows, and the colours of what is drawn."""

    uri: str
    words: str
    legend: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Section:
    """What the page has below one heading.

    Args:
        key: of its place in the page, and of its CSV.
        title, source, note: as in :class:`Paper`.
        tables: of the section.
        charts, thumbnails: large and small pictures.
        commands: those that make a row of a table, by its title.
        remark: below the charts.
    """

    key: str
    title: str
    source: str = ""
    note: str = ""
    tables: Sequence[Table] = ()
    charts: Sequence[Image] = ()
    thumbnails: Sequence[Image] = ()
    commands: Mapping[str, Sequence[str]] = field(default_factory=dict)
    remark: str = ""

    @property
    def verdicts(self) -> str:
        """How many there are of each kind, in words."""
        return count_verdicts([self])


def count_verdicts(sections: Iterable[Section]) -> str:
    """How many there are of each kind, in words."""
    tables = [table for section in sections for table in section.tables]
    cells = [cell for table in tables for row in table.rows for cell in row]
    counts = Counter(re.split(" by |:", cell.verdict)[0] for cell in cells)
    return ", ".join(f"{counts[name]} {name}" for name in VERDICTS if counts[name])


def of_papers(papers: Sequence[Paper], rows: Sequence[Row]) -> Iterator[Section]:
    """A section for each paper, and one of the runs of other recipes if there are any."""
    groups = group_rows(papers, rows)
    for paper in (*papers, OTHERS):
        if not groups[paper.name]:
            continue
        mine, charts = groups[paper.name], _curves(paper, groups[paper.name])
        dashed = "Dashed: the mean of the reference's own logs." if paper.name == SHU else ""
        yield Section(
            re.sub(r"[^a-z0-9]+", "-", paper.name.lower()),
            paper.title,
            paper.source,
            paper.note,
            paper_tables(mine),
            charts + _sweep(paper, mine),
            [image for group in mine for image in _thumbnails(group)],
            _commands(mine),
            f"Mean and standard deviation over seeds, the longest runs of a line. {dashed}",
        )


def _curves(paper: Paper, groups: Sequence[Group]) -> list[Image]:
    runs = draw.longest(groups)
    dashed = {name: draw.logged(groups, name) if paper.name == SHU else {} for name in paper.curves}
    named = {group.name for group in runs}.union(*dashed.values())
    titles = [t for t in dict.fromkeys(group.name for group in groups) if t in named]
    hues = dict(zip(titles, cycle(draw.HUES), strict=False))
    charts = []
    for name in paper.curves:
        axes = draw.draw_curves(runs, name, hues, dashed[name])
        if axes is not None:
            words = f"{draw.axis_title(name)} over the steps: {', '.join(titles)}"
            charts.append(Image(_drawn(axes), words, hues))
    return charts


def _sweep(paper: Paper, groups: Sequence[Group]) -> list[Image]:
    """The parts of the bound against K, where lines of one length have several."""
    found = [group for group in groups if group.rows and group.line.recipe == paper.sweep]
    steps = max((group.steps for group in found), default=0)
    alike = [group for group in found if group.steps == steps]
    if len(alike) < 2:
        return []
    axes = draw_sweep([row for group in alike for row in group.rows])
    return [Image(_drawn(axes), "ELBO, reconstruction, KL[z] and KL[r] against the components K")]


def _thumbnails(group: Group) -> list[Image]:
    """The pictures of the first seed that has any."""
    row = next((row for row in group.rows if row["figures"]), None)
    if row is None:
        return []
    seed = f"seed{row['seed']}-"  # what a file's name has before that of the chart
    title = f"{_named(group)}, seed {row['seed']}"
    return [Image(_uri(path), f"{title}: {path.stem.split(seed)[-1]}") for path in row["figures"]]


def _commands(groups: Sequence[Group]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for group in groups:
        for row in group.rows:
            commands = found.setdefault(_named(group), [])
            commands += {row["command"]}.difference(commands)
    return found


def _named(group: Group) -> str:
    budget = group.rows[0]["budget"]
    return f"{group.name}{f', {budget}' if budget else ''}, {group.steps:,} steps"


def of_measurements(found: Found) -> Iterator[Section]:
    """Sections of speed, of gradient variance and of runs that failed."""
    if found.speed:
        yield _speed(found.speed)
    if found.gradients:
        estimators = dict.fromkeys(row["estimator"] for row in found.gradients)
        hues = dict(zip(estimators, cycle(draw.HUES), strict=False))
        words = f"variance of {', '.join(estimators)}"
        chart = Image(_drawn(draw.draw_gradients(found.gradients, hues)), words, hues)
        yield Section(
            "gradients",
            "Gradient estimators",
            tables=[measured.gradient_table(found.gradients)],
            charts=[chart],
            commands={"gradients": list(dict.fromkeys(row["command"] for row in found.gradients))},
        )
    if found.failures:
        tables = [measured.failure_table(found.failures)]
        yield Section("failures", "Runs that failed", tables=tables)


def _speed(rows: Sequence[Row]) -> Section:
    steps = [row for row in rows if row["kind"] == "speed"]
    runs = [row for row in rows if row["kind"] != "speed"]
    tables = [measured.step_table(steps)] if steps else []
    tables += [measured.run_table(runs)] if runs else []
    commands: dict[str, list[str]] = {}
    for row in rows:
        known = commands.setdefault(row["kind"], [])
        known += {row["command"]}.difference(known)
    return Section("speed", "Speed", tables=tables, charts=_speed_charts(steps), commands=commands)


def _speed_charts(rows: Sequence[Row]) -> list[Image]:
    """For each device and precision the ratios, and the growth with the sizes that were swept."""
    machines: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        machines.setdefault((row["device"], str(row.get("precision"))), []).append(row)
    charts = []
    for machine, mine in machines.items():
        recipes = list(dict.fromkeys(row["recipe"] for row in mine))
        parts = {name: [row for row in mine if row["recipe"] == name] for name in recipes}
        swept = {name: _swept(part) for name, part in parts.items()}
        for first in range(0, len(recipes), ABREAST):
            shown = recipes[first : first + ABREAST]
            plain = [r for n in shown for r in parts[n] if not (swept[n] and r["hidden"])]
            words = f"time of a step by that of the yardstick: {', '.join((*shown, *machine))}"
            charts += [Image(_drawn(speed_charts.draw_ratios(plain)), words)] if plain else []
        for name, sizes in swept.items():
            for size in sizes:
                words = f"time of a step by {size}: {', '.join((name, *machine))}"
                charts.append(Image(_drawn(speed_charts.draw_growth(parts[name], size)), words))
    return charts


def _swept(rows: Sequence[Row]) -> list[str]:
    return [size for size in speed_charts.SIZES if len({row[size] for row in rows}) > 2]


def _drawn(axes: Axes) -> str:
    with TemporaryDirectory() as folder:
        save(axes, Path(folder, "chart.png"))
        return _uri(Path(folder, "chart.png"))


def _uri(path: Path) -> str:
    kind = mimetypes.guess_type(path.name)[0] or "image/png"
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
