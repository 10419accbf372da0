"""One training step; the caller owns the loop."""

from collections.abc import Iterable, Mapping
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from priorzoo.inference.batch import Batch, Context, Labels
from priorzoo.inference.data.checks import admit_step
from priorzoo.inference.objectives.contract import Loss, Objective, Terms
from priorzoo.inference.running import PROGRAM_LOCK
from priorzoo.inference.training.watch import Watch

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
    """Take one gradient step on one mini-batch, with static shapes and no host synchronisation.

    Args:
        objective: gives the loss and the terms of rows ``x``, see :class:`Objective`.
        optimiser: any optimiser over the objective's parameters.
        x: rows ``(B, P)``.
        size: number N of data in the data set; B if None.
        clip: maximal norm of the gradient; None for no clipping.
        precision: precision of linear maps and convolutions; all else is computed in the precision
            of the parameters.
        labels: labels of discrete sites, each ``(B,)`` with -1 for unknown.
        context: keyword arguments of model and guide beside x, each ``(B, ...)``, and ``weights``
            of the rows, ``(B,)``, with mean 1 over the data set.

    Returns:
        The batch means of the terms before the step, in nats per datum, on the device.

    Raises:
        ValueError: for parameters that the programs make in this call, which the optimiser lacks,
            and for rows that the likelihood does not accept. Values on a GPU are not checked.
    """
    check_step(clip, precision)
    batch = admit_step(objective.model, x, size, labels, context)
    before = set(map(id, objective.parameters()))
    terms = take_step(objective, optimiser, batch, clip=clip, precision=precision)
    new = [name for name, parameter in objective.named_parameters() if id(parameter) not in before]
    if new:
        raise ValueError(
            f"Expected an optimiser of all parameters but some were made in this call: {new}; call "
            "the objective on a batch before you make the optimiser."
        )
    return terms


def take_step(
    objective: Objective,
    optimiser: Optimizer,
    batch: Batch,
    *,
    clip: float | None = None,
    precision: Precision = "float32",
    watch: Watch | None = None,
) -> Terms:
    """:func:`descend` on a :class:`Batch`; a watch gets the gradients."""
    with PROGRAM_LOCK:
        objective.clock.to(batch.x.device)  # the networks may have moved after the clock was made
        with autocast(batch.x.device, precision):
            loss = objective.loss(batch)
        learnt = [parameter for parameter in objective.parameters() if parameter.requires_grad]
        gradients, means, carry = differentiated(loss, learnt, batch)
        apply_gradients(optimiser, zip(learnt, gradients, strict=True), clip, watch)
        finish_step(objective, optimiser, objective.natural_gradients(batch), carry, watch)
    return means


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Linear maps and convolutions in half precision, if that was chosen.

    Weights are cast where they are used, as in a recorded graph: torch would keep the cast one, and
    so add the gradients of a network that model and guide share in half precision.
    """
    enabled = precision == "bf16"
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled, cache_enabled=False)


def differentiated(
    loss: Loss, learnt: list[Tensor] | list[nn.Parameter], batch: Batch
) -> tuple[list[Tensor | None], Terms, Mapping[str, Tensor]]:
    """Gradients of a loss, batch means of its terms, and its carry.

    Of a batch that processes share, these are those of all its rows: this is where processes wait
    for each other.
    """
    value, terms, carry = loss
    means = {name: term.detach().mean() for name, term in terms.items()}
    if batch.share is None:
        return gradients_of(value, learnt), means, carry
    gradients = gradients_of(value * batch.share.weight, learnt)
    gradients, means = batch.share.summed(gradients, means)
    return gradients, means, batch.share.carried(carry)


def gradients_of(value: Tensor, learnt: list[Tensor] | list[nn.Parameter]) -> list[Tensor | None]:
    """Gradients of a loss, None for each parameter that it does not depend on."""
    if not value.requires_grad:
        return [None] * len(learnt)
    return list(torch.autograd.grad(value, learnt, allow_unused=True))


def apply_gradients(
    optimiser: Optimizer,
    gradients: Gradients,
    clip: float | None = None,
    watch: Watch | None = None,
) -> None:
    """Let an optimiser step on these gradients; parameters whose gradient is None do not change."""
    optimiser.zero_grad()
    updated = []
    for parameter, gradient in gradients:
        if gradient is not None:
            parameter.grad = match_layout(gradient, parameter)
            updated.append(parameter)
    if watch is not None:
        watch.gradients(updated)
    if clip is not None:
        nn.utils.clip_grad_norm_(updated, clip)
    optimiser.step()


def finish_step(
    objective: Objective,
    optimiser: Optimizer,
    natural: Mapping[str, Tensor],
    carry: Mapping[str, Tensor],
    watch: Watch | None = None,
) -> None:
    """Finish a step after the gradients of the loss: natural gradients, state, and the clock.

    If the objective has natural gradients, the optimiser takes a second step, which changes only
    natural parameters.
    """
    if natural:
        named = dict(objective.named_parameters())
        gradients = ((named[name], value) for name, value in natural.items())
        apply_gradients(optimiser, gradients, watch=watch)
    objective.commit(carry)
    objective.clock.tick()


def match_layout(gradient: Tensor, parameter: Tensor) -> Tensor:
    """The gradient in its parameter's memory layout, which fused optimisers need.

    Gradients of convolutions may come in another one.
    """
    if gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)


def check_step(clip: float | None, precision: str) -> None:
    """Check the settings of :func:`descend`.

    Raises:
        ValueError: for a ``clip`` that is not positive, or an unknown precision.
    """
    if precision not in get_args(Precision):
        raise ValueError(f"Expected precision among {get_args(Precision)} but got {precision!r}.")
    if clip is not None and not clip > 0:
        raise ValueError(f"Expected a positive clip but got {clip}; give None for no clipping.")
