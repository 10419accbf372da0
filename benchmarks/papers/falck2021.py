"""Falck et al., "Multi-Facet Clustering Variational Autoencoders", 2021."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from priorzoo.benchmarks.data.sets import Dataset
from priorzoo.benchmarks.papers.jiang2017 import first_rows, place_components
from priorzoo.benchmarks.papers.paper import NEGATIVE, Line, Measure, Paper, lengths
from priorzoo.benchmarks.papers.paquet2018 import place_factors
from priorzoo.benchmarks.recipes import REFERENCE, Stage, part
from priorzoo.benchmarks.scores import metrics
from priorzoo.benchmarks.scores.run import Result, Run
from priorzoo.guides import FacetCode, FactorialCode
from priorzoo.inference import (
    Autoencoder,
    ConjugateAdam,
    ConjugateELBO,
    Pretraining,
    cluster_probabilities,
    codes,
)
from priorzoo.inference.batch import Context
from priorzoo.models import FacetMixture, FactorialMixture, Gaussian, LadderDecoder, LadderEncoder
from priorzoo.models.factorial import factors

SOURCE = "Falck et al., Multi-Facet Clustering Variational Autoencoders, 2021"


def place_facets(
    model: nn.Module,
    guide: nn.Module,
    x: Tensor,
    *,
    seed: int,
    starts: int = 3,
    rows: int = 20_000,
    floor: float = 1e-3,
    context: Context | None = None,
) -> None:
    """Put the components of each facet where a Gaussian mixture fits the facet's codes.

    Args:
        model, guide: a pair whose model is a :class:`FacetMixture`, in place.
        x: rows ``(N, P)``.
        seed: of the mixtures' starts.
        starts: of each mixture, of which the likeliest is taken.
        rows: how many of the rows the mixtures are fit to, from the first.
        floor: added to the variances.
        context: what model and guide are told beside x, each ``(N, ...)``; a row of weight w
            counts as w rows.

    Raises:
        ValueError: for another model, and for fewer rows than clusters.
    """
    if not isinstance(model, FacetMixture):
        raise ValueError(f"Expected a FacetMixture to place but got {type(model).__name__}.")
    x, told = first_rows(x, context, rows)
    for j, (facet, logits) in enumerate(zip(model.facets, model.logits, strict=True), 1):
        z = codes(model, guide, x, site=f"z_{j}", context=told)
        if len(z) < (count := len(logits)):
            raise ValueError(f"Expected at least {count} rows to place clusters but got {len(z)}.")
        place_components(facet, logits, z, seed=seed, starts=starts, floor=floor)


def facet_scores(run: Run, dataset: Dataset, quick: bool) -> Result:
    """Metrics of each facet's clusters of the test rows, by the name of its site.

    With labels, ``best`` is the largest majority accuracy among them, which only labels can tell.
    """
    x = dataset.x_test.to(run.device)
    found: Result = {}
    for j in range(1, _facets(run.model) + 1):
        q = cluster_probabilities(run.model, run.guide, x, f"r_{j}").cpu()
        found[f"r_{j}"] = metrics.score(q, dataset.y_test)
    told = [each["accuracy_majority"] for each in found.values() if "accuracy_majority" in each]
    return found | ({"best": {"accuracy_majority": max(told)}} if told else {})


def _facets(model: nn.Module) -> int:
    """How many facets there are."""
    assert isinstance(model, FacetMixture | FactorialMixture)
    return len(factors(model.code, model.clusters))


_mfcvae = replace(
    REFERENCE,
    summary="MFCVAE: two partitions of grey digits, each with 25 Gaussian components",
    paper=SOURCE,
    model=part(FacetMixture, code=10, clusters=[25, 25]),
    guide=part(FacetCode),
    likelihood=part(Gaussian, scale=0.35),
    encoder=part(LadderEncoder, hidden=[500, 2000]),
    decoder=part(LadderDecoder, hidden=[2000, 500]),
    optimiser=part(torch.optim.Adam, lr=5e-4, fused=True),
    binarise="none",
    batch_size=512,
    stages=(
        Stage("autoencoder", epochs=10, objective=part(Autoencoder)),
        Stage("facets", begin=part(place_facets)),
    ),
    steps=None,
    epochs=20,
    every=500,
    published={"majority, K = 25 in each facet": 0.920},
)
RECIPES = {
    "mfcvae": _mfcvae,
    "factorial-facets": replace(
        _mfcvae,
        summary="a factorial mixture with the facets and the networks of MFCVAE, by conjugate SVI",
        model=part(FactorialMixture, code=10, clusters=[25, 25]),
        guide=part(FactorialCode),
        objective=part(ConjugateELBO),
        optimiser=part(ConjugateAdam, lr=5e-4, rate=0.05, delay=200.0, fused=True),
        stages=(
            Stage("pretraining", epochs=10, objective=part(Pretraining)),
            Stage("prior", begin=part(place_factors)),
        ),
        published={},
    ),
}

_BEST = Measure("majority accuracy of the better facet", ("facets", "best", "accuracy_majority"))
_SHOWN = (
    _BEST.beside(0.920, "K = 25 in each facet, 402 epochs with progressive training", spread=0.030),
    *(Measure(f"majority, facet {j}", ("facets", f"r_{j}", "accuracy_majority")) for j in (1, 2)),
    *(
        Measure(f"used K, facet {j}", ("facets", f"r_{j}", "used_clusters"), digits=1)
        for j in (1, 2)
    ),
    NEGATIVE,
)
_LENGTHS = lengths(0.1, 10, 402)
_SMALL = {"batch_size": 128}  # for as many steps in a fourth of the passes
_EXTRA = {"facets": facet_scores}
PAPER = Paper(
    "falck2021",
    "Several partitions at a time",
    SOURCE,
    (
        Line("two facets", "mfcvae", lengths(0.1, None, 402), {}, _SHOWN, _EXTRA),
        Line("two facets, batches of 128", "mfcvae", _LENGTHS, _SMALL, _SHOWN, _EXTRA),
        Line(
            "two factors, by conjugate SVI, batches of 128",
            "factorial-facets",
            _LENGTHS,
            _SMALL,
            tuple(replace(m, published=None, spread=None, protocol="") for m in _SHOWN),
            _EXTRA,
        ),
    ),
    "Which facet has the digits is known from labels alone; both are shown. The ELBO is of grey "
    "pixels with a Gaussian likelihood, and compares with no other table.",
    recipes=RECIPES,
)
