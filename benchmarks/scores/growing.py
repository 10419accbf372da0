"""Separated clusters found from few: ``python -m priorzoo.benchmarks.scores.growing blobs:8``.

Data sets of the catalogue have recipes: ``priorzoo train digits-nggp``.
"""

import json
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from priorzoo.benchmarks.data import sets as data
from priorzoo.benchmarks.recipes.recipe import RECIPES, Recipe, part
from priorzoo.benchmarks.rows.files import append_row
from priorzoo.benchmarks.runs import run as runs
from priorzoo.benchmarks.runs.course import Course
from priorzoo.inference import move_clusters
from priorzoo.inference.saving import versions
from priorzoo.models import MLP, Gaussian, NGGPMixture

BLOBS = replace(
    RECIPES["digits-nggp"],
    summary="a mixture of an open number of clusters on separated ones",
    model=part(NGGPMixture, code=4, clusters=40, family="full"),
    likelihood=part(Gaussian, scale=0.35),
    encoder=part(MLP, hidden=[64]),
    decoder=part(MLP, hidden=[64]),
    optimiser=part(torch.optim.Adam, lr=3e-3, fused=True),
    moves={"clusters": part(move_clusters, rows=1_000, margin=0.3)},  # that of images
    data="blobs:8",
    train=None,
    validation=0,
    batch_size=100,
    steps=600,
    every=200,
)


def blobs(clusters: int, seed: int, size: int = 16) -> data.Dataset:
    """2,000 rows to train on and 1,000 to test with, of Gaussian clusters of deviation .35.

    Centres are normal of deviation 1.25 in 16 dimensions.
    """
    generator = torch.Generator().manual_seed(seed)
    centres = 1.25 * torch.randn(clusters, size, generator=generator)
    y = torch.randperm(3_000, generator=generator) % clusters
    x = centres[y] + 0.35 * torch.randn(3_000, size, generator=generator)
    parts = (x[:2_000], y[:2_000], x[:0], y[:0], x[2_000:], y[2_000:])
    return data.Dataset(f"blobs:{clusters}", *parts, (size,), "none")


def train(recipe: Recipe, seed: int) -> dict[str, Any]:
    """Train from few clusters, and score on the test rows; no label is seen before the scoring."""
    rows = blobs(int(recipe.data.removeprefix("blobs:")), seed)
    course, settings = Course(recipe, rows, torch.device("cpu"), seed), runs.plain(asdict(recipe))
    with TemporaryDirectory() as folder:
        course.run(Path(folder), settings)
        result = {"settings": settings, "seed": seed, "steps": course.step}
        result |= {"seconds": round(course.seconds, 1), "versions": versions()}
        run = runs.Run(Path(folder), course.model, course.guide, result, course.history)
        origin = {"recipe": "growing", "budget": "standard", "cell": recipe.data}
        more = {"changes": {"source": recipe.data}, "moves": course.history}
        return result | origin | runs.score(run, rows) | more


def main(arguments: Sequence[str] | None = None) -> None:
    """Train under each seed, print a line for each, and append rows to a file if one is named."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("source", help="blobs:K")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--rows", type=Path)
    parser.add_argument("--steps", type=int, default=BLOBS.steps)
    parser.add_argument("--every", type=int, default=BLOBS.every)
    chosen = parser.parse_args(words)
    if not chosen.source.removeprefix("blobs:").isdigit():
        parser.error(f"Expected blobs:K but got {chosen.source!r}; else use priorzoo train.")
    recipe = replace(BLOBS, data=chosen.source, steps=chosen.steps, every=chosen.every)
    changed = {"steps": chosen.steps, "every": chosen.every}
    options = [f"--{k} {v}" for k, v in changed.items() if v != getattr(BLOBS, k)]
    command = " ".join(["python -m priorzoo.benchmarks.scores.growing", chosen.source, *options])
    for seed in chosen.seeds:
        row = {"command": command, **train(recipe, seed)}
        found: dict[str, float] = row["metrics"]
        shown = ("active_clusters", "used_clusters", "accuracy_majority", "nmi", "ari")
        print(seed, *(f"{name} {found[name]:.3f}" for name in shown if name in found), flush=True)
        if chosen.rows is not None:
            append_row(json.loads(json.dumps(row)), chosen.rows)


if __name__ == "__main__":
    main()
