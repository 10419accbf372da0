"""Which charts fit a run, by the class of its model; and samples as files.

A file of a paper registers charts of its own, for its model's class::

    @charts.register(MyModel)
    def _(model, run, dataset, x, y):
        yield from default_charts(model, run, dataset, x, y)
        yield "mine", lambda: draw_mine(...)

Matplotlib is imported only when something is drawn.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import singledispatch
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from priorzoo import inference
from priorzoo.benchmarks.data.sets import Dataset
from priorzoo.benchmarks.scores.registry import tell
from priorzoo.benchmarks.scores.run import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Charts = Iterator[tuple[str, "Callable[[], Axes]"]]  # of each the name of its file, what draws it
SAMPLES = 8  # of each cluster


def draw_run(run: Run, dataset: Dataset) -> list[Path]:
    """Write the charts that fit the run's model to its folder ``figures``; returns their paths.

    A chart that cannot be drawn is told on the error stream, and the others are drawn: the run is
    trained, and stands without it.
    """
    from priorzoo.benchmarks.charts import axes, planes

    with inference.Stream(0, run.device):
        x = dataset.drawn(dataset.x_test[: planes.POINTS].to(run.device))
        y = None if dataset.y_test is None else dataset.y_test[: planes.POINTS]
        drawn = dict(whole(charts(run.model, run, dataset, x, y)))
    folder, title = run.folder / "figures", title_of(run, len(x))
    paths: list[Path] = []
    for name, make in drawn.items():
        try:
            with axes.look():
                paths.append(axes.save(make(), folder / f"{name}.png", run=title))
        except Exception as error:
            tell(f"no chart {name!r}", error)
    return paths


def title_of(run: Run, rows: int) -> str:
    """Recipe, data, K, test rows that are looked at, and seed: what a figure of a run must say."""
    data = Path(str(run.settings.get("data", "data"))).name
    k = f", K = {run.clusters}" if run.clusters else ""
    return f"{run.result['recipe']} on {data}{k}, {rows:,} test rows, seed {run.seed}"


def whole(found: Charts) -> Charts:
    """The charts as far as they can be made."""
    try:
        yield from found
    except Exception as error:
        tell("no further charts", error)


def default_charts(
    model: nn.Module, run: Run, dataset: Dataset, x: Tensor, y: Tensor | None
) -> Charts:
    """The charts of any model: terms, samples, codes, and clusters where it has any.

    Args:
        model, run, dataset: the trained model, its run, and its data.
        x, y: test rows ``(N, P)``, as they were binarised, and their labels ``(N,)`` or None.
    """
    yield from common_charts(run, dataset, x)
    yield from code_charts(run, dataset, x, y)


charts = singledispatch(default_charts)


def common_charts(run: Run, dataset: Dataset, x: Tensor) -> Charts:
    """Terms of the bound over the training; of pictures, reconstructions and samples too."""
    from priorzoo.benchmarks.charts import curves, pictures

    yield "terms", lambda: curves.draw_terms(run.history)
    if shape := picture_shape(dataset.shape):
        first = x[:10]
        told = dataset.beside(first)
        decoded = inference.reconstructions(run.model, run.guide, first, context=told).cpu()
        yield "reconstructions", lambda: pictures.draw_reconstructions(first.cpu(), decoded, shape)
        samples = inference.draw(run.story, 100).cpu()
        yield "samples", lambda: pictures.draw_samples(samples, shape)


def code_charts(run: Run, dataset: Dataset, x: Tensor, y: Tensor | None, site: str = "z") -> Charts:
    """The codes at a site in the plane of their components; with clusters, those too."""
    from priorzoo.benchmarks.charts import clusters, pictures, planar, planes

    given, told = (run.model, run.guide, x), dataset.beside(x)
    z = inference.codes(*given, site=site, context=told).cpu()
    q = inference.cluster_probabilities(*given, context=told).cpu() if run.clusters else None
    yield "plane", lambda: planes.draw_plane(z, q, y)[0]
    if q is None:
        return
    yield "usage", lambda: clusters.draw_usage(q)
    if math.prod(dataset.shape) == z.shape[1] == 2 and not told:
        view = planar.look(*given)
        yield "regions", lambda: planar.draw_regions([view])[0]
    if (floor := planar.floor_of(run.settings)) > 0:
        yield "floor", lambda: planar.draw_floor({"KL[y]": run.history}, floor)
    if y is not None and (y >= 0).any():
        yield "confusion", lambda: clusters.draw_confusion(q.argmax(-1), y, q.shape[1])
    if shape := picture_shape(dataset.shape):
        every = range(q.shape[1])
        own = torch.stack([inference.draw(run.model, SAMPLES, given={"y": k}).cpu() for k in every])
        yield "clusters", lambda: pictures.draw_clusters(x.cpu(), q, own, shape)
        means, shares = inference.component_means(run.model).cpu(), clusters.hard_shares(q)
        yield "components", lambda: pictures.draw_components(means, shares, shape)


def write_rows(rows: Tensor, shape: Sequence[int], path: Path) -> Path:
    """Rows ``(N, P)`` as a grid of pictures (``.png``) or as an array ``x`` (``.npz``).

    Raises:
        ValueError: for another ending, or for pictures of rows that are none.
    """
    if path.suffix == ".npz":
        np.savez(path, x=rows.numpy())
    elif path.suffix == ".png":
        from priorzoo.benchmarks.charts import axes, pictures

        columns = min(10, math.ceil(math.sqrt(len(rows))))
        with axes.look():
            axes.save(pictures.draw_samples(rows, picture_shape(shape) or shape, columns), path)
    else:
        raise ValueError(f"Expected a file ending in .png or .npz but got {path}.")
    return path


def picture_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """``(H, W)`` or ``(H, W, 3)`` in which rows of a shape are drawn; () for no pictures."""
    shape = tuple(shape)
    return shape if len(shape) == 2 or (len(shape) == 3 and shape[2] == 3) else ()
