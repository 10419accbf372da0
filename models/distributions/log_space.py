"""Draws of positive numbers, fractions and shares from their logs, and densities at these logs.

A draw of small shape is often nearer to 0 or 1 than any number of its dtype. Its value is then
clamped to the nearest number at which costs have finite gradients, and its exact log (or logit) is
kept as an attribute of the tensor. Densities use the latter, and are computed in float64, since
their terms cancel: at a shape of 1e5 the terms are 1e6, and the log density is a few nats.

In float32, at shapes from 1e-3 to 1e5, log densities and their gradients have a relative error of
1e-6; the gradient of a cost that is linear in log x, or in log(1 - x), is that of the exact draw.
The value of such a cost, however, is that of the clamped draw: :func:`log_of` gives the exact log.
"""

from collections.abc import Callable
from typing import Any, cast

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Beta, Dirichlet, Distribution, Gamma
from torch.nn import functional

from priorzoo.models.pyro_internals import sum_rightmost


def smallest(dtype: torch.dtype) -> float:
    """1e-35 in float32, at which the gradient of -4,000 log x is still a finite number."""
    return torch.finfo(dtype).tiny * 2**10


def inside(x: Tensor) -> Tensor:
    """Replace values that were rounded to 0 or 1 by numbers inside (0, 1)."""
    high = 1 - torch.finfo(x.dtype).eps / 2
    return torch.where(x > high, high, _above(x))


def _above(x: Tensor) -> Tensor:
    # Unlike clamp, with a gradient at the bound, at which many draws are.
    return torch.where(x < smallest(x.dtype), smallest(x.dtype), x)


def positive(log_value: Tensor) -> Tensor:
    """Positive numbers from their logs."""
    raw = log_value.exp()
    value = _above(raw)
    return _kept(raw, value, value, "exact_log", log_value)


def fraction(logit: Tensor, raw: Tensor | None = None) -> Tensor:
    """Numbers in (0, 1) from their logits, and from the rounded numbers if these are known."""
    raw = torch.sigmoid(logit) if raw is None else raw
    value = inside(raw)
    return _kept(raw, value, value * (1 - value), "exact_logit", logit)


def shares(logits: Tensor) -> Tensor:
    """Numbers in (0, 1) that sum to 1 over the last dimension, from their logs up to a constant."""
    raw = logits.softmax(-1)
    value = _above(raw)
    return _kept(raw, value, value, "exact_log", logits.log_softmax(-1))


def _kept(raw: Tensor, value: Tensor, slope: Tensor, name: str, exact: Tensor) -> Tensor:
    """The value with ``exact`` as attribute ``name``; if clamped, with gradient ``slope``."""
    if exact.requires_grad:
        slope = torch.where(raw == value, 0.0, slope.detach())
        value = value + slope * (exact - exact.detach())
    setattr(value, name, exact)
    return value


def _exact(value: Tensor, name: str) -> Tensor | None:
    return cast(Tensor | None, getattr(value, name, None))


def is_kept(value: Tensor) -> bool:
    """Whether the value has its exact log or logit as an attribute."""
    return hasattr(value, "exact_log") or hasattr(value, "exact_logit")


def log_of(value: Tensor) -> Tensor:
    """The log of a value, also of a draw whose value is clamped."""
    logit = _exact(value, "exact_logit")
    if logit is not None:
        return functional.logsigmoid(logit)
    log_value = _exact(value, "exact_log")
    return value.log() if log_value is None else log_value


def logit_of(value: Tensor) -> Tensor:
    """The logit of a value in (0, 1), also of a draw whose value is clamped; in float64."""
    logit, x = _exact(value, "exact_logit"), value.double()
    return x.log() - (-x).log1p() if logit is None else logit.double()


