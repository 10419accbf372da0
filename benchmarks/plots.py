"""Which figures fit a run, drawn from the run and its data."""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from priorzoo.benchmarks import figures, pictures
from priorzoo.benchmarks.data import Dataset
from priorzoo.benchmarks.runs import Run
from priorzoo.inference import (
    Stream,
    cluster_probabilities,
    codes,
    component_means,
    draw,
    reconstructions,
)

SHOWN = 2_000  # test rows that the figures look at
SAMPLES = 8  # of each cluster


def draw_run(run: Run, rows: Dataset) -> list[Path]:
    """Write the figures that fit the run's model to its folder ``figures``; returns their paths."""
    with Stream(0, run.device):
        x = rows.x_test[:SHOWN].to(run.device)
        x = x if rows.transform is None else rows.transform(x)
        y = None if rows.y_test is None else rows.y_test[:SHOWN]
        drawn = dict(_figures(run, x, y, rows.shape))
    paths = []
    for name, make in drawn.items():
        paths.append(run.folder / "figures" / f"{name}.png")
        figures.save(make(), paths[-1])
    return paths


def write_rows(rows: Tensor, shape: Sequence[int], path: Path) -> Path:
    """Rows ``(N, P)`` as a grid of pictures (``.png``) or as an array ``x`` (``.npz``).

    Raises:
        ValueError: for another ending, or for pictures of rows that are none.
    """
    if path.suffix == ".npz":
        np.savez(path, x=rows.numpy())
    elif path.suffix == ".png":
        columns = min(10, math.ceil(math.sqrt(len(rows))))
        figures.save(pictures.draw_grid(rows, shape, columns), path)
    else:
        raise ValueError(f"Expected a file ending in .png or .npz but got {path}.")
    return path


def _figures(
    run: Run, x: Tensor, y: Tensor | None, shape: tuple[int, ...]
) -> Iterator[tuple[str, Callable[[], Axes]]]:
    yield "terms", lambda: figures.draw_terms(run.history)
    picture = len(shape) in (2, 3)
    if picture:
        decoded = reconstructions(run.model, run.guide, x[:10]).cpu()
        yield "reconstructions", lambda: pictures.draw_reconstructions(x[:10].cpu(), decoded, shape)
        samples = draw(run.model, 100).cpu()
        yield "samples", lambda: pictures.draw_grid(samples, shape)
    site = "z" if "kl[z]" in run.result["terms"] else "v"
    z = codes(run.model, run.guide, x, site=site).cpu()
    if not run.clusters:
        alone = torch.ones(len(z), 1)
        yield "plane", lambda: figures.draw_plane(z, alone, y)[0]
        return
    q = cluster_probabilities(run.model, run.guide, x).cpu()
    yield "plane", lambda: figures.draw_plane(z, q, y)[0]
    yield "usage", lambda: figures.draw_usage(q)
    if y is not None:
        labels = y
        yield "confusion", lambda: figures.draw_confusion(q.argmax(-1), labels, q.shape[1])
    if picture:
        own = torch.stack(
            [draw(run.model, SAMPLES, given={"y": k}).cpu() for k in range(q.shape[1])]
        )
        yield "clusters", lambda: pictures.draw_clusters(x.cpu(), q, own, shape)
        means = component_means(run.model).cpu()
        yield "components", lambda: pictures.draw_components(means, q.mean(0), shape)
