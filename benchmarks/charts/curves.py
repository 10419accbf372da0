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
DASHES: dict[str, Literal["-", "--"]] = {"train": "-", "valid": "--"}


def draw_terms(history: Sequence[Mapping[str, Any]], ax: Axes | None = None) -> Axes:
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
    kls = {term: f"KL{term[2:]}" for term in terms if term.startswith("kl[")}
    factors = {term: f"$-${term}" for term in terms if term.startswith("log p(")}
    lower = divide(ax, 2, height_ratios=(3, 2), hspace=0.05)[1:] if kls or factors else []
    for below in lower:
        _draw_kls(below, history, kls, factors)
    _curves(ax, history, {"elbo": "$-$ELBO", "reconstruction": "$-$reconstruction"}, -1, HUES)
    _crop(ax)
    for step in ends:
        for each in (ax, *lower):
            each.axvline(step, color="grey", linewidth=0.8, linestyle=":")
    if ends:
        names = [f"end of {' and '.join(names)}" for names in ends.values()]
        ax.secondary_xaxis("top").set_xticks(list(ends), names, fontsize="small")
    ax.tick_params(labelbottom=not lower)
    ax.set(xlabel="" if lower else "step", ylabel="nats per datum")
    found = [split for split in DASHES if any(row["split"] == split for row in history)]
    splits = [Line2D([], [], color="grey", linestyle=DASHES[k], label=k) for k in found]
    legend_beside(ax, [*ax.get_legend_handles_labels()[0], *splits])
    return ax


def _ends(history: Sequence[Mapping[str, Any]]) -> dict[int, list[str]]:
    """The names of the stages that end at a step, by step."""
    last = {row["stage"]: row["step"] for row in history if "stage" in row}
    return {step: [name for name in last if last[name] == step] for step in last.values()}


def _draw_kls(
    ax: Axes,
    history: Sequence[Mapping[str, Any]],
    names: Mapping[str, str],
    factors: Mapping[str, str],
) -> None:
    ax.set_yscale("symlog", linthresh=0.1)
    ax.yaxis.set_major_formatter("{x:g}")
    _curves(ax, history, names, 1, HUES[2:])
    _curves(ax, history, factors, -1, HUES[5:])
    ax.set(xlabel="step", ylabel="nats per datum")
    legend_beside(ax)


def _curves(
    ax: Axes,
    history: Sequence[Mapping[str, Any]],
    terms: Mapping[str, str],
    sign: int,
    hues: Sequence[str],
) -> None:
    for (term, name), hue in zip(terms.items(), cycle(hues), strict=False):
        for split, dashes in DASHES.items():
            rows = [row for row in history if row["split"] == split and term in row]
            steps, values = [row["step"] for row in rows], [sign * row[term] for row in rows]
            label, dot = name if split == "train" else None, "." if len(rows) == 1 else ""
            ax.plot(steps, values, dashes, color=hue, label=label, linewidth=1.2, marker=dot)


def _crop(ax: Axes) -> None:
    """Fits the ordinate to all but a high first tenth of the abscissa, whose top it writes down."""
    points = np.concatenate([line.get_xydata() for line in ax.lines])
    points = points[np.isfinite(points).all(1)]
    late = points[points[:, 0] >= 0.1 * points[:, 0].max(initial=0), 1]
    if len(late):
        step, top = points[points[:, 1].argmax()]
        low, high = points[:, 1].min(), late.max()
        margin = 0.05 * max(high - low, 1.0)
        ax.set_ylim(low - margin, high + margin)
        if top > high + margin:
            words = f"$\\uparrow$ {top:,.4g} at step {step:.0f}"
            ax.annotate(
                words,
                (step, 1),
                (4, -4),
                ("data", "axes fraction"),
                "offset points",
                va="top",
                fontsize="small",
            )
