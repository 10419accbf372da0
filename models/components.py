"""Gaussian mixture components in latent space."""

import math
from typing import Literal, get_args

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from priorzoo.models.distributions.gaussian import deviation, raw_variance

Covariance = Literal["diagonal", "full", "tied"]


class CovariateShift(nn.Module):
    """What covariates ``(B, C)`` add to the prior mean of the code, ``(B, D)``; at first 0.

    Args:
        covariates, code: C and D.
    """

    def __init__(self, covariates: int, code: int) -> None:
        super().__init__()
        self.covariates, self.code = covariates, code
        self.needs = frozenset(["covariates"])
        self.weight = nn.Parameter(torch.zeros(covariates, code))

    def forward(self, covariates: Tensor) -> Tensor:
        return covariates.to(self.weight.dtype) @ self.weight


class Components(nn.Module):
    r"""K Gaussians :math:`\mathcal N(\mu_k, \Sigma_k)` in latent space; a base class.

    The Cholesky factor of a covariance that is not diagonal has the standard deviations on its
    diagonal and ``lower`` below it.

    Args:
        code, clusters: D and K.
        offset: whether an offset that all clusters share is added to their means and raw
            variances, like the bias of the reference code's linear maps of the one-hot cluster.
            The offset is redundant, but with it Adam moves all clusters together twice as fast.
        covariance: ``diagonal``; ``full``, any; or ``tied``, any, but that of all components.

    Raises:
        ValueError: for another covariance.
    """

    def __init__(
        self, code: int, clusters: int, offset: bool = False, covariance: Covariance = "diagonal"
    ) -> None:
        super().__init__()
        if covariance not in get_args(Covariance):
            raise ValueError(
                f"Expected covariance among {get_args(Covariance)} but got {covariance!r}."
            )
        self.code, self.clusters, self.offset = code, clusters, offset
        self.covariance = covariance
        spreads = 1 if covariance == "tied" else clusters
        bound = math.sqrt(6 / (clusters + code))
        self.loc = nn.Parameter(torch.empty(clusters, code).uniform_(-bound, bound))
        self.raw = nn.Parameter(torch.empty(spreads, code).uniform_(-bound, bound))
        if covariance != "diagonal":
            self.lower = nn.Parameter(torch.zeros(spreads, code, code))
        shared = torch.zeros(2, code)
        self.shared: Tensor = nn.Parameter(shared) if offset else nn.Buffer(shared)

    def components(self) -> tuple[Tensor, Tensor]:
        """Means ``(K, D)``, and standard deviations ``(K, D)`` or Cholesky factors ``(K, D, D)``.

        The one factor of tied components is ``(1, D, D)``.
        """
        scale = deviation(self.raw + self.shared[1])
        if self.covariance != "diagonal":
            scale = self.lower.tril(-1) + scale.diag_embed()
        return self.loc + self.shared[0], scale

    def component(self, y: Tensor, shift: Tensor | None = None) -> TorchDistribution:
        """p(z | y) for clusters ``(...)``; a shift ``(..., D)`` is added to the means."""
        loc, scale = self.components()
        mean = loc[y] if shift is None else loc[y] + shift
        if self.covariance == "diagonal":
            return dist.Normal(mean, scale[y]).to_event(1)
        factor = scale[0] if self.covariance == "tied" else scale[y]
        return dist.MultivariateNormal(mean, scale_tril=factor)

    @torch.no_grad()
    def set_components(self, loc: Tensor, covariance: Tensor) -> None:
        """Set the components.

        Args:
            loc: means ``(K, D)``.
            covariance: variances ``(K, D)``, covariances ``(K, D, D)``, or the one ``(D, D)`` of
                tied components.
        """
        self.shared.zero_()
        self.loc.copy_(loc)
        if self.covariance == "diagonal":
            self.raw.copy_(raw_variance(covariance))
            return
        factor = torch.linalg.cholesky(covariance)
        self.raw.copy_(raw_variance(factor.diagonal(dim1=-2, dim2=-1).square()))
        self.lower.copy_(factor.tril(-1))


@torch.no_grad()
def even_weight(logits: Tensor, k: int) -> None:
    """Give category k of K the probability 1/K, in place, and leave the others in proportion."""
    others = logits[torch.arange(len(logits), device=logits.device) != k]
    logits[k] = others.logsumexp(0) - math.log(max(1, len(others)))
