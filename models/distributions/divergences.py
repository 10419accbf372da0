"""KL divergences in closed form, accurate in float32."""

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Beta, Dirichlet, Distribution, Gamma, kl_divergence, register_kl

from priorzoo.models.distributions.estimators import estimated
from priorzoo.models.distributions.gamma_draws import (
    PathwiseBeta,
    PathwiseDirichlet,
    PathwiseGamma,
    RejectionBeta,
    RejectionDirichlet,
    RejectionGamma,
)
from priorzoo.models.distributions.log_space import is_stock
from priorzoo.models.distributions.scoring import Scored


def closed_kl(q: TorchDistribution, p: Distribution) -> Tensor:
    """KL(q || p) in nats, in the batch shape, by the formula registered with torch.

    Between two Gamma, Beta or Dirichlet distributions it is computed in float64, also if q has
    another gradient estimator: at shapes of 1e5 it is a difference of terms of 1e6, which has an
    error of 0.1 nats in float32. For shapes from 1e-3 to 1e5 its error is at most 1e-6
    of its value plus 1e-9 nats.

    Raises:
        NotImplementedError: if torch has no formula for the two classes.
    """
    base = q
    while isinstance(base, torch.distributions.Independent):
        base = base.base_dist
    return kl_divergence(estimated(q) if is_stock(base) else q, p)


def _wide(fn: Distribution) -> Distribution:
    """Torch's distribution with the same parameters in float64."""
    if isinstance(fn, Gamma):
        return Gamma(fn.concentration.double(), fn.rate.double(), validate_args=False)
    if isinstance(fn, Beta):
        sides = fn.concentration1.double(), fn.concentration0.double()
        return Beta(*sides, validate_args=False)
    assert isinstance(fn, Dirichlet)
    return Dirichlet(fn.concentration.double(), validate_args=False)


def _kl_in_float64(q: Distribution, p: Distribution) -> Tensor:
    return kl_divergence(_wide(q), _wide(p)).to(q.mean.dtype)


def _kl_scored(q: Scored, p: Distribution) -> Tensor:
    return closed_kl(q.base, p)


for family, classes in {
    Gamma: (PathwiseGamma, RejectionGamma),
    Beta: (PathwiseBeta, RejectionBeta),
    Dirichlet: (PathwiseDirichlet, RejectionDirichlet),
}.items():
    for kind in classes:
        register_kl(kind, family)(_kl_in_float64)
register_kl(Scored, Distribution)(_kl_scored)
