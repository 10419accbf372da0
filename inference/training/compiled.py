"""The training step as one compiled graph, without the Python overhead of a Pyro program."""

import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from priorzoo.inference.batch import Batch
from priorzoo.inference.objectives.contract import Objective, Terms
from priorzoo.inference.running import PROGRAM_LOCK
from priorzoo.inference.training.lowering import Run, lower
from priorzoo.inference.training.state import UntraceableError
from priorzoo.inference.training.step import (
    Precision,
    apply_gradients,
    check_step,
    finish_step,
    take_step,
)
from priorzoo.inference.training.tracing import trace
from priorzoo.inference.training.watch import Watch


class Compiled:
    """:func:`take_step` with loss and gradients compiled by inductor for one batch shape.

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
        self.clip, self.precision, self.watch, self.rows = clip, precision, watch, rows
        self.reason = ""  # why the step could not be compiled
        self._layout: tuple[object, ...] | None = None
        self._runs: tuple[Run, Run | None] | None = None

    def __call__(self, batch: Batch) -> Terms:
        with PROGRAM_LOCK:
            return self._step(batch)

    def restore_tensors(self) -> None:
        """Put the compiled step's own tensors back where eager calls have replaced them."""
        if self._runs is not None:
            self._traced.kept.restore_tensors()

    def _step(self, batch: Batch) -> Terms:
        if self._layout is None and self.rows in (None, batch.rows):
            self._layout = batch.layout
            self._compile(batch)
        if self._runs is None or batch.layout != self._layout:
            return take_step(
                self.objective,
                self.optimiser,
                batch,
                clip=self.clip,
                precision=self.precision,
                watch=self.watch,
            )
        self.restore_tensors()
        traced, (first, second) = self._traced, self._runs
        given = [*self._inputs, *batch.tensors]
        with torch.no_grad():
            means, *found = first(*given)
        carry = dict(zip(traced.carry, found, strict=False))
        replaced, gradients = found[len(carry) :], found[len(carry) + len(traced.replaced) :]
        store(traced.state, traced.replaced, replaced)
        learnt = zip(self._learnt, gradients, strict=True)
        apply_gradients(self.optimiser, learnt, self.clip, self.watch)
        natural: dict[str, Tensor] = {}
        if second is not None:
            with torch.no_grad():
                outputs = second(*given)
            natural = dict(zip(traced.natural, outputs, strict=False))
            store(traced.state, traced.replaced_again, outputs[len(natural) :])
        finish_step(self.objective, self.optimiser, natural, carry, self.watch)
        return dict(zip(traced.terms, means.unbind(), strict=True))

    def _compile(self, batch: Batch) -> None:
        self.objective.clock.to(batch.x.device)
        try:
            traced = trace(self.objective, batch, self.precision)
            given = [*traced.inputs, *batch.tensors]
            first = lower(traced.graph, given, self.precision)
            second = None if traced.second is None else lower(traced.second, given, self.precision)
        except UntraceableError as error:
            self.reason = str(error)
            warnings.warn(
                f"Expected a step that can be compiled but {self.reason}; steps run eagerly, as "
                "with step='eager'.",
                stacklevel=2,
            )
            return
        self._traced, self._inputs, self._runs = traced, traced.inputs, (first, second)
        self._learnt = [traced.state[name] for name in traced.learnt]


@torch.no_grad()
def store(state: Mapping[str, Tensor], names: Sequence[str], values: Sequence[Tensor]) -> None:
    """Copy the values by which a program has replaced parameters and buffers into these."""
    for name, value in zip(names, values, strict=False):
        state[name].copy_(value)
