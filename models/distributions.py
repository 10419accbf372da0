"""Distributions that Pyro lacks, and the parametrisation of Gaussians that the zoo shares."""

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor
from torch.nn import functional

VARIANCE_FLOOR = 1e-4


def deviation(raw: Tensor) -> Tensor:
    r"""Standard deviation :math:`\sqrt{\mathrm{softplus}(\mathrm{raw}) + 10^{-4}}`, of any shape.

    Without the floor a component that shrinks onto few codes ends the training in NaN.
    """
    return (functional.softplus(raw) + VARIANCE_FLOOR).sqrt()


def diagonal_normal(parameters: Tensor) -> dist.Independent:
    """Gaussian over D dimensions from ``(..., 2 D)``: locations, then raw variances."""
    loc, raw = parameters.chunk(2, -1)
    return dist.Normal(loc, deviation(raw)).to_event(1)


class Pixel(dist.Bernoulli):
    """Bernoulli that also scores grey values in [0, 1], by the cross-entropy.

    On grey values it is not a normalised density; Dilokthanakul et al., 2016, train on it, and say
    their nats so. On binary values it is the Bernoulli distribution.
    """

    support = constraints.unit_interval


class Counts(dist.Multinomial):
    """Multinomial whose number of draws is that of each value it scores, such as a word count.

    ``total_count`` says how many are drawn by :meth:`sample`. Unlike in Pyro the coefficient is
    computed on the counts alone, not once for every enumerated cluster.
    """

    support = constraints.independent(constraints.nonnegative_integer, 1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log probability in nats of counts ``(..., P)``, of the broadcast batch shape."""
        coefficient = torch.lgamma(value.sum(-1) + 1) - torch.lgamma(value + 1).sum(-1)
        return coefficient + (value * self.logits).sum(-1)
