"""Curves of a training: rows of a history in, matplotlib axes out."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from priorzoo.benchmarks.charts.axes import HUES, divide, legend_beside, new_axes

READING = (
    "The upper lines are as far apart as the terms below add up to. Validation that rises above "
    "training is overfitting; a KL near 0 is a latent variable that the model ignores."
)
History = Sequence[Mapping[str, Any]]
DASHES: dict[str, Literal["-", "--"]] = {"train": "-", "valid": "--"}


def draw_terms(history: History, ax: Axes | None = None) -> Axes:
    """Terms of the ELBO over training, in nats per datum.

    A row of history has the keys ``step``, ``split`` (``train`` or ``valid``; others are ignored),
    ``elbo``, ``reconstruction`` and any ``kl[site]`` and ``log p(site)``, and ``stage`` in a stage
    before the training proper, whose end is marked above the axes.

    Above, on the axes returned, -ELBO and -reconstruction, whose distance is the sum of what is
    below: the KLs, and -log p of what is observed beside x, linear up to 0.1 and logarithmic
    beyond. Solid is training, dashed validation: lines that part are overfitting, a KL that falls
    to 0 is a latent that collapsed. Where the steep first tenth of the steps leaves the upper axes,
    its highest value is written there.
    """
    if not history:
        raise ValueError("Expected at least one row of history but got none.")
    ax = new_axes(6.4, 4.6, "Terms of the ELBO over training", READING) if ax is None else ax
    ends = _ends(history)
    history = [row for row in history if row["split"] in DASHES]
    terms = dict.fromkeys(term for row in history for term in row)
    parts = {term: f"KL{term[2:]}" for term in terms if term.startswith("kl[")}
    parts |= {term: f"$-${term}" for term in terms if term.startswith("log p(")}
    axes = divide(ax, 2, heights=(3, 2)) if parts else [ax]
    _curves(ax, history, {"elbo": "$-$ELBO", "reconstruction": "$-$reconstruction"}, HUES)
    crop(ax)
    for below in axes[1:]:
        below.set_yscale("symlog", linthresh=0.1)
        below.yaxis.set_major_formatter("{x:g}")
        _curves(below, history, parts, HUES[2:])
        legend_beside(below)
        ax.tick_params(labelbottom=False)
    for each in axes:
        each.set_ylabel("nats per datum")
        for step in ends:
            each.axvline(step, color="grey", linewidth=0.8, linestyle=":")
    axes[-1].set_xlabel("step")
    if ends:
        slope, start = (40, "left") if len(ends) > 1 else (0, "center")
        marks = ax.secondary_xaxis("top")
        marks.set_xticks([*ends], [*ends.values()], fontsize="small", rotation=slope, ha=start)
    found = [split for split in DASHES if any(row["split"] == split for row in history)]
    splits = [Line2D([], [], color="grey", linestyle=DASHES[k], label=k) for k in found]
    legend_beside(ax, *splits)
    return ax


def _ends(history: History) -> dict[int, str]:
    """Which stages end at a step, by step."""
    last = {row["stage"]: row["step"] for row in history if "stage" in row}
    names = {step: [name for name in last if last[name] == step] for step in last.values()}
    return {step: f"end of {' and '.join(ending)}" for step, ending in names.items()}


def _curves(ax: Axes, history: History, names: Mapping[str, str], hues: Sequence[str]) -> None:
    """A line for each term and split: of a divergence as it is, of the others the negative."""
    for (term, name), hue in zip(names.items(), cycle(hues), strict=False):
        for split, dashes in DASHES.items():
            label = name if split == "train" else None
            draw_term(ax, history, split, term, linestyle=dashes, color=hue, label=label)


def draw_term(ax: Axes, history: History, split: str, term: str, **style: Any) -> None:
    """A line of a term of the bound; a point if there is but one row."""
    sign = 1 if term.startswith("kl[") else -1
    rows = [row for row in history if row["split"] == split and term in row]
    steps, values = [row["step"] for row in rows], [sign * row[term] for row in rows]
    ax.plot(steps, values, linewidth=1.2, marker="." if len(rows) == 1 else "", **style)


def crop(ax: Axes) -> None:
    """Fits the ordinate to all but the first tenth of each line.

    Where a line leaves the axes, the farthest value is written on the right, above or below.
    """
    lines = [np.asarray(line.get_xydata(), float) for line in ax.lines]
    late = [line[line[:, 0] >= 0.1 * line[:, 0].max(initial=0), 1] for line in lines]
    points, kept = np.concatenate(lines), np.concatenate(late)
    points, kept = points[np.isfinite(points).all(1)], kept[np.isfinite(kept)]
    if not len(kept):
        return
    margin = 0.05 * np.ptp(kept) or 0.05
    low, high = ax.set_ylim(kept.min() - margin, kept.max() + margin)
    by_value = points[points[:, 1].argsort(kind="stable")]
    for (step, value), arrow, height in ((by_value[-1], "up", 0.97), (by_value[0], "down", 0.06)):
        if not low <= value <= high:
            words = f"$\\{arrow}arrow$ {value:,.4g} at step {step:.0f}"
            ax.text(0.98, height, words, transform=ax.transAxes, ha="right", va="top", size="small")
