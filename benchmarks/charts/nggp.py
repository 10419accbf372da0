"""Charts of clusters whose number is open: how many, how large, and what they say.

As in :mod:`priorzoo.benchmarks.charts.clusters`: CPU tensors or rows in, axes out.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from torch import Tensor

from priorzoo.benchmarks.charts.axes import HUES, LEGIBLE, OTHERS, new_axes

CAME, WENT = ("births", "splits"), ("deaths", "merges")


def draw_growth(history: Sequence[Mapping[str, Any]], ax: Axes | None = None) -> Axes:
    """Number of clusters over training, and how many moves raised and lowered it.

    Rows of the history that train have ``clusters`` and ``occupied``; those of moves have a count
    for each kind. The first are drawn as lines, the second as bars from 0 up and down.
    """
    ax = new_axes(6.4, 3.4) if ax is None else ax
    there = [row for row in history if row["split"] == "train" and "clusters" in row]
    steps = [row["step"] for row in there]
    ax.plot(steps, [row["clusters"] for row in there], ".-", color=HUES[0], label="clusters")
    held = [row["occupied"] for row in there]
    ax.plot(steps, held, "--", color=HUES[3], label="that hold data, E[K]")
    moved = [row for row in history if row["split"] in ("moves", "begin") and "births" in row]
    places = [row["step"] for row in moved]
    width = 0.02 * max([1, *steps])
    for names, sign, hue in ((CAME, 1, HUES[2]), (WENT, -1, HUES[1])):
        counts = [sign * sum(row[name] for name in names) for row in moved]
        ax.bar(places, counts, width, color=hue, alpha=0.6, label=" and ".join(names))
    ax.axhline(0, color="black", linewidth=0.6)
    ax.set(xlabel="step", ylabel="clusters")
    ax.legend(frameon=False, fontsize="small")
    return ax


def draw_densities(
    draws: Tensor, grid: Tensor, densities: Mapping[str, Tensor], ax: Axes | None = None
) -> Axes:
    """Draws of v = log U ``(S,)`` as a histogram, beside densities ``(G,)`` on a grid, by name."""
    ax = new_axes(6.4, 3.2) if ax is None else ax
    ax.hist(draws.numpy(), bins=60, density=True, color=OTHERS, label="q(v), draws")
    for (name, density), hue in zip(densities.items(), HUES, strict=False):
        ax.plot(grid.numpy(), density.numpy(), color=hue, linewidth=1.2, label=name)
    ax.set(xlabel="$v = \\log u$", ylabel="density")
    ax.legend(frameon=False, fontsize="small")
    return ax


def draw_sizes(shares: Tensor, prior: Tensor, discount: float, ax: Axes | None = None) -> Axes:
    """Shares of clusters ``(K,)`` by rank, beside those of partitions from the prior ``(S, R)``.

    The band holds nine of ten partitions; where sigma > 0 the dashed line falls as their tail does,
    as the rank to the power of -1 / sigma, from where the prior's median has ten clusters.
    """
    ax = new_axes(4.8, 3.6) if ax is None else ax
    found = np.sort(shares[shares > 0].numpy())[::-1]
    low, middle, high = (prior.quantile(level, 0).numpy() for level in (0.05, 0.5, 0.95))
    ranks = np.arange(1, prior.shape[1] + 1)
    seen = high > 0
    floor = prior[prior > 0].min().item() / 2
    band = (np.maximum(low[seen], floor), high[seen])
    ax.fill_between(ranks[seen], *band, color=OTHERS, label="prior, nine of ten partitions")
    ax.plot(ranks[middle > 0], middle[middle > 0], color=HUES[5], linewidth=1, label="its median")
    if discount > 0 and (middle > 0).any():
        start = min(10, int((middle > 0).sum()))
        line = middle[start - 1] * (ranks[start - 1 :] / start) ** (-1 / discount)
        kept = line >= floor
        tail = f"rank to the power of {-1 / discount:.3g}"
        ax.plot(ranks[start - 1 :][kept], line[kept], "--", color=HUES[0], label=tail)
    ax.plot(np.arange(1, len(found) + 1), found, "o", color=HUES[1], markersize=3.5, label="model")
    ax.set(xscale="log", yscale="log", xlabel="rank", ylabel="share of data")
    ax.legend(frameon=False, fontsize="small")
    return ax


def draw_words(words: Mapping[str, Sequence[str]], shares: Tensor, ax: Axes | None = None) -> Axes:
    """The words of each cluster, named by its number, and its share of the data; fullest first."""
    order = sorted(words, key=lambda k: -shares[int(k)].item())[:LEGIBLE]
    ax = new_axes(7.5, 0.4 + 0.26 * len(order)) if ax is None else ax
    for row, k in enumerate(order):
        ax.text(0, row, f"{k}: {shares[int(k)].item():.1%}", va="center", fontsize="small")
        ax.text(0.16, row, ", ".join(words[k]), va="center", fontsize="small")
    ax.set(xlim=(0, 1), ylim=(len(order) - 0.5, -0.5))
    ax.set_axis_off()
    return ax