def scored(value: Tensor, score: Tensor, events: int) -> Tensor:
    """A draw for score-function gradients, which corrects them where the value is clamped.

    Score-function gradients multiply the cost at the value by the score. Clamping changes a cost
    that is linear in log x (or in log(1 - x) near 1) by its slope times a known distance. The draw
    has a gradient only where it is clamped, which adds that change times the score.

    Args:
        score: log density ``(...)`` of the draw, with a gradient for the parameters.
        events: number of the value's event dimensions.
    """
    log_value, logit = _exact(value, "exact_log"), _exact(value, "exact_logit")
    exact = log_value if logit is None else logit
    if exact is None or not score.requires_grad:
        return value
    low, high = smallest(value.dtype), 1 - torch.finfo(value.dtype).eps / 2
    clamped, slope, shown = value <= low, value, value.log()
    if logit is not None:
        clamped, slope, shown = clamped | (value >= high), value * (1 - value), torch.logit(value)
    zero = (score - score.detach()).reshape(score.shape + (1,) * events)
    found = value + torch.where(clamped, slope * (exact - shown), 0.0) * zero
    setattr(found, "exact_log" if logit is None else "exact_logit", exact)
    return found


def log_density(fn: Distribution, value: Tensor) -> Tensor:
    """``fn.log_prob(value)``; for Gamma, Beta and Dirichlet in float64 and at exact logs."""
    if isinstance(fn, dist.Independent):
        return sum_rightmost(log_density(fn.base_dist, value), fn.reinterpreted_batch_ndims)
    density = _DENSITIES.get(type(fn).log_prob)
    found: Tensor = fn.log_prob(value) if density is None else density(fn, value)
    return found


def is_stock(fn: object) -> bool:
    """Whether the distribution is a Gamma, Beta or Dirichlet of torch, Pyro or this package."""
    return getattr(type(fn), "log_prob", None) in (*_DENSITIES, Exact.log_prob)


class Exact:
    """First base class of subclasses of Gamma, Beta or Dirichlet, with an accurate density."""

    def log_prob(self, value: Tensor) -> Tensor:
        fn = cast(Any, self)
        if fn._validate_args:
            fn._validate_sample(value)
        family = next(family for family in _FAMILIES if isinstance(self, family))
        return _FAMILIES[family](fn, value)


def _gamma(fn: Gamma, value: Tensor) -> Tensor:
    a, b = fn.concentration.double(), fn.rate.double()
    log_z = _exact(value, "exact_log")
    z = value.double() if log_z is None else log_z.double().exp()
    power = torch.xlogy(a - 1, z) if log_z is None else (a - 1) * log_z
    return (power - b * z + torch.xlogy(a, b) - torch.lgamma(a)).to(_dtype(value, fn.rate))


def _beta(fn: Beta, value: Tensor) -> Tensor:
    a, b = fn.concentration1.double(), fn.concentration0.double()
    logit, x = _exact(value, "exact_logit"), value.double()
    if logit is None:
        powers = torch.xlogy(a - 1, x) + torch.xlogy(b - 1, 1 - x)
    else:
        sides = functional.logsigmoid(logit.double()), functional.logsigmoid(-logit.double())
        powers = (a - 1) * sides[0] + (b - 1) * sides[1]
    return (powers - log_beta(a, b)).to(_dtype(value, fn.concentration1))


def _dirichlet(fn: Dirichlet, value: Tensor) -> Tensor:
    c, log_s = fn.concentration.double(), _exact(value, "exact_log")
    powers = torch.xlogy(c - 1, value.double()) if log_s is None else (c - 1) * log_s
    constant = torch.lgamma(c.sum(-1)) - torch.lgamma(c).sum(-1)
    return (powers.sum(-1) + constant).to(_dtype(value, fn.concentration))


def log_beta(a: Tensor, b: Tensor) -> Tensor:
    """log B(a, b), for a and b in float64, since in float32 the terms cancel."""
    return torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)


def _dtype(value: Tensor, parameter: Tensor) -> torch.dtype:
    return torch.promote_types(value.dtype, parameter.dtype)


_FAMILIES: dict[type[Any], Callable[[Any, Tensor], Tensor]] = {
    torch.distributions.Gamma: _gamma,
    torch.distributions.Beta: _beta,
    torch.distributions.Dirichlet: _dirichlet,
}
_DENSITIES: dict[object, Callable[[Any, Tensor], Tensor]] = {
    stock.log_prob: density for stock, density in _FAMILIES.items()
}
