"""Optimisers of natural parameters, alone and together with an optimiser of networks."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Adam, Optimizer

from priorzoo.models.distributions.exponential import Natural


class RobbinsMonro(Optimizer):
    r"""Steps :math:`\lambda \leftarrow \lambda - \rho_t \nabla` of natural parameters.

    .. math:: \rho_t = \rho_0 (1 + t / \tau_0)^{-\kappa}

    With the gradient lambda - lambda*, a step is the convex combination of eq. (14) of Paquet,
    Ghaisas and Tieleman, 2018, so that natural parameters stay valid. Unlike in their appendix E.3,
    kappa is positive.

    Args:
        params: natural parameters.
        rate: rho_0, between 0 and 1; None for tau_0^-kappa, so that rho_t = (tau_0 + t)^-kappa.
        delay: tau_0.
        forgetting: kappa, in (1/2, 1] to converge; 0 for a constant rate.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        rate: float | None = 0.01,
        delay: float = 2000.0,
        forgetting: float = 0.7,
    ) -> None:
        if delay <= 0 or forgetting < 0:
            raise ValueError(
                "Expected a positive delay and a forgetting of at least 0 but got "
                f"delay={delay}, forgetting={forgetting}."
            )
        rate = delay**-forgetting if rate is None else rate
        if not 0 < rate <= 1:
            raise ValueError(f"Expected a rate in (0, 1] but got {rate}.")
        settings = {"lr": rate, "delay": delay, "forgetting": forgetting, "capturable": True}
        super().__init__(params, settings)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Take one step; a closure, if given, is called first, as in torch's optimisers."""
        result = None if closure is None else closure()
        for group in self.param_groups:
            for natural in group["params"]:
                if natural.grad is None:
                    continue
                state = self.state[natural]
                if not state:  # counted on the device, so that a captured step updates the rate
                    state["passed"] = natural.new_zeros(())
                rate = group["lr"] * (1 + state["passed"] / group["delay"]) ** -group["forgetting"]
                natural.sub_(rate * natural.grad)
                state["passed"] += 1
        return result


class Together(Optimizer):
    """Several optimisers as one; a step lets each take its step.

    Parameter groups and state are shared with the parts, so that schedules and checkpoints work as
    with one optimiser.

    Args:
        parts: optimisers over different parameters.
    """

    def __init__(self, *parts: Optimizer) -> None:
        self.parts = parts
        super().__init__([group for part in parts for group in part.param_groups], {})
        self._share()

    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Let each part take a step; a closure, if given, is called first."""
        result = None if closure is None else closure()
        for part in self.parts:
            part.step()
        return result

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "parts": self.parts}  # for copies, which need them

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._share()

    def _share(self) -> None:
        groups = iter(self.param_groups)
        for part in self.parts:
            part.param_groups = [next(groups) for _ in part.param_groups]
            part.state = self.state


class ConjugateAdam(Together):
    """Adam for networks and :class:`RobbinsMonro` for parameters of type :class:`Natural`.

    A step does not change parameters without a gradient. Networks and natural parameters are
    therefore updated one after the other, as in Paquet, Ghaisas and Tieleman, 2018, section 2.4;
    see :meth:`Objective.natural_gradients`.

    Args:
        params: parameters of both kinds, at least one of them natural.
        lr: Adam's learning rate.
        rate, delay, forgetting: as in :class:`RobbinsMonro`.
        fused: as in Adam.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float = 1e-4,
        rate: float | None = 0.01,
        delay: float = 2000.0,
        forgetting: float = 0.7,
        fused: bool | None = None,
    ) -> None:
        given = list(params)
        natural = [p for p in given if isinstance(p, Natural)]
        others = [p for p in given if not isinstance(p, Natural)]
        if not natural:
            raise ValueError("Expected natural parameters but got none; use Adam for networks.")
        globals_ = RobbinsMonro(natural, rate, delay, forgetting)
        networks = [Adam(others, lr=lr, fused=fused)] if others else []
        super().__init__(*networks, globals_)
