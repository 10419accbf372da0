"""Figures and figures of merit of the factorial mixture: its factors, one by one."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from pyro import poutine
from torch import Tensor

from priorzoo.benchmarks import metrics, pictures
from priorzoo.benchmarks.data import Dataset
from priorzoo.benchmarks.figures import HUES, OTHERS, divide, new_axes
from priorzoo.guides import FactorialCode
from priorzoo.guides.factorial import FactorialPredictive
from priorzoo.inference import cluster_probabilities, draw
from priorzoo.inference.pairs import site_of
from priorzoo.models import Dirichlet, FactorialMixture
from priorzoo.models.factorial import factors

JUDGED = 1_000  # drawn rows
MEAN = 100  # samples that the mean of a cluster is taken over, as in the paper
SHOWN = 10  # clusters along one side of a grid
PARTS = {  # of the bound, and the terms that they are the sum of
    "ELBO": "elbo",
    "reconstruction": "reconstruction",
    "KL[z]": "kl[z_",
    "KL[r]": "kl[r_",
}


def score(
    model: FactorialMixture, guide: FactorialCode, x: Tensor, rows: Dataset
) -> dict[str, float]:
    """Metrics of each factor, under its site's name where there are several or named labels.

    ``used`` counts the components that the posterior keeps, to which a datum or more was added.
    ``accuracy`` is that of the most probable cluster where clusters are clamped to labels.
    """
    story, _ = guide.predictive(model)
    sites = [f"r_{i}" for i, *_ in factors(model.code, model.clusters)]
    figures: dict[str, float] = {}
    for i, site in enumerate(sites, 1):
        probabilities = cluster_probabilities(model, guide, x, site).cpu()
        labels = rows.named[site][1] if site in rows.named else None
        if len(sites) == 1 and labels is None:
            labels = rows.y_test
        found = metrics.score(probabilities, labels)
        found["used"] = float(story.used(i).sum())
        if site in rows.named and labels is not None:
            found["accuracy"] = (probabilities.argmax(-1) == labels).double().mean().item()
        alone = len(sites) == 1 and not rows.named
        figures |= found if alone else {f"{site}.{name}": v for name, v in found.items()}
    return figures


def judge(
    model: FactorialMixture, guide: FactorialCode, rows: Dataset, known: Mapping[str, Tensor]
) -> dict[str, float]:
    """What logistic regressions on the pixels say, for each factor with labels.

    ``agreement``: how often one that was fit to all real training rows sees in a drawn row what the
    factor was held at, all labelled factors being held at values drawn evenly (as people did in the
    paper's table 1). ``judge``: its accuracy on real test rows. ``regression``: that of one fit to
    the labels that the model had, to which the factor's own ``accuracy`` compares.

    Args:
        known: those labels by site, -1 for unknown.
    """
    story = guide.predictive(model, prune=True)[0]
    sizes = {f"r_{i}": k for i, k, _ in factors(model.code, model.clusters)}
    held = {site: torch.randint(sizes[site], (JUDGED,)) for site in rows.named}
    drawn = draw(story, JUDGED, given=dict(held)).cpu().numpy()
    found: dict[str, float] = {}
    for site, (labels, test) in rows.named.items():
        kept = known[site].cpu() >= 0
        real = _regression(rows.x_train, labels)
        own = _regression(rows.x_train[kept], labels[kept])
        x_test, y_test = rows.x_test.numpy(), test.numpy()
        found[f"{site}.agreement"] = float(real.score(drawn, held[site].numpy()))
        found[f"{site}.judge"] = float(real.score(x_test, y_test))
        found[f"{site}.regression"] = float(own.score(x_test, y_test))
    return found


def _regression(x: Tensor, labels: Tensor) -> Any:
    """Logistic regression on the first hundred principal components of the pixels.

    Of labels of one class, what says that class.
    """
    from sklearn.decomposition import PCA
    from sklearn.dummy import DummyClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    if len(labels.unique()) == 1:
        return DummyClassifier().fit(x.numpy(), labels.numpy())
    components = min(100, len(x) // 2)
    return make_pipeline(PCA(components, random_state=0), LogisticRegression(max_iter=5000)).fit(
        x.numpy(), labels.numpy()
    )


def figures(
    model: FactorialMixture, guide: FactorialCode, picture: tuple[int, ...]
) -> Iterator[tuple[str, Callable[[], Axes]]]:
    """Weights of each factor, and for pictures the means of its clusters and grids of factors."""
    for i, *_ in factors(model.code, model.clusters):
        counts, used = weights(model, guide, i)
        yield f"weights_{i}", partial(draw_weights, counts, used)
        shown = counts.where(used, 0.0).argsort(descending=True)[: min(SHOWN, int(used.sum()))]
        if picture and len(shown):
            made = cluster_samples(model, guide, f"r_{i}", shown.tolist())
            yield f"clusters_{i}", partial(draw_moments, made, shown.tolist(), picture)
    sizes = factors(model.code, model.clusters)
    if picture and len(sizes) > 1:
        rows, columns = (min(k, SHOWN) for _, k, _ in sizes[:2])
        grid = attribute_grid(model, guide, rows, columns)
        yield "grid", partial(pictures.draw_grid, grid, picture, columns)


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


def attribute_grid(
    model: FactorialMixture, guide: FactorialCode, rows: int, columns: int
) -> Tensor:
    """``(rows * columns, P)``: clusters of the first factor down, of the second across.

    Everything else is held: each further factor has one code for the whole grid, and the codes of a
    row or of a column are alike in it. Clusters are the first of each factor.
    """
    story, _ = guide.predictive(model, prune=True)
    down = torch.arange(rows).repeat_interleave(columns)
    across = torch.arange(columns).repeat(rows)
    held: dict[str, Tensor | int] = {"r_1": down, "r_2": across}
    sizes = factors(model.code, model.clusters)
    given = {}
    for i, clusters, _ in sizes:
        count = clusters if i < 3 else 1
        chosen = torch.arange(clusters) if i < 3 else None
        z = _codes(story, i, count, chosen)
        given[f"z_{i}"] = z[held[f"r_{i}"]] if i < 3 else z.expand(len(down), -1)
    return draw(story, len(down), given={**held, **given}).cpu()


def _codes(story: FactorialPredictive, i: int, count: int, clusters: Tensor | None) -> Tensor:
    """``(count, D)`` draws of a factor's code, of these clusters if given."""
    given = {} if clusters is None else {f"r_{i}": clusters.to(story.guide.unit.device)}
    with torch.no_grad():
        trace = poutine.trace(poutine.condition(story, data=given)).get_trace(size=count)
    z: Tensor = site_of(trace, f"z_{i}")["value"]
    return z


def draw_weights(counts: Tensor, used: Tensor, ax: Axes | None = None) -> Axes:
    """Posterior mean weights ``(K,)``, the heaviest first; pruned components are grey."""
    order = counts.argsort(descending=True, stable=True)
    ax = new_axes(5, 2.5) if ax is None else ax
    colours = [HUES[0] if used[k] else OTHERS for k in order.tolist()]
    ax.bar(range(len(order)), counts[order].tolist(), color=colours, width=0.9)
    pruned = int((~used).sum())
    ax.set(xlabel="component, by weight", ylabel="posterior mean weight")
    ax.set_title(f"{len(order) - pruned} of {len(order)} components in use, {pruned} pruned")
    return ax


def draw_moments(samples: Tensor, clusters: Sequence[int], shape: Sequence[int]) -> Axes:
    """A row a cluster: mean and standard deviation of ``(K, S, P)`` samples, then six of them."""
    spread = samples.std(1, keepdim=True)
    rows = torch.cat([samples.mean(1, keepdim=True), spread / spread.max(), samples[:, :6]], 1)
    ax = pictures.draw_grid(rows.flatten(0, 1), shape, rows.shape[1])
    ax.set_title(f"mean, deviation, samples of clusters {', '.join(map(str, clusters))}")
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
