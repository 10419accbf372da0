"""Exponential families of global variables, each defined by its log-normaliser."""

import math
from collections.abc import Sequence

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from priorzoo.models.distributions.expected import Wishart
from priorzoo.models.distributions.gamma_draws import PathwiseDirichlet, PathwiseGamma
from priorzoo.models.distributions.log_space import log_of
from priorzoo.models.pyro_internals import effectful


class Natural(nn.Parameter):
    """Natural parameters; the type lets an optimiser treat them apart from network weights.

    They are float64: a rate b is the difference of two sums over the data, which float32 loses
    when a component's mean is thousands of its standard deviations from 0.
    """


class ExponentialFamily:
    r"""Densities :math:`\exp(\langle \lambda, t(\xi) \rangle - A(\lambda))`.

    A subclass defines A. The expected statistics are the gradient of A, and
    :math:`\mathrm{KL}(q \| p) = \langle \lambda_q - \lambda_p, \nabla A(\lambda_q) \rangle -
    A(\lambda_q) + A(\lambda_p)`. Subclasses override these two only for speed.

    Natural parameters are ``(..., T)``, one for each statistic; A is ``(...)``.
    """

    @classmethod
    def log_normaliser(cls, natural: Tensor) -> Tensor:
        """A, ``(...)``."""
        raise NotImplementedError

    @classmethod
    def natural(cls, *usual: Tensor) -> Tensor:
        """Natural parameters ``(..., T)``, float64, from the usual parameters."""
        raise NotImplementedError

    @classmethod
    def usual(cls, natural: Tensor) -> tuple[Tensor, ...]:
        """The usual parameters from the natural ones."""
        raise NotImplementedError

    @classmethod
    def statistics(cls, *values: Tensor) -> Tensor:
        """Sufficient statistics t of the variables' values, ``(..., T)``, float64."""
        raise NotImplementedError

    @classmethod
    def sample(cls, names: Sequence[str], usual: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Sample the variables at sites of these names; all dimensions are event dimensions."""
        raise NotImplementedError

    @classmethod
    def expected_statistics(cls, natural: Tensor) -> Tensor:
        """E[t], ``(..., T)``, the gradient of A."""
        gradient: Tensor = torch.func.grad(lambda value: cls.log_normaliser(value).sum())(natural)
        return gradient

    @classmethod
    def kl(cls, q: Tensor, p: Tensor) -> Tensor:
        """KL(q || p) in nats, ``(...)``, from the natural parameters of both."""
        gap = ((q - p) * cls.expected_statistics(q)).sum(-1)
        return gap - cls.log_normaliser(q) + cls.log_normaliser(p)


class Dirichlet(ExponentialFamily):
    r"""Weights :math:`\pi`, ``(..., K)``, with pseudo-counts c: t = log pi, lambda = c - 1."""

    @classmethod
    def log_normaliser(cls, natural: Tensor) -> Tensor:
        counts = natural + 1
        return counts.lgamma().sum(-1) - counts.sum(-1).lgamma()

    @classmethod
    def natural(cls, *usual: Tensor) -> Tensor:
        (counts,) = usual
        return counts.double() - 1

    @classmethod
    def usual(cls, natural: Tensor) -> tuple[Tensor, ...]:
        return (natural + 1,)

    @classmethod
    def statistics(cls, *values: Tensor) -> Tensor:
        (weights,) = values
        return log_of(weights).double()

    @classmethod
    def sample(cls, names: Sequence[str], usual: Sequence[Tensor]) -> tuple[Tensor, ...]:
        pi = PathwiseDirichlet(usual[0])
        return (pyro.sample(names[0], dist.Independent(pi, len(pi.batch_shape))),)

    @classmethod
    def expected_statistics(cls, natural: Tensor) -> Tensor:
        counts = natural + 1
        return counts.digamma() - counts.sum(-1, keepdim=True).digamma()


class Gamma(ExponentialFamily):
    r"""A precision :math:`\alpha` with shape a and rate b: t = [log alpha, alpha],
    lambda = [a - 1, -b].
    """

    @classmethod
    def log_normaliser(cls, natural: Tensor) -> Tensor:
        a, b = cls.usual(natural)
        return a.lgamma() - a * b.log()

    @classmethod
    def natural(cls, *usual: Tensor) -> Tensor:
        a, b = torch.broadcast_tensors(*usual)
        return torch.stack([a.double() - 1, -b.double()], -1)

    @classmethod
    def usual(cls, natural: Tensor) -> tuple[Tensor, ...]:
        shape, rate = natural.unbind(-1)
        return shape + 1, -rate

    @classmethod
    def statistics(cls, *values: Tensor) -> Tensor:
        (alpha,) = values
        return torch.stack([log_of(alpha).double(), alpha.double()], -1)

    @classmethod
    def sample(cls, names: Sequence[str], usual: Sequence[Tensor]) -> tuple[Tensor, ...]:
        a, b = usual
        return (pyro.sample(names[0], dist.Independent(PathwiseGamma(a, b), a.dim())),)

    @classmethod
    def expected_statistics(cls, natural: Tensor) -> Tensor:
        a, b = cls.usual(natural)
        return torch.stack([a.digamma() - b.log(), a / b], -1)


class NormalGamma(ExponentialFamily):
    r"""A mean and a precision, :math:`\alpha \sim \mathrm{Gamma}(a, b)` and
    :math:`\mu \mid \alpha \sim \mathcal N(m, 1 / (s \alpha))`.

    t = [log alpha, alpha, alpha mu, alpha mu^2], lambda = [a - 1/2, -(b + s m^2 / 2), s m, -s/2]:
    eq. (12) of Paquet, Ghaisas and Tieleman, "A Factorial Mixture Prior for Compositional Deep
    Generative Models", 2018. Their formula of the KL has psi in place of lgamma; here the KL is
    computed from A.
    """

    @classmethod
    def log_normaliser(cls, natural: Tensor) -> Tensor:
        _, s, a, b = cls.usual(natural)
        return a.lgamma() - a * b.log() - s.log() / 2 + math.log(2 * math.pi) / 2

    @classmethod
    def natural(cls, *usual: Tensor) -> Tensor:
        m, s, a, b = (value.double() for value in torch.broadcast_tensors(*usual))
        return torch.stack([a - 0.5, -(b + s * m * m / 2), s * m, -s / 2], -1)

    @classmethod
    def usual(cls, natural: Tensor) -> tuple[Tensor, ...]:
        """m, s, a and b."""
        shape, rate, location, count = natural.unbind(-1)
        s = -2 * count
        m = location / s
        return m, s, shape + 0.5, -rate - location * m / 2

    @classmethod
    def statistics(cls, *values: Tensor) -> Tensor:
        log_alpha = log_of(values[1]).double()
        mu, alpha = (value.double() for value in values)
        return torch.stack([log_alpha, alpha, alpha * mu, alpha * mu * mu], -1)

    @classmethod
    def sample(cls, names: Sequence[str], usual: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Sites of mu and alpha, in the order of their names; alpha is drawn first."""
        m, s, a, b = usual
        alpha = pyro.sample(names[1], dist.Independent(PathwiseGamma(a, b), a.dim()))
        mu = pyro.sample(names[0], dist.Normal(m, (s * alpha).rsqrt()).to_event(a.dim()))
        return mu, alpha

    @classmethod
    def expected_statistics(cls, natural: Tensor) -> Tensor:
        m, s, a, b = cls.usual(natural)
        alpha = a / b
        return torch.stack([a.digamma() - b.log(), alpha, alpha * m, alpha * m * m + 1 / s], -1)


class NormalWishart(ExponentialFamily):
    r"""A mean ``(..., D)`` and a precision matrix ``(..., D, D)``,
    :math:`\Lambda \sim \mathrm{Wishart}(\nu, B^{-1})` and
    :math:`\mu \mid \Lambda \sim \mathcal N(m, (s \Lambda)^{-1})`, of mean
    :math:`\mathbb E \Lambda = \nu B^{-1}`.

    t = [log det Lambda, Lambda, Lambda mu, mu' Lambda mu], lambda = [(nu - D) / 2,
    -(B + s m m') / 2, s m, -s / 2], matrices row by row, so that T = D^2 + D + 2 (Bishop, "Pattern
    Recognition and Machine Learning", 2006, section 10.2, where W is the inverse of B). With D = 1
    it is :class:`NormalGamma` of a = nu / 2 and b = B / 2.
    """

    @classmethod
    def log_normaliser(cls, natural: Tensor) -> Tensor:
        m, s, nu, rate = cls.usual(natural)
        size = m.shape[-1]
        halves = (nu[..., None] - torch.arange(size, device=nu.device)) / 2
        of_precision = halves.lgamma().sum(-1) + size * (size - 1) / 4 * math.log(math.pi)
        of_precision = of_precision + nu / 2 * (size * math.log(2) - rate.logdet())
        return of_precision + size / 2 * (math.log(2 * math.pi) - s.log())

    @classmethod
    def natural(cls, *usual: Tensor) -> Tensor:
        m, s, nu, rate = (value.double() for value in usual)
        batch = torch.broadcast_shapes(m.shape[:-1], s.shape, nu.shape, rate.shape[:-2])
        parts = [
            (nu - m.shape[-1])[..., None] / 2,
            -(rate + s[..., None, None] * _outer(m)).flatten(-2) / 2,
            s[..., None] * m,
            -s[..., None] / 2,
        ]
        return torch.cat([part.expand(*batch, -1) for part in parts], -1)

    @classmethod
    def usual(cls, natural: Tensor) -> tuple[Tensor, ...]:
        """m ``(..., D)``, s and nu ``(...)``, and B ``(..., D, D)``."""
        size = math.isqrt(natural.shape[-1] - 2)
        degrees, square, location, count = natural.split([1, size * size, size, 1], -1)
        s = -2 * count
        m = location / s
        rate = -2 * square.unflatten(-1, (size, size)) - s[..., None] * _outer(m)
        return m, s.squeeze(-1), 2 * degrees.squeeze(-1) + size, rate

    @classmethod
    def statistics(cls, *values: Tensor) -> Tensor:
        mu, precision = (value.double() for value in values)
        linear = (precision @ mu[..., None]).squeeze(-1)
        square = (linear * mu).sum(-1, keepdim=True)
        return torch.cat([precision.logdet()[..., None], precision.flatten(-2), linear, square], -1)

    @classmethod
    def sample(cls, names: Sequence[str], usual: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Sites of mu and Lambda, in the order of their names; Lambda is drawn first."""
        m, s, nu, rate = usual
        wishart = Wishart(nu, precision_matrix=rate)
        precision = pyro.sample(names[1], wishart.to_event(nu.dim()))
        scaled = s[..., None, None] * precision
        normal = dist.MultivariateNormal(m, precision_matrix=scaled)
        return pyro.sample(names[0], normal.to_event(nu.dim())), precision


def _outer(vector: Tensor) -> Tensor:
    return vector[..., None] * vector[..., None, :]


@effectful(type="conjugate")
def conjugate(
    names: tuple[str, ...],
    family: type[ExponentialFamily],
    natural: Tensor,
    like: Tensor,
) -> Tensor:
    """Draw global variables at Pyro sites, and return their statistics ``(..., T)``, float64.

    The model uses the statistics in place of the values. In a conjugate model the log joint density
    is linear in them, so that a handler of the effect ``conjugate`` can replace them by expected
    statistics and gets the expected log joint density.

    Args:
        names: names of the sites.
        family, natural: the distribution.
        like: a tensor whose dtype the sites get.
    """
    usual = [value.to(like.dtype) for value in family.usual(natural)]
    return family.statistics(*family.sample(names, usual))
