"""Gradient estimators of expectations: :func:`estimated` chooses one for a distribution.

An objective multiplies the cost that depends on a draw by the gradient of the draw's *score* and
adds the product to the gradient that flows through the draw. Pyro defines the score by
``fn.score_parts(value)``: it is the log density for a draw without reparameterisation, 0 for a
fully reparameterised draw, and a correction term for an acceptance-rejection sampler.
"""

from typing import Any, Literal, get_args

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.types import _size

from priorzoo.models.distributions.mixtures import pathwise_mixture
from priorzoo.models.distributions.sticks import inside
from priorzoo.models.pyro_internals import ScoreParts, sum_rightmost

Gradient = Literal["pathwise", "rsvi", "score"]


def estimated(
    fn: TorchDistribution, gradient: Gradient = "pathwise", augmentation: int = 5
) -> TorchDistribution:
    """The same distribution with another gradient estimator.

    Args:
        fn: the distribution; for ``rsvi`` a Gamma, Beta or Dirichlet distribution, or an
            ``Independent`` of one.
        gradient: ``pathwise``, the distribution's own reparameterisation (implicit gradients for
            these three and for mixtures of diagonal Gaussians, also as ``MixtureSameFamily``:
            Figurnov et al., 2018); ``rsvi``, through the acceptance-rejection sampler;
            ``score``, the score function, which works for any distribution but has the highest
            variance.
        augmentation: B of :class:`RejectionGamma`.

    Raises:
        ValueError: for an unknown estimator, and for ``rsvi`` of another distribution.
    """
    if gradient not in get_args(Gradient):
        raise ValueError(f"Expected gradient among {get_args(Gradient)} but got {gradient!r}.")
    if isinstance(fn, dist.Independent):
        base = estimated(fn.base_dist, gradient, augmentation)
        return base.to_event(fn.reinterpreted_batch_ndims)
    if gradient == "score":
        return Scored(fn)
    if gradient == "pathwise":
        return _pathwise(fn)
    if isinstance(fn, dist.Gamma):
        return RejectionGamma(fn.concentration, fn.rate, augmentation)
    if isinstance(fn, dist.Beta):
        return RejectionBeta(fn.concentration1, fn.concentration0, augmentation)
    if isinstance(fn, dist.Dirichlet):
        return RejectionDirichlet(fn.concentration, augmentation)
    raise ValueError(
        f"Expected a Gamma, Beta or Dirichlet distribution for rsvi but got {type(fn).__name__}; "
        "choose pathwise or score."
    )


def _pathwise(fn: TorchDistribution) -> TorchDistribution:
    if isinstance(fn, dist.Beta):
        return PathwiseBeta(fn.concentration1, fn.concentration0)
    if isinstance(fn, dist.Dirichlet):
        return PathwiseDirichlet(fn.concentration)
    return pathwise_mixture(fn)


class Events(dist.Independent):
    """``Independent`` whose score is the sum of the scores of its dimensions."""

    scored = True

    def score_parts(self, value: Tensor) -> ScoreParts:
        parts = self.base_dist.score_parts(value)
        return ScoreParts(*(sum_rightmost(p, self.reinterpreted_batch_ndims) for p in parts))


class _Scoring(TorchDistribution):
    """Base class of distributions whose gradient comes, at least in part, from the score."""

    scored = True

    def to_event(self, reinterpreted_batch_ndims: int | None = None) -> TorchDistribution:
        count = reinterpreted_batch_ndims
        count = len(self.batch_shape) if count is None else count
        return self if count == 0 else Events(self, count)


