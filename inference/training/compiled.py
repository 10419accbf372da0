"""The training step as one compiled graph, without the Python overhead of a Pyro program."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from priorzoo.inference.batch import Batch
from priorzoo.inference.data.batches import Picked
from priorzoo.inference.objectives.contract import Objective, Terms
from priorzoo.inference.randomness import Stream
from priorzoo.inference.running import PROGRAM_LOCK
from priorzoo.inference.training.lowering import lower
from priorzoo.inference.training.products import choose_products, count_products
from priorzoo.inference.training.state import UntraceableError
from priorzoo.inference.training.step import (
    Precision,
    apply_gradients,
    check_step,
    finish_step,
    take_step,
)
from priorzoo.inference.training.tracing import Traced, trace
from priorzoo.inference.training.watch import Watch
from priorzoo.inference.training.whole import Whole, whole_step


class Compiled:
    """:func:`take_step` compiled by inductor for one batch shape.

    On the CPU the whole step is one graph, with the gathering and binarisation of rows in memory,
    the steps of Adam, AdamW, SGD, RMSprop and their combinations with natural parameters, and the
    state of the objective. Other optimisers, and a ``commit`` that cannot be recorded, run outside
    of a graph of loss and gradients.

    With the same seed it makes the same draws as :func:`take_step`, and gives the same values up to
    the order of additions. Batches of another shape, such as the last of a pass, are run by
    :func:`take_step`. So are programs that cannot be traced or compiled, with one warning that
    gives the reason. The first call compiles, which takes seconds to a minute.

    Args:
        objective, optimiser, clip, precision, watch: as in :func:`take_step`.
        rows: batch size B to compile for; that of the first batch if None.
    """

    def __init__(
        self,
        objective: Objective,
        optimiser: Optimizer,
        *,
        clip: float | None = None,
        precision: Precision = "float32",
        watch: Watch | None = None,
        rows: int | None = None,
    ) -> None:
        check_step(clip, precision)
        self.objective, self.optimiser = objective, optimiser
        self.clip, self.precision, self.rows = clip, precision, rows
        self.watch = Watch(objective) if watch is None else watch
        self.reason = ""  # why the step could not be compiled
        self.products: dict[str, int] = {}  # by the library that computes them
        self.names: list[str] = []
        self._layout: tuple[object, ...] | None = None
        self._made: _Whole | _Split | None = None

    def __call__(self, given: Batch | Picked) -> Terms:
        means, _ = self.step(given)
        return dict(zip(self.names, means.unbind(), strict=True))

    def step(self, given: Batch | Picked) -> tuple[Tensor, Tensor]:
        """Take a step.

        Returns:
            The batch means of the terms, in the order of ``names``, and what of these and of the
            gradients was finite, which the watch gets too.
        """
        with PROGRAM_LOCK:
            layout = given.layout
            if self._made is not None and not self._made.is_current:
                self._layout = self._made = None
            if self._layout is None and self.rows in (None, given.rows):
                self._layout = layout
                self._compile(given)
            if self._made is None or layout != self._layout:
                return self._eager(given.batch)
            self.restore_tensors()
            return self._made.step(given)

    def restore_tensors(self) -> None:
        """Put the compiled step's own tensors back where eager calls have replaced them."""
        if self._made is not None:
            self._made.traced.kept.restore_tensors()

    def _eager(self, batch: Batch) -> tuple[Tensor, Tensor]:
        how: dict[str, Any] = {"clip": self.clip, "precision": self.precision}
        terms = take_step(self.objective, self.optimiser, batch, **how, watch=self.watch)
        self.names, means = list(terms), torch.stack(list(terms.values()))
        return means, self.watch.take(self.names, means)

    def _compile(self, given: Batch | Picked) -> None:
        with Stream(0, given.tensors[0].device):
            batch = given.batch
        self.objective.clock.to(batch.x.device)
        try:
            traced = trace(self.objective, batch, self.precision)
            try:
                whole = whole_step(self.objective, self.optimiser, traced, given, self.clip)
            except UntraceableError:
                self._made = _Split(self, traced, batch)
            else:
                self._made = _Whole(self, whole, given)
        except UntraceableError as error:
            self.reason = str(error)
            warnings.warn(
                f"Expected a step that can be compiled but {self.reason}; steps run eagerly, as "
                "with step='eager'.",
                stacklevel=2,
            )
            return
        self.names, self.products = traced.terms, self._made.products


class _Whole:
    """A compiled step of one graph."""

    def __init__(self, owner: Compiled, whole: Whole, given: Batch | Picked) -> None:
        self.watch, self.whole = owner.watch, whole
        self.traced, self.updates = whole.traced, whole.updates
        own = len(whole.inputs(given)) - len(given.tensors)
        changing = own if isinstance(given, Picked) else None  # all data need not be copied
        self.run = lower(whole.graph, whole.trial(given), owner.precision, changing)
        self.products = count_products(choose_products(whole.graph))
        self.plan = self.updates.plan
        self.inputs = whole.inputs(given)[:own]

    @property
    def is_current(self) -> bool:
        """Whether the step is the one that was recorded, also after the optimiser was restored."""
        if not self.updates.is_bound:
            self.updates.bind()
            self.inputs = [*self.traced.inputs, *self.updates.tensors]
        return self.updates.plan == self.plan

    def step(self, given: Batch | Picked) -> tuple[Tensor, Tensor]:
        """Take a step, see :meth:`Compiled.step`."""
        self.updates.prepare()
        with torch.no_grad():
            means, finite = self.run(*self.inputs, *given.tensors)
        self.updates.advance()
        return means, self.watch.add(self.traced.terms, finite)


class _Split:
    """A compiled graph of loss and gradients, which the optimiser and the objective follow."""

    def __init__(self, owner: Compiled, traced: Traced, batch: Batch) -> None:
        self.owner, self.traced, self.inputs = owner, traced, traced.inputs
        given = [*traced.inputs, *batch.tensors]
        self.first = lower(traced.graph, given, owner.precision)
        second = traced.second
        self.second = None if second is None else lower(second, given, owner.precision)
        self.products = count_products(choose_products(traced.graph))
        self.is_current = True
        self.learnt = [traced.state[name] for name in traced.learnt]

    def step(self, given: Batch | Picked) -> tuple[Tensor, Tensor]:
        """Take a step, see :meth:`Compiled.step`."""
        traced, owner = self.traced, self.owner
        inputs = [*self.inputs, *given.batch.tensors]
        with torch.no_grad():
            means, *found = self.first(*inputs)
        carry = dict(zip(traced.carry, found, strict=False))
        replaced, gradients = found[len(carry) :], found[len(carry) + len(traced.replaced) :]
        store(traced.state, traced.replaced, replaced)
        pairs = zip(self.learnt, gradients, strict=True)
        apply_gradients(owner.optimiser, pairs, owner.clip, owner.watch)
        natural: dict[str, Tensor] = {}
        if self.second is not None:
            with torch.no_grad():
                outputs = self.second(*inputs)
            natural = dict(zip(traced.natural, outputs, strict=False))
            store(traced.state, traced.replaced_again, outputs[len(natural) :])
        finish_step(owner.objective, owner.optimiser, natural, carry, owner.watch)
        return means, owner.watch.take(traced.terms, means)


@torch.no_grad()
def store(state: Mapping[str, Tensor], names: Sequence[str], values: Sequence[Tensor]) -> None:
    """Copy the values by which a program has replaced parameters and buffers into these."""
    for name, value in zip(names, values, strict=False):
        state[name].copy_(value)
