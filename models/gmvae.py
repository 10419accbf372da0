"""The variational autoencoder whose prior is a Gaussian mixture."""

from typing import Unpack

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from priorzoo.models.components import Components, Covariance, CovariateShift, even_weight
from priorzoo.models.contract import Beside, decodes
from priorzoo.models.distributions.gaussian import raw_variance
from priorzoo.models.likelihoods import Bernoulli
from priorzoo.models.observation import sample_x
from priorzoo.models.plates import data_plate


class GMVAE(Components):
    r"""Clusters ``x`` by the mixture component ``y`` that produced its code ``z``.

    .. math:: y \sim \mathrm{Cat}(\pi), \quad z \mid y \sim \mathcal N(\mu_y, \Sigma_y),
        \quad x \mid z \sim p(x \mid \mathrm{decoder}(z))

    The explicit mixture of Shu, "Gaussian Mixture VAE: Lessons in Variational Inference", 2016.
    Unlike there, the variances have a floor, without which training can end in NaN, and the
    constant of the uniform prior is log K for any K (the reference code always uses log 10).

    Args:
        decoder: maps codes ``(..., D)`` to the likelihood's parameters ``(..., width P)``.
        likelihood: maps these to p(x | z); :class:`Bernoulli` if None.
        code, clusters: D and K.
        learn_weights: whether the mixture weights pi are learnt (as in VaDE); uniform if not.
        offset, covariance: as in :class:`Components`.
        prior_covariates: number C of covariates that shift the means of all clusters; 0 for none.
    """

    networks = staticmethod(decodes)

    def __init__(
        self,
        decoder: nn.Module,
        likelihood: nn.Module | None = None,
        code: int = 64,
        clusters: int = 10,
        learn_weights: bool = False,
        offset: bool = False,
        covariance: Covariance = "diagonal",
        prior_covariates: int = 0,
    ) -> None:
        super().__init__(code, clusters, offset, covariance)
        self.decoder = decoder
        self.likelihood = Bernoulli() if likelihood is None else likelihood
        self.learn_weights, self.prior_covariates = learn_weights, prior_covariates
        self.shift = CovariateShift(prior_covariates, code) if prior_covariates else None
        logits = torch.zeros(clusters)
        self.logits: Tensor = nn.Parameter(logits) if learn_weights else nn.Buffer(logits)

    def forward(
        self, x: Tensor | None = None, size: int | None = None, **beside: Unpack[Beside]
    ) -> Tensor:
        with data_plate(x, size):
            y = pyro.sample("y", dist.Categorical(logits=self.logits))
            shift = None if self.shift is None else self.shift(beside["covariates"])
            z = pyro.sample("z", self.component(y, shift))
            return sample_x(x, beside, self.likelihood, self.decoder, z)

    @torch.no_grad()
    def place_cluster(self, k: int, loc: Tensor, variance: Tensor) -> None:
        """See :class:`PlacesClusters`; the covariance of tied components stays as it is."""
        self.loc[k] = loc - self.shared[0]
        if self.covariance != "tied":
            self.raw[k] = raw_variance(variance) - self.shared[1]
        if self.covariance == "full":
            self.lower[k] = 0.0
        if self.learn_weights:
            even_weight(self.logits, k)
