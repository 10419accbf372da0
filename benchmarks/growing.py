"""Mixtures that grow while they train: ``python -m priorzoo.benchmarks.growing DATA``.

DATA is ``blobs:K``, K separated clusters that are made here, or a data set of the catalogue.
"""

import json
import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from priorzoo.benchmarks import data, metrics
from priorzoo.benchmarks.cells import FORMAT
from priorzoo.benchmarks.tables import append_row
from priorzoo.guides import CollapsedCode
from priorzoo.inference import (
    Collapsed,
    Stream,
    Training,
    cluster_probabilities,
    evaluate,
    grow_model,
)
from priorzoo.inference.saving import versions
from priorzoo.models import MLP, Bernoulli, Gaussian, Multinomial, NGGPMixture

LIKELIHOODS: Mapping[str, Callable[[], nn.Module]] = {
    "bernoulli": Bernoulli,
    "gaussian": partial(Gaussian, 0.35),
    "multinomial": Multinomial,
}


@dataclass(frozen=True)
class Settings:
    """Of one training: networks of Mehta & Lu, 2018, batches of 64, Adam at 0.001, 5 clusters.

    Args:
        source: see this file.
        likelihood: ``bernoulli``, ``gaussian`` of scale .35, or ``multinomial``.
        hidden: of the encoder, and the other way round of the decoder.
        code, clusters, start, concentration, discount: of :class:`NGGPMixture`.
        steps, every, batch_size, lr: length, steps between two rounds of moves, and optimiser.
        judges: rows that propose moves, and as many that judge them, both to train on.
        margin: see :mod:`priorzoo.inference.growth`.
        train, validation: rows, see :func:`priorzoo.benchmarks.data.load`.
    """

    source: str = "blobs:8"
    likelihood: str = "gaussian"
    hidden: tuple[int, ...] = (400, 200)
    code: int = 10
    clusters: int = 64
    start: int = 5
    concentration: float = 1.0
    discount: float = 0.25
    steps: int = 5_000
    every: int = 500
    batch_size: int = 64
    lr: float = 1e-3
    judges: int = 2_000
    margin: float = 0.1
    train: int | None = None
    validation: int = 0


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


def train(settings: Settings, seed: int, root: str | None = None) -> dict[str, Any]:
    """Train from few clusters, and score on the test rows; no label is seen before the scoring."""
    rows = read(settings, seed, root)
    x, width = rows.x_train, rows.x_train.shape[1]
    with Stream(seed):
        model = NGGPMixture(
            MLP(settings.code, width, settings.hidden[::-1]),
            LIKELIHOODS[settings.likelihood](),
            settings.code,
            settings.clusters,
            settings.start,
            settings.concentration,
            settings.discount,
        )
        guide = CollapsedCode(MLP(width, 2 * settings.code, settings.hidden), model)
    training = Training(
        model,
        guide,
        x,
        objective=Collapsed(model, guide),
        optimiser=lambda parameters: torch.optim.Adam(parameters, lr=settings.lr),
        batch_size=settings.batch_size,
        transform=rows.transform,
        seed=seed,
        every=settings.every,
    )
    moves, begun = [], time.perf_counter()
    seen, judges = x[: settings.judges], x[-settings.judges :]
    while training.step < settings.steps:
        training.run(steps=min(settings.every, settings.steps - training.step))
        last = training.history[-1]
        kept: dict[str, int] = {}
        if training.step < settings.steps:
            with training.stream:
                kept = grow_model(model, guide, seen, judges, len(x), margin=settings.margin)
        counts = {name: last[name] for name in ("clusters", "occupied", "alone", "log u", "elbo")}
        moves.append({"step": training.step, **counts, **kept})
    seconds = time.perf_counter() - begun
    tests = rows.x_test
    with Stream(seed):
        tests = tests if rows.transform is None else rows.transform(tests)
        probabilities = cluster_probabilities(model, guide, tests)
    return {
        "settings": json.loads(json.dumps(asdict(settings))),
        "seed": seed,
        "steps": training.step,
        "seconds": round(seconds, 1),
        "versions": versions(),
        "terms": evaluate(model, guide, tests, seed=seed),
        "metrics": metrics.score(probabilities, rows.y_test)
        | {"active_clusters": float(model.active.sum())},
        "format": FORMAT,
        "moves": moves,
    }


def read(settings: Settings, seed: int, root: str | None) -> data.Dataset:
    """The rows; those of the Bernoulli likelihood are binarised anew in every batch."""
    if settings.source.startswith("blobs:"):
        return blobs(int(settings.source.removeprefix("blobs:")), seed)
    return data.load(
        settings.source,
        root,
        binarise="dynamic" if settings.likelihood == "bernoulli" else "none",
        train=settings.train,
        validation=settings.validation,
        seed=seed,
    )


SMALL = Settings(
    hidden=(64,), code=4, clusters=40, steps=600, every=200, batch_size=100, lr=3e-3, judges=1_000
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train under each seed, print a line for each, and append rows to a file if one is named."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("source", help="blobs:K or a data set")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--rows", type=Path)
    parser.add_argument("--data-root")
    parser.add_argument("--likelihood", default=None)
    for name, kind in (("steps", int), ("every", int), ("code", int), ("margin", float)):
        parser.add_argument(f"--{name}", type=kind, default=None)
    chosen = vars(parser.parse_args(words))
    start = SMALL if chosen["source"].startswith("blobs:") else Settings(likelihood="bernoulli")
    fields = {k: v for k, v in chosen.items() if v is not None and k in asdict(start)}
    settings = Settings(**{**asdict(start), **fields})
    options = [f"--{name} {value}" for name, value in fields.items() if name != "source"]
    command = " ".join(["python -m priorzoo.benchmarks.growing", settings.source, *options])
    for seed in chosen["seeds"]:
        row = {"command": command, **train(settings, seed, chosen["data_root"])}
        found: dict[str, float] = row["metrics"]
        shown = ("active_clusters", "used_clusters", "accuracy_majority", "nmi", "ari")
        print(seed, *(f"{name} {found[name]:.3f}" for name in shown if name in found), flush=True)
        if chosen["rows"] is not None:
            append_row(row, chosen["rows"])


if __name__ == "__main__":
    main()
