"""The step as one compiled graph, which pays Python's share of a Pyro program once."""

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.optim import Optimizer

from priorzoo.inference.batch import Batch
from priorzoo.inference.objectives.contract import Objective, Terms
from priorzoo.inference.randomness import Stream
from priorzoo.inference.training.step import (
    Precision,
    apply_gradients,
    check_step,
    finish_step,
    take_step,
)
from priorzoo.inference.training.tracing import UntraceableError, trace

Run = Callable[..., Sequence[Tensor]]  # compiled code: tensors in, tensors out
# Draws are torch's own. A kernel that writes over one of its inputs may do so too soon: with two
# threads, torch 2.15 lost part of a mixture's gradient that way, without a word.
OPTIONS = {"fallback_random": True, "inplace_buffers": False}
TOLERANCE = {"float32": 0.01, "bf16": 0.3}  # fused steps round half precision less often


class Compiled:
    """:func:`take_step` with loss and gradients compiled by inductor for one shape of batch.

    It draws what :func:`take_step` draws under the same seed, and gives the same numbers up to the
    order of additions. Batches of another shape, such as the last of a pass, and programs that
    cannot be traced or compiled go through :func:`take_step`, the latter with one warning that says
    why. Compilation takes seconds to a minute, at the first call.

    Args:
        objective, optimiser, clip, precision: as in :func:`take_step`.
        rows: number B of rows of the batches to compile for; those of the first batch if None.
    """

    def __init__(
        self,
        objective: Objective,
        optimiser: Optimizer,
        *,
        clip: float | None = None,
        precision: Precision = "float32",
        rows: int | None = None,
    ) -> None:
        check_step(clip, precision)
        self.objective, self.optimiser = objective, optimiser
        self.clip, self.precision, self.rows = clip, precision, rows
        self.reason = ""  # why it is not compiled after all
        self._layout: tuple[object, ...] | None = None
        self._runs: tuple[Run, Run | None] | None = None

    def __call__(self, batch: Batch) -> Terms:
        if self._layout is None and self.rows in (None, len(batch.x)):
            self._layout = batch.layout
            self._compile(batch)
        if self._runs is None or batch.layout != self._layout:
            return take_step(
                self.objective, self.optimiser, batch, clip=self.clip, precision=self.precision
            )
        traced, (first, second) = self._traced, self._runs
        given = [*self._inputs, *batch.tensors]
        with torch.no_grad():
            means, *found = first(*given)
        carry = dict(zip(traced.carry, found, strict=False))
        apply_gradients(
            self.optimiser, zip(self._learnt, found[len(carry) :], strict=True), self.clip
        )
        natural: dict[str, Tensor] = {}
        if second is not None:
            with torch.no_grad():
                natural = dict(zip(traced.natural, second(*given), strict=True))
        finish_step(self.objective, self.optimiser, natural, carry)
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
                f"Expected a step that can be compiled but {self.reason}; trained eagerly instead, "
                "as step='eager' does.",
                stacklevel=2,
            )
            return
        self._traced, self._inputs, self._runs = traced, traced.inputs, (first, second)
        self._learnt = [traced.state[name] for name in traced.learnt]


def lower(graph: GraphModule, inputs: list[Tensor], precision: Precision = "float32") -> Run:
    """The graph as machine code that draws what the graph draws, once it was seen to agree.

    Raises:
        UntraceableError: where inductor cannot compile it, such as without a C++ compiler, or where
            its code gives other numbers for these inputs than the graph run as it is.
    """
    try:
        with torch.no_grad():
            run: Run = torch._inductor.compile(graph, [*inputs], OPTIONS)
            missed = disagreement(graph, run, inputs)
    except Exception as error:  # whatever a compiler trips over, the eager step is right
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UntraceableError(f"inductor reports {reason}") from error
    if missed > TOLERANCE[precision]:
        raise UntraceableError(f"inductor's code gives gradients that are wrong by {missed:.1%}")
    return run


def disagreement(graph: GraphModule, run: Run, inputs: list[Tensor]) -> float:
    """The largest error of an output of compiled code, as a share of what the graph gives.

    An output's error is the norm of its difference, its size its norm or a thousandth of that of
    the largest output, so that what is zero but for rounding does not count.
    """
    outputs = []
    for one in (graph, run):
        with Stream(0, inputs[0].device):
            outputs.append([output.double() for output in one(*inputs)])
    expected, found = outputs
    sizes = torch.stack([output.norm() for output in expected])
    errors = torch.stack([(a - b).norm() for a, b in zip(found, expected, strict=True)])
    return (errors / sizes.clamp(min=1e-3 * sizes.max())).max().item()
