"""What stands below each heading of a report, made from rows."""

import base64
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory

from matplotlib.axes import Axes

from priorzoo.benchmarks.charts.axes import save
from priorzoo.benchmarks.charts.sweep import draw_sweep
from priorzoo.benchmarks.papers.paper import Paper
from priorzoo.benchmarks.report import charts as draw
from priorzoo.benchmarks.report import measured, scaled
from priorzoo.benchmarks.report.clustered import clustering_tables
from priorzoo.benchmarks.report.drawn import samples_table
from priorzoo.benchmarks.report.groups import Group, group_rows
from priorzoo.benchmarks.report.paper_tables import paper_tables
from priorzoo.benchmarks.report.table import Table, build
from priorzoo.benchmarks.rows.files import Row, read_image
from priorzoo.benchmarks.speed.charts import speed_charts

VERDICTS = ("met", "within the spread", "short", "not comparable")
MEASURED: Mapping[str, tuple[str, Callable[[Sequence[Row]], Sequence[Table]]]] = {
    "serving": ("Predictions of one row", lambda rows: [measured.serving_table(rows)]),
    "tables": ("Tables with missing cells", clustering_tables),
}
OTHERS = Paper("other", "Other runs", "Recipes that no paper here names", ())


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
        remark: below the charts.
    """

    key: str
    title: str
    source: str = ""
    note: str = ""
    tables: Sequence[Table] = ()
    charts: Sequence[Image] = ()
    thumbnails: Sequence[Image] = ()
    remark: str = ""

    @property
    def commands(self) -> dict[str, str]:
        """The commands that make the rows of its tables, each with the first row that it makes."""
        firsts = [row[0] for table in self.tables for row in reversed(table.rows)]
        return {command: cell.name for cell in firsts for command in cell.commands}


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
        if not (mine := groups[paper.name]):
            continue
        dashed = "Dashed: the mean of the reference's own logs." if paper.logs else ""
        yield Section(
            re.sub(r"[^a-z0-9]+", "-", paper.name.lower()),
            paper.title,
            paper.source,
            paper.note,
            paper_tables(mine),
            _curves(paper, mine) + _sweep(paper, mine),
            [image for group in mine for image in _thumbnails(group)],
            remark=f"Mean and standard deviation over seeds, the longest runs of a line. {dashed}",
        )


def _curves(paper: Paper, groups: Sequence[Group]) -> list[Image]:
    runs = draw.longest(groups)
    dashed = {name: draw.logged(paper, groups, name) for name in paper.curves}
    named = {group.name for group in runs}.union(*dashed.values())
    hues = _hues(group.name for group in groups if group.name in named)
    return [
        _drawn(axes, f"{draw.axis_title(name)} over the steps: {', '.join(hues)}", hues)
        for name in paper.curves
        if (axes := draw.draw_curves(runs, name, hues, dashed[name], paper.title)) is not None
    ]


def _sweep(paper: Paper, groups: Sequence[Group]) -> list[Image]:
    """The parts of the bound against K, where lines of one length have several."""
    found = [group for group in groups if group.rows and group.line.recipe == paper.sweep]
    steps = max((group.steps for group in found), default=0)
    alike = [group for group in found if group.steps == steps]
    if len(alike) < 2:
        return []
    axes = draw_sweep([row for group in alike for row in group.rows])
    return [_drawn(axes, "ELBO, reconstruction, KL[z] and KL[r] against the components K")]


def _thumbnails(group: Group) -> list[Image]:
    """The pictures of the first seed that has any."""
    row = next((row for row in group.rows if row["figures"]), None)
    if row is None:
        return []
    seed = f"seed{row['seed']}-"  # what a file's name has before that of the chart
    title = f"{group.name}, {group.steps:,} steps, seed {row['seed']}"
    return [Image(_uri(path), f"{title}: {path.stem.split(seed)[-1]}") for path in row["figures"]]


def of_measurements(rows: Sequence[Row]) -> Iterator[Section]:
    """Sections of speed, serving, tables, gradient variance, precision and runs that failed."""
    kinds = [row for row in rows if "kind" in row]
    if speed := [row for row in kinds if row["kind"].startswith("speed")]:
        yield _speed(speed)
    if samples := [row for row in kinds if row["kind"] == "samples"]:
        yield Section("samples", "Samples of categories", tables=[samples_table(samples)])
    if counts := [row for row in kinds if row["kind"] == "counts"]:
        yield Section("counts", "Counts", tables=[measured.counts_table(counts)])
    if gradients := [row for row in rows if "estimator" in row]:
        hues = _hues(row["estimator"] for row in gradients)
        axes, words = draw.draw_gradients(gradients, hues), f"variance of {', '.join(hues)}"
        tables, charts = [build(gradients, measured.GRADIENT)], [_drawn(axes, words, hues)]
        yield Section("gradients", "Gradient estimators", tables=tables, charts=charts)
    for name, (title, tables_of) in MEASURED.items():
        if mine := [row for row in rows if row.get("measure") == name]:
            yield Section(name, title, tables=tables_of(mine))
    if precise := [row for row in rows if "quantity" in row]:
        tables = [measured.precision_table(precise, name) for name in measured.PRECISIONS]
        yield Section("precision", "Estimators and closed forms in float32", tables=tables)
    if failures := [row for row in rows if "error" in row]:
        tables = [build(failures, measured.FAILURE)]
        yield Section("failures", "Runs that failed", tables=tables)


def _hues(names: Iterable[str]) -> dict[str, str]:
    return dict(zip(dict.fromkeys(names), cycle(draw.HUES), strict=False))


def _speed(rows: Sequence[Row]) -> Section:
    steps = [row for row in rows if row["kind"] == "speed"]
    runs = [row for row in rows if row["kind"] == "speed-run"]
    moves = [row for row in rows if row["kind"] == "speed-moves"]
    tables = [measured.step_table(steps)] if steps else []
    tables += [build(runs, measured.RUN, caption="Whole trainings")] if runs else []
    tables += [measured.move_table(moves)] if moves else []
    for kind, table in scaled.TABLES.items():
        if mine := [row for row in rows if row["kind"] == f"speed-{kind}"]:
            tables.append(table(mine))
    charts = [_drawn(axes, f"time of a step, {words}") for words, axes in speed_charts(steps)]
    return Section("speed", "Speed", tables=tables, charts=charts)


def _drawn(axes: Axes, words: str, legend: Mapping[str, str] | None = None) -> Image:
    with TemporaryDirectory() as folder:
        return Image(_uri(save(axes, Path(folder, "chart.png"))), words, legend or {})


def _uri(path: Path) -> str:
    kind, data = read_image(path)
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
