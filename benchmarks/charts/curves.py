"""Charts of clusterings, codes and training: tensors and rows in, matplotlib axes out.

Every ``draw_x`` takes CPU tensors or rows, knows no model, and draws on the axes it is given, or
on those of a new figure that pyplot does not hold. ``N`` data, ``K`` clusters, ``D`` code.
"""

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from torch import Tensor

from priorzoo.benchmarks.scores.metrics import contingency, hungarian_order

# The muted scheme of Tol, "Colour Schemes", 2021, made for the colour-blind; black is its tenth.
HUES = ["#332288", "#cc6677", "#117733", "#88ccee", "#ddcc77"]
HUES += ["#882255", "#44aa99", "#999933", "#aa4499", "#000000"]
OTHERS = "#dddddd"
LEGIBLE = 20  # categories that colours, counts or rows can tell apart
POINTS = 5_000  # that a plane can hold; also the test rows that the figures of a run look at
OUTLINE = [withStroke(linewidth=2, foreground="white")]
LETTERS = ascii_uppercase
DASHES: dict[str, Any] = {"train": "-", "valid": "--"}


def new_axes(width: float, height: float) -> Axes:
    """Axes of a new figure of that size in inches."""
    return Figure(figsize=(width, height), layout="constrained").add_subplot()


def save(drawn: Axes | Figure, path: str | Path, dpi: int = 150) -> None:
    """Writes the whole figure, cut to what is drawn, as a PNG that depends on nothing else."""
    figure = drawn.get_figure(root=True)
    assert figure is not None
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", dpi=dpi, bbox_inches="tight", metadata={"Software": None})


def occupancy(probabilities: Tensor) -> tuple[Tensor, Tensor]:
    """Clusters ``(K,)`` by decreasing share of hard assignments, and the share of each cluster."""
    _, clusters = probabilities.shape
    share = probabilities.argmax(-1).bincount(minlength=clusters) / len(probabilities)
    return share.argsort(descending=True, stable=True), share


def draw_plane(
    codes: Tensor,
    probabilities: Tensor,
    labels: Tensor | None = None,
    axes: Sequence[Axes] | None = None,
) -> list[Axes]:
    """Codes ``(N, D)`` in the plane, by class (if ``labels`` are known) beside by cluster.

    The plane is that of the two largest principal components if D > 2, and the labels of its axes
    say how much variance they explain. Numbers stand at the median of their category. A good
    clustering cuts the right picture as the left one, whatever the colours. The first 5,000 data
    are drawn, and all decide the components.
    """
    named = {} if labels is None else {"class": labels}
    named["cluster"] = probabilities.argmax(-1)
    axes = new_row(len(named)) if axes is None else list(axes)
    if len(axes) != len(named):
        raise ValueError(f"Expected {len(named)} axes ({', '.join(named)}) but got {len(axes)}.")
    plane, (across, up) = _project(codes)
    for ax, (name, categories) in zip(axes, named.items(), strict=True):
        _scatter(ax, plane[:POINTS], categories[:POINTS].numpy(force=True))
        ax.set(xlabel=across, ylabel=up, title=f"by {name}")
        if codes.shape[1] > 1:
            ax.axis("square")
        for handle in filter(None, _legend(ax, title=name, markerscale=2.5).legend_handles):
            handle.set_alpha(1)
    return axes


def draw_embedding(
    places: Mapping[str, tuple[Tensor, Tensor | None]],
    ways: Tensor | None = None,
    symbol: str = "u",
    axes: Sequence[Axes] | None = None,
) -> list[Axes]:
    """Places ``(N, 2)`` with their labels ``(N,)``, if known, in a panel for each name.

    Of more dimensions the plane is as in :func:`draw_plane`. Ways ``(W, S, 2)``, at most 26, are
    drawn over every panel, with a letter where they begin. Axes are named by the symbol. The first
    5,000 places are drawn.
    """
    axes = new_row(len(places)) if axes is None else list(axes)
    drawn = () if ways is None else ways.numpy(force=True)
    for ax, (name, (u, labels)) in zip(axes, places.items(), strict=True):
        plane, (across, up) = _project(u)
        if labels is None:
            ax.scatter(plane[:POINTS, 0], plane[:POINTS, 1], s=7, linewidths=0, color=HUES[3])
        else:
            _scatter(ax, plane[:POINTS], labels[:POINTS].numpy(force=True))
        ax.set(xlabel=across.replace("z", symbol), ylabel=up.replace("z", symbol), title=name)
        ax.set_aspect("equal", adjustable="datalim")
        for letter, way in zip(LETTERS, drawn, strict=False):
            ax.plot(*way.T, ".-", color="black", linewidth=0.8, markersize=3)
            ax.annotate(letter, way[0], weight="bold", color="black", path_effects=OUTLINE)
    return axes