class Scored(_Scoring):
    """A distribution differentiated by the score function alone.

    Args:
        base: gives draws and log densities; its reparameterisation is not used.
    """

    arg_constraints: dict[str, Any] = {}
    has_rsample = False

    def __init__(self, base: TorchDistribution) -> None:
        self.base = base
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    @property
    def support(self) -> Any:
        """Of the base."""
        return self.base.support

    @property
    def mean(self) -> Tensor:
        """Of the base."""
        return self.base.mean

    def expand(self, batch_shape: _size, _instance: object = None) -> "Scored":
        return Scored(self.base.expand(batch_shape))

    def sample(self, sample_shape: _size = torch.Size()) -> Tensor:
        with torch.no_grad():
            return self.base.sample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        return self.base.log_prob(value)


class _Rejection(_Scoring):
    """Keeps the correction term of its last draw, since other values have none."""

    _drawn: tuple[Tensor, Tensor] | None = None

    def sample(self, sample_shape: _size = torch.Size(), **settings: Any) -> Tensor:
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

    def rsample(self, sample_shape: _size = torch.Size(), generator: Any = None) -> Tensor:
        shape = self.concentration.expand(self._extended_shape(sample_shape))
        log_gamma, correction = _rejection(shape, self.augmentation)
        value = log_gamma.exp().clamp(min=torch.finfo(log_gamma.dtype).tiny) / self.rate
        return self._remember(value, correction)


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
        value = inside(torch.sigmoid(log_gammas[..., 0] - log_gammas[..., 1]))
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
        value = log_gammas.softmax(-1).clamp(min=torch.finfo(log_gammas.dtype).tiny)
        return self._remember(value, correction.sum(-1))


class PathwiseBeta(dist.Beta):
    """Beta distribution as a ratio of Gamma draws, whose implicit gradients can be traced.

    Torch's own gradient of Beta and Dirichlet draws cannot be recorded in a graph. The ratio is
    taken in log space, so that draws with small shapes do not underflow or round to 0 or 1.
    """

    def rsample(self, sample_shape: _size = torch.Size()) -> Tensor:
        both = torch.stack([self.concentration1, self.concentration0], -1)
        log_gammas = _implicit(both.expand(*self._extended_shape(sample_shape), 2))
        return inside(torch.sigmoid(log_gammas[..., 0] - log_gammas[..., 1]))


class PathwiseDirichlet(dist.Dirichlet):
    """Dirichlet distribution as normalised Gamma draws; see :class:`PathwiseBeta`."""

    def rsample(self, sample_shape: _size = torch.Size()) -> Tensor:
        shape = self.concentration.expand(self._extended_shape(sample_shape))
        return _implicit(shape).softmax(-1).clamp(min=torch.finfo(shape.dtype).tiny)


def _implicit(shape: Tensor) -> Tensor:
    """Logs of draws from Gamma(shape, 1), made of draws of shape + 1 so that none is log 0."""
    return torch._standard_gamma(shape + 1).log() + _powers(shape, 1)


def _rejection(shape: Tensor, augmentation: int) -> tuple[Tensor, Tensor]:
    """Logs of draws from Gamma(shape, 1), and their correction terms, of the same shape."""
    augmented = shape + augmentation
    width, root = augmented - 1 / 3, (9 * augmented - 3).rsqrt()
    with torch.no_grad():
        epsilon = ((torch._standard_gamma(augmented) / width) ** (1 / 3) - 1) / root
    log_step = (root * epsilon).log1p()
    log_h = width.log() + 3 * log_step
    log_density = (augmented - 1) * log_h - log_h.exp() - torch.lgamma(augmented)
    correction = log_density + width.log() + 2 * log_step + root.log()
    return log_h + _powers(shape, augmentation), correction


def _powers(shape: Tensor, augmentation: int) -> Tensor:
    """Log of the factor that turns a draw of Gamma(shape + B) into a draw of Gamma(shape)."""
    order = torch.arange(augmentation, dtype=shape.dtype, device=shape.device)
    uniform = torch.rand((*shape.shape, augmentation), dtype=shape.dtype, device=shape.device)
    return ((-uniform).log1p() / (shape.unsqueeze(-1) + order)).sum(-1)
