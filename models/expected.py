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
    logarithms do sum to 1, and this is the categorical distribution.

    Args:
        logits: expected log probabilities ``(..., K)``.
    """

    def __init__(self, logits: Tensor, validate_args: bool | None = None) -> None:
        self.mass = logits.logsumexp(-1)
        super().__init__(logits=logits, validate_args=validate_args)

    def expand(self, batch_shape: Size, _instance: Any = None) -> "Choice":
        new = self._get_checked_instance(Choice, _instance)  # type: ignore[no-untyped-call]
        new.mass = self.mass.expand(batch_shape)
        return super().expand(batch_shape, _instance=new)  # type: ignore[no-untyped-call]

    def log_prob(self, value: Tensor) -> Tensor:
        return super().log_prob(value) + self.mass  # type: ignore[no-untyped-call]


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
        return self.loc

    @property
    def variance(self) -> Tensor:
        """Of z."""
        return 1 / self.precision

    def expand(self, batch_shape: Size, _instance: Any = None) -> "Component":
        new = self._get_checked_instance(Component, _instance)  # type: ignore[no-untyped-call]
        new.loc, new.precision, new.offset = (
            part.expand(batch_shape) for part in (self.loc, self.precision, self.offset)
        )
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


@register_kl(torch.distributions.Normal, Component)  # type: ignore[untyped-decorator]
def _kl_normal_component(q: torch.distributions.Normal, p: Component) -> Tensor:
    return -q.entropy() - p.expected_log_prob(q.loc, q.variance)
