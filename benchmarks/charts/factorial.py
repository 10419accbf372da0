"""Figures of the factorial mixture: factors one by one and in pairs, the bound against K."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from pyro import poutine
from torch import Tensor

from priorzoo.benchmarks.charts import pictures
from priorzoo.benchmarks.charts.axes import HUES, LEGIBLE, OTHERS, divide, new_axes
from priorzoo.guides import FactorialCode
from priorzoo.guides.factorial import FactorialPredictive
from priorzoo.inference import draw
from priorzoo.inference.pairs import site_of
from priorzoo.models import Dirichlet, FactorialMixture
from priorzoo.models.factorial import factors

MEAN = 100  # samples that the mean of a cluster is taken over, as in the paper
SAMPLES = 6  # of a cluster that are drawn beside it
SHOWN = 10  # clusters along one side of a grid
PARTS = {  # of the bound, and the terms that they are the sum of
    "ELBO": "elbo",
    "reconstruction": "reconstruction",
    "KL[z]": "kl[z_",
    "KL[r]": "kl[r_",
}


def figures(
    model: FactorialMixture,
    guide: FactorialCode,
    picture: tuple[int, ...],
    names: Mapping[str, str] | None = None,
) -> Iterator[tuple[str, Callable[[], Axes]]]:
    """Weights of each factor, and for pictures the clusters of each and grids of the first two.

    Args:
        model, guide: a trained pair.
        picture: shape of the rows, empty for what is no picture.
        names: of the factors by site, where they have any.
    """
    called = {f"r_{i}": f"factor {i}" for i, *_ in factors(model.code, model.clusters)}
    called |= names or {}
    shown = {}
    for i, site in enumerate(called, 1):
        shares, used = weights(model, guide, i)
        yield f"weights_{i}", partial(draw_weights, shares, used, factor=called[site])
        order = shares.where(used, 0.0).argsort(descending=True, stable=True)
        shown[site] = order[: min(SHOWN, int(used.sum()))].tolist()
        if picture and shown[site]:
            made = cluster_samples(model, guide, site, shown[site])
            heads = [f"{k}:  {shares[k]:.1%}" for k in shown[site]]
            yield f"clusters_{i}", partial(draw_moments, made, heads, picture, called[site])
    if picture and len(called) > 1 and shown["r_1"] and shown["r_2"]:
        down, across = sorted(shown["r_1"]), sorted(shown["r_2"])
        for name, grid in (("grid", attribute_grid), ("means", mean_grid)):
            made = grid(model, guide, down, across)
            sides = {called["r_1"]: down, called["r_2"]: across}
            yield name, partial(draw_pairs, made, sides, picture)


def weights(model: FactorialMixture, guide: FactorialCode, i: int) -> tuple[Tensor, Tensor]:
    """Posterior mean weights ``(K_i,)`` of a factor, and which components are not pruned."""
    story, _ = guide.predictive(model)
    (counts,) = Dirichlet.usual(guide.weights[i - 1].detach())
    return (counts / counts.sum()).float().cpu(), story.used(i).cpu()


def cluster_samples(
    model: FactorialMixture, guide: FactorialCode, site: str, clusters: Sequence[int]
) -> Tensor:
    """``(len(clusters), 100, P)`` decoded draws of each cluster, the other factors drawn too."""
    story, _ = guide.predictive(model, prune=True)
    return torch.stack([draw(story, MEAN, given={site: k}).cpu() for k in clusters])


def mean_grid(
    model: FactorialMixture, guide: FactorialCode, down: Sequence[int], across: Sequence[int]
) -> Tensor:
    """``(len(down) * len(across), P)``: means of 100 decoded draws of each pair of clusters of the
    first and of the second factor, the other factors drawn too; the paper's figure 8.
    """
    story, _ = guide.predictive(model, prune=True)
    pairs: list[dict[str, Tensor | int]]
    pairs = [{"r_1": k, "r_2": other} for k in down for other in across]
    return torch.stack([draw(story, MEAN, given=pair).mean(0).cpu() for pair in pairs])


def attribute_grid(
    model: FactorialMixture, guide: FactorialCode, down: Sequence[int], across: Sequence[int]
) -> Tensor:
    """``(len(down) * len(across), P)``: clusters of the first factor down, of the second across.

    Everything else is held: each further factor has one code for the whole grid, and the codes of a
    row or of a column are alike in it; the paper's figures 1 and 6.
    """
    story, _ = guide.predictive(model, prune=True)
    sides = [torch.tensor(list(down)), torch.tensor(list(across))]
    places = torch.cartesian_prod(*(torch.arange(len(side)) for side in sides)).T
    given: dict[str, Tensor | int] = {}
    for i, _, _ in factors(model.code, model.clusters):
        if i > 2:
            given[f"z_{i}"] = _codes(story, i, 1).expand(places.shape[1], -1)
            continue
        side, place = sides[i - 1], places[i - 1]
        given[f"r_{i}"] = side[place]
        given[f"z_{i}"] = _codes(story, i, len(side), side)[place]
    return draw(story, places.shape[1], given=given).cpu()


def _codes(
    story: FactorialPredictive, i: int, count: int, clusters: Tensor | None = None
) -> Tensor:
    """``(count, D)`` draws of a factor's code, of these clusters if given."""
    given = {} if clusters is None else {f"r_{i}": clusters.to(story.guide.unit.device)}
    with torch.no_grad():
        trace = poutine.trace(poutine.condition(story, data=given)).get_trace(size=count)
    z: Tensor = site_of(trace, f"z_{i}")["value"]
    return z


