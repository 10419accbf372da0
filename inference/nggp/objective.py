"""The objective of mixtures with integrated weights, which keeps the expected cluster sizes."""

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from priorzoo.inference.objectives.contract import Loss
from priorzoo.inference.objectives.elbo import ELBO, KL, Draws, Penalty
from priorzoo.inference.sites import latent_sites
from priorzoo.models.nggp.mixture import NGGPMixture


class Collapsed(ELBO):
    r"""The bound for :class:`NGGPMixture`, beside whose descent the sizes are kept up to date.

    Each datum's prior is its predictive law given running expected sizes of the others, scaled to
    the N data that they stand for. Its gradient for q(y_n) is that of the collapsed bound, of which
    the value :class:`Judge` computes. Without this objective the sizes would stay as they
    are. Terms that the loss does not contain: ``clusters``, how many there are; ``occupied``, E[K]
    of those that hold data; ``alone``, the share of data in clusters of their own; ``log u``, the
    draw of v.

    Where the model learns alpha and sigma, their gradient is that of the bound's log p(y), with v
    integrated out, at the running sizes; the terms then have both. That of the predictive laws
    would be a pseudo-likelihood's, in which only the first datum of a cluster was ever new.

    Args:
        model: an :class:`NGGPMixture`.
        guide, kl, particles, penalties: as in :class:`ELBO`.
        rate: share of a batch in the running mean of the sizes, per step.
    """

    def __init__(
        self,
        model: nn.Module,
        guide: nn.Module,
        kl: Mapping[str, KL] | None = None,
        particles: int = 1,
        penalties: Mapping[str, Penalty] | None = None,
        rate: float = 0.05,
    ) -> None:
        super().__init__(model, guide, kl, particles, penalties)
        if not 0 < rate <= 1:
            raise ValueError(f"Expected a rate in (0, 1] but got {rate}.")
        self.rate = rate

    def loss_of(self, draws: Draws) -> Loss:
        loss, terms, _ = super().loss_of(draws)
        model, sites = cast(NGGPMixture, self.model), latent_sites(draws.drawn)
        data = draws.batch.data
        with torch.no_grad():
            probabilities = sites["y"]["fn"].probs
            carry = {
                "responsibilities": probabilities.reshape(-1, probabilities.shape[-1]),
                "data": torch.full_like(model.counted, data),
            }
            terms["clusters"] = model.active.to(loss).sum()
            terms["occupied"] = model.occupancy(data).occupied.sum()
            terms["alone"] = model.alone(data) / data
            terms["log u"] = sites["v"]["value"].mean()
            if model.learn_law:
                terms["concentration"] = model.law.concentration
                terms["discount"] = model.law.discount
        if model.learn_law and torch.is_grad_enabled():
            told = model.log_evidence(data) / data
            loss = loss - (told - told.detach())
        return Loss(loss, terms, carry)

    def commit(self, carry: Mapping[str, Tensor]) -> None:
        """Move the model's expected sizes towards those of the batch."""
        cast(NGGPMixture, self.model).observe(carry["responsibilities"], self.rate, carry["data"])
