"""Figures of a stick-breaking code, which has weights and no clusters."""

import torch
from torch import Tensor, nn

from priorzoo.benchmarks.data.sets import Dataset
from priorzoo.benchmarks.scores import metrics
from priorzoo.inference import codes
from priorzoo.models import StickBreakingVAE

NEIGHBOURS = (3, 5, 10)


def score(model: StickBreakingVAE, guide: nn.Module, rows: Dataset, x: Tensor) -> dict[str, float]:
    """Figures of the weights at the posterior mean of the sticks, for test rows.

    - ``left_over``, the mean weight of the last stick, which the truncation leaves;
    - with labels, ``knn_error_3``, ``_5`` and ``_10``: share of test rows that so many nearest
      training rows, by their weights, misclassify (Nalisnick & Smyth, 2017);
    - accuracies and agreement where a row's largest weight is its cluster, the zoo's convention.

    Args:
        model, guide: a trained pair.
        rows: the data set, whose training rows are the neighbours, as they are, not binarised.
        x: its test rows as they were scored, on the device.
    """
    weights = model.weights(codes(model, guide, x, site="v")).cpu()
    figures = {"left_over": weights[:, -1].mean().item()}
    assigned = metrics.score(weights, rows.y_test)
    figures |= {name: value for name, value in assigned.items() if name != "clusters"}
    if rows.y_train is None or rows.y_test is None:
        return figures
    known = model.weights(codes(model, guide, rows.x_train.to(x.device), site="v")).cpu()
    return figures | knn_errors(known, rows.y_train, weights, rows.y_test)


def knn_errors(known: Tensor, labels: Tensor, asked: Tensor, truth: Tensor) -> dict[str, float]:
    """Share of rows ``asked`` that the majority of their nearest rows ``known`` misclassifies.

    Of labels that tie, the smallest is taken, as scikit-learn does.
    """
    most = max(NEIGHBOURS)
    if len(known) < most:
        return {}
    nearest = torch.cat(
        [torch.cdist(part, known).topk(most, largest=False)[1] for part in asked.split(500)]
    )
    votes = labels[nearest]
    return {
        f"knn_error_{k}": (votes[:, :k].mode(-1).values != truth).double().mean().item()
        for k in NEIGHBOURS
    }
