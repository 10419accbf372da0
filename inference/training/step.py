"""One training step; the caller owns the loop."""

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from priorzoo.inference.objectives.elbo import ELBO, Terms
from priorzoo.inference.pairs import Labels

Precision = Literal["float32", "bf16"]


def descend(
    objective: ELBO,
    optimiser: Optimizer,
    x: Tensor,
    size: int | None = None,
    *,
    clip: float | None = None,
    precision: Precision = "float32",
    labels: Labels | None = None,
) -> Terms:
    """One gradient step on one mini-batch; of static shape and without host synchronisation.

    Args:
        objective: gives the loss and the terms of rows ``x``, see :class:`ELBO`.
        optimiser: any optimiser over the objective's parameters.
        x: rows ``(B, P)``.
        size: number N of data that the rows stand for; None for B.
        clip: norm to which the gradient is cut; None for no bound.
        precision: of the linear maps and convolutions; all else is computed as the rows are.
        labels: of discrete sites, each ``(B,)`` with -1 for unknown.

    Returns:
        The terms before the step, in nats per datum, each its batch mean, on the device.
    """
    check_step(clip, precision)
    objective.clock.to(x.device)  # made before the networks moved, perhaps
    optimiser.zero_grad()
    with torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bf16"):
        loss, terms = objective(x, size, labels)
    loss.backward()
    if clip is not None:
        nn.utils.clip_grad_norm_(objective.parameters(), clip)
    optimiser.step(objective.again(x, size, labels))
    objective.clock.tick()
    return {name: term.detach().mean() for name, term in terms.items()}


def check_step(clip: float | None, precision: str) -> None:
    """Refuse settings with which :func:`descend` cannot run.

    Raises:
        ValueError: for a norm that is not positive, or an unknown precision.
    """
    if precision not in get_args(Precision):
        raise ValueError(f"Expected precision among {get_args(Precision)} but got {precision!r}.")
    if clip is not None and not clip > 0:
        raise ValueError(f"Expected a positive clip but got {clip}; give None for no bound.")
