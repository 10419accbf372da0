"""How data fall into clusters: CPU tensors in, matplotlib axes out. ``N`` data, ``K`` clusters."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter
from torch import Tensor

from priorzoo.benchmarks.charts.axes import HUES, LEGIBLE, figure_of, legend_beside, new_axes
from priorzoo.benchmarks.scores.metrics import contingency, hungarian_order

CONSIDERED = "A dot far above its bar: data points consider the cluster but rarely choose it."
COUNTS = "Counts. Two dark cells in a row split a class, two in a column merge classes."


def hard_shares(probabilities: Tensor) -> Tensor:
    """The share of the hard assignments that each cluster has, ``(K,)``."""
    return probabilities.argmax(-1).bincount(minlength=probabilities.shape[1]) / len(probabilities)


def draw_usage(probabilities: Tensor, ax: Axes | None = None) -> Axes:
    """Share of the data in each cluster, from the fullest to the emptiest.

    Bars count hard assignments and dots average ``q(y)``: a dot far above its bar is a cluster
    that many data consider and few choose. The line is 1/K, an even use.
    """
    share, clusters = hard_shares(probabilities), probabilities.shape[1]
    order = share.argsort(descending=True, stable=True)
    width, title = min(8.0, 4 + 0.15 * clusters), "Share of the data in each cluster"
    ax = new_axes(width, 3, title, CONSIDERED) if ax is None else ax
    ranks, soft = range(clusters), probabilities.mean(0)[order].tolist()
    ax.bar(ranks, share[order].tolist(), color=HUES[3], label="hard share")
    ax.plot(ranks, soft, "o", color=HUES[0], markersize=3.5, label="soft share, mean $q(y)$")
    ax.axhline(1 / clusters, color=HUES[5], linestyle="--", linewidth=1, label="$1/K$")
    few = clusters <= 2 * LEGIBLE
    ax.set_xticks(ranks if few else [], order.tolist() if few else [], fontsize="small")
    ax.tick_params("x", rotation=90 * (clusters > LEGIBLE))
    used = int((share > 0).sum())
    ax.set(xlabel=f"clusters by hard share, {used} of {clusters} used", ylabel="share of data")
    ax.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g}%")
    ax.margins(x=0.02)
    ax.spines[["top", "right"]].set_visible(False)
    legend_beside(ax)
    return ax


def draw_confusion(
    assignments: Tensor,
    labels: Tensor,
    clusters: int,
    names: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Counts of each class (row) in each cluster (column), coloured by the share of the class.

    Clusters matched one-to-one with classes come first and make the diagonal (where there are fewer
    clusters than classes, a descending line); the others follow, by their majority class. Of more
    than 20 clusters, those without data are left out. One dark cell in a row is a class kept whole,
    two are a class split; two dark cells in a column are classes merged.

    Args:
        assignments, labels: ``(N,)``; rows of label -1, unknown, are left out.
        clusters: their number K.
        names: the words for classes, ``names[label]``.
        ax: to draw on.
    """
    order = hungarian_order(assignments, labels, clusters)
    counts = contingency(assignments, labels, clusters).T[:, order]
    shown = counts.any(0) | (clusters <= LEGIBLE)
    order, counts = order[shown], counts[:, shown]
    shares = counts / counts.sum(1, keepdim=True)
    if ax is None:
        width, height = min(9.0, 2.4 + 0.4 * len(order)), min(9.0, 1.2 + 0.36 * len(counts))
        ax = new_axes(width, height, "Classes and the clusters they fall into", COUNTS)
    image = ax.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    classes = labels[labels >= 0].unique().tolist()
    ax.set_yticks(range(len(classes)), [str(k) if names is None else names[k] for k in classes])
    few = len(order) <= LEGIBLE
    ax.set_xticks(range(len(order)) if few else [], order.tolist() if few else [])
    empty = "" if len(order) == clusters else f"; of {clusters}, the others are empty"
    ax.set(xlabel=f"{'cluster' if few else f'{len(order)} clusters'}{empty}", ylabel="class")
    for row, column in counts.nonzero().tolist() if few else ():
        colour = "white" if shares[row, column] > 0.6 else "black"
        text = str(int(counts[row, column]))
        ax.text(column, row, text, color=colour, ha="center", va="center", fontsize=7)
    figure_of(ax).colorbar(image, ax=ax, format=PercentFormatter(1), label="share of the class")
    return ax
