"""Running a pair before training, to create its parameters and to check its last batch."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from priorzoo.inference.batch import Batch
from priorzoo.inference.data.batches import Batches
from priorzoo.inference.failures import FAILURES, first_line
from priorzoo.inference.objectives.contract import Objective
from priorzoo.inference.pairs import run_pair
from priorzoo.inference.prediction import draw
from priorzoo.inference.randomness import Stream
from priorzoo.inference.running import UntrainedError, keeping_state, running
from priorzoo.inference.sites import evaluating
from priorzoo.inference.training.step import Precision, autocast
from priorzoo.models.contract import needed

FEW = 10  # values, from which a variance has a relative standard error of about a half


def create_parameters(model: nn.Module, guide: nn.Module, batches: Batches, seed: int) -> None:
    """Run a pair once, so that lazy modules and automatic guides create their parameters.

    Initial values are drawn from a random stream with this seed. Modes and existing parameters and
    buffers do not change. A pair that cannot run raises nothing here: :func:`check_pair` explains
    why.

    Raises:
        ValueError: for parameters in Pyro's global store.
    """
    stream = Stream(seed, batches.device)
    with evaluating(model, guide), keeping_state(model, guide), stream:
        try:
            run_pair(model, guide, _some_rows(model, batches, 2))
        except UntrainedError:
            raise
        except FAILURES:
            pass


def check_last_batch(
    objective: Objective, batches: Batches, precision: Precision, seed: int
) -> None:
    """Compute the loss of as many rows as the last batch of a pass has, as a check.

    Raises:
        ValueError: for a loss that depends on tensors that are trained but belong to no module, or
            that cannot be computed for a small batch.
    """
    model, guide, device = objective.model, objective.guide, batches.device
    last, in_memory = batches.last, isinstance(batches.data, Tensor)
    rows = last or (min(batches.batch_size, batches.rows) if in_memory else 2)
    if (not in_memory and needed(model) | needed(guide)) or device.type == "meta":
        return  # rows drawn from the model lack the context; rows on "meta" have no values
    which, advice = "in a batch", "choose a larger batch_size"
    if last:
        which = f"in the last batch of each pass over {batches.rows}"
        advice = "choose a batch_size that leaves more, or drop the last batch"
    which = f"{rows} row{'s' * (rows > 1)} {which}"
    with running(model, guide), keeping_state(objective), Stream(seed, device):
        try:
            batch = replace(_some_rows(model, batches, rows), size=batches.size)
            few = _check_loss(objective, batch, precision, batches.epoch)
        except FAILURES as error:
            if isinstance(error, UntrainedError) or (in_memory and not last and rows > 1):
                raise
            if not in_memory and not last:
                return  # batches of the iterable may have other sizes
            reason = first_line(error)
            raise ValueError(
                f"Expected a loss that can be computed on {which} but got the error: {reason}; "
                f"{advice}."
            ) from error
    if few and last:
        name, values = min(few.items(), key=lambda item: item[1])
        warnings.warn(
            f"Expected batches that are large enough for batch normalisation but there are {which} "
            f"and {name} computes variances from {values} values; {advice}.",
            stacklevel=4,
        )


def _check_loss(
    objective: Objective, batch: Batch, precision: Precision, epoch: int
) -> dict[str, int]:
    """Check for which tensors a loss has gradients; returns the batch norms with few values."""
    objective.clock.restart(epoch, epoch)  # a schedule needs some length
    try:
        with _few_values(objective) as few:
            foreign = _foreign_leaves(objective, batch, precision)
        if foreign:  # a loss may create leaves of its own, which are new in each call
            second = set(map(id, _foreign_leaves(objective, batch, precision)))
            foreign = [leaf for leaf in foreign if id(leaf) in second]
    finally:
        objective.clock.restart(epoch)
    if foreign:
        raise UntrainedError(
            f"Expected a loss of the parameters of model and guide but it also has gradients for "
            f"tensors of shapes {[tuple(leaf.shape) for leaf in foreign]} that no module keeps as "
            "parameters, so that they would not be trained; make them nn.Parameters, or networks "
            "submodules (in an nn.ModuleList, not in a list)."
        )
    return few


def _some_rows(model: nn.Module, batches: Batches, rows: int) -> Batch:
    """The first rows of data in memory; for an iterable, rows drawn from the model."""
    batch = batches.first(rows)
    if batch is None:
        with evaluating(model):
            batch = Batch(draw(model, rows, means=False))
    return batch


@contextmanager
def _few_values(objective: Objective) -> Iterator[dict[str, int]]:
    """Collects the batch norms that compute a variance from few values, with the numbers."""
    found: dict[str, int] = {}

    def watch(name: str, norm: _BatchNorm) -> torch.utils.hooks.RemovableHandle:
        def count(_: nn.Module, given: tuple[Tensor, ...]) -> None:
            values = given[0].numel() // given[0].shape[1]
            if norm.training and values < FEW:
                found[name] = values

        return norm.register_forward_pre_hook(count)

    norms = [(n, m) for n, m in objective.named_modules() if isinstance(m, _BatchNorm)]
    hooks = [watch(name, norm) for name, norm in norms]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _foreign_leaves(objective: Objective, batch: Batch, precision: Precision) -> list[Tensor]:
    """The tensors for which the loss has gradients, but which are no parameters of a module."""
    with autocast(batch.x.device, precision):
        value = objective.loss(batch).value
    own = {id(parameter) for parameter in objective.parameters()}
    return [leaf for leaf in _leaves(value) if id(leaf) not in own]


def _leaves(value: Tensor) -> Iterator[Tensor]:
    """The leaves of the value's autograd graph, where ``backward`` accumulates gradients."""
    seen, waiting = set(), [value.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            yield node.variable
        waiting.extend(before for before, _ in node.next_functions)
