"""Latent codes as points in a plane: CPU tensors in, matplotlib axes out.

``N`` data, ``K`` clusters, codes of ``D`` dimensions.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from string import ascii_uppercase

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from torch import Tensor

from priorzoo.benchmarks.charts.axes import HUES, LEGIBLE, NUMBER, OTHERS, legend_beside, new_row
from priorzoo.benchmarks.scores.metrics import contingency, hungarian_match, hungarian_order

POINTS = 5_000  # that a plane can hold; also the test data that the charts of a run look at
MARKERS = "o^sDvP*X"
POINT = "Each point is the latent code of one data point."
MATCH = " Clusters have the colours of the classes that they match; further ones, with another "
MATCH += "marker, that of their most frequent class. Good: both pictures look alike."
CLOSE = 0.05  # of the plane's width and height, at which two numbers would overlap

Style = tuple[str, str]  # colour and marker
Styles = Mapping[int, Style]
Points = NDArray[np.float32]


def draw_plane(
    codes: Tensor,
    probabilities: Tensor | None,
    labels: Tensor | None = None,
    axes: Sequence[Axes] | None = None,
) -> list[Axes]:
    """Latent codes in the plane, coloured by class (left) and by most probable cluster (right).

    The plane is that of the two largest principal components if D > 2, and the labels of its axes
    say how much variance they explain; a code of one dimension is drawn against its place in the
    data. A cluster has the colour of the class that it matches (one to one, by the Hungarian
    method) and stands in its row of the legend; a cluster without a class of its own has the colour
    of its most frequent class and another marker. So two pictures of the same colours are a good
    clustering. Numbers stand at the median of their category, and are left out where a fuller
    category has its number. The first 5,000 data are drawn, and all decide the components.

    Args:
        codes: ``(N, D)``.
        probabilities: ``(N, K)``, or None for a model without clusters, for no right picture.
        labels: classes ``(N,)``, if known.
        axes: to draw on, one for each picture.
    """
    clusters = None if probabilities is None else probabilities.argmax(1).cpu()
    classes = None if labels is None else labels.cpu()
    found = {"class": classes, "cluster": clusters}
    named = {name: found[name] for name in found if found[name] is not None} or {"row": None}
    if axes is None:
        coloured = "" if "row" in named else f" by {' and by '.join(named)}"
        axes = new_row(len(named), f"Latent codes{coloured}", POINT + MATCH * (len(named) > 1))
    if len(axes) != len(named):
        raise ValueError(f"Expected {len(named)} axes ({', '.join(named)}) but got {len(axes)}.")
    plane, labelled = _project(codes, "z")
    styles: dict[int, Style] = {}
    for ax, (name, values) in zip(axes, named.items(), strict=True):
        ax.set(**labelled)
        if values is not None:
            styles = _number(values) if classes is None else _match(values, classes, styles)
            ax.set_title(f"by {name}", fontsize="medium")
        _scatter(ax, plane, values, styles)
        for handle in filter(None, legend_beside(ax, title=name).legend_handles if styles else []):
            handle.set(alpha=1, sizes=[35])
        if codes.shape[1] > 1:
            ax.axis("square")
    return list(axes)


def draw_embedding(
    places: Mapping[str, tuple[Tensor, Tensor | None]],
    ways: Tensor | None = None,
    symbol: str = "u",
    axes: Sequence[Axes] | None = None,
) -> list[Axes]:
    """Places ``(N, 2)`` of the data with their labels ``(N,)``, if known, a panel for each name.

    Of more dimensions the plane is as in :func:`draw_plane`. Interpolations ``ways`` ``(W, S, 2)``,
    at most 26, are drawn as black lines over every panel, with a letter where they begin. Axes are
    named by the symbol. The first 5,000 places are drawn. Classes that lie apart are what to look
    for.
    """
    if axes is None:
        line = "" if ways is None else " Black lines are interpolations, from their letters on."
        axes = new_row(len(places), "Latent codes in the plane, by class", POINT + line)
    drawn = () if ways is None else ways.numpy(force=True)
    for ax, (name, (u, labels)) in zip(axes, places.items(), strict=True):
        plane, labelled = _project(u, symbol)
        _scatter(ax, plane, labels, {} if labels is None else _number(labels))
        ax.set(title=name, **labelled)
        ax.set_aspect("equal", adjustable="datalim")
        for letter, way in zip(ascii_uppercase, drawn, strict=False):
            ax.plot(*way.T, ".-", color="black", linewidth=0.8, markersize=3)
            ax.annotate(letter, way[0], **NUMBER)
    return list(axes)


def _project(codes: Tensor, symbol: str) -> tuple[Points, dict[str, str]]:
    """Points ``(N, 2)`` and the labels of the two axes."""
    values = codes.numpy(force=True)
    if values.shape[1] == 1:
        numbers = np.arange(len(values))
        return np.column_stack([values, numbers]), {"xlabel": f"${symbol}$", "ylabel": "row"}
    if values.shape[1] == 2:
        return values, {"xlabel": f"${symbol}_1$", "ylabel": f"${symbol}_2$"}
    with np.errstate(invalid="ignore"):  # a collapsed code has no variance to explain
        pca = PCA(min(2, len(values)), svd_solver="full").fit(values)
    plane = np.pad(pca.transform(values), [(0, 0), (0, 2 - pca.n_components_)])
    parts = np.pad(np.nan_to_num(pca.explained_variance_ratio_), (0, 2 - pca.n_components_))
    first, second = (f"component {i}, {part:.0%} of variance" for i, part in enumerate(parts, 1))
    return plane, {"xlabel": first, "ylabel": second}


def _number(categories: Tensor) -> dict[int, Style]:
    """A style for each of the 20 fullest categories, in ascending order; -1 is unknown."""
    present, counts = categories[categories >= 0].unique(return_counts=True)
    kept = present[counts.argsort(descending=True, stable=True)[:LEGIBLE]].sort().values
    return {k: (HUES[i % 10], MARKERS[i // 10]) for i, k in enumerate(kept.tolist())}


def _match(clusters: Tensor, labels: Tensor, classes: Styles) -> dict[int, Style]:
    """Styles of the 20 fullest clusters, in the order of the classes ``(N,)`` that they match.

    The cluster that a class is matched with has its style; others have the colour of their most
    frequent class and the next marker. Clusters of a class without a style have none.
    """
    count, kept = int(clusters.max()) + 1, _number(clusters)
    if not classes:
        return kept
    clusters, labels = clusters[labels >= 0], labels[labels >= 0]
    partners = hungarian_match(clusters, labels, count)
    most = labels.unique()[contingency(clusters, labels, count).argmax(1)].tolist()
    styles: dict[int, Style] = {}
    for cluster in hungarian_order(clusters, labels, count).tolist():
        style = classes.get(partners.get(cluster, most[cluster]))
        if cluster not in kept or style is None:
            continue
        taken = {marker for hue, marker in styles.values() if hue == style[0]}
        if cluster not in partners:
            style = style[0], next((m for m in MARKERS[1:] if m not in taken), MARKERS[-1])
        styles[cluster] = style
    return styles


def _scatter(ax: Axes, plane: Points, categories: Tensor | None, styles: Styles) -> None:
    """The first 5,000 points, the larger and the less transparent the fewer they are."""
    plane = plane[:POINTS]
    few = len(plane) ** -0.5
    size, alpha = np.clip(320 * few, 6, 40), np.clip(20 * few, 0.6, 0.9)
    dot = partial(ax.scatter, s=size, alpha=alpha, linewidths=0, rasterized=True)
    if categories is None:
        dot(*plane.T, color=HUES[0])
        return
    found = categories[:POINTS].numpy(force=True)
    others = ~np.isin(found, list(styles))
    if others.any():
        dot(*plane[others].T, color=OTHERS, label="others")
    for category, (hue, marker) in styles.items():
        dot(*plane[found == category].T, color=hue, marker=marker, label=str(category))
    _print_numbers(ax, plane, found, [k for k in styles if k in found])


def _print_numbers(ax: Axes, plane: Points, found: NDArray[np.int64], shown: Sequence[int]) -> None:
    """Each category's number at its median, but for those that would hide one of a fuller."""
    near = CLOSE * np.ptp(plane, 0)
    placed: list[Points] = []
    for category in sorted(shown, key=lambda k: -(found == k).sum()):
        middle = np.median(plane[found == category], 0)
        if all((np.abs(middle - other) > near).any() for other in placed):
            placed.append(middle)
            ax.annotate(str(category), middle, ha="center", va="center", fontsize="small", **NUMBER)
