"""Weights of rows as numbers of copies, for algorithms that count each row once."""

import torch
from torch import Tensor

from priorzoo.inference.batch import Context
from priorzoo.models.contract import WEIGHTS

COPIES, MOST = 10, 20_000  # for each row on average, and of all rows


def repeats(weights: Tensor) -> Tensor:
    """``(M,)``: row numbers, each as often as its weight says, on average.

    A weight of 2 gives two copies, one of 2.5 two or three, and one of 0 none (systematic
    resampling). Rows are as many as the weights add up to, rounded, but no fewer than there are
    positive weights, and at most ``10 * N`` or ``MOST``: weights that add up to 1, and those of a
    survey, whose rows stand for thousands of persons, give their shares of these.

    Args:
        weights: ``(N,)``, at least 0 and not all 0.
    """
    reached = weights.double().cumsum(0)
    most = max(COPIES * len(weights), MOST)
    least = int((weights > 0).sum())
    count = min(max(least, round(float(reached[-1]))), most)
    places = (torch.arange(count, device=weights.device) + 0.5) * reached[-1] / count
    return torch.searchsorted(reached, places).clamp(max=len(weights) - 1)


def repeated(x: Tensor, context: Context) -> tuple[Tensor, dict[str, Tensor]]:
    """Rows and what is told beside them, each as often as its weight says, and without weights.

    Args:
        x: rows ``(N, P)``.
        context: each ``(N, ...)``.
    """
    if WEIGHTS not in context or not bool((context[WEIGHTS] > 0).any()):
        return x, {name: value for name, value in context.items() if name != WEIGHTS}
    rows = repeats(context[WEIGHTS]).to(x.device)
    return x[rows], {name: v[rows] for name, v in context.items() if name != WEIGHTS}
