"""The training step as one compiled graph, without the Python overhead of a Pyro program."""

import warnings
from collections.abc import Callable
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
from priorzoo.inference.training.graphs import OneGraph, TwoGraphs
from priorzoo.inference.training.lowering import lower
from priorzoo.inference.training.native.kept import find
from priorzoo.inference.training.native.making import keep_step, key_of, played, restored
from priorzoo.inference.training.products import choose_products, count_products
from priorzoo.inference.training.state import UntraceableError
from priorzoo.inference.training.step import Precision, check_step, take_step
from priorzoo.inference.training.tracing import Traced, trace
from priorzoo.inference.training.watch import Watch
from priorzoo.inference.training.whole import whole_step

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
    does not compile again.

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
        self._made: OneGraph | TwoGraphs | None = None

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
            and isinstance(made, OneGraph)
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
            assert isinstance(self._made, OneGraph)
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

    def _kept(self, given: Batch | Picked, batch: Batch) -> OneGraph | None:
        """The step as an earlier process has compiled it."""
        if not self.native:
            return None
        own = self.objective, self.optimiser
        self._key = None if _is_shared(given) else key_of(*own, given, self.clip, self.precision)
        kept = None if self._key is None else find(self._key)
        if kept is None:
            return None
        found = restored(kept, *own, given, batch, self.clip, self.precision)
        if found is None:
            return None
        whole, player = found
        return OneGraph(self.watch, whole, given, player, kept.products)

    def _compiled(self, given: Batch | Picked, batch: Batch) -> OneGraph | TwoGraphs:
        self.tell(COMPILING)
        traced = trace(self.objective, batch, self.precision)
        try:
            whole = whole_step(self.objective, self.optimiser, traced, given, self.clip)
        except UntraceableError:
            return self._two_graphs(traced, batch)
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
        return OneGraph(self.watch, whole, given, player or run, products)

    def _two_graphs(self, traced: Traced, batch: Batch) -> TwoGraphs:
        given = [*traced.inputs, *batch.tensors]
        graph, second = traced.graph, traced.second
        assert isinstance(graph, GraphModule)
        first, later = lower(graph, given, self.precision), None
        if isinstance(second, GraphModule):
            later = lower(second, given, self.precision)
        products = count_products(choose_products(graph))
        own = self.objective, self.optimiser, self.clip, self.watch
        return TwoGraphs(traced, (first, later), *own, products)


def unheard(text: str) -> None:
    """Drop a message: what :attr:`Compiled.tell` does until it is set."""


def _is_shared(given: Batch | Picked) -> bool:
    """Whether processes share a batch, or it is on a GPU."""
    return given.tensors[0].device.type != "cpu" or (
        isinstance(given, Batch) and given.share is not None
    )
