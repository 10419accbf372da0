"""The objective for :class:`NGGPMixture`, which also updates the expected cluster sizes."""

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from priorzoo.inference.objectives.contract import Loss
from priorzoo.inference.objectives.elbo import ELBO, KL, Draws, Penalty
from priorzoo.inference.sites import latent_sites
from priorzoo.models.nggp.mixture import NGGPMixture


class Collapsed(ELBO):
    r"""The ELBO of :class:`NGGPMixture`; each step also updates the model's cluster sizes.

    The prior of each datum's cluster is its predictive distribution given running averages of the
    sizes, scaled to N data. The gradient with respect to q(y_n) is that of the collapsed bound,
    whose value :class:`CollapsedBound` computes. With another objective the sizes would not change.
    Further terms, which are not part of the loss: ``clusters``, number of existing clusters;
    ``occupied``, expected number of those with data; ``alone``, share of data that are alone in
    their cluster; ``log u``, the draw of v.

    If the model learns alpha and sigma, their gradient is that of the collapsed bound's log p(y) at
    the running sizes, with v integrated out; their values are reported as terms. The gradient of
    the predictive distributions would instead maximise a pseudo-likelihood, in which hardly any
    datum begins a cluster.

    Args:
        model: an :class:`NGGPMixture`.
        guide, kl, particles, penalties: as in :class:`ELBO`.
        rate: weight of a batch in the running averages of the sizes.
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
        model, sites = cast(NGGPMixture, self.model), latent_sites(draws.guide_trace)
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
            evidence = model.log_evidence(data) / data
            loss = loss - (evidence - evidence.detach())
        return Loss(loss, terms, carry)

    def commit(self, carry: Mapping[str, Tensor]) -> None:
        """Update the model's running averages of cluster sizes by the batch."""
        cast(NGGPMixture, self.model).observe(carry["responsibilities"], self.rate, carry["data"])
