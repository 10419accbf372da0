"""The parametrisation of Gaussian distributions that all models and guides share."""

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.nn import functional

VARIANCE_FLOOR = 1e-4


def deviation(raw: Tensor) -> Tensor:
    r"""Standard deviation :math:`\sqrt{\mathrm{softplus}(\mathrm{raw}) + 10^{-4}}`, of any shape.

    Without the floor, a component that shrinks onto few codes leads to NaN.
    """
    return (functional.softplus(raw) + VARIANCE_FLOOR).sqrt()


def raw_variance(variance: Tensor) -> Tensor:
    """The raw value for which :func:`deviation` gives this variance's root, without overflow."""
    above = (variance - VARIANCE_FLOOR).clamp(min=1e-6)
    return above + (-(-above).expm1()).log()


def diagonal_normal(parameters: Tensor) -> dist.Independent:
    """Gaussian over D dimensions from ``(..., 2 D)``: locations, then raw variances."""
    loc, raw = parameters.chunk(2, -1)
    return dist.Normal(loc, deviation(raw)).to_event(1)


def standard_normal(origin: Tensor) -> dist.Independent:
    """N(0, I) over D dimensions; ``origin`` is a tensor of D zeros."""
    return dist.Normal(origin, torch.ones_like(origin)).to_event(1)
