"""The variational autoencoder."""

from typing import Unpack

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from priorzoo.models.components import CovariateShift
from priorzoo.models.contract import Beside, decodes
from priorzoo.models.distributions.gaussian import standard_normal
from priorzoo.models.likelihoods import Bernoulli
from priorzoo.models.observation import sample_x
from priorzoo.models.plates import data_plate


class VAE(nn.Module):
    r"""Decodes ``x`` from one Gaussian code ``z``; the reference for all other models.

    .. math:: z \sim \mathcal N(0, I), \quad x \mid z \sim p(x \mid \mathrm{decoder}(z))

    Kingma & Welling, "Auto-Encoding Variational Bayes", 2014.

    Args:
        decoder: maps codes ``(..., D)`` to the likelihood's parameters ``(..., width P)``.
        likelihood: maps these to p(x | z); :class:`Bernoulli` if None.
        code: D.
        prior_covariates: number C of covariates that shift the prior mean of z; 0 for none.
    """

    networks = staticmethod(decodes)

    def __init__(
        self,
        decoder: nn.Module,
        likelihood: nn.Module | None = None,
        code: int = 64,
        prior_covariates: int = 0,
    ) -> None:
        super().__init__()
        self.decoder = decoder
        self.likelihood = Bernoulli() if likelihood is None else likelihood
        self.code, self.prior_covariates = code, prior_covariates
        self.shift = CovariateShift(prior_covariates, code) if prior_covariates else None
        self.origin = nn.Buffer(torch.zeros(code), persistent=False)

    def forward(
        self, x: Tensor | None = None, size: int | None = None, **beside: Unpack[Beside]
    ) -> Tensor:
        with data_plate(x, size):
            prior = standard_normal(self.origin)
            if self.shift is not None:
                prior = dist.Normal(self.shift(beside["covariates"]), 1.0).to_event(1)
            z = pyro.sample("z", prior)
            return sample_x(x, beside, self.likelihood, self.decoder, z)