def new_row(panels: int) -> list[Axes]:
    """Axes side by side in a new figure."""
    figure = Figure(figsize=(4.2 * panels, 3.6), layout="constrained")
    return list(figure.subplots(1, panels, squeeze=False)[0])


def _project(codes: Tensor) -> tuple[NDArray[Any], tuple[str, str]]:
    """Points ``(N, 2)`` and the labels of the two axes."""
    values = codes.numpy(force=True)
    if values.shape[1] == 1:
        return np.column_stack([values, np.arange(len(values))]), ("$z$", "row")
    if values.shape[1] == 2:
        return values, ("$z_1$", "$z_2$")
    with np.errstate(invalid="ignore"):  # a collapsed code has no variance to explain
        pca = PCA(min(2, len(values)), svd_solver="full").fit(values)
    plane = np.pad(pca.transform(values), [(0, 0), (0, 2 - pca.n_components_)])
    parts = np.pad(np.nan_to_num(pca.explained_variance_ratio_), (0, 2 - pca.n_components_))
    first, second = (f"component {i}, {part:.0%} of variance" for i, part in enumerate(parts, 1))
    return plane, (first, second)


def _scatter(ax: Axes, plane: NDArray[Any], categories: NDArray[Any]) -> None:
    present, counts = np.unique(categories, return_counts=True)
    kept = np.sort(present[np.argsort(-counts, kind="stable")][:LEGIBLE])
    style: dict[str, Any] = {"s": 7, "alpha": 0.5, "linewidths": 0, "rasterized": True}
    if len(kept) < len(present):
        ax.scatter(*plane[~np.isin(categories, kept)].T, color=OTHERS, label="others", **style)
    for rank, category in enumerate(kept):
        points = plane[categories == category]
        style |= {"color": HUES[rank % 10], "marker": "o^"[rank // 10]}
        ax.scatter(*points.T, label=str(category), **style)
        ax.annotate(
            str(category),
            np.median(points, 0),
            ha="center",
            va="center",
            weight="bold",
            fontsize="small",
            path_effects=OUTLINE,
        )


def _legend(ax: Axes, **options: Any) -> Legend:
    """Legend beside the axes, where it hides nothing; on their right unless told."""
    columns = 1 + (len(ax.collections) > LEGIBLE // 2)
    place: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1, 0.5), "ncols": columns}
    return ax.legend(frameon=False, fontsize="small", **(place | options))


def draw_terms(history: Sequence[Mapping[str, Any]], ax: Axes | None = None) -> Axes:
    """Terms of the ELBO over training, in nats per datum.

    A row of history has the keys ``step``, ``split`` (``train`` or ``valid``), ``elbo``,
    ``reconstruction`` and any ``kl[site]`` and ``log p(site)``; others are ignored.

    Above, on the axes returned, -ELBO and -reconstruction, whose distance is the sum of what is
    below: the KLs, and -log p of what is observed beside x, linear up to 0.1 and logarithmic
    beyond. Solid is training, dashed validation: lines that part are overfitting, a KL that falls
    to 0 is a latent that collapsed. The steep first tenth of the steps may leave the upper axes.
    """
    if not history:
        raise ValueError("Expected at least one row of history but got none.")
    ax = new_axes(6.4, 4.6) if ax is None else ax
    terms = dict.fromkeys(term for row in history for term in row)
    kls = {term: f"KL{term[2:]}" for term in terms if term.startswith("kl[")}
    factors = {term: f"$-${term}" for term in terms if term.startswith("log p(")}
    if kls or factors:
        lower = divide(ax, 2, height_ratios=(3, 2), hspace=0.05)[1]
        _draw_kls(lower, history, kls, factors)
    _curves(ax, history, {"elbo": "$-$ELBO", "reconstruction": "$-$reconstruction"}, -1, HUES)
    _crop(ax)
    ax.tick_params(labelbottom=not (kls or factors))
    ax.set(xlabel="" if kls or factors else "step", ylabel="nats per datum")
    found = [split for split in DASHES if any(row["split"] == split for row in history)]
    splits = [Line2D([], [], color="grey", linestyle=DASHES[k], label=k) for k in found]
    _legend(ax, handles=[*ax.get_legend_handles_labels()[0], *splits])
    return ax


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
    _legend(ax)


def divide(ax: Axes, rows: int, columns: int = 1, **grid: Any) -> list[Axes]:
    """Gives the place of ``ax`` to a grid of axes with its abscissa, of which it is the first.

    Raises:
        ValueError: for axes that were not made by ``subplots``.
    """
    place = ax.get_subplotspec()
    if place is None:
        raise ValueError("Expected axes made by subplots; these have no place that can be split.")
    inside = place.subgridspec(rows, columns, **grid)
    ax.set_subplotspec(inside[0])
    figure = ax.get_figure()
    assert figure is not None
    return [ax, *(figure.add_subplot(inside[i], sharex=ax) for i in range(1, rows * columns))]


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
    """Fits the ordinate to what follows the first tenth of the abscissa."""
    points = np.concatenate([line.get_xydata() for line in ax.lines])
    points = points[np.isfinite(points).all(1)]
    late = points[points[:, 0] >= 0.1 * points[:, 0].max(initial=0), 1]
    if len(late):
        margin = 0.05 * max(np.ptp(late), 1.0)
        ax.set_ylim(late.min() - margin, late.max() + margin)


def draw_usage(probabilities: Tensor, ax: Axes | None = None) -> Axes:
    """Share of the data in each cluster, from the fullest to the emptiest.

    Bars count hard assignments and dots average ``q(y)``: a dot far above its bar is a cluster
    that many data consider and few choose. The line is 1/K, an even use.
    """
    order, share = occupancy(probabilities)
    clusters = len(order)
    ax = new_axes(min(8.0, 4 + 0.15 * clusters), 3) if ax is None else ax
    ranks = range(clusters)
    soft = probabilities.mean(0)[order].tolist()
    bars = ax.bar(ranks, share[order].tolist(), color=HUES[3], label="hard share")
    dots = ax.plot(ranks, soft, "o", color=HUES[0], markersize=3.5, label="soft share, mean $q(y)$")
    even = ax.axhline(1 / clusters, color=HUES[5], linestyle="--", linewidth=1, label="$1/K$")
    few = clusters <= 2 * LEGIBLE
    ax.set_xticks(ranks if few else [], order.tolist() if few else [], fontsize="small")
    used = int((share > 0).sum())
    ax.set(xlabel=f"clusters by hard share, {used} of {clusters} used", ylabel="share of data")
    ax.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g}%")
    ax.margins(x=0.02)
    ax.spines[["top", "right"]].set_visible(False)
    _legend(ax, handles=[bars, *dots, even], loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3)
    return ax


