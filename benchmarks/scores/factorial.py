"""Figures of merit of the factorial mixture: its factors, one by one."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from priorzoo.benchmarks.data.sets import Dataset
from priorzoo.benchmarks.scores import metrics
from priorzoo.guides import FactorialCode
from priorzoo.inference import cluster_probabilities, draw
from priorzoo.models import FactorialMixture
from priorzoo.models.factorial import factors

JUDGED = 1_000  # drawn rows


def score(
    model: FactorialMixture, guide: FactorialCode, x: Tensor, rows: Dataset
) -> dict[str, float]:
    """Metrics of each factor, under its site's name where there are several or named labels.

    ``used`` counts the components that the posterior keeps, to which a datum or more was added.
    ``accuracy`` is that of the most probable cluster where clusters are clamped to labels.
    """
    story, _ = guide.predictive(model)
    sites = [f"r_{i}" for i, *_ in factors(model.code, model.clusters)]
    figures: dict[str, float] = {}
    for i, site in enumerate(sites, 1):
        probabilities = cluster_probabilities(model, guide, x, site).cpu()
        labels = rows.named[site][1] if site in rows.named else None
        if len(sites) == 1 and labels is None:
            labels = rows.y_test
        found = metrics.score(probabilities, labels)
        found["used"] = float(story.used(i).sum())
        if site in rows.named and labels is not None:
            found["accuracy"] = (probabilities.argmax(-1) == labels).double().mean().item()
        alone = len(sites) == 1 and not rows.named
        figures |= found if alone else {f"{site}.{name}": v for name, v in found.items()}
    return figures


def judge(
    model: FactorialMixture, guide: FactorialCode, rows: Dataset, known: Mapping[str, Tensor]
) -> dict[str, float]:
    """What logistic regressions on the pixels say, for each factor with labels.

    ``agreement``: how often one that was fit to all real training rows sees in a drawn row what the
    factor was held at, all labelled factors being held at values drawn evenly (as people did in the
    paper's table 1). ``judge``: its accuracy on real test rows. ``regression``: that of one fit to
    the labels that the model had, to which the factor's own ``accuracy`` compares.

    Args:
        known: those labels by site, -1 for unknown.
    """
    story = guide.predictive(model, prune=True)[0]
    sizes = {f"r_{i}": k for i, k, _ in factors(model.code, model.clusters)}
    held = {site: torch.randint(sizes[site], (JUDGED,)) for site in rows.named}
    drawn = draw(story, JUDGED, given=dict(held)).cpu().numpy()
    found: dict[str, float] = {}
    for site, (labels, test) in rows.named.items():
        kept = known[site].cpu() >= 0
        real = _regression(rows.x_train, labels)
        own = _regression(rows.x_train[kept], labels[kept])
        x_test, y_test = rows.x_test.numpy(), test.numpy()
        found[f"{site}.agreement"] = float(real.score(drawn, held[site].numpy()))
        found[f"{site}.judge"] = float(real.score(x_test, y_test))
        found[f"{site}.regression"] = float(own.score(x_test, y_test))
    return found


def _regression(x: Tensor, labels: Tensor) -> Any:
    """Logistic regression on the first hundred principal components of the pixels.

    Of labels of one class, what says that class.
    """
    from sklearn.decomposition import PCA
    from sklearn.dummy import DummyClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    if len(labels.unique()) == 1:
        return DummyClassifier().fit(x.numpy(), labels.numpy())
    components = min(100, len(x) // 2)
    return make_pipeline(PCA(components, random_state=0), LogisticRegression(max_iter=5000)).fit(
        x.numpy(), labels.numpy()
    )
