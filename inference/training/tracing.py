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
from priorzoo.inference.training.step import Precision, autocast, gradients_of, laid_out

Found = TypeVar("Found")


class UntraceableError(ValueError):
    """The program cannot be written as a graph of fixed shapes; the message says why."""


@dataclass(frozen=True)
class Traced:
    """Loss and gradients for batches of one shape.

    ``graph`` takes :attr:`inputs`, then the tensors of a batch, and gives the batch means of the
    terms, stacked in the order of ``terms``, then each value of the loss's ``carry``, and then a
    gradient for each of ``learnt``. Where there are ``natural`` gradients, ``second`` takes the
    same and gives one for each.
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
        """Parameters and buffers, which the graph reads anew at each call."""
        return [number.detach() for number in self.state.values()]


def state_of(module: nn.Module, recurse: bool = True) -> dict[str, Tensor]:
    """Parameters and buffers by name, those that do not persist among them."""
    buffers = dict(module.named_buffers(recurse=recurse))
    return dict(module.named_parameters(recurse=recurse)) | buffers


class _Part(nn.Module):
    """A method of an objective as what a module is called for."""

    def __init__(self, objective: Objective, method: Callable[[Batch], Found]) -> None:
        super().__init__()
        self.objective, self.method = objective, method

    def forward(self, batch: Batch) -> object:
        return self.method(batch)


def _called(
    objective: Objective,
    method: Callable[[Batch], Found],
    numbers: Mapping[str, Tensor],
    batch: Batch,
) -> Found:
    """A method of an objective with other parameters and buffers.

    Each is put in every place that holds it, once. Torch's own way with ties counts the places in a
    module that model and guide share twice, and puts back the wrong tensor.
    """
    others = {id(own): numbers[name] for name, own in state_of(objective).items()}
    part = _Part(objective, method)
    places = {
        f"{home}.{name}".lstrip("."): others[id(own)]
        for home, module in part.named_modules()
        for name, own in state_of(module, recurse=False).items()
    }
    found: Found = torch.func.functional_call(part, places, (batch,), tie_weights=False)
    return found


def trace(objective: Objective, batch: Batch, precision: Precision = "float32") -> Traced:
    """Record what an objective computes on a batch, without computing it.

    Parameters and buffers, the clock of the schedules among them, are inputs; random operations
    draw anew at each call. What the program decides in Python is decided here once, so that other
    numbers than tensors may not change from step to step.

    Raises:
        UntraceableError: where shapes or decisions depend on the values of tensors.
    """
    state = state_of(objective)
    wanted = [name for name, number in state.items() if number.requires_grad]
    terms: list[str] = []
    carried: list[str] = []
    learnt: list[str] = []
    natural: list[str] = []

    def step(*inputs: Tensor) -> tuple[Tensor, ...]:
        numbers, own = _divided(inputs, state, batch)
        leaves = {name: numbers[name].detach().requires_grad_() for name in wanted}
        with torch.enable_grad(), autocast(batch.x.device, precision):
            value, found, carry = _called(objective, objective.loss, numbers | leaves, own)
        gradients = dict(zip(wanted, gradients_of(value, list(leaves.values())), strict=True))
        given = {n: laid_out(g, leaves[n]) for n, g in gradients.items() if g is not None}
        terms[:], carried[:], learnt[:] = found, carry, given
        means = torch.stack([term.detach().mean() for term in found.values()])
        return means, *carry.values(), *given.values()

    def again(*inputs: Tensor) -> tuple[Tensor, ...]:
        numbers, own = _divided(inputs, state, batch)
        found = _called(objective, objective.natural_gradients, numbers, own)
        natural[:] = found
        return tuple(found.values())

    inputs = [number.detach() for number in state.values()] + batch.tensors
    graph, second = record(step, inputs), record(again, inputs)
    return Traced(graph, state, terms, carried, learnt, second if natural else None, natural)


def _divided(
    inputs: Sequence[Tensor], state: Mapping[str, Tensor], batch: Batch
) -> tuple[dict[str, Tensor], Batch]:
    """Parameters and buffers by name, and the batch of the rest."""
    numbers = dict(zip(state, inputs, strict=False))
    return numbers, batch.holding(list(inputs[len(state) :]))


def record(step: Callable[..., object], inputs: Sequence[Tensor]) -> GraphModule:
    """The graph of a function on tensors of these shapes, which are only pretended."""
    try:
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            pretended = [mode.from_tensor(each) for each in inputs]
            graph = make_fx(step, _allow_non_fake_inputs=True)(*pretended)
    except (DataDependentOutputException, DynamicOutputShapeException) as error:
        raise UntraceableError(f"{error.func} depends on the values of a tensor") from error
    except (RuntimeError, TypeError, ValueError, NotImplementedError, AssertionError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UntraceableError(reason) from error
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph
