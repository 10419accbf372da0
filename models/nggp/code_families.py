"""Families of latent codes and mixture components for :class:`NGGPMixture`.

A family describes the posterior q(z | x) and the component p(z | y), each by a mean and a spread
``(..., D)``. For components of any covariance the spread is the lower triangular Cholesky factor
``(..., D, D)`` of the covariance. The family gives the terms of the collapsed bound in closed form.
Components are exponential families: E[log p(z | y)] is linear in expected statistics of z, and sums
of these are all that a fit needs. They are in float64, since squares cancel.
"""

import math
from typing import Literal, Protocol

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.nn import functional

from priorzoo.models.distributions.gamma_draws import PathwiseDirichlet
from priorzoo.models.distributions.gaussian import deviation, raw_variance

FamilyName = Literal["gaussian", "full", "dirichlet"]
SHAPE_FLOOR = 1e-2  # concentration of q(z | x); with smaller ones draws round to a corner
COMPONENT_VARIANCE_FLOOR = 1e-3  # of a fitted Gaussian component, in any direction
MEAN_FLOOR = 1e-3  # weight of the uniform mean in the mean of a Dirichlet component
NEWTON_STEPS = 20


class CodeFamily(Protocol):
    """A family of codes, as :class:`NGGPMixture`, its guide and its cluster moves use it."""

    width: int  # encoder outputs for each dimension of the code

    def raw(self, code: int) -> tuple[int, ...]:
        """Shape of a component's raw spread for codes of this size."""

    def distribution(self, mean: Tensor, spread: Tensor) -> TorchDistribution:
        """q(z | x) with this mean and spread."""

    def component(self, mean: Tensor, spread: Tensor) -> TorchDistribution:
        """p(z | y) with this mean and spread; by default the same distribution as q(z | x)."""
        return self.distribution(mean, spread)

    def posterior(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """Means and spreads of q(z | x) from an encoder's output."""

    def components(self, loc: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Means and spreads of components from the model's parameters."""

    def parameters(self, mean: Tensor, spread: Tensor) -> tuple[Tensor, Tensor]:
        """The model's parameters that give these components; the inverse of the above."""

    def base(self, loc: Tensor, scale: Tensor, breadth: float) -> tuple[Tensor, Tensor]:
        """Mean and spread of the base measure, in the shape ``(1, ...)`` of one component."""

    def variance(self, scale: Tensor) -> Tensor:
        """``(..., D)`` variances of components in each dimension, from their spreads."""
        return scale.square()

    def expected_log(self, mean: Tensor, spread: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
        """``(..., K)``: E[log p(z | k)] for z from q(z | x), summed over the D dimensions."""

    def statistics(self, mean: Tensor, spread: Tensor) -> Tensor:
        """``(M, F)`` expected statistics of z under q(z | x), the last of them 1; in float64."""

    def natural(self, loc: Tensor, scale: Tensor) -> Tensor:
        """``(K, F)`` coefficients of components, by which :meth:`statistics` give
        :meth:`expected_log`; in float64.
        """

    def fit(self, sums: Tensor) -> tuple[Tensor, Tensor]:
        """``(K, D)`` components of maximum likelihood from ``(K, F)`` weighted sums of
        :meth:`statistics`; in float64.
        """

    def match(self, mean: Tensor, spread: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """``(K, D)`` components that maximise :meth:`expected_log` summed over posteriors with
        weights ``(M, K)``.
        """
        loc, scale = self.fit(weight.mT.double() @ self.statistics(mean, spread))
        return loc.to(mean), scale.to(mean)


class GaussianCodes(CodeFamily):
    """Codes in D real dimensions; the spread is the standard deviation."""

    width = 2

    def raw(self, code: int) -> tuple[int, ...]:
        return (code,)

    def distribution(self, mean: Tensor, spread: Tensor) -> TorchDistribution:
        return dist.Normal(mean, spread).to_event(1)

    def posterior(self, output: Tensor) -> tuple[Tensor, Tensor]:
        mean, raw = output.chunk(2, -1)
        return mean, deviation(raw)

    def components(self, loc: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        return loc, deviation(raw)

    def parameters(self, mean: Tensor, spread: Tensor) -> tuple[Tensor, Tensor]:
        return mean, raw_variance(spread.square())

    def base(self, loc: Tensor, scale: Tensor, breadth: float) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(loc[:1]), torch.full_like(scale[:1], breadth)

    def expected_log(self, mean: Tensor, spread: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
        apart = (mean.unsqueeze(-2) - loc).square() + spread.square().unsqueeze(-2)
        constant = torch.log(2 * torch.pi * scale.square())
        return -0.5 * (constant + apart / scale.square()).sum(-1)

    def statistics(self, mean: Tensor, spread: Tensor) -> Tensor:
        z, s = mean.double(), spread.double()
        return torch.cat([z, z.square() + s.square(), torch.ones_like(z[:, :1])], -1)

    def natural(self, loc: Tensor, scale: Tensor) -> Tensor:
        loc, precision = loc.double(), scale.double().square().reciprocal()
        constant = (math.log(2 * math.pi) - precision.log() + loc.square() * precision).sum(-1)
        return torch.cat([loc * precision, -precision / 2, -constant.unsqueeze(-1) / 2], -1)

    def fit(self, sums: Tensor) -> tuple[Tensor, Tensor]:
        middle, second = (sums[:, :-1] / sums[:, -1:]).chunk(2, -1)
        return middle, (second - middle.square()).clamp(min=COMPONENT_VARIANCE_FLOOR).sqrt()


class FullGaussianCodes(GaussianCodes):
    """The same q(z | x), but components of any covariance; the spread is its Cholesky factor."""

    def raw(self, code: int) -> tuple[int, ...]:
        return code, code

    def component(self, mean: Tensor, spread: Tensor) -> TorchDistribution:
        return dist.MultivariateNormal(mean, scale_tril=spread)

    def components(self, loc: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        return loc, raw.tril(-1) + deviation(_diagonal(raw)).diag_embed()

    def parameters(self, mean: Tensor, spread: Tensor) -> tuple[Tensor, Tensor]:
        return mean, spread.tril(-1) + raw_variance(_diagonal(spread).square()).diag_embed()

    def base(self, loc: Tensor, scale: Tensor, breadth: float) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(loc[:1]), torch.full_like(loc[:1], breadth).diag_embed()

    def variance(self, scale: Tensor) -> Tensor:
        return scale.square().sum(-1)

    def expected_log(self, mean: Tensor, spread: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
        even = torch.eye(loc.shape[-1], dtype=scale.dtype, device=scale.device)
        whitening = torch.linalg.solve_triangular(scale, even, upper=False)
        white = mean @ whitening.flatten(0, 1).mT
        apart = white.unflatten(-1, loc.shape) - (whitening @ loc.unsqueeze(-1)).squeeze(-1)
        blur = spread.square() @ whitening.square().sum(-2).mT
        constant = _diagonal(scale).log().sum(-1) + loc.shape[-1] * math.log(2 * math.pi) / 2
        return -constant - (apart.square().sum(-1) + blur) / 2

    def statistics(self, mean: Tensor, spread: Tensor) -> Tensor:
        z = mean.double()
        square = z.unsqueeze(-1) * z.unsqueeze(-2) + spread.double().square().diag_embed()
        return torch.cat([z, _lower(square), torch.ones_like(z[:, :1])], -1)

    def natural(self, loc: Tensor, scale: Tensor) -> Tensor:
        loc, precision = loc.double(), torch.cholesky_inverse(scale.double())
        slope = (precision @ loc.unsqueeze(-1)).squeeze(-1)
        twice = _lower(_diagonal(precision).diag_embed() / 2 - precision)  # for both triangles
        constant = _diagonal(scale).double().log().sum(-1) + (slope * loc).sum(-1) / 2
        constant = constant + loc.shape[-1] * math.log(2 * math.pi) / 2
        return torch.cat([slope, twice, -constant.unsqueeze(-1)], -1)

    def fit(self, sums: Tensor) -> tuple[Tensor, Tensor]:
        mean = sums[:, :-1] / sums[:, -1:]
        code = (math.isqrt(8 * mean.shape[-1] + 9) - 3) // 2  # of D (D + 3) / 2 entries
        middle, lower = mean[:, :code], mean[:, code:]
        square = mean.new_zeros(len(mean), code, code)
        square[:, *torch.tril_indices(code, code)] = lower
        second = square - middle.unsqueeze(-1) * middle.unsqueeze(
            -2
        )  # of which the lower half counts
        floor = COMPONENT_VARIANCE_FLOOR * torch.eye(code).to(mean)
        return middle, torch.linalg.cholesky(second + floor)


class DirichletCodes(CodeFamily):
    r"""Codes on the simplex of D shares, as in the paper: Dirichlet(mean / spread^2).

    The spread, equal in all dimensions, is one over the root of the summed concentration.
    Components are fitted by maximum likelihood with the Newton steps of Minka, "Estimating a
    Dirichlet distribution", 2000; the fit depends on q(z | x) only through E[log z].
    """

    width = 1

    def raw(self, code: int) -> tuple[int, ...]:
        return (1,)

    def distribution(self, mean: Tensor, spread: Tensor) -> TorchDistribution:
        return PathwiseDirichlet(mean / spread.square())  # draws of small shapes keep their logs

    def posterior(self, output: Tensor) -> tuple[Tensor, Tensor]:
        return self._split(functional.softplus(output) + SHAPE_FLOOR)

    def components(self, loc: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        mean = (1 - MEAN_FLOOR) * loc.softmax(-1) + MEAN_FLOOR / loc.shape[-1]
        return mean, deviation(raw).expand_as(mean)

    def parameters(self, mean: Tensor, spread: Tensor) -> tuple[Tensor, Tensor]:
        above = (mean - MEAN_FLOOR / mean.shape[-1]).clamp(min=1e-8)
        return above.log(), raw_variance(spread[..., :1].square())

    def base(self, loc: Tensor, scale: Tensor, breadth: float) -> tuple[Tensor, Tensor]:
        code = loc.shape[-1]
        return torch.full_like(loc[:1], 1 / code), torch.full_like(scale[:1], breadth / code**0.5)

    def expected_log(self, mean: Tensor, spread: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
        shape = loc.double() / scale.double().square()  # in float32 the terms cancel
        constant = torch.lgamma(shape.sum(-1)) - torch.lgamma(shape).sum(-1)
        return (constant + _expected_log_code(mean, spread) @ (shape - 1).mT).to(loc)

    def statistics(self, mean: Tensor, spread: Tensor) -> Tensor:
        mean = mean.double()
        square = mean.square().sum(-1, keepdim=True)
        logs = _expected_log_code(mean, spread.double())
        return torch.cat([logs, mean, square, torch.ones_like(square)], -1)

    def natural(self, loc: Tensor, scale: Tensor) -> Tensor:
        shape = loc.double() / scale.double().square()
        constant = torch.lgamma(shape.sum(-1)) - torch.lgamma(shape).sum(-1)
        unused = torch.zeros_like(shape[:, :1]).expand(-1, shape.shape[-1] + 1)
        return torch.cat([shape - 1, unused, constant.unsqueeze(-1)], -1)

    def fit(self, sums: Tensor) -> tuple[Tensor, Tensor]:
        code = sums.shape[-1] // 2 - 1
        logs, middle, square = (sums[:, :-1] / sums[:, -1:]).split([code, code, 1], -1)
        # Newton's start has the mean, and the variance, of the means of q(z | x).
        variance = (square.squeeze(-1) - middle.square().sum(-1)).clamp(min=1e-6)
        total = ((middle * (1 - middle)).sum(-1) / variance - 1).clamp(0.1, 1e3)
        shape = middle * total.unsqueeze(-1)
        for _ in range(NEWTON_STEPS):
            total = shape.sum(-1, keepdim=True)
            slope = torch.digamma(total) - torch.digamma(shape) + logs
            curve, common = -torch.polygamma(1, shape), torch.polygamma(1, total)
            shared = (slope / curve).sum(-1, keepdim=True)
            shared = shared / (1 / common + (1 / curve).sum(-1, keepdim=True))
            moved = shape - (slope - shared) / curve
            shape = torch.where(moved > shape / 3, moved, shape / 3).clamp(1e-3, 1e4)
        return self._split(shape)

    def _split(self, shape: Tensor) -> tuple[Tensor, Tensor]:
        total = shape.sum(-1, keepdim=True)
        return shape / total, total.rsqrt().expand_as(shape)


def _expected_log_code(mean: Tensor, spread: Tensor) -> Tensor:
    """E log z of each share, in float64."""
    total = spread[..., :1].double().square().reciprocal()
    return torch.digamma(mean.double() * total) - torch.digamma(total)


def _diagonal(square: Tensor) -> Tensor:
    return square.diagonal(dim1=-2, dim2=-1)


def _lower(square: Tensor) -> Tensor:
    """``(..., D (D + 1) / 2)``: the lower triangle."""
    rows, columns = torch.tril_indices(*square.shape[-2:])
    return square[..., rows, columns]


FAMILIES: dict[str, CodeFamily] = {
    "gaussian": GaussianCodes(),
    "full": FullGaussianCodes(),
    "dirichlet": DirichletCodes(),
}
