"""Distributions of local variables whose log densities are averaged over global variables."""

import math

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution, constraints
from pyro.ops.indexing import Vindex
from torch import Tensor
from torch.distributions import register_kl

from priorzoo.models.distributions.gamma_draws import PathwiseGamma
from priorzoo.models.distributions.log_space import log_of

Size = torch.Size | list[int] | tuple[int, ...]


class Wishart(dist.Wishart):
    """Wishart distribution drawn by Bartlett's decomposition.

    Torch's own sampler mistakes some regular draws for singular ones, warns and draws again.
    """

    def rsample(self, sample_shape: Size = torch.Size()) -> Tensor:
        *batch, size, _ = self._extended_shape(sample_shape)
        degrees = self.df[..., None] - torch.arange(size, device=self.df.device)
        halves = PathwiseGamma(degrees.expand(*batch, size) / 2, torch.full_like(degrees, 0.5))
        lengths = (log_of(halves.rsample()) / 2).exp()
        noise = torch.randn(*batch, size, size, dtype=self.df.dtype, device=self.df.device)
        root = self.scale_tril @ (noise.tril(-1) + lengths.diag_embed())
        return root @ root.mT


class Choice(dist.Categorical):
    r"""Categorical whose log probabilities are *expected* ones, and so need not sum to 1.

    The log probability of k is :math:`\mathbb E \log \pi_k`, not normalised. If pi is known, this
    is the categorical distribution. ``log_prob`` of enumerated values looks up K numbers, where
    torch's ``Categorical`` expands all log probabilities, and sums gradients, for each value: K^2
    for each datum.

    Args:
        logits: expected log probabilities ``(..., K)``.
    """

    def __init__(self, logits: Tensor, validate_args: bool | None = None) -> None:
        self.scores = logits
        super().__init__(logits=logits, validate_args=validate_args)

    def expand(self, batch_shape: Size, _instance: "Choice | None" = None) -> "Choice":
        new: Choice = Choice.__new__(Choice) if _instance is None else _instance
        new.scores = self.scores
        return dist.Categorical.expand(self, batch_shape, _instance=new)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        found: Tensor = Vindex(self.scores)[..., value]
        return found.expand(torch.broadcast_shapes(self.batch_shape, value.shape))


class Component(TorchDistribution):
    r"""Normal whose log density is an *expected* one over its mean and precision.

    .. math:: \tfrac12 \bigl(\mathrm{offset} - \log 2 \pi - \mathrm{precision}\,
        (z - \mathrm{loc})^2\bigr)

    This is eq. (6) of Paquet, Ghaisas and Tieleman, 2018, before the average over z. It is linear
    in the expected statistics of mean and precision; the square is completed because the terms of
    the linear form cancel in float32. With offset = log precision it is the normal distribution.
    """

    arg_constraints = {
        "loc": constraints.real,
        "precision": constraints.positive,
        "offset": constraints.real,
    }
    support = constraints.real
    has_rsample = True

    def __init__(
        self, loc: Tensor, precision: Tensor, offset: Tensor, validate_args: bool | None = None
    ) -> None:
        self.loc, self.precision, self.offset = torch.broadcast_tensors(loc, precision, offset)
        super().__init__(self.loc.shape, validate_args=validate_args)

    @classmethod
    def of(cls, statistics: Tensor, dtype: torch.dtype) -> "Component":
        """From drawn or expected [log alpha, alpha, alpha mu, alpha mu^2], ``(..., 4)``."""
        log_alpha, alpha, linear, square = statistics.unbind(-1)
        loc = linear / alpha
        offset = log_alpha - (square - linear * loc)
        return cls(loc.to(dtype), alpha.to(dtype), offset.to(dtype))

    def at(self, index: Tensor) -> "Component":
        """The components at an index into the second to last dimension."""
        parts = (self.loc, self.precision, self.offset)
        return Component(*(Vindex(part)[..., index, :] for part in parts))

    @property
    def mean(self) -> Tensor:
        """Of z."""
        return self.loc.expand(self.batch_shape)

    @property
    def variance(self) -> Tensor:
        """Of z."""
        return 1 / self.precision.expand(self.batch_shape)

    def expand(self, batch_shape: Size, _instance: "Component | None" = None) -> "Component":
        new: Component = Component.__new__(Component) if _instance is None else _instance
        # Not expanded: parameters that all rows share enter the matrix product only once.
        new.loc, new.precision, new.offset = self.loc, self.precision, self.offset
        super(Component, new).__init__(torch.Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new

    def rsample(self, sample_shape: Size = torch.Size()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        noise = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        return self.loc + self.precision.rsqrt() * noise

    def log_prob(self, value: Tensor) -> Tensor:
        return self.expected_log_prob(value, 0.0)

    def expected_log_prob(self, mean: Tensor, variance: Tensor | float) -> Tensor:
        """The log density averaged over z with this mean and variance."""
        spread = (mean - self.loc).square() + variance
        return (self.offset - math.log(2 * math.pi)) / 2 - self.precision / 2 * spread

    def expected_score(self, mean: Tensor, variance: Tensor) -> Tensor:
        """:meth:`expected_log_prob` summed over the last dimension, ``(..., D)`` to ``(...)``.

        Takes two matrix products and no tensor of size K B D. They are in float64, in which the
        terms that cancel leave enough digits.
        """
        m, loc, precision = mean.double(), self.loc.double(), self.precision.double()
        square = torch.einsum("...d,...d->...", m.square() + variance, precision)
        cross = torch.einsum("...d,...d->...", m, precision * loc)
        rest = (self.offset - math.log(2 * math.pi) - precision * loc.square()).sum(-1)
        return ((rest - square) / 2 + cross).to(self.loc.dtype)


def _kl_normal_component(q: torch.distributions.Normal, p: Component) -> Tensor:
    return -q.entropy() - p.expected_log_prob(q.loc, q.variance)


class DiagonalComponent(dist.Independent):
    """:class:`Component` over D independent dimensions: ``DiagonalComponent(component, 1)``."""


def _kl_diagonal(q: dist.Independent, p: DiagonalComponent) -> Tensor:
    normal = q.base_dist
    if not isinstance(normal, torch.distributions.Normal):
        raise NotImplementedError
    return -q.entropy() - p.base_dist.expected_score(normal.loc, normal.variance)


register_kl(torch.distributions.Normal, Component)(_kl_normal_component)
register_kl(torch.distributions.Independent, DiagonalComponent)(_kl_diagonal)
