"""The training step as one compiled graph, without the Python overhead of a Pyro program."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.optim import Optimizer

from priorzoo.inference.batch import Batch
from priorzoo.inference.data.batches import Picked
from priorzoo.inference.objectives.contract import Objective, Terms
from priorzoo.inference.randomness import Stream
from priorzoo.inference.running import PROGRAM_LOCK
from priorzoo.inference.training.lowering import Run, lower
from priorzoo.inference.training.native.kept import find
from priorzoo.inference.training.native.making import keep_step, key_of, played, restored
from priorzoo.inference.training.native.player import Player
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

COMPILING = "compiling the training step, about half a minute the first time"


class Compiled:
    """:func:`take_step` compiled by inductor for one batch shape.

    On the CPU the whole step is one graph, with the gathering and binarisation of rows in memory,
    the steps of Adam, AdamW, SGD, RMSprop and their combinations with natural parameters, and the
    state of the objective. Other optimisers, and a ``commit`` that cannot be recorded, run outside
    of a graph of loss and gradients.

    With the same seed it makes the same draws as :func:`take_step`, and gives the same values up to
    the order of additions. Batches of another shape, such as the last of a pass, are run by
    :func:`take_step`. So are programs that cannot be traced or compiled, with one warning that
    gives the reason. The first call compiles, which takes seconds to a minute. On the CPU the step
    is then a list of native calls on memory of its own, if all that it calls can be called so:
    matrix products, random numbers and what inductor has generated need no Python, and steps follow
    each other without it. That list is kept in the user's cache with its code, under a key of
    everything it depends on; another process compares it with the programs on its first batch, and
    needs not compile.

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
        self.tell: Callable[[str], None] = unheard
        self.products: dict[str, int] = {}  # by the library that computes them
        self.names: list[str] = []
        self._layout: tuple[object, ...] | None = None
        self.native = True  # whether steps may be native calls; if not, Python makes each call
        self._key: str | None = None  # of what is kept for other processes
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

    def can_repeat(self, layout: tuple[object, ...]) -> bool:
        """Whether :meth:`repeat` takes batches of a layout."""
        made = self._made
        ready = self.watch.finite is not None and not self.watch.counts and self._layout == layout
        return (
            ready
            and isinstance(made, _Whole)
            and made.player is not None
            and made.player.is_native
            and made.is_current
        )

    def repeat(self, given: Picked, count: int, sums: Tensor) -> None:
        """Take steps without Python between them, on batches whose indices follow each other.

        Args:
            given: the first batch.
            count: how many.
            sums: of the means of the terms, to which those of the steps are added.
        """
        with PROGRAM_LOCK:
            assert isinstance(self._made, _Whole)
            self.restore_tensors()
            self._made.repeat(given, count, sums)

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
            self._made = self._kept(given, batch) or self._compiled(given, batch)
        except UntraceableError as error:
            self.reason = str(error)
            warnings.warn(
                f"Expected a step that can be compiled but {self.reason}; steps run eagerly, as "
                "with step='eager'.",
                stacklevel=2,
            )
            return
        self.names, self.products = self._made.traced.terms, self._made.products

    def _kept(self, given: Batch | Picked, batch: Batch) -> "_Whole | None":
        """The step as an earlier process has compiled it."""
        if not self.native:
            return None
        own = self.objective, self.optimiser
        self._key = None if _is_shared(given) else key_of(*own, given, self.clip, self.precision)
        kept = None if self._key is None else find(self._key)
        if kept is None:
            return None
        found = restored(kept, *own, given, batch, self.clip, self.precision)
        return None if found is None else _Whole(self, found[0], given, found[1], kept.products)

    def _compiled(self, given: Batch | Picked, batch: Batch) -> "_Whole | _Split":
        self.tell(COMPILING)
        traced = trace(self.objective, batch, self.precision)
        try:
            whole = whole_step(self.objective, self.optimiser, traced, given, self.clip)
        except UntraceableError:
            return _Split(self, traced, batch)
        graph, inputs = whole.graph, whole.trial(given)
        assert isinstance(graph, GraphModule)
        own = len(inputs) - len(given.tensors)
        # All data need not be copied.
        run = lower(graph, inputs, self.precision, own if isinstance(given, Picked) else None)
        products = count_products(choose_products(graph))
        by_python = not self.native or isinstance(run, GraphModule)
        player = None if by_python else played(run, inputs, own)
        if player is not None and self._key is not None:
            keep_step(self._key, whole, player, products)
        return _Whole(self, whole, given, player or run, products)


def unheard(text: str) -> None:
    """What is told to nobody."""


def _is_shared(given: Batch | Picked) -> bool:
    """Whether processes share a batch, or it is on a GPU."""
    return given.tensors[0].device.type != "cpu" or (
        isinstance(given, Batch) and given.share is not None
    )


class _Whole:
    """A compiled step of one graph, by native calls if these could be recorded.

    Args:
        owner, whole, given: what steps, and its first batch.
        run: the code.
        products: the number of matrix products by the library that computes them.
    """

    def __init__(
        self,
        owner: Compiled,
        whole: Whole,
        given: Batch | Picked,
        run: Run | Player,
        products: Mapping[str, int],
    ) -> None:
        self.watch, self.whole = owner.watch, whole
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


class _Split:
    """A compiled graph of loss and gradients, which the optimiser and the objective follow."""

    def __init__(self, owner: Compiled, traced: Traced, batch: Batch) -> None:
        self.owner, self.traced, self.inputs = owner, traced, traced.inputs
        given = [*traced.inputs, *batch.tensors]
        graph, second = traced.graph, traced.second
        assert isinstance(graph, GraphModule)
        self.first = lower(graph, given, owner.precision)
        self.second = None
        if isinstance(second, GraphModule):
            self.second = lower(second, given, owner.precision)
        self.products = count_products(choose_products(graph))
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
