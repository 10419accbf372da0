"""The variational autoencoder with a stick-breaking prior."""

from typing import Unpack

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from priorzoo.models.contract import Beside, decodes
from priorzoo.models.distributions.sticks import log_stick_weights
from priorzoo.models.likelihoods import Bernoulli
from priorzoo.models.observation import sample_x
from priorzoo.models.plates import data_plate


class StickBreakingVAE(nn.Module):
    r"""Decodes ``x`` from weights ``pi`` with a stick-breaking prior.

    .. math:: v_k \sim \mathrm{Beta}(1, \alpha_0), \quad \pi_k = v_k \prod_{j<k} (1 - v_j), \quad
        x \mid \pi \sim p(x \mid \mathrm{decoder}(\pi))

    for k < K; the last weight is the rest of the stick. Nalisnick & Smyth, "Stick-Breaking
    Variational Autoencoders", 2017. Unlike there, weights are computed in log space, without an
    epsilon. The model has no clusters: the weights are its code.

    Args:
        decoder: maps weights ``(..., K)`` to the likelihood's parameters ``(..., width P)``.
        likelihood: maps these to p(x | pi); :class:`Bernoulli` if None.
        code: K, the truncation; the site ``v`` has K - 1 sticks.
        concentration: alpha_0.
    """

    networks = staticmethod(decodes)

    def __init__(
        self,
        decoder: nn.Module,
        likelihood: nn.Module | None = None,
        code: int = 50,
        concentration: float = 5.0,
    ) -> None:
        super().__init__()
        if code < 2 or not concentration > 0:
            raise ValueError(
                f"Expected a code of at least 2 weights and a positive concentration but got "
                f"code={code} and concentration={concentration}."
            )
        self.decoder = decoder
        self.likelihood = Bernoulli() if likelihood is None else likelihood
        self.code, self.concentration = code, concentration
        self.shape = nn.Buffer(torch.full((code - 1,), concentration), persistent=False)

    def forward(
        self, x: Tensor | None = None, size: int | None = None, **beside: Unpack[Beside]
    ) -> Tensor:
        with data_plate(x, size):
            prior = dist.Beta(torch.ones_like(self.shape), self.shape)
            v = pyro.sample("v", prior.to_event(1))
            return sample_x(x, beside, self.likelihood, self.decoder, self.weights(v))

    def weights(self, v: Tensor) -> Tensor:
        """``(..., K)`` weights of sticks ``(..., K - 1)``; the last weight is the rest."""
        return log_stick_weights(v).exp()
