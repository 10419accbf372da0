"""Several trainings at once: each step updates the stacked parameters of all of them."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from priorzoo.inference.batch import Batch, Transform
from priorzoo.inference.objectives.contract import Objective
from priorzoo.inference.randomness import Stream
from priorzoo.inference.training.lowering import Run, lower
from priorzoo.inference.training.settings import MakesOptimiser, optimiser_of, prepare
from priorzoo.inference.training.state import state_of
from priorzoo.inference.training.step import Precision, apply_gradients
from priorzoo.inference.training.tracing import Traced, record, trace

aten = torch.ops.aten


class Replicas:
    """R trainings that differ in their initial parameters, order of the rows and draws.

    Each has the same distribution of results as a training alone. They share every operation, which
    is faster if the networks are too small to use the whole device. Loss and gradients of one
    objective are traced and vectorised over all.

    Args:
        objectives: R objectives of the same classes and sizes. Their parameters are the initial
            ones, and are replaced by the trained ones after :meth:`run`.
        data: rows ``(N, P)`` on the device of the parameters.
        optimiser: makes an optimiser of parameters, which here have R as their first dimension. It
            must update each element separately, as Adam and SGD do. Adam if None.
        lr: Adam's learning rate, 0.001 if None.
        batch_size, transform, precision: as in :class:`Training`.
        step: ``eager`` or ``compiled``; the last batch of a pass, if smaller, is never compiled.
        seed: seed of orders, transforms and draws.
        common: whether all replicas have the same batches and draws, so that they differ only in
            their initial parameters; each is then exactly the training with that seed.

    Raises:
        ValueError: for objectives whose parameters differ in names or shapes, or that have natural
            gradients or state to commit.
        UntraceableError: for programs that are not a graph of fixed shapes.
    """

    def __init__(
        self,
        objectives: Sequence[Objective],
        data: Tensor,
        *,
        optimiser: MakesOptimiser | None = None,
        lr: float | None = None,
        batch_size: int = 100,
        transform: Transform | None = None,
        precision: Precision = "float32",
        step: Literal["eager", "compiled"] = "eager",
        seed: int = 0,
        common: bool = False,
    ) -> None:
        self.objectives, self.data = objectives, data
        self.batch_size, self.transform = min(batch_size, len(data)), transform
        self.precision: Precision = precision
        self.execution, self.common = step, common
        self.epoch = -(-len(data) // self.batch_size)
        for objective in objectives:
            objective.clock.restart(self.epoch)
            objective.to(data.device)
        self.state = _stack(objectives)
        learnt = [tensor for tensor in self.state.values() if isinstance(tensor, nn.Parameter)]
        self.optimiser = optimiser_of(optimiser, lr, learnt)
        prepare(self.optimiser, "compiled")
        self.stream = Stream(seed, data.device)
        self.order, self.place = data.new_empty((len(objectives), 0), dtype=torch.int64), 0
        self.step = 0
        self._runs: dict[int, tuple[Traced, Run]] = {}

    def run(self, steps: int) -> list[list[dict[str, float]]]:
        """Take ``steps`` steps; returns each replica's history, a row of mean terms per pass."""
        for objective in self.objectives:
            objective.clock.total = self.step + steps
        self.state["clock.lengths"][:, 1] = self.step + steps
        history: list[list[dict[str, float]]] = [[] for _ in self.objectives]
        begun, sums = self.step, torch.zeros(())
        with self.stream:
            for left in reversed(range(steps)):
                self.stream.let_others_run()
                names, means = self._descend()
                sums = sums.to(means.device) + means
                self.step += 1
                if left == 0 or self.place >= self.order.shape[1]:
                    rows = (sums / (self.step - begun)).tolist()
                    for rows_of, row in zip(history, rows, strict=True):
                        rows_of.append({"step": self.step} | dict(zip(names, row, strict=True)))
                    begun, sums = self.step, torch.zeros(())
        self._unstack()
        return history

    def _descend(self) -> tuple[list[str], Tensor]:
        x = self._batch()
        rows = x.shape[-2]
        if rows not in self._runs:
            self._runs[rows] = self._vectorise(x)
        traced, run = self._runs[rows]
        with torch.no_grad():
            means, *found = run(*self._inputs(), x)
            for name, value in zip(traced.replaced, found, strict=False):
                self.state[name].copy_(value)
        gradients = found[len(traced.replaced) :]
        learnt = (self.state[name] for name in traced.learnt)
        apply_gradients(self.optimiser, zip(learnt, gradients, strict=True))
        self.state["clock.step"] += 1
        return traced.terms, means

    def _batch(self) -> Tensor:
        """The next rows, ``(R, B, P)``, or ``(B, P)`` if all replicas have the same."""
        count, size, device = len(self.objectives), len(self.data), self.data.device
        if self.place >= self.order.shape[1]:
            if self.common:
                self.order = torch.randperm(size, device=device).unsqueeze(0)
            else:
                self.order = torch.rand(count, size, device=device).argsort(-1)
            self.place = 0
        index = self.order[:, self.place : self.place + self.batch_size]
        self.place += self.batch_size
        x = self.data[index[0] if self.common else index]
        return x if self.transform is None else self.transform(x)

    def _vectorise(self, x: Tensor) -> tuple[Traced, Run]:
        one = x if self.common else x[0]
        traced = trace(self.objectives[0], Batch(one, len(self.data)), self.precision)
        if traced.carry or traced.natural:
            raise ValueError(
                "Expected objectives with gradients only but these have natural gradients or state "
                "to commit after the step; train them one by one."
            )
        dims = (*[0] * len(self.state), None if self.common else 0)
        randomness = "same" if self.common else "different"
        assert isinstance(traced.graph, GraphModule)
        run = torch.vmap(_functional(traced.graph), dims, randomness=randomness)
        if self.execution == "eager" or one.shape[0] != self.batch_size:
            return traced, run
        inputs = [*self._inputs(), x]
        with torch.no_grad():
            graph = record(run, inputs)
        return traced, lower(graph, inputs, self.precision)

    def _inputs(self) -> list[Tensor]:
        return [tensor.detach() for tensor in self.state.values()]

    @torch.no_grad()
    def _unstack(self) -> None:
        for index, objective in enumerate(self.objectives):
            for name, tensor in state_of(objective).items():
                tensor.copy_(self.state[name][index])


