"""Charts of the page; legends are the page's, with the same colours."""

import csv
from collections.abc import Mapping, Sequence
from statistics import mean

import numpy as np
from matplotlib.axes import Axes

from priorzoo.benchmarks.charts import axes
from priorzoo.benchmarks.charts.curves import crop
from priorzoo.benchmarks.papers.paper import Paper
from priorzoo.benchmarks.report.groups import Group, deviation
from priorzoo.benchmarks.rows.files import RESULTS, Row

Points = Sequence[tuple[float, float]]
# Those of the other charts, but for those that would hide on a light page or on a dark one, where
# the colours are inverted.
DARKER = {"#88ccee": "#3399cc", "#ddcc77": "#aa8822", "#999933": "#bb5500", "#000000": "#444444"}
HUES = [DARKER.get(hue, hue) for hue in axes.HUES]
READING = "Means over seeds, and bands of one standard deviation; the longest runs of each line."
LOGGED = " Dashed: means of the author's own logs."
VARIANCES = "Of one draw, for expectations whose gradient is known exactly. Good: far to the left."


def longest(groups: Sequence[Group]) -> list[Group]:
    """Of each line that has a history the group of the most steps, of its own settings."""
    own = [g for g in groups if not g.other and any(row.get("history") for row in g.rows)]
    return list({g.name: g for g in sorted(own, key=lambda g: g.steps)}.values())


def curve(history: Sequence[Row], name: str) -> dict[float, float]:
    """A term or metric by step, of the first of test, valid and train rows with several points.

    A single test row, as the end of a stage leaves it, is no curve.
    """
    found: dict[str, dict[float, float]] = {"test": {}, "valid": {}, "train": {}}
    for row in history:
        value = {**row.get("terms", {}), **row.get("metrics", {}), **row}.get(name)
        if row.get("split", "train") in found and isinstance(value, int | float):
            found[row.get("split", "train")][row["step"]] = value
    return next(
        (points for points in found.values() if len(points) > 1), max(found.values(), key=len)
    )


def band(curves: Sequence[Mapping[float, float]]) -> list[tuple[float, float, float]]:
    """Step, mean and standard deviation at the steps that all curves have."""
    shared = sorted(set.intersection(*map(set, curves))) if curves else []
    values = [(step, [points[step] for points in curves]) for step in shared]
    return [(step, mean(v), deviation(v)) for step, v in values]


def draw_curves(
    groups: Sequence[Group],
    name: str,
    hues: Mapping[str, str],
    dashed: Mapping[str, Points],
    title: str = "",
) -> Axes | None:
    """Mean over the seeds, and a standard deviation around it; None for nothing to draw.

    Args:
        groups: one for each line.
        name: a term or metric.
        hues: a colour for each line's title.
        dashed: points to draw beside a line, by its title.
        title: what is compared, and on which data.
    """
    ax = axes.new_axes(5.2, 3.4, title, READING + LOGGED * bool(dashed))
    for group in groups:
        curves = [curve(row["history"], name) for row in group.rows if row.get("history")]
        drawn, hue = band([points for points in curves if points]), hues[group.name]
        if drawn:
            steps, middle, around = np.array(drawn).T
            ax.plot(steps, middle, color=hue, linewidth=1.4, marker="." if len(drawn) == 1 else "")
            ax.fill_between(steps, middle - around, middle + around, color=hue, alpha=0.18, lw=0)
    if not ax.lines:
        return None
    for title, points in dashed.items():
        ax.plot(*zip(*points, strict=True), "--", color=hues[title], linewidth=1.1)
    crop(ax)
    steps = np.concatenate([np.asarray(line.get_xdata(), float) for line in ax.lines])
    # The logarithm of steps that span more than a decade.
    ax.set_xscale("log" if steps.min() > 0 and steps.max() > 10 * steps.min() else "linear")
    ax.grid(visible=True)
    ax.set(xlabel="steps", ylabel=axis_title(name))
    return ax


def axis_title(name: str) -> str:
    """A term or metric in words."""
    bounds = {"elbo": "ELBO, nats", "pseudo-likelihood": "pseudo-likelihood, nats"}
    return bounds.get(name, name.replace("_", " "))


def logged(paper: Paper, groups: Sequence[Group], name: str) -> dict[str, Points]:
    """What the author's own logs have beside the groups, by the groups' names."""
    if not paper.logs:
        return {}
    path = RESULTS / "reference" / f"{paper.name}.csv"
    rows = list(csv.DictReader(path.read_text("utf-8").splitlines()))
    first = {g.line.title: g.name for g in reversed(groups) if not g.other}
    return {
        first[title]: [(float(r["steps"]), float(r[name])) for r in rows if r["model"] == model]
        for title, model in paper.logs.items()
        if title in first and name in rows[0]
    }


def draw_gradients(rows: Sequence[Row], hues: Mapping[str, str]) -> Axes:
    """The variance of each estimator by expectation, on a logarithmic scale."""
    places = list(dict.fromkeys(row["expectation"] for row in rows))
    height = 1.0 + 0.065 * len(hues) * len(places)
    ax = axes.new_axes(6.4, height, "Variance of gradient estimators", VARIANCES)
    for index, (estimator, hue) in enumerate(hues.items()):
        mine = [row for row in rows if row["estimator"] == estimator]
        apart = 0.8 * ((index + 0.5) / len(hues) - 0.5)
        at = [places.index(row["expectation"]) + apart for row in mine]
        ax.plot([row["variance"] for row in mine], at, "o", color=hue, markersize=5)
    ax.set_yticks(range(len(places)), places, fontsize="small", parse_math=False)
    ax.invert_yaxis()
    ax.grid(visible=True)
    ax.set(xscale="log", xlabel="variance of the gradient of one draw")
    return ax
