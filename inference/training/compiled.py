"""The step as one compiled graph, which pays Python's share of a Pyro program once."""

import warnings
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from priorzoo.inference.objectives.elbo import ELBO, Terms
from priorzoo.inference.pairs import Labels
from priorzoo.inference.randomness import Stream
from priorzoo.inference.training.step import Precision, check_step, descend
from priorzoo.inference.training.tracing import Traced, UntraceableError, laid_out, trace

# Draws are torch's own. A kernel that writes over one of its inputs may do so too soon: with two
# threads, torch 2.15 lost part of a mixture's gradient that way, without a word.
OPTIONS = {"fallback_random": True, "inplace_buffers": False}
TOLERANCE = {"float32": 0.01, "bf16": 0.3}  # fused steps round half precision less often


class Compiled:
    """:func:`descend` with loss and gradients compiled by torch's inductor for one shape of batch.

    It draws what :func:`descend` draws under the same seed, and gives the same numbers up to the
    order of additions. Batches of another shape, such as the last of a pass, and programs that
    cannot be traced or compiled go through :func:`descend`, the latter with one warning that says
    why. Compilation takes seconds to a minute, at the first call.

    Args:
        objective, optimiser, size, clip, precision: as in :func:`descend`.
        rows: number B of rows of the batches to compile for; those of the first batch if None.
    """

    def __init__(
        self,
        objective: ELBO,
        optimiser: Optimizer,
        size: int,
        *,
        clip: float | None = None,
        precision: Precision = "float32",
        rows: int | None = None,
    ) -> None:
        check_step(clip, precision)
        self.objective, self.optimiser, self.size = objective, optimiser, size
        self.clip, self.precision, self.rows = clip, precision, rows
        self.reason = ""  # why it is not compiled after all
        self._shape: tuple[torch.Size, tuple[str, ...]] | None = None
        self._run: Any = None
        self._renew: Any = None
        self._traced: Traced | None = None

    def __call__(self, x: Tensor, labels: Labels | None = None) -> Terms:
        if self._shape is None and self.rows in (None, len(x)):
            self._shape = x.shape, tuple(labels or ())
            self._compile(x, labels)
        traced = self._traced
        if traced is None or (x.shape, tuple(labels or ())) != self._shape:
            return self._descend(x, labels)
        given = [*self._inputs, x, *(labels or {}).values()]
        with torch.no_grad():
            means, *gradients = self._run(*given)
        if self.objective.counting:
            self.objective.left = gradients.pop(0)
        self.optimiser.zero_grad()
        for parameter, gradient in zip(self._learnt, gradients, strict=True):
            parameter.grad = laid_out(gradient, parameter)
        if self.clip is not None:
            clip_grad_norm_(self._learnt, self.clip)
        closure: Any = None if self._renew is None else partial(self._renewed, given)
        self.optimiser.step(closure)
        self.objective.clock.tick()
        return dict(zip(traced.terms, means.unbind(), strict=True))

    def _renewed(self, given: list[Tensor]) -> None:
        """The optimiser's closure."""
        assert self._traced is not None
        with torch.no_grad():
            gradients = self._renew(*given)
        for name, gradient in zip(self._traced.renewed, gradients, strict=True):
            parameter = self._traced.state[name]
            parameter.grad = laid_out(gradient, parameter)

    def _compile(self, x: Tensor, labels: Labels | None) -> None:
        self.objective.clock.to(x.device)
        try:
            if self.objective.keeps_state:
                kind = type(self.objective).__name__
                raise UntraceableError(f"{kind} keeps state between steps, which no graph records")
            traced = trace(self.objective, x, self.size, labels, self.precision)
            self._inputs = traced.inputs
            self._learnt = [traced.state[name] for name in traced.learnt]
            given = [*self._inputs, x, *(labels or {}).values()]
            self._run = lower(traced.graph, given, self.precision)
            if traced.renewal is not None:
                self._renew = lower(traced.renewal, given, self.precision)
            self._traced = traced
        except UntraceableError as error:
            self.reason = str(error)
            warnings.warn(
                f"Expected a step that can be compiled but {self.reason}; trained eagerly instead, "
                "as step='eager' does.",
                stacklevel=2,
            )

    def _descend(self, x: Tensor, labels: Labels | None) -> Terms:
        return descend(
            self.objective,
            self.optimiser,
            x,
            self.size,
            clip=self.clip,
            precision=self.precision,
            labels=labels,
        )


def lower(graph: GraphModule, inputs: list[Tensor], precision: Precision = "float32") -> Any:
    """The graph as machine code that draws what the graph draws, once it was seen to agree.

    Raises:
        UntraceableError: where inductor cannot compile it, such as without a C++ compiler, or where
            its code gives other numbers for these inputs than the graph run as it is.
    """
    try:
        with torch.no_grad():
            run = torch._inductor.compile(graph, [*inputs], OPTIONS)
            missed = disagreement(graph, run, inputs)
    except Exception as error:  # whatever a compiler trips over, the eager step is right
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UntraceableError(f"inductor reports {reason}") from error
    if missed > TOLERANCE[precision]:
        raise UntraceableError(f"inductor's code gives gradients that are wrong by {missed:.1%}")
    return run


def disagreement(graph: GraphModule, run: Any, inputs: list[Tensor]) -> float:
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
