"""The importance-weighted bound of log p(x), in portions of rows and samples of limited memory."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import pyro
import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from priorzoo.inference.batch import Batch, Context
from priorzoo.inference.data.checks import admit
from priorzoo.inference.data.tensors import check_count
from priorzoo.inference.objectives.draws import draw_pair
from priorzoo.inference.pairs import without_side_effects
from priorzoo.inference.progress import Progress
from priorzoo.inference.running import PROGRAM_LOCK

Weigh = Callable[[Batch], Tensor]  # log sums of the importance weights of rows, (B,)
Compiler = Callable[[nn.Module, nn.Module, Batch, int], Weigh]
HELD = 4_000_000  # values of the largest tensor that is in memory at a time
WORTH = 20.0  # seconds that an evaluation must take before compiling pays
RATES = {"cpu": (6e10, 1e9), "cuda": (1e13, 1e11)}  # operations and values a second, uncompiled
COMPILERS: list[Compiler] = []  # what compiles the weights of a batch, registered from above


@dataclass(frozen=True)
class Cost:
    """What one sample of one row costs, with all values of enumerated sites.

    Args:
        values: values of the largest tensor.
        seconds: roughly.
    """

    values: int
    seconds: float


class ImportanceBound:
    r"""The bound :math:`\log \frac1S \sum_s \sum_y p(x, y, z_s) / q(z_s \mid x, y)` of batches.

    Rows and samples are divided into portions whose largest tensor has at most ``held`` values,
    counted with the values of enumerated sites and the widths of networks. Where gradients are
    not computed and the whole evaluation is long, the weights of a portion are compiled once.

    Args:
        model, guide: the pair, whose sites are all local.
        samples: S.
        rows: number of rows of the whole evaluation.
        held: maximal number of values of one tensor.
        progress: whether to show a bar of rows on the error stream.
        worth: seconds that the whole evaluation must take, roughly, to be compiled.
    """

    def __init__(
        self,
        model: nn.Module,
        guide: nn.Module,
        samples: int,
        rows: int,
        held: int = HELD,
        progress: bool = False,
        worth: float = WORTH,
    ) -> None:
        self.model, self.guide, self.samples, self.rows = model, guide, samples, rows
        self.held, self.worth = held, worth
        self._cost: Cost | None = None
        self._compiled: Weigh | None = None
        self._layout: tuple[object, ...] = ()
        shown = progress and samples > 0
        self._bar = Progress(total=rows, shown=shown, unit="row", desc="log p(x)")

    def __call__(self, batch: Batch) -> Tensor:
        """``(B,)`` in nats."""
        if self._cost is None:
            self._cost = cost_of(self.model, self.guide, batch)
        largest = max(1, self._cost.values)
        parts = []
        most = max(1, self.held // largest)
        # A share is not divided further: its draws are those of the whole batch.
        whole = batch.share is not None
        for part in [batch] if whole else batch.split(_evenly(len(batch.x), most)):
            particles = _evenly(self.samples, max(1, most // part.rows))
            total = part.x.new_full((len(part.x),), -math.inf)
            for first in range(0, self.samples, particles):
                count = min(particles, self.samples - first)
                total = torch.logaddexp(total, self._weigh(part, count, particles))
            parts.append(total - math.log(self.samples))
            self._bar.update(len(part.x))
        if self._bar.n >= self.rows:
            self._bar.close()
        return torch.cat(parts)

    def _weigh(self, batch: Batch, count: int, particles: int) -> Tensor:
        assert self._cost is not None
        long = self._cost.seconds * self.rows * self.samples > self.worth
        alone = batch.share is None and not torch.is_grad_enabled()
        if not self._layout and long and COMPILERS and alone:
            self._layout = (batch.layout, particles)
            self._compiled = COMPILERS[-1](self.model, self.guide, batch, particles)
        if self._compiled is not None and self._layout == (batch.layout, count):
            return self._compiled(batch)
        return log_sums(self.model, self.guide, batch, count)


def importance_bound(
    model: nn.Module,
    guide: nn.Module,
    x: Tensor,
    samples: int,
    *,
    held: int = HELD,
    context: Context | None = None,
    progress: bool = False,
) -> Tensor:
    r"""Estimate of :math:`\log p(x)`: in expectation a lower bound, tighter with more samples.

    :math:`\log \frac1S \sum_s \sum_y p(x, y, z_s) / q(z_s \mid x, y)`: sites that the guide
    enumerates are summed out inside each importance weight (Burda et al., "Importance Weighted
    Autoencoders", 2016, with the discrete sites Rao-Blackwellised). For local sites only. Under
    ``torch.no_grad()`` a long evaluation is compiled, see :class:`ImportanceBound`.

    Args:
        x: rows ``(B, P)``.
        samples: S.
        held: maximal number of values of one tensor that is in memory at a time; rows and samples
            are divided accordingly.
        context: keyword arguments of the programs beside x, each ``(B, ...)``.
        progress: whether to show a bar.

    Returns:
        ``(B,)``, in nats.

    Raises:
        ValueError: for less than one sample, or a pair with global sites.
    """
    if not isinstance(samples, int) or samples < 1:
        raise ValueError(f"Expected at least one sample but got samples={samples}; draw more.")
    check_count(held, "held")
    batch = admit(model, x, context=context, on_device=True)
    return ImportanceBound(model, guide, samples, len(batch.x), held, progress)(batch)


def log_sums(model: nn.Module, guide: nn.Module, batch: Batch, samples: int) -> Tensor:
    """``(B,)`` logs of the sums of S importance weights."""
    draws = draw_pair(model, guide, batch, samples)
    with PROGRAM_LOCK, pyro.validation_enabled(False):
        return draws.log_weights().logsumexp(0)


class _Sizes(TorchDispatchMode):
    """Records how many values each operation makes."""

    def __init__(self) -> None:
        initialise: Callable[..., None] = super().__init__  # without types in torch
        initialise()
        self.found: list[int] = []

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: object,
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        made = func(*args, **(kwargs or {}))
        if isinstance(made, Tensor) and not func.is_view:
            self.found.append(made.numel())
        return made


def cost_of(model: nn.Module, guide: nn.Module, batch: Batch) -> Cost:
    """Measured on the first row, from the difference between two and four samples."""
    from torch.utils.flop_counter import FlopCounterMode  # imports triton, where it is installed

    one = next(iter(replace(batch, share=None).split(1)))
    counts, sizes = [], []
    # The counter asks tensors that modules return for their gradients, also parameters themselves.
    with without_side_effects(model, guide), torch.enable_grad():
        for samples in (2, 4):
            with _Sizes() as recorder, FlopCounterMode(display=False) as counter:
                log_sums(model, guide, one, samples)
            counts.append(counter.get_total_flops())
            sizes.append(recorder.found)
    more = [(b - a) / 2 for a, b in zip(*sizes, strict=False)]
    operations, values = RATES.get(one.x.device.type, RATES["cuda"])
    seconds = (counts[1] - counts[0]) / 2 / operations + sum(more) / values
    return Cost(max(one.x.numel(), math.ceil(max(more, default=0))), seconds)


def _evenly(count: int, most: int) -> int:
    """The size of equal portions of at most ``most``, the last of which may be smaller."""
    return math.ceil(count / math.ceil(count / most))
