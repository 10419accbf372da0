"""What is measured of a run, by the class of its model.

Each function below dispatches on the model and holds for any; the file of a paper registers what
differs for its own model, with the same signature::

    @scores.register(MyModel)
    def _(model: MyModel, run: Run, dataset: Dataset, x: Tensor) -> dict[str, float]: ...
"""

import sys
from collections.abc import Callable
from functools import singledispatch

import numpy as np
import torch
from torch import Tensor, nn

from priorzoo.benchmarks.data.sets import Dataset
from priorzoo.benchmarks.scores import metrics
from priorzoo.benchmarks.scores.beside import k_means
from priorzoo.benchmarks.scores.run import Result, Run
from priorzoo.inference import cluster_probabilities, codes, enumerates
from priorzoo.inference.batch import Labels
from priorzoo.inference.failures import first_line

FITTED = 20_000  # training rows to whose codes k-means is fit


@singledispatch
def prepare(model: nn.Module, run: Run, dataset: Dataset) -> None:
    """Refuse, before it is trained, a run that could not be finished; nothing by default.

    Raises:
        ValueError: saying what to change.
    """


@singledispatch
def probabilities(model: nn.Module, run: Run, dataset: Dataset, x: Tensor) -> Tensor | None:
    """``(N, K)`` probabilities of the clusters of rows ``x`` that are scored, on the CPU.

    By default q(y | x) where the guide enumerates ``y``, and None elsewhere.
    """
    told = dataset.beside(x)
    if not enumerates(model, run.guide, x, context=told):
        return None
    return cluster_probabilities(model, run.guide, x, context=told).cpu()


@singledispatch
def has_rest(model: nn.Module) -> bool:
    """Whether the last column of :func:`probabilities` is that of rows that have no cluster."""
    return False


def cluster_scores(model: nn.Module, run: Run, dataset: Dataset, x: Tensor) -> dict[str, float]:
    """Metrics of held-out rows ``x``, as they were binarised; nothing of a run without clusters.

    By default those of :mod:`metrics`, and where some training rows kept their label ``accuracy``:
    the share of rows whose most probable cluster is their class.
    """
    q = probabilities(model, run, dataset, x)
    if q is None:
        return {}
    found = metrics.score(q, dataset.y_test)
    if run.settings.get("labelled") and dataset.y_test is not None:
        found |= metrics.accuracy(q, dataset.y_test)
    return found


scores = singledispatch(cluster_scores)


@singledispatch
def code_scores(model: nn.Module, run: Run, dataset: Dataset, x: Tensor) -> Result:
    """What a stage of a training is judged by beside its scores, as keys of a row of the history.

    By default :func:`k_means_scores` where the model has a number of clusters.
    """
    clusters = getattr(model, "clusters", None)
    return k_means_scores(run, dataset, clusters) if isinstance(clusters, int) else {}


def k_means_scores(run: Run, dataset: Dataset, clusters: int) -> Result:
    """Metrics of ``k-means`` of the codes of the test rows, fit to the codes of training rows.

    After a stage of autoencoding this is the baseline of an autoencoder alone. Both sets of rows
    are as they are, not binarised. Nothing without labels, or with fewer codes than clusters.
    """
    if dataset.y_test is None or not (dataset.y_test >= 0).any():
        return {}
    z, z_test = (
        codes(run.model, run.guide, x.to(run.device), context=dataset.beside(x, part)).cpu().numpy()
        for part, x in (("train", dataset.values(dataset.train[:FITTED])), ("test", dataset.x_test))
    )
    if len(np.unique(z, axis=0)) < clusters:
        return {}
    found = torch.from_numpy(k_means(z, z_test, clusters, run.seed))
    return {"k-means": metrics.score(found, dataset.y_test)}


def optional(what: str, make: Callable[[], Result]) -> Result:
    """What is made beside a training, or nothing if that fails, which is told.

    A baseline that cannot be made must not end a training.
    """
    try:
        return make()
    except Exception as error:
        tell(f"no {what}", error)
        return {}


def tell(what: str, error: Exception) -> None:
    """Say on the error stream what is left out, and why."""
    reason = first_line(error)
    print(f"warning: {what}: {reason}", file=sys.stderr)


@singledispatch
def finish(model: nn.Module, run: Run, dataset: Dataset, labels: Labels) -> Result:
    """What is done once, after the training: nothing by default.

    A paper may write further files to the folder of the run here.

    Args:
        model, run, dataset: the trained model, its run, and its data.
        labels: those that the training knew, by site, -1 for unknown.

    Returns:
        Further keys of ``result.json``; its ``metrics`` join those of :func:`scores`.
    """
    return {}