def _stack(objectives: Sequence[Objective]) -> dict[str, Tensor]:
    """Parameters and buffers of all objectives, each with R as its first dimension."""
    each = [state_of(objective) for objective in objectives]
    shapes = [{name: tensor.shape for name, tensor in state.items()} for state in each]
    if any(other != shapes[0] for other in shapes):
        raise ValueError(
            "Expected replicas of the same parameters but they differ in names or shapes; build "
            "them from one recipe."
        )
    stacked: dict[str, Tensor] = {}
    for name, tensor in each[0].items():
        together = torch.stack([state[name].detach() for state in each])
        stacked[name] = nn.Parameter(together) if tensor.requires_grad else together
    return stacked


def _functional(graph: GraphModule) -> GraphModule:
    """Replace operations that cannot be vectorised by others that can.

    In-place draws become draws that return a new tensor, and views become reshapes.
    """
    nodes = graph.graph
    for node in nodes.nodes:
        if node.target in (aten.view.default, aten._unsafe_view.default):
            node.target = aten.reshape.default
        if node.target not in (aten.normal_.default, aten.uniform_.default):
            continue
        normal = node.target is aten.normal_.default
        given = list(node.args[1:])
        first, second = given + [0.0, 1.0][len(given) :]
        with nodes.inserting_after(node):
            like = aten.randn_like.default if normal else aten.rand_like.default
            drawn = nodes.call_function(like, (node.args[0],))
        with nodes.inserting_after(drawn):
            width = second if normal else second - first
            scaled = nodes.call_function(aten.mul.Tensor, (drawn, width))
        with nodes.inserting_after(scaled):
            moved = nodes.call_function(aten.add.Tensor, (scaled, first))
        node.replace_all_uses_with(moved)
        nodes.erase_node(node)
    graph.recompile()
    return graph
