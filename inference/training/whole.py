"""The whole training step as one graph: batch, loss, gradients, optimiser and state."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.optim import Optimizer

from priorzoo.inference.batch import Batch
from priorzoo.inference.data.batches import Picked
from priorzoo.inference.objectives.contract import Objective
from priorzoo.inference.training.state import UntraceableError, store
from priorzoo.inference.training.tracing import Graph, Traced, record_checked
from priorzoo.inference.training.updates import Updates, can_record
from priorzoo.inference.training.watch import Watch, all_finite


@dataclass(frozen=True)
class Whole:
    """A recorded step, which changes its inputs in place and returns the means of the terms,
    and whether these and the gradients of all parameters are finite.

    Args:
        graph: takes parameters and buffers, the tensors of ``updates``, and those of the batch.
        traced: the loss and gradients that it contains.
        updates: the steps of the optimiser.
    """

    graph: Graph
    traced: Traced
    updates: Updates

    def inputs(self, given: Batch | Picked) -> list[Tensor]:
        """The inputs of the graph for a batch."""
        return [*self.traced.inputs, *self.updates.tensors, *given.tensors]

    def trial(self, given: Batch | Picked) -> list[Tensor]:
        """Inputs on which compiled code is compared with the graph."""
        return [*self.traced.inputs, *self.updates.trial, *given.tensors]


def whole_step(
    objective: Objective,
    optimiser: Optimizer,
    traced: Traced,
    given: Batch | Picked,
    clip: float | None,
) -> Whole:
    """Record a whole step around the loss and gradients of an objective.

    Raises:
        UntraceableError: for an optimiser whose steps cannot be recorded, and for a ``commit`` that
            does not only change parameters and buffers by operations on tensors.
    """
    whole = whole_program(objective, optimiser, traced, given, clip)
    with torch.no_grad():
        (graph,) = record_checked(objective, [whole.graph], whole.inputs(given))
    return replace(whole, graph=graph)


def whole_program(
    objective: Objective,
    optimiser: Optimizer,
    traced: Traced,
    given: Batch | Picked,
    clip: float | None,
) -> Whole:
    """A whole step as a function that is not recorded yet; its errors are :func:`whole_step`'s."""
    if not can_record(optimiser):
        raise UntraceableError(f"{type(optimiser).__name__} is not an optimiser that is recorded")
    if isinstance(given, Batch) and given.share is not None:
        raise UntraceableError("several processes share a batch, and sum their gradients")
    if set(traced.learnt) & set(traced.natural):
        raise UntraceableError("a parameter has a gradient of the loss and a natural one")
    updated = {name: traced.state[name] for name in (*traced.learnt, *traced.natural)}
    owned = {id(p) for group in optimiser.param_groups for p in group["params"]}
    updates = Updates(optimiser, {n: p for n, p in updated.items() if id(p) in owned})
    watched = Watch(objective).parameters
    first, second = len(traced.state), len(traced.state) + len(updates.tensors)

    def step(*inputs: Tensor) -> tuple[Tensor, Tensor]:
        values = dict(zip(traced.state, inputs, strict=False))
        numbers, batch = inputs[first:second], given.with_tensors(list(inputs[second:]))
        means, *found = traced.graph(*values.values(), *batch.tensors)
        carry = dict(zip(traced.carry, found, strict=False))
        replaced = found[len(carry) :]
        gradients = replaced[len(traced.replaced) :]
        store(values, traced.replaced, replaced)
        named = dict(zip(traced.learnt, gradients, strict=True))
        norms = {name: torch.linalg.vector_norm(gradient) for name, gradient in named.items()}
        updates.apply(numbers, values, clipped(named, norms, clip))
        if traced.second is not None:
            natural = traced.second(*values.values(), *batch.tensors)
            named = dict(zip(traced.natural, natural, strict=False))
            norms |= {name: torch.linalg.vector_norm(each) for name, each in named.items()}
            updates.apply(numbers, values, named)
            store(values, traced.replaced_again, natural[len(traced.natural) :])
        with traced.kept.replaced_by(values) as committed:
            objective.commit(carry)
            objective.clock.tick()
        store(values, list(committed), list(committed.values()))
        every = [norms.get(name, means.new_zeros(())) for name in watched]
        return means, all_finite(means, [norm.to(means.dtype) for norm in every])

    return Whole(step, traced, updates)


def clipped(
    gradients: Mapping[str, Tensor], norms: Mapping[str, Tensor], clip: float | None
) -> Mapping[str, Tensor]:
    """Gradients scaled so that their norm is at most ``clip``, as ``clip_grad_norm_`` does.

    Args:
        norms: the norm of each gradient.
        clip: None for no scaling.
    """
    if clip is None or not gradients:
        return gradients
    norm = torch.linalg.vector_norm(torch.stack(list(norms.values())))
    scale = (clip / (norm + 1e-6)).clamp(max=1.0)
    return {name: gradient * scale.to(gradient.dtype) for name, gradient in gradients.items()}
