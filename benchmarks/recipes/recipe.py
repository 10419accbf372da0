"""Recipes: what was trained, how, on what, and which published figures it is held against."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch

from priorzoo.benchmarks.recipes.initialisation import place_factors, place_mixture
from priorzoo.guides import (
    ClusterThenCode,
    Code,
    CodeAndPlace,
    CodesThenCluster,
    CodeThenCluster,
    CollapsedCode,
    FactorialCode,
    MeanFieldCodes,
    Sticks,
)
from priorzoo.inference import (
    ELBO,
    KL,
    Autoencoder,
    Classification,
    Collapsed,
    ConjugateAdam,
    ConjugateELBO,
    ConsistencyViolation,
    Linear,
    Pretraining,
    move_clusters,
)
from priorzoo.inference.training.execution import Execution
from priorzoo.inference.training.step import Precision
from priorzoo.models import (
    GMVAE,
    M2,
    MLP,
    VAE,
    Bernoulli,
    ConvDecoder,
    ConvEncoder,
    DilokthanakulGMVAE,
    FactorialMixture,
    Gaussian,
    ModifiedM2,
    Multinomial,
    NGGPMixture,
    NonparametricVAE,
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


BOUND = part(ELBO)
BINARY = part(Bernoulli)
WIDE = part(MLP, hidden=[512, 512])
# The reference sums its loss over a batch of 100 where we take the mean: its eps of 1e-8 is ours of
# 1e-10. Weights of pixels that are nearly always black have gradients of that size.
ADAM = part(torch.optim.Adam, lr=1e-3, eps=1e-10, fused=True)


@dataclass(frozen=True)
class Stage:
    """A named part of a training, before the recipe's own.

    Args:
        name: which its rows of the history bear.
        begin: a function called first, with model, guide, training rows, ``seed``, and ``labels``
            or the ``transform`` of batches if it names them.
        steps, epochs: how long it trains; neither where it only begins.
        objective, kl: in place of the recipe's.
        learn: prefixes of the parameters that learn, such as ``guide.encoder``; all if empty.
    """

    name: str
    begin: Part | None = None
    steps: int | None = None
    epochs: float | None = None
    objective: Part | None = None
    kl: Mapping[str, KL] | None = None
    learn: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """Everything that a training run depends on but its seed and its machine.

    Args:
        summary: one line for ``priorzoo list``.
        paper: where the settings come from.
        model, guide, likelihood: classes and arguments; networks and sizes are filled in.
        encoder, decoder: networks; a class that takes ``inputs``, ``outputs``, ``clusters`` (None
            for a network of x or z alone) and, if it names it, the ``shape`` of a picture.
        objective: what is descended, a class of :class:`ELBO` and arguments of its own.
        kl: policies for the KL terms of sites.
        penalties: what is descended beside the bound, by name.
        particles: draws for each datum and step.
        optimiser, schedule: any of torch's.
        data: name of a data set, or path of an ``.npz`` file.
        binarise: ``none``, ``static`` (once) or ``dynamic`` (anew in each batch, also in tests).
        train, validation: rows to train on (None for all that are left) and to hold out for the
            validation bound, both from the training set.
        labelled: how many of the training rows, equally many of each class, keep their label.
        labels: for each discrete site the name of the data set's labels that it is clamped to, such
            as ``{"r_1": "eyes"}``; ``labelled`` rows, whatever their classes, then keep them all.
        labelled_share: of the rows of a pass over the data that have labels, at least; these come
            several times, so that their bound and penalties weigh as often. 0 for once.
        stages: what comes before the training proper, in order.
        n_init, init_steps: starts, and steps of each; the one with the best bound goes on.
        moves: functions by name, called between two steps, at every row of the history but the
            last, with model, guide, training rows, ``seed``, and ``transform`` of batches; what
            each returns is a row of the history.
        batch_size: rows a step.
        steps, epochs: how long; exactly one of the two.
        every: steps between two rows of the history; one pass over the data if None.
        curve: whether test rows are scored at every row of the history; nothing is chosen by it.
        clip: norm to which the gradient is cut.
        patience: rows without a better validation bound after which the training stops.
        precision: of the networks.
        step: how a step is run, ``eager``, ``compiled``, ``cudagraph`` or ``auto``.
        memory: training rows that a nonparametric VAE remembers, spread over its plane; None for
            all.
        published: figures to compare with, each with its protocol in its name.
    """

    summary: str
    model: Part
    guide: Part
    paper: str = ""
    likelihood: Part = BINARY
    encoder: Part = WIDE
    decoder: Part = WIDE
    objective: Part = BOUND
    kl: Mapping[str, KL] = field(default_factory=dict)
    penalties: Mapping[str, Part] = field(default_factory=dict)
    particles: int = 1
    optimiser: Part = ADAM
    schedule: Part | None = None
    data: str = "mnist"
    binarise: Literal["none", "static", "dynamic"] = "dynamic"
    train: int | None = None
    validation: int = 0
    labelled: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    labelled_share: float = 0.0
    stages: tuple[Stage, ...] = ()
    n_init: int = 1
    init_steps: int = 500
    moves: Mapping[str, Part] = field(default_factory=dict)
    batch_size: int = 100
    steps: int | None = None
    epochs: float | None = None
    every: int | None = None
    curve: bool = False
    clip: float | None = None
    patience: int | None = None
    precision: Precision = "float32"
    step: Execution = "eager"
    memory: int | None = None
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

# Real-valued pixels scored by the Bernoulli log-likelihood, as in the paper: no normalised density.
_dilokthanakul = replace(
    _reference,
    summary="Gaussian-mixture VAE with a second code and the minimum information constraint",
    paper="Dilokthanakul et al., Deep Unsupervised Clustering with GMVAE, 2016, second version",
    model=part(DilokthanakulGMVAE, code=200, second_code=150, clusters=10, hidden=[500]),
    guide=part(CodesThenCluster),
    encoder=part(MLP, hidden=[500, 500]),
    decoder=part(MLP, hidden=[500, 500]),
    kl={"z": KL(analytic=True), "y": KL(floor=0.5)},
    optimiser=part(torch.optim.Adam, lr=1e-4, fused=True),
    binarise="none",
    batch_size=50,
    steps=20_000,
    every=1_000,
)

_pinwheel = replace(
    _dilokthanakul,
    summary="the paper's toy without remedy, whose clusters degenerate",
    paper="Dilokthanakul et al., Deep Unsupervised Clustering with GMVAE, 2016, figure 2",
    model=part(DilokthanakulGMVAE, code=2, second_code=2, clusters=8, hidden=[100]),
    likelihood=part(Gaussian, scale=0.3, spread="network"),
    encoder=part(MLP, hidden=[100, 100]),
    decoder=part(MLP, hidden=[100, 100]),
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
    model=part(
        DilokthanakulGMVAE, code=2, second_code=2, clusters=8, hidden=[100], learn_weights=True
    ),
    kl={
        "z": KL(weight=Linear(0.3, 1, fraction=0.5)),
        "y": KL(weight=Linear(1, 4, fraction=1), floor=round(math.log(5), 3)),
    },
    penalties={"consistency": part(ConsistencyViolation, weight=Linear(0, 0.5, fraction=1))},
    n_init=4,
    init_steps=3_000,
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

# Grey images, as in the paper, which is silent on the length of the training. Its "drop-out
# probability of 0.9" is the probability to keep a unit.
BODIN = part(MLP, hidden=[500, 500], dropout=0.1)

_plain = Recipe(
    summary="the baseline of the nonparametric VAE",
    paper="Bodin et al., Nonparametric Inference for Auto-Encoding Variational Bayes, 2017",
    model=part(VAE, code=500),
    guide=part(Code),
    encoder=BODIN,
    decoder=BODIN,
    optimiser=part(torch.optim.Adam, lr=1e-3, fused=True),
    binarise="none",
    train=55_000,
    validation=5_000,
    batch_size=128,
    epochs=10,
)

_nonparametric = replace(_plain, model=part(NonparametricVAE, code=500), guide=part(CodeAndPlace))
_CONV = {"channels": [32, 32, 32, 64, 64, 64, 64, 64], "strides": [1, 2, 1, 2, 1, 2, 1, 1]}
_GLOBALS = ("guide.weights", "guide.components")

_factorial = Recipe(
    summary="one Gaussian mixture with conjugate SVI, the structured VAE, on binary digits",
    paper="Paquet et al., A Factorial Mixture Prior for Compositional Generative Models, 2018",
    model=part(FactorialMixture, code=64, clusters=512),
    guide=part(FactorialCode),
    encoder=part(ConvEncoder, **_CONV, hidden=[]),
    decoder=part(ConvDecoder, **_CONV, hidden=[]),
    objective=part(ConjugateELBO),
    optimiser=part(ConjugateAdam, lr=1e-4, fused=True),
    binarise="static",
    stages=(
        Stage("pretraining", steps=100_000, objective=part(Pretraining)),
        Stage("prior", begin=part(place_factors), steps=20_000, learn=_GLOBALS),
    ),
    batch_size=64,
    steps=200_000,
    every=5_000,
    published={"elbo, K = 512, 320,000 steps": -85.77},
)

_faces = replace(
    _factorial,
    summary="faces of three factors: eyes and pose, 40 % of them labelled, and a free one",
    model=part(FactorialMixture, code=48, clusters=[2, 4, 16]),
    likelihood=part(Gaussian, scale=0.1),
    encoder=part(MLP, hidden=[512, 256]),
    decoder=part(MLP, hidden=[256, 512]),
    kl={f"z_{i}": KL(weight=Linear(20, 1, steps=500)) for i in range(1, 4)},
    penalties={
        "eyes": part(Classification, weight=1000.0, site="r_1"),
        "pose": part(Classification, weight=1000.0, site="r_2"),
    },
    optimiser=part(ConjugateAdam, lr=1e-3, rate=0.05, delay=200.0, fused=True),
    data="cmu_faces:eyes",
    binarise="none",
    labelled=200,
    labels={"r_1": "eyes", "r_2": "pose"},
    stages=(
        Stage("pretraining", steps=300, objective=part(Pretraining), kl={}),
        Stage("prior", begin=part(place_factors)),
    ),
    batch_size=50,
    steps=1_000,
    every=250,
    published={},
)

# Of the paper are the networks, the batches, the step size and the 5 clusters to begin with. Codes
# that were first an autoencoder's are in clusters; others keep the shape of the base measure, which
# many small clusters cover as well as few large ones. These clusters lie along no axis of the code,
# so that components of any covariance need fewer than independent dimensions do.
_MOVES = part(move_clusters, rows=5_000, margin=0.3)
_nggp = Recipe(
    summary="mixture of an open number of clusters, born and gone as it trains",
    paper="Mehta & Lu, Normalized Random Measure Mixture Models in VAEs, 2018, corrected",
    model=part(NGGPMixture, code=20, clusters=100, start=5, family="full"),
    guide=part(CollapsedCode),
    encoder=part(MLP, hidden=[400, 200]),
    decoder=part(MLP, hidden=[200, 400]),
    objective=part(Collapsed),
    kl={"z": KL(analytic=True)},
    optimiser=part(torch.optim.Adam, lr=1e-3, fused=True),
    moves={"clusters": _MOVES},
    stages=(
        Stage("autoencoder", epochs=10, objective=part(Autoencoder)),
        Stage("clusters", begin=_MOVES),
    ),
    train=55_000,
    validation=5_000,
    batch_size=64,
    epochs=200,
    patience=30,
)

# Of the margins .1, .5 and 1, with a Gaussian of independent dimensions for each cluster, on 860
# steps of MNIST, the first ended at 60 clusters and the last at one.
_INDEPENDENT = part(move_clusters, margin=0.5)

# An autoencoder would use three of the shares, so the bound itself comes first, with five clusters.
_shares = replace(
    _nggp,
    summary="the same with codes on the simplex and Dirichlet clusters, as in the paper",
    model=part(NGGPMixture, code=10, clusters=100, start=5, family="dirichlet"),
    guide=part(CollapsedCode, gradient="rsvi"),
    moves={"clusters": part(move_clusters, margin=0.1)},
    stages=(
        Stage("five", epochs=10),
        Stage("clusters", begin=part(move_clusters, margin=0.1)),
    ),
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
        model=part(GMVAE, code=64, clusters=10, offset=True),
        guide=part(ClusterThenCode),
        published={"-elbo at 10,000 steps": 97.0, "accuracy_majority at 10,000 steps": 0.666},
    ),
    "vade": replace(
        _reference,
        summary="VaDE: autoencoder, mixture of its codes, then both together",
        paper="Jiang et al., Variational Deep Embedding, 2017",
        model=part(GMVAE, code=10, clusters=10, learn_weights=True),
        guide=part(CodeThenCluster),
        encoder=part(MLP, hidden=[500, 500, 2000]),
        decoder=part(MLP, hidden=[2000, 500, 500]),
        optimiser=part(torch.optim.Adam, lr=1e-3, fused=True),
        binarise="none",
        train=None,
        validation=0,
        stages=(
            Stage("autoencoder", epochs=10, objective=part(Autoencoder)),
            Stage("mixture", begin=part(place_mixture)),
        ),
        steps=None,
        epochs=20,
        every=600,
        published={"accuracy_hungarian, best run": 0.945, "of 20 seeds, a re-run": 0.716},
    ),
    "m2-semi": replace(
        _reference,
        summary="M2 with a few labels in every batch, their classification, and y's KL annealed",
        paper="Kingma et al., Semi-supervised Learning with Deep Generative Models, 2014",
        model=part(M2, code=50, clusters=10),
        guide=part(ClusterThenCode),
        encoder=part(MLP, hidden=[500]),
        decoder=part(MLP, hidden=[500]),
        kl={"y": KL(weight=Linear(0, 1, fraction=1.0))},
        penalties={"classification": part(Classification, weight=46.0)},
        labelled=100,
        labelled_share=0.1,
        train=50_000,
        validation=10_000,
        batch_size=200,
        steps=12_500,
        published={"accuracy, 100 labels": 0.932, "accuracy, 3000 labels": 0.958},
    ),
    "dilokthanakul": replace(
        _dilokthanakul, published={"accuracy_best_example, K = 10, M = 1": 0.7778}
    ),
    "dilokthanakul-network": replace(
        _dilokthanakul,
        summary="the first version: a network guesses the cluster, violations of consistency cost",
        paper="Dilokthanakul et al., Deep Unsupervised Clustering with GMVAE, 2016, first version",
        guide=part(MeanFieldCodes),
        kl={"z": KL(analytic=True)},
        penalties={"consistency": part(ConsistencyViolation, weight=0.4)},
        published={"accuracy_best_example, K = 10, M = 1": 0.7447},
    ),
    "pinwheel-plain": _pinwheel,
    "pinwheel": _remedied,
    "factorial": _factorial,
    "factorial-omniglot": replace(
        _factorial,
        summary="one Gaussian mixture with conjugate SVI, on binary characters",
        model=part(FactorialMixture, code=64, clusters=256),
        data="omniglot28",
        published={"elbo, K = 256, 320,000 steps, another split": -90.89},
    ),
    "factorial-faces": _faces,
    "factorial-faces-free": replace(
        _faces,
        summary="faces of two factors without labels",
        model=part(FactorialMixture, code=48, clusters=[16, 16]),
        kl={},
        penalties={},
        data="cmu_faces",
        labelled=0,
        labels={},
    ),
    "factorial-celeba": replace(
        _factorial,
        summary="faces of five factors: gender, glasses, smile (40 % labelled) and two free ones",
        model=part(FactorialMixture, code=320, clusters=[2, 2, 2, 64, 64]),
        likelihood=part(Gaussian, scale=0.2, spread="bounded"),
        encoder=part(ConvEncoder, channels=[128, 256, 512, 1024], hidden=[]),
        decoder=part(ConvDecoder, channels=[128, 256, 512, 1024], hidden=[]),
        kl={f"z_{i}": KL(weight=Linear(20, 1, fraction=0.5)) for i in range(1, 6)},
        penalties={
            name: part(Classification, weight=1000.0, site=f"r_{i}")
            for i, name in enumerate(("gender", "glasses", "smiling"), 1)
        },
        optimiser=part(ConjugateAdam, lr=1e-4, forgetting=0.52, fused=True),
        data="celeba",
        binarise="none",
        labelled=65_108,
        labels={"r_1": "gender", "r_2": "glasses", "r_3": "smiling"},
        stages=(Stage("prior", begin=part(place_factors), steps=20_000, learn=_GLOBALS),),
        steps=300_000,
        published={"accuracy of gender": 0.97, "of glasses": 0.99, "of smiling": 0.91},
    ),
    "digits-factorial": replace(
        _digits,
        summary="a small structured VAE on the embedded digits, with conjugate SVI",
        model=part(FactorialMixture, code=8, clusters=16),
        guide=part(FactorialCode),
        objective=part(ConjugateELBO),
        optimiser=part(ConjugateAdam, lr=1e-3, rate=0.05, delay=500.0, fused=True),
        stages=(
            Stage("pretraining", steps=1_000, objective=part(Pretraining)),
            Stage("prior", begin=part(place_factors)),
        ),
        steps=2_000,
    ),
    "digits-vade": replace(
        _digits,
        summary="a small VaDE on the embedded digits, in its three stages",
        model=part(GMVAE, code=8, clusters=10, learn_weights=True),
        guide=part(CodeThenCluster),
        stages=(
            Stage("autoencoder", steps=1_000, objective=part(Autoencoder)),
            Stage("mixture", begin=part(place_mixture)),
        ),
        steps=2_000,
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
    "nggp-mnist": _nggp,
    "nggp-fashion": replace(_nggp, data="fashion_mnist"),
    "nggp-mnist-dirichlet": _shares,
    "nggp-fashion-dirichlet": replace(_shares, data="fashion_mnist"),
    "nggp-bbc": replace(
        _nggp,
        summary="articles in an open number of clusters, by their counts of words",
        model=part(NGGPMixture, code=10, clusters=100, start=5),
        likelihood=part(Multinomial, draws=200),
        data="bbc_news",
        binarise="none",
        train=None,
        validation=200,
        moves={"clusters": _INDEPENDENT},
        stages=(),
        every=100,
    ),
    "digits-nggp": replace(
        _digits,
        summary="a small mixture of an open number of clusters on the embedded digits",
        model=part(NGGPMixture, code=8, clusters=40, start=5),
        guide=part(CollapsedCode),
        objective=part(Collapsed),
        kl={"z": KL(analytic=True)},
        moves={"clusters": _INDEPENDENT},
        steps=2_000,
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
    "digits-nonparametric": replace(
        _digits,
        summary="a small nonparametric VAE on the embedded digits",
        model=part(NonparametricVAE, code=8),
        guide=part(CodeAndPlace),
    ),
    "nonparametric-fashion": replace(
        _nonparametric,
        summary="nonparametric VAE of articles of clothing, 50 dimensions tied to a plane",
        model=part(NonparametricVAE, code=50),
        data="fashion_mnist",
    ),
    "nonparametric-frey": replace(
        _nonparametric,
        summary="nonparametric VAE of a face that moves, 20 dimensions tied to a plane",
        model=part(NonparametricVAE, code=20),
        likelihood=part(Gaussian, scale=0.2, spread="shared"),
        data="freyfaces",
        train=None,
        validation=200,
        epochs=300,
        every=100,
    ),
} | {
    name: replace(base, summary=f"{what} of {code} dimensions", model=part(kind, code=code))
    for code in (2, 10, 50, 500)
    for name, base, kind, what in (
        (f"nonparametric-{code}", _nonparametric, NonparametricVAE, "nonparametric VAE"),
        (f"plain-vae-{code}", _plain, VAE, "VAE with the nonparametric one's networks"),
    )
}