def draw_confusion(
    assignments: Tensor,
    labels: Tensor,
    clusters: int,
    names: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Counts of each class (row) in each cluster (column), coloured by the share of the class.

    Assignments and labels are ``(N,)``; ``names[label]`` are the words for classes. Clusters
    matched one-to-one with classes come first and make the diagonal; the others follow, by their
    majority class. One dark cell in a row is a class kept whole, two are a class split; two dark
    cells in a column are classes merged.
    """
    order = hungarian_order(assignments, labels, clusters)
    counts = contingency(assignments, labels, clusters).T[:, order]
    shares = counts / counts.sum(1, keepdim=True)
    width, height = min(9.0, 2.4 + 0.4 * clusters), min(9.0, 1.2 + 0.36 * len(counts))
    ax = new_axes(width, height) if ax is None else ax
    image = ax.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    classes = labels.unique().tolist()
    ax.set_yticks(range(len(classes)), [str(k) if names is None else names[k] for k in classes])
    few = clusters <= LEGIBLE
    ax.set_xticks(range(clusters) if few else [], order.tolist() if few else [])
    ax.set(xlabel="cluster" if few else f"{clusters} clusters", ylabel="class")
    if few:
        _print_counts(ax, counts, shares)
    figure = ax.get_figure()
    assert figure is not None
    figure.colorbar(image, ax=ax, format=PercentFormatter(1), label="share of the class")
    return ax


def _print_counts(ax: Axes, counts: Tensor, shares: Tensor) -> None:
    for row, column in counts.nonzero().tolist():
        colour = "white" if shares[row, column] > 0.6 else "black"
        text = str(int(counts[row, column]))
        ax.text(column, row, text, color=colour, ha="center", va="center", fontsize=7)
