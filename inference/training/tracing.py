"""Loss and gradients of a Pyro program as one graph of tensor operations."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from priorzoo.inference.batch import Batch
from priorzoo.inference.failures import first_line
from priorzoo.inference.objectives.contract import Objective
from priorzoo.inference.pairs import plate_depth
from priorzoo.inference.training.state import Attributes, State, UntraceableError
from priorzoo.inference.training.step import Precision, autocast, differentiated, match_layout

Graph = Callable[..., Sequence[Tensor]]  # tensors in, tensors out


@dataclass(frozen=True)
class Traced:
    """Recorded loss and gradients for batches of one shape.

    ``graph`` takes :attr:`inputs`, then the tensors of a batch. It returns the batch means of the
    terms, stacked in the order of ``terms``, then the values of the loss's ``carry``, then the new
    values of the tensors in ``replaced``, and then a gradient for each parameter in ``learnt``. If
    there are natural gradients, ``second`` takes the same inputs and returns a gradient for each
    parameter in ``natural``, and then the new values of ``replaced_again``. Buffers that a program
    writes to are written to by the graphs.
    """

    graph: Graph
    kept: State
    terms: list[str] = field(default_factory=list)
    carry: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    learnt: list[str] = field(default_factory=list)
    second: Graph | None = None
    natural: list[str] = field(default_factory=list)
    replaced_again: list[str] = field(default_factory=list)

    @property
    def state(self) -> dict[str, Tensor]:
        """Parameters and buffers by name, the graph's first inputs."""
        return self.kept.tensors

    @property
    def inputs(self) -> list[Tensor]:
        """Current parameters and buffers, to pass to the graph at each call."""
        return [tensor.detach() for tensor in self.state.values()]


class Program:
    """What an objective computes on batches of one shape, as functions of tensors.

    Args:
        objective, batch, precision: as in :func:`trace`.
    """

    def __init__(self, objective: Objective, batch: Batch, precision: Precision) -> None:
        self.objective, self.batch, self.precision = objective, batch, precision
        self.state = State(objective)
        self.wanted = [n for n, tensor in self.state.tensors.items() if tensor.requires_grad]
        self.traced = Traced(self.step, self.state, second=self.natural_step)

    def step(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Loss and gradients, see :attr:`Traced.graph`; notes the names of what it returns."""
        made, wanted = self.traced, self.wanted
        values, given = self._named(inputs)
        leaves = {name: values[name].detach().requires_grad_() for name in wanted}
        with self.state.replaced_by(values | leaves) as replaced:
            with torch.enable_grad(), autocast(self.batch.x.device, self.precision):
                loss = self.objective.loss(given)
            gradients, found, carry = differentiated(loss, list(leaves.values()), given)
        learnt = {
            name: match_layout(gradient, leaves[name])
            for name, gradient in zip(wanted, gradients, strict=True)
            if gradient is not None and name not in replaced
        }
        made.terms[:], made.carry[:] = found, carry
        made.replaced[:], made.learnt[:] = replaced, learnt
        means = torch.stack(list(found.values()))
        return means, *carry.values(), *replaced.values(), *learnt.values()

    def natural_step(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Natural gradients, see :attr:`Traced.second`; notes the names of what it returns."""
        values, given = self._named(inputs)
        with self.state.replaced_by(values) as replaced:
            found = self.objective.natural_gradients(given)
        self.traced.natural[:], self.traced.replaced_again[:] = found, replaced
        return *found.values(), *replaced.values()

    def _named(self, inputs: Sequence[Tensor]) -> tuple[dict[str, Tensor], Batch]:
        values = dict(zip(self.state.tensors, inputs, strict=False))
        return values, self.batch.with_tensors(list(inputs[len(values) :]))


def trace(objective: Objective, batch: Batch, precision: Precision = "float32") -> Traced:
    """Record what an objective computes on a batch, without computing it.

    Parameters and buffers, including the clock of schedules, are inputs of the graph; random
    operations make new draws at each call. Python code runs only here, so that Python numbers and
    branches are fixed for all steps.

    Raises:
        UntraceableError: if shapes or branches depend on the values of tensors, or if the program
            changes other state than its parameters and buffers.
    """
    plate_depth(objective.model, objective.guide, batch)  # runs the pair, not possible in a graph
    program = Program(objective, batch, precision)
    made = program.traced
    inputs = [*made.inputs, *batch.tensors]
    graph, second = record_checked(objective, [program.step, program.natural_step], inputs)
    return replace(made, graph=graph, second=second if made.natural else None)


def record_checked(
    objective: Objective, steps: Sequence[Callable[..., object]], inputs: Sequence[Tensor]
) -> list[GraphModule]:
    """Record graphs, and check that they depend on no attribute that the programs change."""
    attributes = Attributes(objective)
    try:
        graphs = [record(step, inputs) for step in steps]
        for graph in graphs:
            attributes.check(graph)
    finally:
        attributes.restore()
    return graphs


def record(step: Callable[..., object], inputs: Sequence[Tensor]) -> GraphModule:
    """Record the graph of a function with fake tensors in the shapes of the inputs."""
    try:
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            fake = [mode.from_tensor(each) for each in inputs]
            graph = make_fx(step, _allow_non_fake_inputs=True)(*fake)
    except (DataDependentOutputException, DynamicOutputShapeException) as error:
        operation = str(error.func).splitlines()[0]  # Pyro adds shapes on further lines
        raise UntraceableError(f"{operation} depends on the values of a tensor") from error
    except (RuntimeError, TypeError, ValueError, NotImplementedError, AssertionError) as error:
        reason = first_line(error)
        raise UntraceableError(reason) from error
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph
