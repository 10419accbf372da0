"""Schedules of weights; they are computed as tensors, so that captured steps follow them."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


class Clock(nn.Module):
    """The current step, and the lengths of an epoch and of the training, on the device.

    A :class:`Training` sets the lengths; in your own loop call :meth:`restart`. They are tensors,
    so that a compiled step notices when a training is continued with another length.

    Args:
        epoch: steps in one pass over the data; None while unknown.
        total: steps in the whole training; None while unknown.
    """

    def __init__(self, epoch: int | None = None, total: int | None = None) -> None:
        super().__init__()
        self.step: Tensor = nn.Buffer(torch.zeros((), dtype=torch.int64), persistent=False)
        self.lengths = nn.Buffer(torch.zeros(2), persistent=False)
        self.epoch, self.total = epoch, total

    @property
    def epoch(self) -> int | None:
        """Steps in one pass over the data; None while unknown."""
        return self._epoch

    @epoch.setter
    def epoch(self, steps: int | None) -> None:
        self._epoch = steps
        self.lengths[0] = steps or 0

    @property
    def total(self) -> int | None:
        """Steps in the whole training; None while unknown."""
        return self._total

    @total.setter
    def total(self, steps: int | None) -> None:
        self._total = steps
        self.lengths[1] = steps or 0

    def restart(self, epoch: int | None = None, total: int | None = None) -> None:
        """Start a training of ``total`` steps, with ``epoch`` steps in one pass over the data."""
        self.epoch, self.total = epoch, total
        self.step.zero_()

    def tick(self) -> None:
        """Count one step, in place and without host synchronisation."""
        self.step += 1


@dataclass(frozen=True)
class Linear:
    """Changes linearly from ``start`` to ``end``, then stays constant.

    Args:
        start, end: values at the first step and at the end of the change.
        steps, epochs, fraction: duration of the change; give one of the three. ``fraction`` is a
            share of the whole training.
    """

    start: float
    end: float
    steps: float | None = None
    epochs: float | None = None
    fraction: float | None = None

    def __post_init__(self) -> None:
        given = [unit for unit in (self.steps, self.epochs, self.fraction) if unit is not None]
        if len(given) != 1 or not given[0] > 0:
            raise ValueError(
                "Expected one positive length among steps, epochs and fraction but got "
                f"steps={self.steps}, epochs={self.epochs}, fraction={self.fraction}."
            )

    def __call__(self, clock: Clock) -> Tensor:
        """The value at the clock's step, 0-dimensional.

        Raises:
            ValueError: for epochs or a fraction if the clock does not know their length in steps.
        """
        passed = (clock.step / self._length(clock)).clamp(max=1.0)
        return self.start + (self.end - self.start) * passed

    def _length(self, clock: Clock) -> float | Tensor:
        if self.steps is not None:
            return self.steps
        name, known, unit = "epochs", clock.epoch, clock.lengths[0]
        if self.epochs is None:
            name, known, unit = "fraction", clock.total, clock.lengths[1]
        if known is None:
            raise ValueError(
                f"Expected a clock that knows the length of the training for Linear({name}=...) "
                "but its length is unset; call objective.clock.restart(epoch=..., total=...) with "
                "numbers of steps before the loop, or give Linear its length in steps."
            )
        length: Tensor = getattr(self, name) * unit
        return length
