"""The moving average of parameters, which is evaluated and kept in place of the latest ones."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class MovingAverage:
    r"""The exponential moving average of a module's parameters over training steps.

    .. math:: \bar\theta_t = d_t \bar\theta_{t-1} + (1 - d_t)\, \theta_t, \quad
        d_t = \min(d, t / (9 + t))

    for t = 1, 2, ... and :math:`\bar\theta_0 = \theta_0`, the parameters after the first step.
    While t is small, the average is over fewer steps than with :math:`d_t = d`, so that the first
    values do not weigh for long. Buffers are not averaged.

    Args:
        module: whose parameters with gradients are averaged.
        decay: d, between 0 and 1.

    Raises:
        ValueError: for another decay.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        if not 0 < decay < 1:
            raise ValueError(
                f"Expected an average between 0 and 1, such as 0.999, but got {decay}; give None "
                "for no average."
            )
        self.module, self.decay = module, decay
        self.restart()

    def restart(self) -> None:
        """Forget all steps; the average begins anew with the next."""
        self.steps, self.values = 0, dict[str, Tensor]()

    @torch.no_grad()
    def take(self) -> None:
        """Take the parameters after a step, without host synchronisation."""
        own = self.learnt()
        if self.steps == 0:
            self.values = {name: p.detach().clone() for name, p in own.items()}
        else:
            decay = min(self.decay, self.steps / (9 + self.steps))
            torch._foreach_lerp_(list(self.values.values()), list(own.values()), 1 - decay)
        self.steps += 1

    @torch.no_grad()
    def put(self) -> None:
        """Give the parameters their averages, if there are any."""
        own = self.learnt()
        for name, value in self.values.items():
            own[name].copy_(value)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside ``with``, the parameters are their averages."""
        latest = {name: p.detach().clone() for name, p in self.learnt().items()}
        self.put()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, parameter in self.learnt().items():
                    parameter.copy_(latest[name])

    def learnt(self) -> dict[str, nn.Parameter]:
        """The parameters that are averaged, by name."""
        named = self.module.named_parameters()
        return {name: parameter for name, parameter in named if parameter.requires_grad}

    def state(self) -> dict[str, Any]:
        """The averages, and over how many steps they are."""
        return {"steps": self.steps, "values": self.values}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a :meth:`state`."""
        own = self.learnt()
        self.steps = state["steps"]
        self.values = {n: v.to(own[n].device, copy=True) for n, v in state["values"].items()}
