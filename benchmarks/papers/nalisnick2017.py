"""Nalisnick & Smyth, "Stick-Breaking Variational Autoencoders", 2017.

Their code trains on grey pixels, with uniforms cut to [0.01, 0.99] and the first terms of a series
for the KL, about half of it at a = b = 0.3. Its objective is then no bound. Here the KL is exact,
and pixels are binarised but for ``sb-vae-grey``, whose Bernoulli log-likelihood of grey pixels is
no normalised density.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from priorzoo.benchmarks.charts.run_charts import Charts, charts, code_charts, common_charts
from priorzoo.benchmarks.data.sets import Dataset
from priorzoo.benchmarks.papers.paper import LIKELIHOOD, Line, Measure, Paper, lengths, metric
from priorzoo.benchmarks.recipes import REFERENCE, cosine, digits, mlps, part
from priorzoo.benchmarks.scores import metrics
from priorzoo.benchmarks.scores.registry import scores
from priorzoo.benchmarks.scores.run import Run
from priorzoo.guides import Sticks
from priorzoo.inference import KL, codes
from priorzoo.models import StickBreakingVAE

ERRORS = {3: 0.0934, 5: 0.0865, 10: 0.0890}  # published, of k nearest neighbours
SOURCE = "Nalisnick & Smyth, Stick-Breaking Variational Autoencoders, 2017"
_LIKELIHOOD = "-log p(x), 100 importance samples"
_KNN = {f"knn_error_{k}": error for k, error in ERRORS.items()}
_STICKS = replace(
    REFERENCE,
    summary="stick-breaking VAE with Kumaraswamy sticks and the paper's settings",
    paper=SOURCE,
    model=part(StickBreakingVAE, code=50, concentration=5.0),
    guide=part(Sticks, family="kumaraswamy"),
    **mlps(500),
    optimiser=part(torch.optim.Adam, lr=3e-4, fused=True),
    kl={"v": KL(analytic=True)},
    steps=100_000,
    every=1_000,
    published={_LIKELIHOOD: 98.01} | _KNN,
)
_ANNEALED = replace(
    _STICKS,
    summary="stick-breaking VAE with Kumaraswamy sticks, whose step size falls in the second half",
    optimiser=part(torch.optim.Adam, lr=1e-3, fused=True),
    schedule=cosine(1e-3, held=0.5),
    schedule_unit="step",
)
RECIPES = {
    "sb-vae": _STICKS,
    "sb-vae-annealed": _ANNEALED,
    "sb-vae-grey": replace(
        _ANNEALED,
        summary="stick-breaking VAE on grey pixels, as in the paper, but with the exact KL",
        binarise="none",
        published=_KNN,
    ),
    "digits-sb-vae": digits(
        "stick-breaking VAE",
        part(StickBreakingVAE, code=12, concentration=5.0),
        part(Sticks, family="kumaraswamy"),
        kl={"v": KL(analytic=True)},
    ),
}


@scores.register(StickBreakingVAE)
def score_weights(
    model: StickBreakingVAE, run: Run, dataset: Dataset, x: Tensor
) -> dict[str, float]:
    """Scores of the weights at the posterior mean of the sticks, for test rows ``x``.

    - ``left_over``, the mean weight of the last stick, which the truncation leaves;
    - with labels, ``knn_error_3``, ``_5`` and ``_10``: share of test rows that the majority of so
      many nearest training rows misclassifies, by their weights, as in the paper; training rows are
      not binarised;
    - with labels, ``largest_weight_majority``: share of test rows with the most frequent label of
      those rows that have the same largest weight. This is no clustering accuracy: the model has no
      clusters, and learns the weights as a code, in which no one weight stands for a class.
    """

    def weights(rows: Tensor) -> Tensor:
        return model.weights(codes(model, run.guide, rows, site="v")).cpu()

    asked = weights(x)
    found = {"left_over": asked[:, -1].mean().item()}
    if dataset.y_test is not None and (known := dataset.y_test >= 0).any():
        largest = asked.argmax(-1)[known]
        found["largest_weight_majority"] = metrics.majority_accuracy(largest, dataset.y_test[known])
    if dataset.y_train is None or dataset.y_test is None:
        return found
    trained = weights(dataset.values(dataset.train.to(x.device)))
    return found | knn_errors(trained, dataset.y_train, asked, dataset.y_test)


def knn_errors(known: Tensor, labels: Tensor, asked: Tensor, truth: Tensor) -> dict[str, float]:
    """Share of rows ``asked`` that the majority of their nearest rows ``known`` misclassifies.

    Of labels that tie, the smallest is taken, as scikit-learn does. Rows of unknown label, -1, are
    left out. Nothing where too few are left.
    """
    most = max(ERRORS)
    known, labels, asked, truth = (
        part[mark >= 0]
        for part, mark in ((known, labels), (labels, labels), (asked, truth), (truth, truth))
    )
    if len(known) < most or not len(asked):
        return {}
    distances = (torch.cdist(batch, known) for batch in asked.split(500))
    votes = labels[torch.cat([each.topk(most, largest=False).indices for each in distances])]
    wrong = {k: votes[:, :k].mode(-1).values != truth for k in ERRORS}
    return {f"knn_error_{k}": found.double().mean().item() for k, found in wrong.items()}


@charts.register(StickBreakingVAE)
def _(model: nn.Module, run: Run, dataset: Dataset, x: Tensor, y: Tensor | None) -> Charts:
    yield from common_charts(run, dataset, x)
    yield from code_charts(run, dataset, x, y, site="v")


_PROTOCOL = "error of k nearest neighbours on latents, fully trained"
_HOW = {"protocol": _PROTOCOL, "higher": False, "digits": 4}
_NEGATIVE = replace(LIKELIHOOD, title="-log p(x), nats", higher=False, sign=-1)
_MEASURES = (
    *(metric(f"knn_error_{k}", f"error, k = {k}", published=v, **_HOW) for k, v in ERRORS.items()),
    _NEGATIVE.beside(
        98.01,
        "100 importance samples, fully trained, on grey pixels and with a KL cut short in "
        "training, which is no bound",
    ),
)
_LARGEST = metric("largest_weight_majority", "agreement of largest weight and class")


def _line(title: str, recipe: str, *measures: Measure) -> Line:
    lasts = lengths(50, 20_000, 100_000)
    return Line(title, recipe, lasts, {}, (*measures, _LARGEST), importance=100)


PAPER = Paper(
    "nalisnick2017",
    "The stick-breaking VAE, on MNIST",
    SOURCE,
    (
        _line("Kumaraswamy sticks", "sb-vae", *_MEASURES),
        _line("Kumaraswamy sticks, annealed step size", "sb-vae-annealed", *_MEASURES),
        _line("Kumaraswamy sticks, grey pixels", "sb-vae-grey", *_MEASURES[:-1]),
    ),
    "The bound of grey pixels is no normalised density, and is not compared with others. The paper "
    "trains on grey pixels with a KL cut short, which is no bound either.",
    recipes=RECIPES,
)
