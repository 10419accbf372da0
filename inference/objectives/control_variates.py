"""Control variates of the score-function gradient estimator that are learnt during training."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from priorzoo.inference.objectives.contract import Loss
from priorzoo.inference.objectives.draws import Draws
from priorzoo.inference.objectives.elbo import ELBO, KL
from priorzoo.inference.objectives.penalties import Penalty


class Baselined(ELBO):
    r"""The ELBO with a learnt baseline for sites with score-function gradients.

    .. math:: \nabla E_q[f] = E_q[(f - b) \nabla \log q]

    holds for every baseline b that does not depend on the draw. The variance is smaller the nearer
    b is to f. With several particles :class:`ELBO` already uses the mean cost of the other
    particles as the baseline.

    Args:
        model, guide, kl, penalties: as in :class:`ELBO`.
        particles: must be 1.
        network: maps rows ``(B, P)`` to b, ``(B, 1)``, and is trained by least squares on the cost;
            if None, b is a running mean of the cost.
        decay: decay of the running mean per step.
    """

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
                f"Expected particles=1 with a baseline but got {particles}; use ELBO, which takes "
                "the other particles as the baseline."
            )
        self.network, self.decay = network, decay
        self.level = nn.Buffer(torch.zeros(()))
        self.count: Tensor = nn.Buffer(torch.zeros(()))

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
        for score in draws.weights.scores:
            if score.drawn:
                baseline = level.detach() if score.local else level.detach().mean()
                value = value - (baseline * score.change).mean()
        return Loss(value, terms, {"cost": cost.mean()})

    @torch.no_grad()
    def commit(self, carry: Mapping[str, Tensor]) -> None:
        """Update the running mean of the cost."""
        self.count += 1
        rate = torch.maximum(1 / self.count, torch.full_like(self.count, 1 - self.decay))
        self.level.lerp_(carry["cost"].to(self.level), rate)
