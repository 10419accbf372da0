"""Dilokthanakul et al., "Deep Unsupervised Clustering with Gaussian Mixture VAEs", 2016."""

import math
import tempfile
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from priorzoo.benchmarks.papers.paper import ARI, BEST, MAJORITY, NEGATIVE, Line, Paper, lengths
from priorzoo.benchmarks.recipes import REFERENCE, Changes, Recipe, mlps, part
from priorzoo.benchmarks.rows.files import plain
from priorzoo.benchmarks.runs.course import Course
from priorzoo.benchmarks.runs.opening import open_run
from priorzoo.benchmarks.runs.reading import data_of, read_data
from priorzoo.benchmarks.scores.run import Result
from priorzoo.guides import CodesThenCluster, MeanFieldCodes
from priorzoo.inference import (
    KL,
    ConsistencyViolation,
    Linear,
    Stream,
    evaluate,
    reseed_clusters,
)
from priorzoo.models import DilokthanakulGMVAE, Gaussian

if TYPE_CHECKING:
    from priorzoo.benchmarks.charts.planar import View

DPI = 60  # of regions, which compress badly

# Real-valued pixels scored by the Bernoulli log-likelihood, as in the paper: no normalised density.
_images = replace(
    REFERENCE,
    summary="Gaussian-mixture VAE with a second code and the minimum information constraint",
    paper="Dilokthanakul et al., Deep Unsupervised Clustering with GMVAE, 2016, second version",
    model=part(DilokthanakulGMVAE, code=200, second_code=150, clusters=10, hidden=[500]),
    guide=part(CodesThenCluster),
    **mlps(500, 500),
    kl={"z": KL(analytic=True), "y": KL(floor=0.5)},
    optimiser=part(torch.optim.Adam, lr=1e-4, fused=True),
    binarise="none",
    batch_size=50,
    steps=20_000,
    every=1_000,
)

_reseeded = replace(
    _images,
    summary="ten clusters, of which starved ones are placed anew in the first half of the training",
    moves={"starved clusters": part(reseed_clusters)},
    steps=120_000,
    every=2_000,
)

_PLANE = {"code": 2, "second_code": 2, "clusters": 8, "hidden": [100]}
_pinwheel = replace(
    _images,
    summary="the paper's toy without remedy, whose clusters degenerate",
    paper="Dilokthanakul et al., Deep Unsupervised Clustering with GMVAE, 2016, figure 2",
    model=part(DilokthanakulGMVAE, **_PLANE),
    likelihood=part(Gaussian, scale=0.3, spread="network"),
    **mlps(100, 100),
    kl={"z": KL(analytic=True)},
    optimiser=part(torch.optim.Adam, lr=1e-3, fused=True),
    data="pinwheel",
    train=10_000,
    validation=0,
    batch_size=200,
    steps=10_000,
    every=500,
)

# With learnt weights KL[y] is the mutual information of x and y, at most log 5 where clusters are
# arcs: the floor is what we know of the toy. Above it the growing weight merges clusters, and the
# consistency violation moves their borders out of the arcs. Each start sees all of it in brief.
_remedied = replace(
    _pinwheel,
    summary="the paper's toy: five arcs in the plane, eight clusters that merge to five",
    model=part(DilokthanakulGMVAE, **_PLANE, learn_weights=True),
    kl={
        "z": KL(weight=Linear(0.3, 1, fraction=0.5)),
        "y": KL(weight=Linear(1, 4, fraction=1), floor=round(math.log(5), 3)),
    },
    penalties={"consistency": part(ConsistencyViolation, weight=Linear(0, 0.5, fraction=1))},
    n_init=4,
    init_steps=3_000,
)

RECIPES = {
    "dilokthanakul": replace(_images, published={"accuracy_best_example, K = 10, M = 1": 0.7778}),
    "dilokthanakul-reseeded": replace(
        _reseeded, published={"accuracy_best_example, K = 10, M = 1": 0.7778}
    ),
    "dilokthanakul-reseeded-16": replace(
        _reseeded,
        summary="sixteen clusters, of which starved ones are placed anew in the first half",
        model=part(DilokthanakulGMVAE, code=200, second_code=150, clusters=16, hidden=[500]),
        published={"accuracy_best_example, K = 16, M = 1": 0.8509},
    ),
    "dilokthanakul-network": replace(
        _images,
        summary="the first version: a network guesses the cluster, violations of consistency cost",
        paper="Dilokthanakul et al., Deep Unsupervised Clustering with GMVAE, 2016, first version",
        guide=part(MeanFieldCodes),
        kl={"z": KL(analytic=True)},
        penalties={"consistency": part(ConsistencyViolation, weight=0.4)},
        published={"accuracy_best_example, K = 10, M = 1": 0.7447},
    ),
    "pinwheel-plain": _pinwheel,
    "pinwheel": _remedied,
}


def planar(settings: Namespace) -> None:
    """Draw runs on points in the plane side by side, or one recipe over its training.

    usage: priorzoo bench planar [RUN ...] [--OPTION VALUE ...]

      RUNS ...                         folders of runs on points in the plane
      --watch pinwheel|pinwheel-plain  train this recipe, and draw its training
      --seed N                         of the training that is watched [0]
      --trust MODULE                   import classes from this module of yours, which runs its code
      --every N                        steps between two drawings [2000]
      --step NAME                      how a step is run [eager]
      --out FOLDER                     folder of the charts [.]
    """
    from priorzoo.benchmarks.charts.axes import look, save
    from priorzoo.benchmarks.charts.planar import draw_regions

    if settings.watch is not None:
        recipe = replace(RECIPES[settings.watch], every=settings.every, step=settings.step)
        views = watch(recipe, settings.seed)
        with look():
            save(draw_regions(views)[0], settings.out / f"{settings.watch}-training.png", DPI)
    if settings.runs:
        _draw_runs(settings.runs, settings.out, settings.trust or ())


def watch(recipe: Recipe, seed: int = 0) -> "list[View]":
    """Train, and look at the test rows at every row of the history of the training proper."""
    from priorzoo.benchmarks.charts.planar import look

    recipe = replace(recipe, curve=True)
    settings = plain(asdict(recipe))
    dataset = read_data(settings, seed=seed)
    course = Course(recipe, dataset, torch.device("cpu"), seed)
    views: list[View] = []

    def see() -> Result:
        with Stream(seed):
            step = course.history[-1]["step"]
            views.append(look(course.model, course.guide, dataset.x_test, f"step {step:,}"))
        return {"terms": evaluate(course.model, course.guide, dataset.x_test, seed=seed)}

    with tempfile.TemporaryDirectory() as folder:
        course.run(Path(folder), settings, watch=see)
    return views


def _draw_runs(folders: Sequence[Path], out: Path, trust: Sequence[str]) -> None:
    from priorzoo.benchmarks.charts import axes, planar

    runs = {folder.name: open_run(folder, "cpu", trust=trust) for folder in folders}
    views = []
    for name, run in runs.items():
        dataset = data_of(run)
        with Stream(0):
            views.append(planar.look(run.model, run.guide, dataset.x_test, name))
    histories = {name: run.history for name, run in runs.items()}
    floor = max(planar.floor_of(run.settings) for run in runs.values())
    with axes.look():
        axes.save(planar.draw_regions(views)[0], out / "regions.png", DPI)
        axes.save(planar.draw_floor(histories, floor), out / "floor.png", 90)
        axes.save(planar.draw_guides(histories)[0], out / "terms.png", 90)


def _line(title: str, recipe: str, mean: float, spread: float, changes: Changes) -> Line:
    protocol = "average of runs after full training, best-example protocol"
    lasts = lengths(50, None if "particles" in changes else 20_000, 200_000)
    measures = (NEGATIVE, BEST.beside(mean, protocol, spread=spread), MAJORITY)
    return Line(title, recipe, lasts, changes, measures)


_TOY = lengths(50, 10_000, 10_000)
_MOVED = "exact p(y given z, w), starved clusters placed anew"
_EXACT, _SIXTEEN = "exact p(y given z, w)", {"model.clusters": 16}
PAPER = Paper(
    "dilokthanakul2016",
    "Mixture components made by a second code, on MNIST and on a toy",
    "Dilokthanakul et al., Deep Unsupervised Clustering with Gaussian Mixture VAEs, 2016",
    (
        _line(f"{_EXACT}, K = 10", "dilokthanakul", 0.7778, 0.0575, {}),
        _line(f"{_EXACT}, K = 16", "dilokthanakul", 0.8509, 0.0199, _SIXTEEN),
        _line(f"{_EXACT}, K = 10, M = 10", "dilokthanakul", 0.8231, 0.0375, {"particles": 10}),
        _line(f"{_MOVED}, K = 10", "dilokthanakul-reseeded", 0.7778, 0.0575, {}),
        _line(f"{_MOVED}, K = 16", "dilokthanakul-reseeded-16", 0.8509, 0.0199, {}),
        _line("network q(y given x), K = 10", "dilokthanakul-network", 0.7447, 0.1020, {}),
        *(
            Line(f"toy, {objective}, K = {k}", recipe, _TOY, changes, (ARI,))
            for k, changes in ((8, {}), (10, {"model.clusters": 10}))
            for recipe, objective in (("pinwheel-plain", "plain objective"), ("pinwheel", "remedy"))
        ),
    ),
    "The reference's networks have batch normalisation; ours are plain MLPs.",
    ("elbo", "accuracy_best_example", "kl[y]"),
    recipes=RECIPES,
    commands={"planar": planar},
)
