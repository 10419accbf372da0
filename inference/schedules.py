"""Weights that change as the training goes on, as tensors, so that a captured step follows them."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


class Clock(nn.Module):
    """Where the training stands: ``step``, a tensor on the device, and the lengths that scale it.

    Args:
        epoch: steps in one pass over the data.
        total: steps in the whole training.
    """

    step: Tensor

    def __init__(self, epoch: int = 1, total: int = 1) -> None:
        super().__init__()
        self.epoch, self.total = epoch, total
        self.register_buffer("step", torch.zeros((), dtype=torch.int64), persistent=False)

    def restart(self, epoch: int) -> None:
        """Begin a training whose passes over the data take so many steps."""
        self.epoch = epoch
        self.step.zero_()

    def tick(self) -> None:
        """Count one step, in place and without host synchronisation."""
        self.step += 1


@dataclass(frozen=True)
class Linear:
    """From ``start`` to ``end`` in a straight line, then constant.

    Args:
        start, end: values at the first step and once the time is over.
        steps, epochs, fraction: the time it takes, in one of the three units; ``fraction`` is a
            share of the whole training.
    """

    start: float
    end: float
    steps: float | None = None
    epochs: float | None = None
    fraction: float | None = None

    def __post_init__(self) -> None:
        given = [unit for unit in (self.steps, self.epochs, self.fraction) if unit is not None]
        if len(given) != 1 or given[0] <= 0:
            raise ValueError(
                "Expected one positive length among steps, epochs and fraction but got "
                f"steps={self.steps}, epochs={self.epochs}, fraction={self.fraction}."
            )

    def __call__(self, clock: Clock) -> Tensor:
        """The value at the clock's step, 0-dimensional."""
        if self.steps is not None:
            length = self.steps
        elif self.epochs is not None:
            length = self.epochs * clock.epoch
        else:
            length = (self.fraction or 0.0) * clock.total
        passed = (clock.step / length).clamp(max=1.0)
        return self.start + (self.end - self.start) * passed
