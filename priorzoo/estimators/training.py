"""Training the recipe that suits a table, as the command line does, without a folder to keep."""

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from priorzoo.benchmarks.data.tables import dataset_of
from priorzoo.benchmarks.recipes import Recipe, part
from priorzoo.benchmarks.recipes.building import build_training
from priorzoo.benchmarks.recipes.changes import apply
from priorzoo.benchmarks.runs.course import Course
from priorzoo.benchmarks.runs.machine import pick_device
from priorzoo.benchmarks.tables.choosing import recipe_for
from priorzoo.benchmarks.tables.sizing import quick
from priorzoo.inference import Classification, evaluate
from priorzoo.inference.data.tables.schema import Table
from priorzoo.inference.randomness import derive

RATE = 3e-3  # of Adam at most, where a training goes on
HELD = 200  # rows from which on one in ten is held out
PRICE = 46.0  # of the classification term: that of Kingma et al., 2014, at 100 labels


@dataclass(frozen=True, eq=False)
class Choice:
    """What the user chooses of a training; None stands for what suits the table.

    Args:
        model: a name of the command line, such as ``gmvae``.
        clusters, code: K and D.
        guide: a public name, or ``auto``.
        seed: of all random numbers.
        starts: short trainings, of which the one with the best bound goes on.
        steps: of the training proper.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
    """

    model: str
    clusters: int | None
    code: int | None
    guide: str
    seed: int
    starts: int
    steps: int | None
    device: str


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained pair, with the number of steps and the bound on held-out rows, in nats a row."""

    model: nn.Module
    guide: nn.Module
    steps: int
    bound: float


def train(
    table: Table, choice: Choice, labels: Tensor | None = None, weights: Tensor | None = None
) -> Trained:
    """Train the recipe for a table.

    Args:
        table: the training rows.
        choice: what the user chooses.
        labels: ``(N,)`` int64, -1 for unknown; None without.
        weights: ``(N,)``: a row of weight w counts as w rows; None for 1.

    Raises:
        ValueError: for choices that do not fit the table or each other.
    """
    fit, held = _split(len(table), choice.seed)
    recipe = suited(table, choice, int((labels[fit] >= 0).sum()) if labels is not None else 0)
    parts = {"train": table.take(fit), "valid": table.take(held)}
    parts["test"] = parts["valid"] if len(held) else parts["train"]
    dataset = dataset_of("the table", parts)
    if weights is not None:
        told = {**dataset.context["train"], "weights": weights[fit]}
        dataset = replace(dataset, context={**dataset.context, "train": told})
    if recipe.labels and labels is not None:
        dataset = replace(dataset, named={"y": (labels[fit], labels[fit])})
    where = pick_device(choice.device)
    course = Course(recipe, dataset, where, choice.seed)
    with TemporaryDirectory() as folder:
        course.run(Path(folder), {})
    x = dataset.x_test.to(where)
    terms = evaluate(course.model, course.guide, x, context=dataset.beside(x), seed=choice.seed)
    model, guide = course.model.cpu().eval(), course.guide.cpu().eval()  # for predictions
    units = table.schema.log_scale(parts["test"].observed, len(x)).mean()
    return Trained(model, guide, course.step, terms["elbo"] - float(units))


def suited(table: Table, choice: Choice, labelled: int = 0) -> Recipe:
    """The recipe for a table, shorter for one of few rows than that of the command line.

    A Gaussian mixture begins with a mixture of the codes of an autoencoder, and its guide is the
    exact posterior of the cluster given the code: as in VaDE, whose mixture weights are learnt.

    Args:
        table: the training rows.
        choice: what the user chooses.
        labelled: how many of them have a label.
    """
    recipe = recipe_for(
        table,
        "the table",
        choice.model,
        clusters=choice.clusters,
        code=choice.code,
        steps=choice.steps,
        sizing=quick,
    )
    steps = recipe.steps or 0
    if choice.guide != "auto":
        recipe = apply(recipe, {"guide": choice.guide})
    recipe = replace(
        recipe,
        n_init=choice.starts,
        init_steps=max(1, steps // 4),
    )
    if not labelled:
        return recipe
    penalties = {"classification": part(Classification, weight=PRICE)}
    return replace(recipe, labels={"y": "y"}, labelled=labelled, penalties=penalties)


def _split(rows: int, seed: int) -> tuple[Tensor, Tensor]:
    """Rows to train on, and one in ten to hold out, of a table that is large enough."""
    order = torch.from_numpy(np.random.default_rng(seed).permutation(rows))
    held = rows // 10 if rows >= HELD else 0
    return order[held:].sort().values, order[:held].sort().values


def further(
    before: Trained, table: Table, choice: Choice, weights: Tensor | None = None
) -> Trained:
    """Train a pair on more rows, without stages and moves.

    Args:
        before: the pair, which is changed in place.
        table: the rows, read by the schema of the first ones.
        choice, weights: as in :func:`train`.
    """
    recipe = suited(table, choice)
    settings = recipe.optimiser.init_args
    slow = {**settings, "lr": min(RATE, float(settings["lr"]))}
    optimiser = replace(recipe.optimiser, init_args=slow)
    recipe = replace(recipe, patience=None, schedule=None, optimiser=optimiser)
    told = dict(table.context) if weights is None else {**table.context, "weights": weights}
    where = pick_device(choice.device)
    before.model.to(where)
    before.guide.to(where)
    told = {name: value.to(where) for name, value in told.items()}
    how: dict[str, Any] = {"context": told, "seed": derive(choice.seed, before.steps)}
    training = build_training(recipe, before.model, before.guide, table.rows.to(where), **how)
    training.run(recipe.steps)
    model, guide = before.model.cpu().eval(), before.guide.cpu().eval()
    return Trained(model, guide, before.steps + training.step, before.bound)
