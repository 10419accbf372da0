"""Loss and gradients of a Pyro program as one graph of tensor operations."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from priorzoo.inference.objectives.elbo import ELBO
from priorzoo.inference.pairs import Labels
from priorzoo.inference.training.step import Precision


class UntraceableError(ValueError):
    """The program cannot be written as a graph of fixed shapes; the message says why."""


@dataclass(frozen=True)
class Traced:
    """Loss and gradients for batches of one shape.

    ``graph`` takes :attr:`inputs`, then rows and labels, all tensors, and gives the batch means of
    the terms, stacked in the order of ``terms``, what the call leaves for the clock of an objective
    that is ``counting``, and a gradient for each of ``learnt``. Of one that is ``renewing``,
    ``renewal`` takes the same and gives a gradient for each of ``renewed``.
    """

    graph: GraphModule
    state: dict[str, Tensor]
    terms: list[str]
    learnt: list[str]
    renewal: GraphModule | None = None
    renewed: tuple[str, ...] = ()

    @property
    def inputs(self) -> list[Tensor]:
        """Parameters and buffers, which the graph reads anew at each call."""
        return [number.detach() for number in self.state.values()]


def trace(
    objective: ELBO,
    x: Tensor,
    size: int,
    labels: Labels | None = None,
    precision: Precision = "float32",
) -> Traced:
    """Record what an objective computes on rows ``(B, P)``, without computing it.

    Parameters and buffers, the clock of the schedules among them, are inputs; random operations
    draw anew at each call. What the program decides in Python is decided here once, so that other
    numbers than tensors may not change from step to step.

    Args:
        objective: of a model and a guide.
        x, size, labels, precision: as in :func:`descend`.

    Raises:
        UntraceableError: where shapes or decisions depend on the values of tensors.
    """
    state: dict[str, Tensor] = dict(objective.named_parameters()) | dict(objective.named_buffers())
    wanted = [name for name, number in state.items() if number.requires_grad]
    known = dict(labels or {})
    terms: list[str] = []
    learnt: list[str] = []
    renewed: list[str] = []

    def step(*inputs: Tensor) -> tuple[Tensor, ...]:
        numbers = dict(zip(state, inputs, strict=False))
        rows, *given = inputs[len(state) :]
        leaves = {name: numbers[name].detach().requires_grad_() for name in wanted}
        more = (dict(zip(known, given, strict=True)),) if known else ()
        with (
            torch.enable_grad(),
            torch.autocast(rows.device.type, torch.bfloat16, enabled=precision == "bf16"),
        ):
            loss, found = torch.func.functional_call(
                objective, numbers | leaves, (rows, size, *more)
            )
        gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
        terms[:], learnt[:] = (
            found,
            [name for name, g in zip(wanted, gradients, strict=True) if g is not None],
        )
        means = torch.stack([term.detach().mean() for term in found.values()])
        left = () if objective.left is None else (objective.left,)
        objective.left = None
        pairs = zip(leaves.values(), gradients, strict=True)
        return means, *left, *(laid_out(g, leaf) for leaf, g in pairs if g is not None)

    def renew(*inputs: Tensor) -> tuple[Tensor, ...]:
        numbers = {f"objective.{name}": n for name, n in zip(state, inputs, strict=False)}
        rows, *given = inputs[len(state) :]
        more = (dict(zip(known, given, strict=True)),) if known else ()
        found = torch.func.functional_call(Renewal(objective), numbers, (rows, size, *more))
        renewed[:] = found
        return tuple(found.values())

    inputs = [number.detach() for number in state.values()] + [x, *known.values()]
    graph = record(step, inputs)
    renewal = record(renew, inputs) if objective.renewing else None
    return Traced(graph, state, terms, learnt, renewal, tuple(renewed))


class Renewal(nn.Module):
    """The second part of an objective's step, as what a module is called for."""

    def __init__(self, objective: ELBO) -> None:
        super().__init__()
        self.objective = objective

    def forward(self, x: Tensor, size: int, labels: Labels | None = None) -> dict[str, Tensor]:
        return self.objective.renewed(x, size, labels)


def laid_out(gradient: Tensor, leaf: Tensor) -> Tensor:
    """In memory as its parameter is, which fused optimisers rely on and convolutions do not do."""
    same = gradient.stride() == leaf.stride()
    return gradient if same else torch.empty_like(leaf).copy_(gradient)


def record(step: Callable[..., Any], inputs: Sequence[Tensor]) -> GraphModule:
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
