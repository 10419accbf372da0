"""Charts made of small pictures: clusters, components, grids, reconstructions, interpolations.

Images are rows ``(N, P)`` of values in [0, 1] (others are clipped), drawn in ``shape``: ``(H, W)``,
from black to white, or ``(H, W, 3)``. ``K`` clusters. The share of a cluster is that of the data
whose most probable cluster it is, in all charts.
"""

from collections.abc import Sequence
from math import ceil, prod, sqrt
from string import ascii_uppercase

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from torch import Tensor

from priorzoo.benchmarks.charts.axes import HUES, LEGIBLE, OTHERS, new_axes
from priorzoo.benchmarks.charts.clusters import hard_shares

SHARE = "share of the data points whose most probable cluster it is"
GAP = 0.08  # between tiles; lengths are in tile heights, from the upper left corner
INCHES = 0.4  # of a tile height on new axes


def draw_clusters(
    images: Tensor,
    probabilities: Tensor,
    samples: Tensor | None,
    shape: Sequence[int],
    members: int = 8,
    ax: Axes | None = None,
) -> Axes:
    """A row a cluster, the fullest first: its most confident members, a gap, samples of it.

    Args:
        images, probabilities: ``(N, P)`` and ``(N, K)``.
        samples: ``(K, S, P)``, what the model draws from each cluster.

    Members of one class in a row and samples like its members are what to look for. Rows say the
    cluster and its share of the data; that of an empty cluster is blank. Of more than 20 clusters,
    the fullest are shown, no empty ones, and the title counts all.
    """
    pictures = _pictures(images, shape)
    drawn = None if samples is None else _pictures(samples, shape)
    step, down = _width(shape) + GAP, 1 + GAP
    start = members * step + 0.5
    end = start - 0.5 if drawn is None else start + drawn.shape[1] * step
    share = hard_shares(probabilities)
    used = int((share > 0).sum())
    shown = _fullest(share)[:LEGIBLE]
    reading = f"Percentages: {SHARE}. Good: members look alike, and samples like members."
    ax = _canvas(ax, end, len(shown) * down, "Members and samples of each cluster", reading)
    for top, cluster in enumerate(shown):
        for left, member in enumerate(_confident(probabilities, cluster)[:members]):
            _tile(ax, pictures[member], left * step, top * down)
        if drawn is not None and share[cluster] > 0:
            for left, sample in enumerate(drawn[cluster]):
                _tile(ax, sample, start + left * step, top * down)
    names = [_name(cluster, share) for cluster in shown]
    ax.set_yticks([top * down + 0.5 for top in range(len(shown))], names, fontsize="small")
    heads = {members * step / 2: "most confident members"}
    heads |= {} if drawn is None else {(start + end) / 2: "samples"}
    ax.set_xticks(list(heads), list(heads.values()), fontsize="small")
    if len(share) > LEGIBLE:
        fullest = f"{LEGIBLE} fullest of " if used > LEGIBLE else ""
        ax.set_title(f"{fullest}{used} clusters in use, room for {len(share)}", fontsize="small")
    return ax


def _fullest(share: Tensor) -> list[int]:
    """Clusters in the order of their shares; where there is room for many, no empty ones."""
    order: list[int] = share.argsort(descending=True, stable=True).tolist()
    return order if len(order) <= LEGIBLE else [k for k in order if share[k] > 0]


def draw_components(
    means: Tensor, shares: Tensor, shape: Sequence[int], ax: Axes | None = None
) -> Axes:
    """Decoded mean ``(K, P)`` of each component, the fullest cluster first.

    Below each picture are its share of the data, ``(K,)``, and a bar as wide as the picture for the
    largest of all. An empty cluster has no picture; of more than 20, empty ones are left out.
    """
    pictures, width = _pictures(means, shape), _width(shape)
    shown = _fullest(shares)
    columns = min(len(shown), ceil(sqrt(2.5 * len(shown))))
    across, down = max(width, 0.8) + 2 * GAP, 1.5
    title, reading = "Decoded mean of each component", f"Bars and percentages: {SHARE}."
    height = ceil(len(shown) / columns) * down
    ax = _canvas(ax, columns * across, height, title, reading, 2 * INCHES)
    for cell, component in enumerate(shown):
        left, top = cell % columns * across, cell // columns * down
        if shares[component] > 0:
            _tile(ax, pictures[component], left, top)
        lengths = [width, float(shares[component] / shares.max()) * width]
        ax.barh([top + 1 + GAP] * 2, lengths, GAP, left, color=[OTHERS, HUES[0]], linewidth=0)
        text, middle = _name(component, shares), left + width / 2
        ax.text(middle, top + 1 + 2 * GAP, text, ha="center", va="top", fontsize="small")
    return ax


def draw_grid(
    images: Tensor,
    shape: Sequence[int],
    columns: int = 10,
    ax: Axes | None = None,
    rows: Sequence[str] = (),
    heads: Sequence[str] = (),
    title: str = "",
    caption: str = "",
) -> Axes:
    """Images ``(N, P)``, row by row, with names of rows beside them and heads of columns above."""
    pictures, step, down = _pictures(images, shape), _width(shape) + GAP, 1 + GAP
    across, height = min(columns, len(pictures)) * step, ceil(len(pictures) / columns) * down
    ax = _canvas(ax, across, height, title, caption)
    for cell, picture in enumerate(pictures):
        _tile(ax, picture, cell % columns * step, cell // columns * down)
    middles = [left * step + _width(shape) / 2 for left in range(len(heads))]
    ax.set_xticks(middles, heads, fontsize="small")
    ax.set_yticks([top * down + 0.5 for top in range(len(rows))], rows, fontsize="small")
    return ax


def draw_samples(samples: Tensor, shape: Sequence[int], columns: int = 10) -> Axes:
    """Samples ``(N, P)`` of a model, row by row."""
    caption = "Good: every sample looks like data, and together they are as varied."
    return draw_grid(samples, shape, columns, title="Samples from the model", caption=caption)


def draw_reconstructions(
    images: Tensor,
    reconstructions: Tensor,
    shape: Sequence[int],
    columns: int = 10,
    ax: Axes | None = None,
) -> Axes:
    """Images ``(N, P)`` in a row, and under each its reconstruction ``(N, P)``."""
    originals, remade = _pictures(images, shape), _pictures(reconstructions, shape)
    step, down = _width(shape) + GAP, 2 + 4 * GAP
    rows = ceil(len(originals) / columns)
    across, title = min(columns, len(originals)) * step, "Data and their reconstructions"
    reading = "Details that a reconstruction lacks are not in the latent code."
    ax = _canvas(ax, across, rows * down, title, reading)
    for cell, (original, copy) in enumerate(zip(originals, remade, strict=True)):
        left, top = cell % columns * step, cell // columns * down
        _tile(ax, original, left, top)
        _tile(ax, copy, left, top + 1 + GAP / 2)
    middles = [row * down + half for row in range(rows) for half in (0.5, 1.5 + GAP / 2)]
    ax.set_yticks(middles, ["original", "reconstruction"] * rows, fontsize="small")
    return ax


def draw_ways(ways: Tensor, shape: Sequence[int], names: Sequence[str] | None = None) -> Axes:
    """Interpolations ``(W, S, P)``, each in a row with its name, or letter, from end to end.

    Every picture on the way being one that the data could hold is what to look for.
    """
    caption = "Each row goes from one data point to another. Good: every picture looks like data."
    named = names or ascii_uppercase[: len(ways)]
    flat, steps = ways.flatten(0, 1), ways.shape[1]
    return draw_grid(flat, shape, steps, None, named, (), "Interpolations", caption)


def _pictures(images: Tensor, shape: Sequence[int]) -> NDArray[np.float32]:
    if len(shape) != 2 and (len(shape) != 3 or shape[2] != 3):
        raise ValueError(
            f"Expected a shape (H, W) or (H, W, 3) but got {tuple(shape)}; points and counts have "
            "no pictures, draw their plane instead."
        )
    if images.shape[-1] != prod(shape):
        raise ValueError(
            f"Expected images (..., {prod(shape)}) of shape {tuple(shape)} but got "
            f"{tuple(images.shape)}."
        )
    return images.clamp(0, 1).reshape(*images.shape[:-1], *shape).numpy(force=True)


def _width(shape: Sequence[int]) -> float:
    return shape[1] / shape[0]


def _confident(probabilities: Tensor, cluster: int) -> list[int]:
    """Members of the cluster, the surest first."""
    members = (probabilities.argmax(-1) == cluster).nonzero().squeeze(1)
    certainty = probabilities[members, cluster]
    return members[certainty.argsort(descending=True, stable=True)].tolist()


def _name(cluster: int, share: Tensor) -> str:
    return f"{cluster}:  {share[cluster]:.1%}" if share[cluster] > 0 else f"{cluster}:  empty"


def _canvas(
    ax: Axes | None, width: float, height: float, title: str, caption: str, unit: float = INCHES
) -> Axes:
    """Axes without frame or ticks, whose unit is a tile height; of fitting size when new."""
    ax = new_axes(width * unit + 1, height * unit + 0.4, title, caption) if ax is None else ax
    ax.set(xlim=(-GAP, width), ylim=(height, -GAP), aspect="equal", xticks=[], yticks=[])
    ax.tick_params(length=0, top=False, bottom=False, labeltop=True, labelbottom=False)
    ax.spines[:].set_visible(False)
    return ax


def _tile(ax: Axes, picture: NDArray[np.float32], left: float, top: float) -> None:
    extent = (left, left + picture.shape[1] / picture.shape[0], top + 1, top)
    ax.imshow(picture, cmap="gray", vmin=0, vmax=1, extent=extent)
