"""Baselines for sites that the score function differentiates, learnt from earlier steps."""

from typing import Any

import torch
from torch import Tensor, nn

from priorzoo.inference.objectives.elbo import ELBO, Terms
from priorzoo.inference.pairs import Guessed, is_local, is_scored


class Baselined(ELBO):
    r"""The bound, with what its cost was expected to be taken off the cost of each scored draw.

    .. math:: \nabla E_q[f] = E_q[(f - b) \nabla \log q]

    holds for every b that the draw did not influence, and the nearer b is to f, the less the
    estimate varies. Several particles are each other's baseline without this class.

    Args:
        model, guide, settings: as in :class:`ELBO`, but of one particle.
        network: gives b from rows ``(B, P)`` as ``(B, 1)``, and is trained by least squares on the
            cost; None for the running mean of the cost, one number.
        decay: of the running mean, per step.
    """

    level: Tensor
    count: Tensor
    keeps_state = True

    def __init__(
        self,
        model: nn.Module,
        guide: nn.Module,
        *settings: Any,
        network: nn.Module | None = None,
        decay: float = 0.99,
        **more: Any,
    ) -> None:
        super().__init__(model, guide, *settings, **more)
        if self.particles != 1:
            raise ValueError(
                f"Expected particles=1 with a baseline but got {self.particles}, which are each "
                "other's baseline; use ELBO."
            )
        self.network, self.decay = network, decay
        self.register_buffer("level", torch.zeros(()))
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor, *rest: Any) -> tuple[Tensor, Terms]:
        with Guessed() as guessed:
            loss, terms = super().forward(x, *rest)
        cost = (-terms["elbo"]).detach().expand(len(x))
        if self.network is None:
            level = self.level.clone().expand(len(x))
        else:
            level = self.network(x)[:, 0]
            error = (level - cost).square().mean()
            loss = loss + error - error.detach()
        for site in filter(is_scored, guessed.sites.values()):
            score = torch.as_tensor(site["fn"].score_parts(site["value"]).score_function)
            taken = level.detach() if is_local(site) else level.detach().mean()
            loss = loss - (taken * (score - score.detach())).mean()
        if self.training and self.network is None:
            with torch.no_grad():
                self.count += 1
                rate = torch.maximum(1 / self.count, torch.full_like(self.count, 1 - self.decay))
                self.level.lerp_(cost.mean().to(self.level), rate)
        return loss, terms
