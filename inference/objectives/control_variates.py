"""Control variates of the score-function estimator that are learnt from earlier steps."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from priorzoo.inference.objectives.contract import Loss
from priorzoo.inference.objectives.elbo import ELBO, KL, Draws, Penalty
from priorzoo.inference.sites import is_local, is_scored, latent_sites


class Baselined(ELBO):
    r"""The bound, with a baseline subtracted from the cost of each draw that the score estimates.

    .. math:: \nabla E_q[f] = E_q[(f - b) \nabla \log q]

    holds for every b that the draw did not influence, and the nearer b is to f, the smaller the
    variance. Several particles are each other's baseline without this class.

    Args:
        model, guide, kl, penalties: as in :class:`ELBO`.
        particles: 1, since several have a baseline already.
        network: gives b from rows ``(B, P)`` as ``(B, 1)``, and is trained by least squares on the
            cost; None for the running mean of the cost, one number.
        decay: of the running mean, per step.
    """

    level: Tensor
    count: Tensor

    def __init__(
        self,
        model: nn.Module,
        guide: nn.Module,
        kl: Mapping[str, KL] | None = None,
        particles: int = 1,
        penalties: Mapping[str, Penalty] | None = None,
        network: nn.Module | None = None,
        decay: float = 0.99,
    ) -> None:
        super().__init__(model, guide, kl, particles, penalties)
        if particles != 1:
            raise ValueError(
                f"Expected particles=1 with a baseline but got {particles}, which are each other's "
                "baseline; use ELBO."
            )
        self.network, self.decay = network, decay
        self.register_buffer("level", torch.zeros(()))
        self.register_buffer("count", torch.zeros(()))

    def loss_of(self, draws: Draws) -> Loss:
        value, terms, _ = super().loss_of(draws)
        x = draws.batch.x
        cost = (-terms["elbo"]).detach().expand(len(x))
        if self.network is None:
            level = self.level.clone().expand(len(x))
        else:
            level = self.network(x)[:, 0]
            error = (level - cost).square().mean()
            value = value + error - error.detach()
        for site in filter(is_scored, latent_sites(draws.drawn).values()):
            score = torch.as_tensor(site["fn"].score_parts(site["value"]).score_function)
            taken = level.detach() if is_local(site) else level.detach().mean()
            value = value - (taken * (score - score.detach())).mean()
        return Loss(value, terms, {"cost": cost.mean()})

    @torch.no_grad()
    def commit(self, carry: Mapping[str, Tensor]) -> None:
        """Move the running mean of the cost."""
        self.count += 1
        rate = torch.maximum(1 / self.count, torch.full_like(self.count, 1 - self.decay))
        self.level.lerp_(carry["cost"].to(self.level), rate)
