"""Distributions that Pyro lacks, and the parametrisation of Gaussians that the zoo shares."""

import pyro.distributions as dist
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