def draw_weights(
    shares: Tensor, used: Tensor, ax: Axes | None = None, factor: str = "component"
) -> Axes:
    """Posterior mean weights ``(K,)``, the heaviest first; a grey ground marks pruned components,
    whose own bars may be too low to be seen.
    """
    order = shares.argsort(descending=True, stable=True)
    clusters, kept = len(order), int(used.sum())
    ax = new_axes(min(8.0, 4 + 0.1 * clusters), 2.5) if ax is None else ax
    ax.bar(range(clusters), shares[order].tolist(), color=HUES[0], width=0.9)
    for rank in (~used[order]).nonzero().flatten().tolist():
        ax.axvspan(rank - 0.5, rank + 0.5, color=OTHERS, linewidth=0, zorder=0)
    few = clusters <= 2 * LEGIBLE
    ax.set_xticks(range(clusters) if few else [], order.tolist() if few else [], fontsize="small")
    ax.set(xlabel=f"{factor}, by weight", ylabel="posterior mean weight")
    ax.set_title(f"{kept} of {clusters} components in use, {clusters - kept} pruned")
    ax.margins(x=0.02)
    return ax


def draw_moments(
    samples: Tensor, names: Sequence[str], shape: Sequence[int], factor: str = "component"
) -> Axes:
    """A row a cluster: mean and standard deviation of ``(K, S, P)`` samples, then six of them.

    Deviations are the brighter the larger they are, the largest of all white (figure 4).
    """
    spread = samples.std(1, keepdim=True)
    spread = spread / spread.max()
    rows = torch.cat([samples.mean(1, keepdim=True), spread, samples[:, :SAMPLES]], 1)
    heads = ["mean", "sd", *[""] * (rows.shape[1] - 2)]
    heads[2:3] = ["samples"] * (len(heads) > 2)
    ax = pictures.draw_grid(rows.flatten(0, 1), shape, len(heads), rows=names, heads=heads)
    ax.set_ylabel(f"{factor}, weight")
    return ax


def draw_pairs(grid: Tensor, sides: Mapping[str, Sequence[int]], shape: Sequence[int]) -> Axes:
    """Pictures ``(rows * columns, P)`` of pairs of components of two factors.

    Args:
        grid: row by row.
        sides: the components of the factor that varies down, and of that which varies across.
        shape: of a picture.
    """
    (first, down), (second, across) = sides.items()
    rows, heads = [str(k) for k in down], [str(k) for k in across]
    ax = pictures.draw_grid(grid, shape, len(across), rows=rows, heads=heads)
    ax.set(xlabel=second, ylabel=first)
    ax.xaxis.set_label_position("top")
    return ax


def draw_sweep(rows: Sequence[Mapping[str, Any]], ax: Axes | None = None) -> Axes:
    """The parts of the bound of test rows against the number of components, in nats per datum.

    Figure 3 of Paquet, Ghaisas and Tieleman, 2018: ELBO, reconstruction, KL[z] and KL[r], in four
    panels in the place of ``ax``, the first of which is returned. Lines are means over the seeds,
    and bands a standard deviation to each side.

    Args:
        rows: results of one recipe that differ in ``model.clusters`` and seed.

    Raises:
        ValueError: for no rows, for rows of several recipes, data sets or lengths, and for several
            factors.
    """
    protocol = _protocol(rows)
    groups: dict[int, list[Mapping[str, float]]] = {}
    for row in sorted(rows, key=_components):
        groups.setdefault(_components(row), []).append(row["terms"])
    panels = divide(new_axes(7, 5) if ax is None else ax, 2, 2)
    for panel, hue, (name, start) in zip(panels, HUES, PARTS.items(), strict=False):
        parts = {k: [_part(terms, start) for terms in found] for k, found in groups.items()}
        _draw_part(panel, parts, hue)
        panel.set(xlabel="components K", ylabel=f"{name}, nats")
    seeds = sorted({len(found) for found in groups.values()})
    runs = " to ".join(str(count) for count in (seeds[0], seeds[-1])[: len(seeds)])
    figure = panels[0].get_figure()
    assert figure is not None
    over = f"mean and deviation of {runs} seeds" if seeds[-1] > 1 else "1 seed"
    figure.suptitle(f"{protocol}; {over} for each K")
    return panels[0]


def _draw_part(ax: Axes, values: Mapping[int, Sequence[float]], hue: str) -> None:
    """Mean and standard deviation of the values of each K."""
    middle = np.array([mean(found) for found in values.values()])
    spread = np.array([stdev(found) if len(found) > 1 else 0.0 for found in values.values()])
    counts = list(values)
    ax.plot(counts, middle, "o-", color=hue, markersize=3.5, linewidth=1.2)
    ax.fill_between(counts, middle - spread, middle + spread, color=hue, alpha=0.25, linewidth=0)
    ax.set_xscale("log", base=2)
    ax.set_xticks(counts, [str(k) for k in counts])


def _protocol(rows: Sequence[Mapping[str, Any]]) -> str:
    """Recipe, data set and steps, the same for all rows."""
    found = {f"{r['recipe']} on {r['settings']['data']}, {r['steps']:,} steps" for r in rows}
    if len(found) != 1:
        raise ValueError(
            "Expected rows of one recipe, data set and number of steps but got "
            f"{sorted(found) or 'none'}; choose among them."
        )
    return found.pop()


def _components(row: Mapping[str, Any]) -> int:
    clusters = row["settings"]["model"]["init_args"]["clusters"]
    if not isinstance(clusters, int):
        raise ValueError(f"Expected rows of one factor but got clusters={clusters}.")
    return clusters


def _part(terms: Mapping[str, float], start: str) -> float:
    return sum(value for name, value in terms.items() if name.startswith(start))
