"""Kingma et al., "Semi-supervised Learning with Deep Generative Models", 2014."""

from dataclasses import replace

from priorzoo.benchmarks.papers.paper import NEGATIVE, Line, Paper, lengths, metric
from priorzoo.benchmarks.recipes import REFERENCE, mlps, part
from priorzoo.guides import ClusterThenCode
from priorzoo.inference import KL, Classification, Linear
from priorzoo.models import M2

SOURCE = "Kingma et al., Semi-supervised Learning with Deep Generative Models, 2014"
RECIPES = {
    "m2-semi": replace(
        REFERENCE,
        summary="M2 with a few labels in every batch, their classification, and y's KL annealed",
        paper=SOURCE,
        model=part(M2, code=50, clusters=10),
        guide=part(ClusterThenCode),
        **mlps(500),
        kl={"y": KL(weight=Linear(0, 1, fraction=1.0))},
        penalties={"classification": part(Classification, weight=46.0)},
        labelled=100,
        labelled_share=0.1,
        train=50_000,
        validation=10_000,
        batch_size=200,
        steps=12_500,
        published={"accuracy, 100 labels": 0.932, "accuracy, 3000 labels": 0.958},
    )
}

_ACCURACY = metric("accuracy", "accuracy", protocol="Pyro's tutorial, 50 epochs of batch 200")


def _line(labels: int, accuracy: float) -> Line:
    changes = {} if labels == 100 else {"labelled": labels}
    measures = replace(_ACCURACY, published=accuracy), NEGATIVE
    return Line(f"M2, {labels} labels", "m2-semi", lengths(50, 12_500, 12_500), changes, measures)


PAPER = Paper(
    "kingma2014",
    "M2 with a few labels, on MNIST",
    SOURCE,
    (_line(100, 0.932), _line(600, 0.944), _line(1000, 0.949), _line(3000, 0.958)),
    "Labelled rows are a tenth of a pass at least, and the weight of KL[y] rises from 0 to 1: with "
    "neither, M2 does not begin to use y in as many steps.",
    curves=("accuracy",),
    recipes=RECIPES,
)
