"""Distributions of local variables whose log densities are averages over global ones."""

import math
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution, constraints
from pyro.ops.indexing import Vindex
from torch import Tensor
from torch.distributions import register_kl

Size = torch.Size | list[int] | tuple[int, ...]


class Proportions(dist.Dirichlet):
    """Dirichlet drawn as normalised Gammas, whose gradient function transforms can follow."""

    def rsample(self, sample_shape: Size = torch.Size()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        heights = dist.Gamma(self.concentration.expand(shape), 1.0).rsample()
        return heights / heights.sum(-1, keepdim=True)


class Wishart(dist.Wishart):
    """Wishart drawn by Bartlett's decomposition and nothing more.

    torch's own sampler takes regular draws for singular ones: it warns of them, and draws again.
    """

    def rsample(self, sample_shape: Size = torch.Size()) -> Tensor:
        *batch, size, _ = self._extended_shape(sample_shape)
        degrees = self.df[..., None] - torch.arange(size, device=self.df.device)
        lengths = dist.Chi2(degrees.expand(*batch, size)).rsample().sqrt()
        noise = torch.randn(*batch, size, size, dtype=self.df.dtype, device=self.df.device)
        root = self.scale_tril @ (noise.tril(-1) + lengths.diag_embed())
        return root @ root.mT


class Choice(dist.Categorical):
    r"""Categorical whose log probabilities are *expected* ones, and so need not sum to 1.

    It scores k by :math:`\mathbb E \log \pi_k` without normalising. Where pi is known, its
    logarithms do sum to 1, and this is the categorical distribution. For values that are enumerated
    K log probabilities are looked up; those of its parent are laid out, and their gradients added
    up, for each value anew, K^2 for each datum.

    Args:
        logits: expected log probabilities ``(..., K)``.
    """

    def __init__(self, logits: Tensor, validate_args: bool | None = None) -> None:
        self.scores = logits
        super().__init__(logits=logits, validate_args=validate_args)

    def expand(self, batch_shape: Size, _instance: Any = None) -> "Choice":
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

    which is eq. (6) of Paquet, Ghaisas and Tieleman, 2018, before the average over z. It is linear
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
        """From [log alpha, alpha, alpha mu, alpha mu^2], ``(..., 4)``, drawn or expected."""
        log_alpha, alpha, linear, square = statistics.unbind(-1)
        loc = linear / alpha
        offset = log_alpha - (square - linear * loc)
        return cls(loc.to(dtype), alpha.to(dtype), offset.to(dtype))

    def at(self, index: Tensor) -> "Component":
        """Those of the index along the last dimension but one."""
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

    def expand(self, batch_shape: Size, _instance: Any = None) -> "Component":
        new: Component = Component.__new__(Component) if _instance is None else _instance
        # Left as they are: what is the same for all rows enters a product of matrices once.
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
        """Average of the log density over z of such a mean and variance."""
        spread = (mean - self.loc).square() + variance
        return (self.offset - math.log(2 * math.pi)) / 2 - self.precision / 2 * spread

    def expected_score(self, mean: Tensor, variance: Tensor) -> Tensor:
        """:meth:`expected_log_prob` summed over the last dimension, ``(..., D)`` to ``(...)``.

        Two products of matrices, without anything of size K B D, in float64, where terms that
        cancel leave enough.
        """
        m, loc, precision = mean.double(), self.loc.double(), self.precision.double()
        square = torch.einsum("...d,...d->...", m.square() + variance, precision)
        cross = torch.einsum("...d,...d->...", m, precision * loc)
        rest = (self.offset - math.log(2 * math.pi) - precision * loc.square()).sum(-1)
        return ((rest - square) / 2 + cross).to(self.loc.dtype)


def _kl_normal_component(q: torch.distributions.Normal, p: Component) -> Tensor:
    return -q.entropy() - p.expected_log_prob(q.loc, q.variance)


class DiagonalComponent(dist.Independent):
    """:class:`Component` with its last dimension an event, ``DiagonalComponent(component, 1)``."""


def _kl_diagonal(q: dist.Independent, p: DiagonalComponent) -> Tensor:
    normal = q.base_dist
    if not isinstance(normal, torch.distributions.Normal):
        raise NotImplementedError
    return -q.entropy() - p.base_dist.expected_score(normal.loc, normal.variance)


register_kl(torch.distributions.Normal, Component)(_kl_normal_component)
register_kl(torch.distributions.Independent, DiagonalComponent)(_kl_diagonal)
