"""Compiled steps that run: one graph of the whole step, or loss and gradients alone."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from priorzoo.inference.batch import Batch
from priorzoo.inference.data.batches import Picked
from priorzoo.inference.objectives.contract import Objective
from priorzoo.inference.training.lowering import Run
from priorzoo.inference.training.native.player import Player
from priorzoo.inference.training.state import store
from priorzoo.inference.training.step import apply_gradients, finish_step
from priorzoo.inference.training.tracing import Traced
from priorzoo.inference.training.watch import Watch
from priorzoo.inference.training.whole import Whole


class OneGraph:
    """A compiled step of one graph, by native calls if these could be recorded.

    Args:
        watch: gets what was finite.
        whole, given: what steps, and its first batch.
        run: the code.
        products: the number of matrix products by the library that computes them.
    """

    def __init__(
        self,
        watch: Watch,
        whole: Whole,
        given: Batch | Picked,
        run: Run | Player,
        products: Mapping[str, int],
    ) -> None:
        self.watch, self.whole = watch, whole
        self.traced, self.updates = whole.traced, whole.updates
        self.run, self.products = run, dict(products)
        self.player = run if isinstance(run, Player) else None
        self.plan = self.updates.plan
        inputs = whole.inputs(given)
        self.inputs = inputs[: len(inputs) - len(given.tensors)]
        if self.player is not None:
            self.player.bind(inputs)

    @property
    def is_current(self) -> bool:
        """Whether the step is the one that was recorded, also after the optimiser was restored."""
        if not self.updates.is_bound:
            self.updates.bind()
            self.inputs = [*self.traced.inputs, *self.updates.tensors]
            if self.player is not None and self.updates.plan == self.plan:
                self._give(0, self.inputs)
        return self.updates.plan == self.plan

    def step(self, given: Batch | Picked) -> tuple[Tensor, Tensor]:
        """Take a step, see :meth:`Compiled.step`."""
        self.updates.prepare()
        with torch.no_grad():
            if self.player is None:
                means, finite = self.run(*self.inputs, *given.tensors)
            else:
                self._give(len(self.inputs), given.tensors)
                means, finite = self.player.step()
        self.updates.advance()
        return means, self.watch.add(self.traced.terms, finite)

    def repeat(self, given: Picked, count: int, sums: Tensor) -> None:
        """Take steps, see :meth:`Compiled.repeat`."""
        player, watch, first = self.player, self.watch, len(self.traced.inputs)
        assert player is not None
        assert watch.finite is not None
        self._give(len(self.inputs), given.tensors)
        moves = {len(player.inputs) - 1: given.index.numel() * given.index.itemsize}
        tables = {first + n: table for n, table in self.updates.tables(count).items()}
        for number, table in tables.items():
            player.give(number, table[0])
            moves[number] = table.stride(0) * table.itemsize
        with torch.no_grad():
            player.steps(count, moves, (sums, watch.finite, watch.lasted))
        for number in tables:
            player.give(number, self.inputs[number])
        self.updates.advance(count)

    def _give(self, first: int, tensors: Sequence[Tensor]) -> None:
        assert self.player is not None
        for number, tensor in enumerate(tensors, first):
            if self.player.inputs[number] is not tensor:
                self.player.give(number, tensor)


class TwoGraphs:
    """Compiled loss and gradients, which the optimiser and the objective follow.

    Args:
        traced: the graphs.
        runs: their code; the second is that of natural gradients, if there are any.
        objective, optimiser, clip, watch: as in :func:`take_step`.
        products: the number of matrix products by the library that computes them.
    """

    def __init__(
        self,
        traced: Traced,
        runs: tuple[Run, Run | None],
        objective: Objective,
        optimiser: Optimizer,
        clip: float | None,
        watch: Watch,
        products: Mapping[str, int],
    ) -> None:
        self.traced, self.inputs, self.products = traced, traced.inputs, dict(products)
        self.first, self.second = runs
        self.objective, self.optimiser = objective, optimiser
        self.clip, self.watch = clip, watch
        self.is_current = True
        self.learnt = [traced.state[name] for name in traced.learnt]

    def step(self, given: Batch | Picked) -> tuple[Tensor, Tensor]:
        """Take a step, see :meth:`Compiled.step`."""
        traced = self.traced
        inputs = [*self.inputs, *given.batch.tensors]
        with torch.no_grad():
            means, *found = self.first(*inputs)
        carry = dict(zip(traced.carry, found, strict=False))
        replaced, gradients = found[len(carry) :], found[len(carry) + len(traced.replaced) :]
        store(traced.state, traced.replaced, replaced)
        pairs = zip(self.learnt, gradients, strict=True)
        apply_gradients(self.optimiser, pairs, self.clip, self.watch)
        natural: dict[str, Tensor] = {}
        if self.second is not None:
            with torch.no_grad():
                outputs = self.second(*inputs)
            natural = dict(zip(traced.natural, outputs, strict=False))
            store(traced.state, traced.replaced_again, outputs[len(natural) :])
        finish_step(self.objective, self.optimiser, natural, carry, self.watch)
        return means, self.watch.take(traced.terms, means)
