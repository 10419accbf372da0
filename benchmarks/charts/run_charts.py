"""Which figures fit a run, drawn from the run and its data."""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from priorzoo.benchmarks.charts import factorial as factor_figures
from priorzoo.benchmarks.charts import pictures, planar
from priorzoo.benchmarks.charts.axes import save
from priorzoo.benchmarks.charts.clusters import draw_confusion, draw_usage, hard_shares
from priorzoo.benchmarks.charts.curves import draw_terms
from priorzoo.benchmarks.charts.planes import POINTS, draw_embedding, draw_plane
from priorzoo.benchmarks.data.sets import Dataset
from priorzoo.benchmarks.runs.run import Run
from priorzoo.benchmarks.scores import nggp
from priorzoo.guides import FactorialCode
from priorzoo.inference import (
    Memory,
    Stream,
    cluster_probabilities,
    codes,
    component_means,
    draw,
    reconstructions,
)
from priorzoo.inference.memory import straight
from priorzoo.models import FactorialMixture, NGGPMixture, NonparametricVAE

SAMPLES = 8  # of each cluster
SIDE = 20  # of the grid over the plane
WAYS = 6  # interpolations


def draw_run(run: Run, rows: Dataset) -> list[Path]:
    """Write the figures that fit the run's model to its folder ``figures``; returns their paths."""
    with Stream(0, run.device):
        x = rows.x_test[:POINTS].to(run.device)
        x = x if rows.transform is None else rows.transform(x)
        y = None if rows.y_test is None else rows.y_test[:POINTS]
        drawn = dict(_figures(run, x, y, rows.shape))
        if isinstance(run.model, NonparametricVAE):
            drawn |= dict(_places(run, rows, x, y))
        if isinstance(run.model, NGGPMixture):
            q = cluster_probabilities(run.model, run.guide, x).cpu()
            words = run.result.get("words", {})
            drawn |= dict(nggp.figures(run.model, run.guide, run.history, q, words))
    paths, title = [], f"{run.result['recipe']}, seed {run.result['seed']}"
    for name, make in drawn.items():
        paths.append(run.folder / "figures" / f"{name}.png")
        save(make(), paths[-1], run=title)
    return paths


def _places(
    run: Run, rows: Dataset, x: Tensor, y: Tensor | None
) -> Iterator[tuple[str, Callable[[], Axes]]]:
    """The plane of a nonparametric VAE, what it decodes to, and ways through it."""
    memory = Memory.load(run.folder, run.model)
    known = rows.x_train[:POINTS].to(run.device)
    known = known if rows.transform is None else rows.transform(known)
    u, u_test = (codes(run.model, run.guide, part, site="u") for part in (known, x))
    y_train = None if rows.y_train is None else rows.y_train[:POINTS]
    panels = {"training data": (u.cpu(), y_train), "test data": (u_test.cpu(), y)}
    first, last = u[: 2 * WAYS].chunk(2)
    ways = straight(first, last, 11).cpu()
    yield "embedding", lambda: draw_embedding(panels, ways)[0]
    if len(rows.shape) in (2, 3):
        over = memory.sample_at(memory.grid(SIDE)).cpu()
        title, caption = (
            "Decoded grid over the plane",
            "Each picture decodes its place in the plane.",
        )
        yield (
            "grid",
            lambda: pictures.draw_grid(over, rows.shape, SIDE, None, (), (), title, caption),
        )
        between = memory.between(first, last).cpu()
        yield "interpolations", lambda: pictures.draw_ways(between, rows.shape)


def write_rows(rows: Tensor, shape: Sequence[int], path: Path) -> Path:
    """Rows ``(N, P)`` as a grid of pictures (``.png``) or as an array ``x`` (``.npz``).

    Raises:
        ValueError: for another ending, or for pictures of rows that are none.
    """
    if path.suffix == ".npz":
        np.savez(path, x=rows.numpy())
    elif path.suffix == ".png":
        columns = min(10, math.ceil(math.sqrt(len(rows))))
        save(pictures.draw_samples(rows, picture_shape(shape) or shape, columns), path)
    else:
        raise ValueError(f"Expected a file ending in .png or .npz but got {path}.")
    return path


def picture_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """``(H, W)`` or ``(H, W, 3)`` in which rows of a shape are drawn; () for those that are none.

    One channel may come first or last, three only last, as the convolutions have it.
    """
    shape = tuple(shape)
    if len(shape) == 3 and shape[2] == 1:
        shape = shape[:2]
    elif len(shape) == 3 and shape[0] == 1 and shape[2] != 3:
        shape = shape[1:]
    return shape if len(shape) == 2 or shape[2:] == (3,) else ()


def _figures(
    run: Run, x: Tensor, y: Tensor | None, shape: tuple[int, ...]
) -> Iterator[tuple[str, Callable[[], Axes]]]:
    yield "terms", lambda: draw_terms(run.history)
    picture = picture_shape(shape)
    if picture:
        decoded = reconstructions(run.model, run.guide, x[:10]).cpu()
        yield (
            "reconstructions",
            lambda: pictures.draw_reconstructions(x[:10].cpu(), decoded, picture),
        )
        samples = draw(run.story, 100).cpu()
        yield "samples", lambda: pictures.draw_samples(samples, picture)
    if isinstance(run.model, FactorialMixture) and isinstance(run.guide, FactorialCode):
        names = run.settings.get("labels")
        yield from factor_figures.figures(run.model, run.guide, picture, names)
        return
    site = "z" if "kl[z]" in run.result["terms"] else "v"
    z = codes(run.model, run.guide, x, site=site).cpu()
    if not run.clusters:
        yield "plane", lambda: draw_plane(z, None, y)[0]
        return
    q = cluster_probabilities(run.model, run.guide, x).cpu()
    yield "plane", lambda: draw_plane(z, q, y)[0]
    yield "usage", lambda: draw_usage(q)
    if math.prod(shape) == z.shape[1] == 2:
        view = planar.look(run.model, run.guide, x)
        yield "regions", lambda: planar.draw_regions([view])[0]
    floor = planar.floor_of(run.settings)
    if floor > 0:
        yield "floor", lambda: planar.draw_floor({"KL[y]": run.history}, floor)
    if y is not None:
        labels = y
        yield "confusion", lambda: draw_confusion(q.argmax(-1), labels, q.shape[1])
    if picture:
        own = torch.stack(
            [draw(run.model, SAMPLES, given={"y": k}).cpu() for k in range(q.shape[1])]
        )
        yield "clusters", lambda: pictures.draw_clusters(x.cpu(), q, own, picture)
        means = component_means(run.model).cpu()
        yield "components", lambda: pictures.draw_components(means, hard_shares(q)[1], picture)
