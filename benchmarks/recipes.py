"""Recipes: what was trained, how, on what, and which published figures it is held against."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch

from priorzoo.guides import ClusterThenCode, Code, Sticks
from priorzoo.inference import KL
from priorzoo.inference.step import Precision
from priorzoo.models import (
    GMVAE,
    M2,
    MLP,
    VAE,
    Bernoulli,
    Gaussian,
    ModifiedM2,
    StickBreakingVAE,
)


@dataclass(frozen=True)
class Part:
    """A class by its import path, and those of its arguments that the recipe chooses."""

    class_path: str
    init_args: Mapping[str, Any] = field(default_factory=dict)


def part(kind: Callable[..., Any], **arguments: Any) -> Part:
    """A :class:`Part` of a class at hand."""
    return Part(f"{kind.__module__}.{kind.__qualname__}", arguments)


BINARY = part(Bernoulli)
WIDE = part(MLP, hidden=[512, 512])
ADAM = part(torch.optim.Adam, lr=1e-3, fused=True)


@dataclass(frozen=True)
class Recipe:
    """Everything that a training run depends on but its seed and its machine.

    Args:
        summary: one line for ``priorzoo list``.
        paper: where the settings come from.
        model, guide, likelihood: classes and arguments; networks and sizes are filled in.
        encoder, decoder: networks; a class that takes ``inputs``, ``outputs``, ``clusters`` (None
            for a network of x or z alone) and, if it names it, the ``shape`` of a picture.
        kl: policies for the KL terms of sites.
        particles: draws for each datum and step.
        optimiser, schedule: any of torch's.
        data: name of a data set, or path of an ``.npz`` file.
        binarise: ``none``, ``static`` (once) or ``dynamic`` (anew in each batch, also in tests).
        train, validation: rows to train on (None for all that are left) and to hold out for the
            validation bound, both from the training set.
        batch_size: rows a step.
        steps, epochs: how long; exactly one of the two.
        every: steps between two rows of the history; one pass over the data if None.
        clip: norm to which the gradient is cut.
        patience: rows without a better validation bound after which the training stops.
        precision: of the networks.
        published: figures to compare with, each with its protocol in its name.
    """

    summary: str
    model: Part
    guide: Part
    paper: str = ""
    likelihood: Part = BINARY
    encoder: Part = WIDE
    decoder: Part = WIDE
    kl: Mapping[str, KL] = field(default_factory=dict)
    particles: int = 1
    optimiser: Part = ADAM
    schedule: Part | None = None
    data: str = "mnist"
    binarise: Literal["none", "static", "dynamic"] = "dynamic"
    train: int | None = None
    validation: int = 0
    batch_size: int = 100
    steps: int | None = None
    epochs: float | None = None
    every: int | None = None
    clip: float | None = None
    patience: int | None = None
    precision: Precision = "float32"
    published: Mapping[str, float] = field(default_factory=dict)


SHU = "Shu, Gaussian Mixture VAE: Lessons in Variational Inference, 2016"

_reference = Recipe(
    summary="the variational autoencoder with the settings of Shu's comparison",
    paper="Kingma & Welling, Auto-Encoding Variational Bayes, 2014",
    model=part(VAE, code=64),
    guide=part(Code),
    train=55_000,
    validation=5_000,
    steps=10_000,
    every=500,
)

_digits = replace(
    _reference,
    paper="",
    likelihood=part(Gaussian, scale=0.3, spread="shared"),
    encoder=part(MLP, hidden=[128]),
    decoder=part(MLP, hidden=[128]),
    data="digits",
    binarise="none",
    train=1_200,
    validation=200,
    batch_size=50,
    steps=4_000,
    every=200,
)

RECIPES: dict[str, Recipe] = {
    "vae": _reference,
    "m2": replace(
        _reference,
        summary="M2 without labels, which leaves its cluster unused",
        paper=SHU,
        model=part(M2, code=64, clusters=10),
        guide=part(ClusterThenCode),
        published={"-elbo at 10,000 steps": 96.3, "accuracy_majority at 10,000 steps": 0.123},
    ),
    "modified-m2": replace(
        _reference,
        summary="modified M2 (relu), a mixture by construction, with a variance floor",
        paper=SHU,
        model=part(ModifiedM2, code=64, clusters=10, link="relu", offset=True),
        guide=part(ClusterThenCode),
        decoder=part(MLP, hidden=[512]),
        published={"-elbo at 10,000 steps": 99.8, "accuracy_majority at 10,000 steps": 0.556},
    ),
    "gmvae": replace(
        _reference,
        summary="Gaussian-mixture VAE with the reference's settings",
        paper=SHU,
        model=part(GMVAE, code=64, clusters=10),
        guide=part(ClusterThenCode),
        published={"-elbo at 10,000 steps": 97.0, "accuracy_majority at 10,000 steps": 0.666},
    ),
    "sb-vae": replace(
        _reference,
        summary="stick-breaking VAE with Kumaraswamy sticks and the paper's settings",
        paper="Nalisnick & Smyth, Stick-Breaking Variational Autoencoders, 2017",
        model=part(StickBreakingVAE, code=50, concentration=5.0),
        guide=part(Sticks, family="kumaraswamy"),
        encoder=part(MLP, hidden=[500]),
        decoder=part(MLP, hidden=[500]),
        optimiser=part(torch.optim.Adam, lr=3e-4, fused=True),
        kl={"v": KL(analytic=True)},
        steps=100_000,
        every=1_000,
        published={
            "-log p(x), 100 importance samples": 98.01,
            "knn_error_3": 0.0934,
            "knn_error_5": 0.0865,
            "knn_error_10": 0.0890,
        },
    ),
    "digits-vae": replace(
        _digits, summary="a small VAE on the embedded digits", model=part(VAE, code=8)
    ),
    "digits-m2": replace(
        _digits,
        summary="a small M2 on the embedded digits",
        model=part(M2, code=8, clusters=10),
        guide=part(ClusterThenCode),
    ),
    "digits-modified-m2": replace(
        _digits,
        summary="a small modified M2 on the embedded digits",
        model=part(ModifiedM2, code=8, clusters=10),
        guide=part(ClusterThenCode),
    ),
    "digits-sb-vae": replace(
        _digits,
        summary="a small stick-breaking VAE on the embedded digits",
        model=part(StickBreakingVAE, code=12, concentration=5.0),
        guide=part(Sticks, family="kumaraswamy"),
        kl={"v": KL(analytic=True)},
    ),
    "digits-gmvae": replace(
        _digits,
        summary="a small Gaussian-mixture VAE on the embedded digits",
        model=part(GMVAE, code=8, clusters=10),
        guide=part(ClusterThenCode),
    ),
}
