"""Mixtures of diagonal Gaussians whose draws have unbiased pathwise gradients."""

from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Independent
from torch.types import _size

# Pyro's gradients of their logits are unbiased for the means of z, but not for other moments.
BIASED = (dist.MixtureOfDiagNormals, dist.MixtureOfDiagNormalsSharedCovariance)


_Mixture: Any = dist.MixtureOfDiagNormals  # whose methods have no annotations


class PathwiseMixture(_Mixture):
    r"""A mixture of K diagonal Gaussians in D dimensions, differentiated through its draws.

    Given the elements before it, element d has the distribution function
    :math:`F_d(z_d) = \sum_k p(k \mid z_{<d}) \Phi((z_d - \mu_{kd}) / \sigma_{kd})`. The gradient of
    the draw keeps each :math:`F_d` constant: implicit reparameterisation
    (Figurnov, Mohamed and Mnih, "Implicit Reparameterization Gradients", 2018, section 4). It is
    unbiased, with a variance that grows with the gaps between the components.

    Args:
        locs, coord_scale: means and standard deviations ``(..., K, D)``.
        component_logits: ``(..., K)``.
    """

    @property
    def mean(self) -> Tensor:
        return (self.probs.unsqueeze(-1) * self.locs).sum(-2)

    def sample(self, sample_shape: _size = torch.Size()) -> Tensor:
        with torch.no_grad():
            component = self.categorical.sample(sample_shape)
            choice = torch.nn.functional.one_hot(component, self.locs.shape[-2]).unsqueeze(-1)
            loc, scale = ((choice * part).sum(-2) for part in (self.locs, self.coord_scale))
            return loc + scale * torch.randn_like(loc)

    def rsample(self, sample_shape: _size = torch.Size()) -> Tensor:
        drawn = self.sample(sample_shape)
        log_weights = self.categorical.logits
        elements = []
        for d in range(self.dim):
            normal = dist.Normal(self.locs[..., d], self.coord_scale[..., d], validate_args=False)
            fixed = drawn[..., d, None]
            weights = log_weights.softmax(-1)
            below = (weights * normal.cdf(fixed)).sum(-1)
            log_density = (log_weights.log_softmax(-1) + normal.log_prob(fixed)).logsumexp(-1)
            shift = (below - below.detach()) * (-log_density.detach()).exp()
            elements.append(drawn[..., d] - shift)
            log_weights = log_weights + normal.log_prob(elements[-1].unsqueeze(-1))
        return torch.stack(elements, -1)


def pathwise_mixture(fn: TorchDistribution) -> TorchDistribution:
    """The same distribution as a :class:`PathwiseMixture`, if it has this form."""
    if isinstance(fn, PathwiseMixture):
        return fn
    if isinstance(fn, dist.MixtureOfDiagNormals):
        return PathwiseMixture(fn.locs, fn.coord_scale, fn.component_logits)
    if isinstance(fn, dist.MixtureOfDiagNormalsSharedCovariance):
        scale = fn.coord_scale.unsqueeze(-2).expand_as(fn.locs)
        return PathwiseMixture(fn.locs, scale, fn.component_logits)
    if isinstance(fn, torch.distributions.MixtureSameFamily):
        parts, weights = fn.component_distribution, fn.mixture_distribution
        vectors = isinstance(parts, Independent) and parts.reinterpreted_batch_ndims == 1
        if vectors and isinstance(parts.base_dist, dist.Normal):
            logits = weights.logits.expand(parts.batch_shape)
            return PathwiseMixture(parts.base_dist.loc, parts.base_dist.scale, logits)
    return fn
