"""What a mixture makes of points in the plane, KL[y] against its floor, and runs side by side.

``priorzoo bench planar`` draws all three of run folders.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Ellipse
from pyro import poutine
from torch import Tensor, nn

from priorzoo.benchmarks.charts import axes
from priorzoo.benchmarks.charts.curves import READING, History, draw_term, draw_terms
from priorzoo.inference import cluster_probabilities, codes
from priorzoo.inference.sites import evaluating, site_of

REGIONS = (
    "Above: data (grey), samples of the clusters, and the cluster that each place falls into, pale "
    "where unsure. Below: codes, and two standard deviations of each mixture component."
)
SIDE = 120  # of the grid of regions
DRAWN = 300  # of each component
SHOWN = 2_000  # data
EMPTY = 0.005  # share of the data below which a cluster's component is not drawn


@dataclass(frozen=True)
class View:
    """What a pair says of data in the plane, and draws there.

    Args:
        name: of the view.
        x, z: data ``(N, 2)`` and the means of their codes.
        clusters, share: the most probable of each datum ``(N,)``, and the mean of q(y) ``(K,)``.
        ticks: coordinates ``(S,)`` of the grid, of both axes.
        regions, certainty: the most probable cluster at (row, column) of the grid, and its
            probability, ``(S, S)``.
        drawn, drawn_codes: draws ``(K, M, 2)`` of x and of z from each component.
    """

    name: str
    x: Tensor
    z: Tensor
    clusters: Tensor
    share: Tensor
    ticks: Tensor
    regions: Tensor
    certainty: Tensor
    drawn: Tensor
    drawn_codes: Tensor


@torch.no_grad()
def look(model: nn.Module, guide: nn.Module, x: Tensor, name: str = "") -> View:
    """The view of a mixture whose rows ``x`` ``(N, 2)`` and codes lie in planes.

    Random numbers are those of the caller's stream.

    Raises:
        ValueError: for rows or codes of another size.
    """
    z = codes(model, guide, x)
    if x.shape[1] != 2 or z.shape[1] != 2:
        raise ValueError(
            f"Expected rows and codes of 2 dimensions but got {x.shape[1]} and {z.shape[1]}; "
            "draw_plane projects others."
        )
    q = cluster_probabilities(model, guide, x)
    ticks = 1.1 * x.abs().max() * torch.linspace(-1, 1, SIDE, device=x.device)
    grid = torch.cartesian_prod(ticks, ticks).flip(-1)  # rows go up
    certainty, regions = cluster_probabilities(model, guide, grid).view(SIDE, SIDE, -1).max(-1)
    every = torch.arange(q.shape[1], device=x.device).repeat_interleave(DRAWN)
    with evaluating(model):
        trace = poutine.trace(poutine.condition(model, {"y": every})).get_trace(size=len(every))
    drawn, drawn_codes = (site_of(trace, s)["value"].reshape(-1, DRAWN, 2) for s in ("x", "z"))
    parts = [x, z, q.argmax(-1), q.mean(0), ticks, regions, certainty, drawn, drawn_codes]
    return View(name, *(part.cpu() for part in parts))


def draw_regions(views: Sequence[View]) -> list[Axes]:
    """A column for each view: the plane of x above that of z; axes of the upper row come first.

    Above, the colour of a place is the cluster that it would be put into, the paler the less sure;
    grey points are data, and coloured ones draws from the components. Below are the codes of the
    data in the colour of their cluster, with the ellipse of two standard deviations of each
    component. Components without data are left out.
    """
    figure = axes.new_figure(2.6 * len(views), 5.4, "Clusters in the plane", REGIONS)
    panels: list[Axes] = list(figure.subplots(2, len(views), squeeze=False).flat)
    for view, above, below in zip(views, panels, panels[len(views) :], strict=False):
        held = view.clusters.bincount(minlength=len(view.share)) / len(view.clusters)
        hues = [axes.HUES[k % len(axes.HUES)] for k in range(len(held))]
        colours = torch.tensor([to_rgb(hue) for hue in hues])
        ground = 1 - 0.45 * view.certainty.unsqueeze(-1) * (1 - colours[view.regions])
        ends = 2 * (view.ticks[0].item(), view.ticks[-1].item())
        above.imshow(ground.numpy(), extent=ends, origin="lower", zorder=0)
        above.set(title=view.name, xlim=ends[:2], ylim=ends[:2], xticks=[], yticks=[])
        _dot(above, view.x[:SHOWN], 1, "grey", "data")
        for k in (held > EMPTY).nonzero().squeeze(1).tolist():
            _dot(above, view.drawn[k], 3, hues[k], str(k))
            own = view.z[:SHOWN][view.clusters[:SHOWN] == k]
            _dot(below, own, 2, hues[k], str(k))
            below.add_patch(_ellipse(view.drawn_codes[k], hues[k]))
            below.annotate(str(k), tuple(own.mean(0).tolist()), **axes.NUMBER)
        below.autoscale_view()
        below.set(xticks=[], yticks=[])
    return panels


def _dot(ax: Axes, points: Tensor, area: float, colour: str, label: str) -> None:
    across, up = points.T.numpy()
    ax.scatter(across, up, s=area, color=colour, linewidths=0, label=label)


def _ellipse(points: Tensor, colour: str) -> Ellipse:
    """Two standard deviations of points ``(M, 2)`` in every direction."""
    variances, directions = torch.linalg.eigh(points.T.cov())
    width, height = (4 * variances.clamp(min=0).sqrt()).tolist()
    angle = torch.atan2(directions[1, 0], directions[0, 0]).rad2deg().item()
    x, y = points.mean(0).tolist()
    return Ellipse((x, y), width, height, angle=angle, fill=False, edgecolor=colour, linewidth=1.5)


def draw_floor(histories: Mapping[str, History], floor: float) -> Axes:
    """KL[y] of the training rows over the steps, a line for each run, and the floor.

    Below the floor the objective does not feel KL[y]; a curve that falls onto it from above is a
    merging of clusters, one at 0 a degenerate clustering.
    """
    caption = "A curve that falls to the floor: clusters merge. At 0: y says nothing of the data."
    ax = axes.new_axes(5, 3, "KL[y] and its floor over training", caption)
    for (name, history), hue in zip(histories.items(), cycle(axes.HUES), strict=False):
        draw_term(ax, history, "train", "kl[y]", color=hue, label=name)
    ax.axhline(floor, color="grey", linestyle="--", linewidth=1, label=f"floor, {floor:.3g}")
    ax.set(xlabel="step", ylabel="KL[y], nats per datum")
    ax.set_ylim(bottom=min(0.0, ax.get_ylim()[0]))
    axes.legend_beside(ax)
    return ax


def draw_guides(histories: Mapping[str, History]) -> list[Axes]:
    """:func:`draw_terms` of each run in its own column, all with the same ordinates."""
    panels = axes.new_row(len(histories), "Terms of the ELBO over training", READING)
    for ax, (name, history) in zip(panels, histories.items(), strict=True):
        draw_terms(history, ax).set_title(name)
    twins = [twin for ax in panels for twin in ax.get_shared_x_axes().get_siblings(ax)]
    for level in (panels, [twin for twin in twins if twin not in panels]):
        limits = [limit for ax in level for limit in ax.get_ylim()]
        for ax in level:
            ax.set_ylim(min(limits), max(limits))
    return panels


def floor_of(settings: Mapping[str, Any]) -> float:
    """The floor of KL[y] in the settings of a run; 0 for none."""
    return float(settings.get("kl", {}).get("y", {}).get("floor", 0.0))
