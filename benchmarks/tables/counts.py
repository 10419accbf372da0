"""Clusters of simulated counts from two batches, with and without the covariate: ``bench counts``.

Negative binomial counts whose log means are a base, an effect of the cluster, an effect of the
batch and the log exposure. Clusters and batches are independent of each other.
"""

import time
from argparse import Namespace
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from priorzoo.benchmarks.rows.files import tell_row
from priorzoo.benchmarks.runs.machine import machine
from priorzoo.guides import CollapsedCode
from priorzoo.inference import (
    Autoencoder,
    Collapsed,
    Training,
    cluster_probabilities,
    evaluate,
    fit,
    move_clusters,
)
from priorzoo.models import MLP, NegativeBinomial, NGGPMixture
from priorzoo.models.inlets import Feature

SHARES = (0.3, 0.2, 0.2, 0.1, 0.1, 0.1)  # of the planted clusters
COLUMNS, CODE, ROOM, START = 40, 4, 30, 5  # P, D, the largest K and the first
EFFECT, DISPERSION = 0.8, 0.5  # standard deviation of effects on log means; Var x = m + 0.5 m^2
HIDDEN, RATE, MARGIN = (64,), 3e-3, 0.1
PRETRAINING, BETWEEN = 500, 200  # steps of the autoencoder, and between two rounds of moves


class Simulated(NamedTuple):
    """Counts ``(N, P)``, exposures ``(N,)``, batches ``(N,)`` of 0 and 1, and clusters ``(N,)``."""

    x: Tensor
    exposure: Tensor
    batch: Tensor
    cluster: Tensor


def simulate(rows: int, seed: int) -> Simulated:
    """Counts of six clusters in two batches."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        cluster = torch.multinomial(torch.tensor(SHARES), rows, replacement=True)
        batch, exposure = (torch.rand(rows) < 0.5).long(), (0.4 * torch.randn(rows)).exp()
        effects, of_batch = (
            EFFECT * torch.randn(len(SHARES), COLUMNS),
            EFFECT * torch.randn(COLUMNS),
        )
        log_mean = 1 + 0.7 * torch.randn(COLUMNS) + effects[cluster] + batch[:, None] * of_batch
        fn = NegativeBinomial(DISPERSION)(log_mean, exposure=exposure)
        return Simulated(fn.sample(), exposure, batch, cluster)


def pair(covariates: int, seed: int) -> tuple[NGGPMixture, CollapsedCode]:
    """An NGGP mixture of counts, and its guide; decoder and encoder take the covariates."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        decoder = MLP(CODE, COLUMNS, HIDDEN, covariates=covariates)
        likelihood = NegativeBinomial(DISPERSION, "column", COLUMNS)
        model = NGGPMixture(decoder, likelihood, code=CODE, clusters=ROOM, start=START)
        features: list[Feature] = ["log"] * COLUMNS
        encoder = MLP(COLUMNS, 2 * CODE, HIDDEN, covariates=covariates, features=features)
        return model, CollapsedCode(encoder, model)


def clustered(told: bool, rows: int, steps: int, seed: int) -> dict[str, Any]:
    """The row of one training.

    Args:
        told: whether decoder and encoder are told the batch of each row.
        rows: N.
        steps: steps on the bound, after those of the autoencoder.
        seed: seed of data, networks and training.
    """
    from sklearn.metrics import adjusted_rand_score

    data, begun = simulate(rows, seed), time.perf_counter()
    model, guide = pair(int(told), seed)
    context = {"exposure": data.exposure}
    context |= {"covariates": data.batch.to(data.x).unsqueeze(-1)} if told else {}

    def adam(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=RATE)

    settings: dict[str, Any] = {"context": context, "optimiser": adam, "seed": seed}
    fit(model, guide, data.x, steps=PRETRAINING, objective=Autoencoder(model, guide), **settings)
    training = Training(model, guide, data.x, objective=Collapsed(model, guide), **settings)
    while training.step < steps:
        if training.step + BETWEEN < steps:  # none before the last steps
            move_clusters(model, guide, data.x, context=context, seed=training.step, margin=MARGIN)
        training.run(steps=min(BETWEEN, steps - training.step))
    found = cluster_probabilities(model, guide, data.x, context=context).argmax(-1)
    return {
        "kind": "counts",
        "covariate": told,
        "seed": seed,
        "steps": steps,
        "rows": rows,
        "planted": len(SHARES),
        "clusters": int((found.bincount() >= rows / 100).sum()),  # of at least 1 % of the rows
        "ari": round(float(adjusted_rand_score(data.cluster, found)), 4),
        "ari_of_batches": round(float(adjusted_rand_score(data.batch, found)), 4),
        "elbo": round(evaluate(model, guide, data.x, context=context)["elbo"], 3),
        "seconds": round(time.perf_counter() - begun, 1),
    }


def measure_counts(settings: Namespace) -> None:
    """Cluster simulated counts with an exposure and two batches, with and without the covariate.

    usage: priorzoo bench counts [--OPTION VALUE ...]

      --seeds A,B   of data, networks and training; settings were chosen on 0 [1,2,3]
      --sizes A,B   rows [1000]
      --steps N     on the bound, after 500 of the autoencoder [600]
      --rows FILE   file of rows to append to
    """
    for size in settings.sizes:
        for seed in settings.seeds:
            for told in (True, False):
                row = clustered(told, int(size), int(settings.steps), int(seed))
                row |= machine(torch.device("cpu")) | {"command": settings.command}
                tell_row(row, settings.rows)
