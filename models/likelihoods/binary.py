"""The likelihood of binary data, and of grey values in [0, 1]."""

import pyro.distributions as dist
from pyro.distributions import constraints
from torch import Tensor, nn


class Pixel(dist.Bernoulli):
    """Bernoulli distribution whose log density of a grey value in [0, 1] is the cross-entropy.

    This is not a normalised density of grey values; Dilokthanakul et al., 2016, train on it and
    report their results in it. For binary values it is the Bernoulli distribution.
    """

    support = constraints.unit_interval


class Bernoulli(nn.Module):
    """Binary pixels, or grey ones in [0, 1] with the cross-entropy loss; takes logits ``(..., P)``.

    ``width`` is the number of decoder outputs per dimension of x, in all likelihoods.
    """

    width = 1

    def forward(self, logits: Tensor) -> dist.Independent:
        return Pixel(logits=logits).to_event(1)
