"""One training step; the caller owns the loop."""

from collections.abc import Iterable, Mapping
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from priorzoo.inference.batch import Batch, Context, Labels, in_precision
from priorzoo.inference.objectives.contract import Objective, Terms

Precision = Literal["float32", "bf16"]
Gradients = Iterable[tuple[Tensor, Tensor | None]]


def descend(
    objective: Objective,
    optimiser: Optimizer,
    x: Tensor,
    size: int | None = None,
    *,
    clip: float | None = None,
    precision: Precision = "float32",
    labels: Labels | None = None,
    context: Context | None = None,
) -> Terms:
    """One gradient step on one mini-batch; of static shape and without host synchronisation.

    Args:
        objective: gives the loss and the terms of rows ``x``, see :class:`Objective`.
        optimiser: any optimiser over the objective's parameters.
        x: rows ``(B, P)``.
        size: number N of data that the rows stand for; None for B.
        clip: norm to which the gradient is cut; None for no bound.
        precision: of the linear maps and convolutions; all else is computed as the rows are.
        labels: of discrete sites, each ``(B,)`` with -1 for unknown.
        context: what model and guide are told by keyword beside x, each ``(B, ...)``.

    Returns:
        The terms before the step, in nats per datum, each its batch mean, on the device.
    """
    check_step(clip, precision)
    batch = in_precision(objective.model, Batch(x, size, labels or {}, context or {}))
    return take_step(objective, optimiser, batch, clip=clip, precision=precision)


def take_step(
    objective: Objective,
    optimiser: Optimizer,
    batch: Batch,
    *,
    clip: float | None = None,
    precision: Precision = "float32",
) -> Terms:
    """:func:`descend` on a :class:`Batch`."""
    objective.clock.to(batch.x.device)  # made before the networks moved, perhaps
    with autocast(batch.x.device, precision):
        value, terms, carry = objective.loss(batch)
    learnt = [parameter for parameter in objective.parameters() if parameter.requires_grad]
    apply_gradients(optimiser, zip(learnt, gradients_of(value, learnt), strict=True), clip)
    finish_step(objective, optimiser, objective.natural_gradients(batch), carry)
    return {name: term.detach().mean() for name, term in terms.items()}


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Linear maps and convolutions in half precision, if that was chosen.

    Weights are cast where they are used, as in a recorded graph: torch would keep the cast one, and
    so add the gradients of a network that model and guide share in half precision.
    """
    enabled = precision == "bf16"
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled, cache_enabled=False)


def gradients_of(value: Tensor, learnt: list[Tensor] | list[nn.Parameter]) -> list[Tensor | None]:
    """Gradients of a loss, None for each parameter that it does not depend on."""
    if not value.requires_grad:
        return [None] * len(learnt)
    return list(torch.autograd.grad(value, learnt, allow_unused=True))


def apply_gradients(optimiser: Optimizer, gradients: Gradients, clip: float | None = None) -> None:
    """Let an optimiser step on gradients of its parameters; those without one stay."""
    optimiser.zero_grad()
    moved = []
    for parameter, gradient in gradients:
        if gradient is not None:
            parameter.grad = laid_out(gradient, parameter)
            moved.append(parameter)
    if clip is not None:
        nn.utils.clip_grad_norm_(moved, clip)
    optimiser.step()


def finish_step(
    objective: Objective,
    optimiser: Optimizer,
    natural: Mapping[str, Tensor],
    carry: Mapping[str, Tensor],
) -> None:
    """What follows the gradients of the loss: natural gradients, state, and the clock.

    The optimiser steps once more where the objective has natural gradients; all other parameters
    have none then, and stay.
    """
    if natural:
        named = dict(objective.named_parameters())
        apply_gradients(optimiser, ((named[name], value) for name, value in natural.items()))
    objective.commit(carry)
    objective.clock.tick()


def laid_out(gradient: Tensor, parameter: Tensor) -> Tensor:
    """In memory as its parameter is, which fused optimisers rely on and convolutions do not do."""
    if gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)


def check_step(clip: float | None, precision: str) -> None:
    """Refuse settings with which :func:`descend` cannot run.

    Raises:
        ValueError: for a norm that is not positive, or an unknown precision.
    """
    if precision not in get_args(Precision):
        raise ValueError(f"Expected precision among {get_args(Precision)} but got {precision!r}.")
    if clip is not None and not clip > 0:
        raise ValueError(f"Expected a positive clip but got {clip}; give None for no bound.")
