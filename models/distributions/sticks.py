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

from priorzoo.models.distributions import log_space
from priorzoo.models.distributions.log_space import log_beta

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


class Kumaraswamy(TorchDistribution):
    r"""Density :math:`a b\, x^{a-1} (1 - x^a)^{b-1}` on (0, 1), close to the Beta distribution.

    Kumaraswamy, 1980; used for sticks by Nalisnick & Smyth, "Stick-Breaking Variational
    Autoencoders", 2017. Unlike Pyro's version it computes in log space, see
    :mod:`priorzoo.models.distributions.log_space`, so that draws and densities need no epsilon. The
    mean, the expectations and the KL divergence from a Beta are computed in float64; for shapes
    from 1e-3 to 1e5 they are accurate to 1e-6 of the largest of their terms, in float32 too.
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
        y = waited / self.b  # -log(1 - x^a)
        log_x = log1mexp(y) / self.a
        logit = log_x - _log_complement(_log_log(y.double()) - self.a.double().log())
        return log_space.fraction(logit.to(log_x.dtype), log_x.exp())

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        a, b, logit = self.a.double(), self.b.double(), log_space.logit_of(value)
        near = logit > 30  # log(-log x) is -logit
        log_log = torch.where(
            near, -logit, functional.softplus(-torch.where(near, 0.0, logit)).log()
        )
        tail = (b - 1) * _log_complement(log_log + a.log())
        found = a.log() + b.log() + (a - 1) * functional.logsigmoid(logit) + tail
        return found.to(torch.promote_types(self.a.dtype, value.dtype))

    @property
    def mean(self) -> Tensor:
        r""":math:`b\, B(1 + 1/a, b)`."""
        root, b = 1 + 1 / self.a.double(), self.b.double()
        return (b.log() + log_beta(root, b)).exp().to(self.a)

    def expected_log(self) -> Tensor:
        r"""E log x, :math:`-(\gamma + \psi(b + 1)) / a`."""
        return -((EULER + torch.digamma(self.b.double() + 1)) / self.a).to(self.a)

    def expected_log_complement(self) -> Tensor:
        """E log(1 - x), by double-exponential quadrature over the uniform variable of a draw.

        The series of Nalisnick & Smyth, 2017, converges slowly. Truncated, as they use it, it can
        make the KL divergence from a Beta distribution negative.
        """
        waited, weight = (x.to(self.a.device) for x in _quadrature())
        a, b = self.a.double().unsqueeze(-1), self.b.double().unsqueeze(-1)
        return (weight * _log_complement(_log_log(waited / b) - a.log())).sum(-1).to(self.a)


def _log_log(y: Tensor) -> Tensor:
    """log(-log(1 - exp(-y))) of float64 y > 0, also where exp(-y) is 0."""
    inner = (-(-(-y.clamp(max=12)).expm1()).log()).log()
    return torch.where(y > 12, (-y).exp() / 2 - y, inner)


def _log_complement(log_x: Tensor) -> Tensor:
    """log(1 - exp(-x)) of float64 log x, also where x is 0."""
    x = log_x.clamp(max=6).exp()
    inner = (-(-x.clamp(min=math.exp(-12))).expm1()).log()
    return torch.where(log_x < -12, log_x - x / 2, inner)


@cache
def _quadrature(step: float = 0.06, reach: float = 3.36) -> tuple[Tensor, Tensor]:
    """Nodes -log u and weights of a quadrature over u in (0, 1)."""
    t = torch.arange(-round(reach / step), round(reach / step) + 1, dtype=torch.float64) * step
    s = math.pi * t.sinh()
    density = (functional.logsigmoid(s) + functional.logsigmoid(-s)).exp() * math.pi * t.cosh()
    return -functional.logsigmoid(s), density / density.sum()


def _kl_kumaraswamy_beta(q: Kumaraswamy, p: dist.Beta) -> Tensor:
    wide = Kumaraswamy(q.a.double(), q.b.double(), validate_args=False)
    a, b = wide.a, wide.b
    alpha, beta = p.concentration1.double(), p.concentration0.double()
    entropic = a.log() + b.log() - (b - 1) / b + (a - alpha) * wide.expected_log()
    rest = log_beta(alpha, beta) - (beta - 1) * wide.expected_log_complement()
    return (entropic + rest).to(q.a)


register_kl(Kumaraswamy, dist.Beta)(_kl_kumaraswamy_beta)


class LogitNormal(dist.TransformedDistribution):
    r"""The logistic function of a Gaussian, on (0, 1).

    Draws and densities are computed from the logit, which stays exact where the value rounds to 0
    or 1. The KL divergence from a Beta distribution has no closed form. It is computed by
    quadrature, accurate to 1e-9 of its largest term (1e-6 in float32) for any location and scale.

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

    def rsample(self, sample_shape: _size = torch.Size()) -> Tensor:
        return log_space.fraction(self.base_dist.rsample(sample_shape))

    def sample(self, sample_shape: _size = torch.Size()) -> Tensor:
        with torch.no_grad():
            return log_space.fraction(self.base_dist.sample(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        logit, scale = log_space.logit_of(value), self.scale.double()
        error = (logit - self.loc.double()) / scale
        jacobian = functional.softplus(logit) + functional.softplus(-logit)
        found = jacobian - error.square() / 2 - scale.log() - math.log(2 * math.pi) / 2
        return found.to(torch.promote_types(self.loc.dtype, value.dtype))

    def expected_log_complement(self) -> Tensor:
        r"""E log(1 - x), in float64; E log x is that plus the location.

        It is :math:`-\mathbb E\,\mathrm{softplus}(m + s Z)`. For s < 1 this is a trapezoidal sum
        over Z. For larger s, softplus is the mean of a rectified logistic variable L:
        :math:`\mathbb E_L\, \mathbb E (m + L + s Z)^+`, the inner mean in closed form.
        """
        m, s = self.loc.double().unsqueeze(-1), self.scale.double().unsqueeze(-1)
        z = torch.linspace(-8.4, 8.4, 25, dtype=torch.float64, device=m.device)
        weight = (-z.square() / 2).softmax(-1)
        below = torch.where(s < 1, s, 1.0)
        narrow = (weight * functional.softplus(m + below * z)).sum(-1)
        logistic = torch.linspace(-28, 28, 81, dtype=torch.float64, device=m.device)
        weight = (functional.logsigmoid(logistic) + functional.logsigmoid(-logistic)).softmax(-1)
        wide, height = torch.where(s < 1, 1.0, s), m + logistic
        ratio = height / wide
        bell = (-ratio.square() / 2).exp() / math.sqrt(2 * math.pi)
        mean = (weight * (height * torch.special.ndtr(ratio) + wide * bell)).sum(-1)
        return -torch.where(self.scale < 1, narrow, mean)

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


def _kl_logit_normal_beta(q: LogitNormal, p: dist.Beta) -> Tensor:
    alpha, beta = p.concentration1.double(), p.concentration0.double()
    right = q.expected_log_complement()
    left = right + q.loc.double()
    entropy = q.scale.double().log() + (math.log(2 * math.pi) + 1) / 2
    return (log_beta(alpha, beta) - alpha * left - beta * right - entropy).to(q.loc)


register_kl(LogitNormal, dist.Beta)(_kl_logit_normal_beta)
