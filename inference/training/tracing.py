"""Loss and gradients of a Pyro program as one graph of tensor operations."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from priorzoo.inference.batch import Batch
from priorzoo.inference.objectives.contract import Objective
from priorzoo.inference.training.step import Precision, autocast, gradients_of, match_layout

Found = TypeVar("Found")


class UntraceableError(ValueError):
    """Raised if a program cannot be recorded as a graph of fixed shapes; the message says why."""


@dataclass(frozen=True)
class Traced:
    """Recorded loss and gradients for batches of one shape.

    ``graph`` takes :attr:`inputs`, then the tensors of a batch. It returns the batch means of the
    terms, stacked in the order of ``terms``, then the values of the loss's ``carry``, and then a
    gradient for each parameter in ``learnt``. If there are natural gradients, ``second`` takes the
    same inputs and returns a gradient for each parameter in ``natural``.
    """

    graph: GraphModule
    state: dict[str, Tensor]
    terms: list[str] = field(default_factory=list)
    carry: list[str] = field(default_factory=list)
    learnt: list[str] = field(default_factory=list)
    second: GraphModule | None = None
    natural: list[str] = field(default_factory=list)

    @property
    def inputs(self) -> list[Tensor]:
        """Current parameters and buffers, to pass to the graph at each call."""
        return [tensor.detach() for tensor in self.state.values()]


def state_of(module: nn.Module, recurse: bool = True) -> dict[str, Tensor]:
    """Parameters and buffers by name, including buffers that are not persistent."""
    buffers = dict(module.named_buffers(recurse=recurse))
    return dict(module.named_parameters(recurse=recurse)) | buffers


class _Part(nn.Module):
    """Makes a method of an objective the ``forward`` of a module."""

    def __init__(self, objective: Objective, method: Callable[[Batch], Found]) -> None:
        super().__init__()
        self.objective, self.method = objective, method

    def forward(self, batch: Batch) -> object:
        return self.method(batch)


def _call_with(
    objective: Objective,
    method: Callable[[Batch], Found],
    values: Mapping[str, Tensor],
    batch: Batch,
) -> Found:
    """Call a method of an objective with other values of its parameters and buffers.

    Every name of a shared tensor is replaced once. Torch's own ``tie_weights`` counts the names in
    a module that model and guide share twice, and restores the wrong tensor.
    """
    others = {id(own): values[name] for name, own in state_of(objective).items()}
    part = _Part(objective, method)
    replacements = {
        f"{home}.{name}".lstrip("."): others[id(own)]
        for home, module in part.named_modules()
        for name, own in state_of(module, recurse=False).items()
    }
    found: Found = torch.func.functional_call(part, replacements, (batch,), tie_weights=False)
    return found


def trace(objective: Objective, batch: Batch, precision: Precision = "float32") -> Traced:
    """Record what an objective computes on a batch, without computing it.

    Parameters and buffers, including the clock of schedules, are inputs of the graph; random
    operations make new draws at each call. Python code runs only here, so that Python numbers and
    branches are fixed for all steps.

    Raises:
        UntraceableError: if shapes or branches depend on the values of tensors.
    """
    state = state_of(objective)
    wanted = [name for name, tensor in state.items() if tensor.requires_grad]
    terms: list[str] = []
    carried: list[str] = []
    learnt: list[str] = []
    natural: list[str] = []

    def step(*inputs: Tensor) -> tuple[Tensor, ...]:
        values, given = _named(inputs, state, batch)
        leaves = {name: values[name].detach().requires_grad_() for name in wanted}
        with torch.enable_grad(), autocast(batch.x.device, precision):
            value, found, carry = _call_with(objective, objective.loss, values | leaves, given)
        gradients = dict(zip(wanted, gradients_of(value, list(leaves.values())), strict=True))
        made = {n: match_layout(g, leaves[n]) for n, g in gradients.items() if g is not None}
        terms[:], carried[:], learnt[:] = found, carry, made
        means = torch.stack([term.detach().mean() for term in found.values()])
        return means, *carry.values(), *made.values()

    def natural_step(*inputs: Tensor) -> tuple[Tensor, ...]:
        found = _call_with(objective, objective.natural_gradients, *_named(inputs, state, batch))
        natural[:] = found
        return tuple(found.values())

    inputs = [tensor.detach() for tensor in state.values()] + batch.tensors
    graph, second = record(step, inputs), record(natural_step, inputs)
    return Traced(graph, state, terms, carried, learnt, second if natural else None, natural)


def _named(
    inputs: Sequence[Tensor], state: Mapping[str, Tensor], batch: Batch
) -> tuple[dict[str, Tensor], Batch]:
    """Split a graph's inputs into parameters and buffers by name, and the batch."""
    values = dict(zip(state, inputs, strict=False))
    return values, batch.with_tensors(list(inputs[len(state) :]))


def record(step: Callable[..., object], inputs: Sequence[Tensor]) -> GraphModule:
    """Record the graph of a function with fake tensors in the shapes of the inputs."""
    try:
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            fake = [mode.from_tensor(each) for each in inputs]
            graph = make_fx(step, _allow_non_fake_inputs=True)(*fake)
    except (DataDependentOutputException, DynamicOutputShapeException) as error:
        raise UntraceableError(f"{error.func} depends on the values of a tensor") from error
    except (RuntimeError, TypeError, ValueError, NotImplementedError, AssertionError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UntraceableError(reason) from error
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph
