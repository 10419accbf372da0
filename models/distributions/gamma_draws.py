"""Gamma, Beta and Dirichlet distributions drawn in log space, with their gradient estimators."""

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.types import _size

from priorzoo.models.distributions import log_space
from priorzoo.models.distributions.log_space import Exact
from priorzoo.models.distributions.scoring import Scoring
from priorzoo.models.pyro_internals import ScoreParts


class _Rejection(Exact, Scoring):
    """Remembers the correction term of its last draw, the only value that has one."""

    _drawn: tuple[Tensor, Tensor] | None = None

    def sample(self, sample_shape: _size = torch.Size(), **settings: object) -> Tensor:
        with torch.no_grad():
            return self.rsample(sample_shape)

    def _remember(self, value: Tensor, correction: Tensor) -> Tensor:
        self._drawn = value, correction
        return value

    def score_parts(self, value: Tensor) -> ScoreParts:
        log_prob = self.log_prob(value)
        own = self._drawn is not None and self._drawn[0] is value
        correction = self._drawn[1] if self._drawn is not None and own else torch.zeros(())
        return ScoreParts(log_prob, correction.to(log_prob), log_prob)


class RejectionGamma(_Rejection, dist.Gamma):
    r"""Gamma distribution, differentiated through Marsaglia and Tsang's rejection sampler.

    .. math:: h(\epsilon, a) = (a - \tfrac13) \left(1 + \frac{\epsilon}{\sqrt{9a - 3}}\right)^3

    Naesseth et al., "Reparameterization Gradients through Acceptance-Rejection Sampling
    Algorithms", 2017. The gradient is that of f(h) at fixed epsilon, plus f times that of the
    score, :math:`\log q(h; a) + \log |dh/d\epsilon|`. (Mehta & Lu, 2018, print 9a - 1.)

    The correction is a sum of terms of size a that cancel to one of size 1 / a. Its derivative is
    computed in a form without these terms, with t = epsilon / sqrt(9a - 3):
    :math:`3 \log(1 + t) - 3t + \tfrac32 t^2 - t^3 + \tfrac32 \tfrac{t^4}{1 + t} + \log w - \psi(a)
    - \tfrac{1}{6w}`, w = a - 1/3, in float64.

    The shape is augmented: a draw of shape a + B is multiplied by :math:`u_i^{1/(a + i - 1)}`,
    i = 1..B. These factors are reparameterised exactly and allow shapes below 1; the correction
    vanishes as B grows. Torch's own sampler draws the value, and epsilon follows by inverting h,
    so that there is no rejection loop in Python.

    Args:
        concentration, rate: as in Pyro.
        augmentation: B; 0 only if all shapes are at least 1.
    """

    def __init__(
        self,
        concentration: Tensor | float,
        rate: Tensor | float,
        augmentation: int = 5,
        validate_args: bool | None = None,
    ) -> None:
        self.augmentation = augmentation
        super().__init__(concentration, rate, validate_args=validate_args)

    def expand(self, batch_shape: _size, _instance: object = None) -> "RejectionGamma":
        shape, rate = self.concentration.expand(batch_shape), self.rate.expand(batch_shape)
        return RejectionGamma(shape, rate, self.augmentation, validate_args=False)

    def rsample(
        self, sample_shape: _size = torch.Size(), generator: torch.Generator | None = None
    ) -> Tensor:
        shape = self.concentration.expand(self._extended_shape(sample_shape))
        log_gamma, correction = _rejection(shape, self.augmentation)
        return self._remember(log_space.positive(log_gamma - self.rate.log()), correction)


class RejectionBeta(_Rejection, dist.Beta):
    """Beta distribution as the ratio of two :class:`RejectionGamma` draws, taken in log space."""

    def __init__(
        self,
        concentration1: Tensor | float,
        concentration0: Tensor | float,
        augmentation: int = 5,
        validate_args: bool | None = None,
    ) -> None:
        self.augmentation = augmentation
        super().__init__(concentration1, concentration0, validate_args=validate_args)

    def expand(self, batch_shape: _size, _instance: object = None) -> "RejectionBeta":
        one, zero = (c.expand(batch_shape) for c in (self.concentration1, self.concentration0))
        return RejectionBeta(one, zero, self.augmentation, validate_args=False)

    def rsample(self, sample_shape: _size = torch.Size()) -> Tensor:
        both = torch.stack([self.concentration1, self.concentration0], -1)
        shape = both.expand(*self._extended_shape(sample_shape), 2)
        log_gammas, correction = _rejection(shape, self.augmentation)
        value = log_space.fraction(log_gammas[..., 0] - log_gammas[..., 1])
        return self._remember(value, correction.sum(-1))


class RejectionDirichlet(_Rejection, dist.Dirichlet):
    """Dirichlet distribution as normalised :class:`RejectionGamma` draws, taken in log space."""

    def __init__(
        self,
        concentration: Tensor,
        augmentation: int = 5,
        validate_args: bool | None = None,
    ) -> None:
        self.augmentation = augmentation
        super().__init__(concentration, validate_args=validate_args)

    def expand(self, batch_shape: _size, _instance: object = None) -> "RejectionDirichlet":
        shape = self.concentration.expand(*batch_shape, *self.event_shape)
        return RejectionDirichlet(shape, self.augmentation, validate_args=False)

    def rsample(self, sample_shape: _size = torch.Size()) -> Tensor:
        shape = self.concentration.expand(self._extended_shape(sample_shape))
        log_gammas, correction = _rejection(shape, self.augmentation)
        return self._remember(log_space.shares(log_gammas), correction.sum(-1))


class PathwiseGamma(Exact, dist.Gamma):
    """Gamma distribution whose draws are made in log space, with torch's implicit gradients."""

    def rsample(
        self, sample_shape: _size = torch.Size(), generator: torch.Generator | None = None
    ) -> Tensor:
        shape = self.concentration.expand(self._extended_shape(sample_shape))
        return log_space.positive(_implicit(shape) - self.rate.log())


class PathwiseBeta(Exact, dist.Beta):
    """Beta distribution as a ratio of Gamma draws, whose implicit gradients can be traced.

    Torch's own gradient of Beta and Dirichlet draws cannot be recorded in a graph.
    """

    def rsample(self, sample_shape: _size = torch.Size()) -> Tensor:
        both = torch.stack([self.concentration1, self.concentration0], -1)
        log_gammas = _implicit(both.expand(*self._extended_shape(sample_shape), 2))
        return log_space.fraction(log_gammas[..., 0] - log_gammas[..., 1])


class PathwiseDirichlet(Exact, dist.Dirichlet):
    """Dirichlet distribution as normalised Gamma draws; see :class:`PathwiseBeta`."""

    def rsample(self, sample_shape: _size = torch.Size()) -> Tensor:
        shape = self.concentration.expand(self._extended_shape(sample_shape))
        return log_space.shares(_implicit(shape))


def _implicit(shape: Tensor) -> Tensor:
    """Logs of draws from Gamma(shape, 1), computed from shape + 1 so that none is log 0."""
    return torch._standard_gamma(shape + 1).log() + _powers(shape, 1)


def _rejection(shape: Tensor, augmentation: int) -> tuple[Tensor, Tensor]:
    """Logs of draws from Gamma(shape, 1), and their correction terms, of the same shape.

    The corrections are 0, with a gradient with respect to the shape.
    """
    augmented = shape + augmentation
    width, root = augmented - 1 / 3, (9 * augmented - 3).rsqrt()
    with torch.no_grad():
        epsilon = ((torch._standard_gamma(augmented) / width) ** (1 / 3) - 1) / root
        slope = _correction(augmented, epsilon)
    log_h = width.log() + 3 * (root * epsilon).log1p()
    return log_h + _powers(shape, augmentation), slope * (shape - shape.detach())


def _correction(shape: Tensor, epsilon: Tensor) -> Tensor:
    """Derivative of log q(h; a) + log |dh/de| for the shape, at fixed epsilon."""
    a, width = shape.double(), shape.double() - 1 / 3
    t = epsilon.double() * (9 * width).rsqrt()
    rest = t.log1p() - t + t.square() / 2 - t**3 / 3  # of the order of t^4
    slope = 3 * rest + 1.5 * t**4 / (1 + t) + (width.log() - torch.digamma(a) - 1 / (6 * width))
    return slope.to(shape.dtype)


def _powers(shape: Tensor, augmentation: int) -> Tensor:
    """Log of the factor that turns a draw of Gamma(shape + B) into a draw of Gamma(shape)."""
    order = torch.arange(augmentation, dtype=shape.dtype, device=shape.device)
    uniform = torch.rand((*shape.shape, augmentation), dtype=shape.dtype, device=shape.device)
    return ((-uniform).log1p() / (shape.unsqueeze(-1) + order)).sum(-1)
