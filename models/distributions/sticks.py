"""Stick-breaking weights, and distributions of stick fractions, in log space."""

import math
from functools import cache

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor
from torch.distributions import register_kl, transforms
from torch.distributions.utils import broadcast_all
from torch.nn import functional
from torch.types import _size

EULER = 0.5772156649015329


def log1mexp(x: Tensor) -> Tensor:
    """log(1 - exp(-x)) for x > 0, accurate near 0 and for large x."""
    near = x < math.log(2)
    small, large = torch.where(near, x, 1.0), torch.where(near, 1.0, x)
    return torch.where(near, (-(-small).expm1()).log(), (-(-large).exp()).log1p())


def log_stick_weights(sticks: Tensor) -> Tensor:
    r""":math:`\log \pi_k = \log v_k + \sum_{j<k} \log(1 - v_j)`; the last weight is the rest.

    Maps ``(..., K - 1)`` sticks in (0, 1) to ``(..., K)`` log weights, whose exponentials sum to 1.
    """
    broken = functional.pad(sticks.log(), (0, 1))
    return broken + functional.pad((-sticks).log1p().cumsum(-1), (1, 0))


def inside(x: Tensor) -> Tensor:
    """Replace values that were rounded to 0 or 1 by the nearest number inside (0, 1)."""
    limits = torch.finfo(x.dtype)
    return x.clamp(limits.tiny, 1 - limits.eps / 2)


class Kumaraswamy(TorchDistribution):
    r"""Density :math:`a b\, x^{a-1} (1 - x^a)^{b-1}` on (0, 1), close to the Beta distribution.

    Kumaraswamy, 1980; used for sticks by Nalisnick & Smyth, "Stick-Breaking Variational
    Autoencoders", 2017. Unlike Pyro's version it computes in log space, so that draws and densities
    need no epsilon; draws that would round to 0 or 1 become the nearest numbers inside.
    """

    arg_constraints = {"a": constraints.positive, "b": constraints.positive}
    support = constraints.unit_interval
    has_rsample = True

    def __init__(
        self, a: Tensor | float, b: Tensor | float, validate_args: bool | None = None
    ) -> None:
        self.a, self.b = broadcast_all(a, b)
        super().__init__(self.a.shape, validate_args=validate_args)

    def expand(self, batch_shape: _size, _instance: object = None) -> "Kumaraswamy":
        return Kumaraswamy(self.a.expand(batch_shape), self.b.expand(batch_shape), False)

    def rsample(self, sample_shape: _size = torch.Size()) -> Tensor:
        uniform = torch.rand(self._extended_shape(sample_shape), dtype=self.a.dtype).to(self.a)
        waited = -(-uniform.clamp(min=torch.finfo(self.a.dtype).eps)).log1p()  # exponential
        return inside((log1mexp(waited / self.b) / self.a).exp())

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        log_x = value.log()
        tail = (self.b - 1) * log1mexp(-self.a * log_x)
        return self.a.log() + self.b.log() + (self.a - 1) * log_x + tail

    @property
    def mean(self) -> Tensor:
        r""":math:`b\, B(1 + 1/a, b)`."""
        root = 1 + 1 / self.a
        return (self.b.log() + _log_beta(root, self.b)).exp()

    def expected_log_complement(self) -> Tensor:
        """E log(1 - x), by double-exponential quadrature over the uniform variable of a draw.

        The series of Nalisnick & Smyth, 2017, converges slowly. Truncated, as they use it, it can
        make the KL divergence from a Beta distribution negative.
        """
        waited, weight = (x.to(self.a) for x in _quadrature())
        y = waited / self.b.unsqueeze(-1)
        tail = y > 15  # x is near 1: log(-log x) cannot be computed from x
        log_log = torch.where(
            tail, (-y).exp() / 2 - y, (-log1mexp(torch.where(tail, 1.0, y))).log()
        ) - self.a.log().unsqueeze(-1)
        tail = log_log < -10
        inner = log1mexp(torch.where(tail, 0.0, log_log).exp())
        return (weight * torch.where(tail, log_log - log_log.exp() / 2, inner)).sum(-1)


@cache
def _quadrature(step: float = 0.2, reach: float = 3.4) -> tuple[Tensor, Tensor]:
    """Nodes -log u and weights of a quadrature over u in (0, 1)."""
    t = torch.arange(-round(reach / step), round(reach / step) + 1, dtype=torch.float64) * step
    s = math.pi * t.sinh()
    density = (functional.logsigmoid(s) + functional.logsigmoid(-s)).exp() * math.pi * t.cosh()
    return -functional.logsigmoid(s), density / density.sum()


def _kl_kumaraswamy_beta(q: Kumaraswamy, p: dist.Beta) -> Tensor:
    alpha, beta = p.concentration1, p.concentration0
    log_x = -(EULER + torch.digamma(q.b) + 1 / q.b) / q.a
    entropic = q.a.log() + q.b.log() - (q.b - 1) / q.b + (q.a - alpha) * log_x
    return entropic + _log_beta(alpha, beta) - (beta - 1) * q.expected_log_complement()


register_kl(Kumaraswamy, dist.Beta)(_kl_kumaraswamy_beta)


def _log_beta(a: Tensor, b: Tensor) -> Tensor:
    return torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)


class LogitNormal(dist.TransformedDistribution):
    r"""The logistic function of a Gaussian, on (0, 1).

    Args:
        loc, scale: mean and standard deviation of the logit.
    """

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}

    def __init__(
        self, loc: Tensor | float, scale: Tensor | float, validate_args: bool | None = None
    ) -> None:
        base = dist.Normal(loc, scale, validate_args=validate_args)
        super().__init__(base, transforms.SigmoidTransform(), validate_args=validate_args)

    def expand(self, batch_shape: _size, _instance: object = None) -> "LogitNormal":
        return LogitNormal(self.loc.expand(batch_shape), self.scale.expand(batch_shape), False)

    @property
    def loc(self) -> Tensor:
        """Mean of the logit."""
        return self.base_dist.loc

    @property
    def scale(self) -> Tensor:
        """Standard deviation of the logit."""
        return self.base_dist.scale

    @property
    def mean(self) -> Tensor:
        r"""Mean, by the trapezoidal rule, which is exact to rounding for integrands this smooth.

        Over the Gaussian variable up to a scale of 1.5. With larger scales the logistic function
        is steep there, and the rule is used on
        :math:`\int \mathrm{logistic}'(l)\, \Phi((\mu - l) / \sigma)\, dl`, its integral by parts.
        """
        loc, scale = self.loc.unsqueeze(-1), self.scale.unsqueeze(-1)
        narrow = scale < 1.5
        z = torch.linspace(-9, 9, 145).to(loc)
        gaussian = (-z.square() / 2).softmax(-1)
        over_z = gaussian * torch.sigmoid(loc + torch.where(narrow, scale, 1.0) * z)
        wide = torch.where(narrow, 1.5, scale)
        low = (loc + wide.square() / 2 - 36).detach().clamp(-120, -40)  # far below log mean
        logit = low + (40 - low) * torch.linspace(0, 1, 257).to(loc)
        below = torch.erfc((logit - loc) / (wide * math.sqrt(2))) / 2
        over_logit = torch.sigmoid(logit) * torch.sigmoid(-logit) * below * (40 - low) / 256
        return torch.where(narrow.squeeze(-1), over_z.sum(-1), over_logit.sum(-1))
