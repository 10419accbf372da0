"""The training step as one compiled graph, without the Python overhead of a Pyro program."""

import warnings
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.optim import Optimizer

from priorzoo.inference.batch import Batch
from priorzoo.inference.objectives.contract import Objective, Terms
from priorzoo.inference.randomness import Stream
from priorzoo.inference.running import PROGRAM_LOCK
from priorzoo.inference.training.state import UntraceableError
from priorzoo.inference.training.step import (
    Precision,
    apply_gradients,
    check_step,
    finish_step,
    take_step,
)
from priorzoo.inference.training.tracing import trace

Run = Callable[..., Sequence[Tensor]]  # compiled code: tensors in, tensors out
# fallback_random: the same draws as eager code. inplace_buffers: a kernel may overwrite an input
# too early; with two threads, torch 2.15 then lost part of a mixture's gradient without an error.
OPTIONS = {"fallback_random": True, "inplace_buffers": False}
TOLERANCE = {"float32": 0.01, "bf16": 0.3}  # fused kernels round to bfloat16 less often


class Compiled:
    """:func:`take_step` with loss and gradients compiled by inductor for one batch shape.

    With the same seed it makes the same draws as :func:`take_step`, and gives the same values up to
    the order of additions. Batches of another shape, such as the last of a pass, are run by
    :func:`take_step`. So are programs that cannot be traced or compiled, with one warning that
    gives the reason. The first call compiles, which takes seconds to a minute.

    Args:
        objective, optimiser, clip, precision: as in :func:`take_step`.
        rows: batch size B to compile for; that of the first batch if None.
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
        if self._layout is None and self.rows in (None, len(batch.x)):
            self._layout = batch.layout
            self._compile(batch)
        if self._runs is None or batch.layout != self._layout:
            return take_step(
                self.objective, self.optimiser, batch, clip=self.clip, precision=self.precision
            )
        self.restore_tensors()
        traced, (first, second) = self._traced, self._runs
        given = [*self._inputs, *batch.tensors]
        with torch.no_grad():
            means, *found = first(*given)
        carry = dict(zip(traced.carry, found, strict=False))
        replaced, gradients = found[len(carry) :], found[len(carry) + len(traced.replaced) :]
        store(traced.state, traced.replaced, replaced)
        apply_gradients(self.optimiser, zip(self._learnt, gradients, strict=True), self.clip)
        natural: dict[str, Tensor] = {}
        if second is not None:
            with torch.no_grad():
                outputs = second(*given)
            natural = dict(zip(traced.natural, outputs, strict=False))
            store(traced.state, traced.replaced_again, outputs[len(natural) :])
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


def lower(graph: GraphModule, inputs: list[Tensor], precision: Precision = "float32") -> Run:
    """Compile a graph to machine code that makes the same draws, and check its outputs.

    Raises:
        UntraceableError: if inductor cannot compile it, such as without a C++ compiler, or if the
            compiled code and the graph give different outputs for these inputs.
    """
    try:
        with torch.no_grad():
            run: Run = torch._inductor.compile(graph, [*inputs], OPTIONS)
            missed = disagreement(graph, run, inputs)
    except Exception as error:  # of any type: the eager step is the fallback
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UntraceableError(f"inductor reports {reason}") from error
    if missed > TOLERANCE[precision]:
        raise UntraceableError(f"inductor's code gives gradients that are wrong by {missed:.1%}")
    return run


def disagreement(graph: GraphModule, run: Run, inputs: list[Tensor]) -> float:
    """The largest relative error of compiled code, compared with the graph.

    Both run on copies of the inputs, since a program may write to its buffers. The outputs are
    compared, and so are the inputs that were written to.
    """
    outputs, written = [], []
    for one in (graph, run):
        given = [each.clone() for each in inputs]
        with Stream(0, inputs[0].device):
            outputs.append(list(one(*given)))
        written.append(given)
    changed = [i for i, each in enumerate(written[0]) if not torch.equal(each, inputs[i])]
    errors = [_error(*outputs)]
    if changed:
        errors.append(_error(*([given[i] for i in changed] for given in written)))
    return max(errors)


def _error(expected: Sequence[Tensor], found: Sequence[Tensor]) -> float:
    """The largest relative error of a tensor.

    It is the norm of the difference divided by the norm of the tensor, or by a thousandth of the
    largest norm if that is more, so that rounding errors of zero do not count.
    """
    expected, found = ([each.double() for each in tensors] for tensors in (expected, found))
    sizes = torch.stack([output.norm() for output in expected])
    errors = torch.stack([(a - b).norm() for a, b in zip(found, expected, strict=True)])
    return (errors / sizes.clamp(min=1e-3 * sizes.max())).max().item()
