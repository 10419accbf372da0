"""The families of code that a mixture with integrated weights can have, and their components.

A guess q(z | x) and a component p(z | y) are of one family, each given by a mean and a spread
``(..., D)``, or, where dimensions are correlated in a component, by a mean and a lower triangular
root ``(..., D, D)`` of its covariance. What the collapsed bound needs stands here in closed form.
"""

import math
from typing import Literal, Protocol

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.nn import functional

from priorzoo.models.distributions.gaussian import deviation, raw_variance

FamilyName = Literal["gaussian", "full", "dirichlet"]
SHAPE_FLOOR = 1e-2  # of a guess; draws of smaller ones round to a corner
LEAST = 1e-3  # variance that a matched Gaussian component has in any direction
MEAN_FLOOR = 1e-3  # share of the even mean in that of a Dirichlet component
NEWTON = 20


class CodeFamily(Protocol):
    """What :class:`NGGPMixture`, its guide and the moves of its clusters ask of a family."""

    width: int  # of the encoder's output, for each dimension of the code

    def raw(self, code: int) -> tuple[int, ...]:
        """Shape of the raw spread of a component of so many dimensions."""

    def law(self, mean: Tensor, spread: Tensor) -> TorchDistribution:
        """The guess with this mean and spread."""

    def component(self, mean: Tensor, spread: Tensor) -> TorchDistribution:
        """The component with this mean and spread; the law of a guess, if no more is said."""
        return self.law(mean, spread)

    def guess(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """Means and spreads from an encoder's output."""

    def components(self, loc: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Means and spreads from a model's parameters."""

    def parameters(self, mean: Tensor, spread: Tensor) -> tuple[Tensor, Tensor]:
        """Parameters that give these components."""

    def base(self, loc: Tensor, scale: Tensor, breadth: float) -> tuple[Tensor, Tensor]:
        """Mean and spread of the base measure, as one more ``(1, ...)`` of these components."""

    def variance(self, scale: Tensor) -> Tensor:
        """``(..., D)``: how far components of such spreads reach in each dimension, squared."""
        return scale.square()

    def expected_log(self, mean: Tensor, spread: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
        """``(..., K)``: E[log p(z | k)] of z from the guess, all of D dimensions."""

    def match(self, mean: Tensor, spread: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """``(K, D)`` components that maximise it, summed over guesses by weights ``(M, K)``."""


class GaussianCodes(CodeFamily):
    """Codes in D real dimensions; the spread is the standard deviation."""

    width = 2

    def raw(self, code: int) -> tuple[int, ...]:
        return (code,)

    def law(self, mean: Tensor, spread: Tensor) -> TorchDistribution:
        return dist.Normal(mean, spread).to_event(1)

    def guess(self, output: Tensor) -> tuple[Tensor, Tensor]:
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

    def match(self, mean: Tensor, spread: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        share = (weight / weight.sum(0)).unsqueeze(-1)
        middle = (share * mean.unsqueeze(1)).sum(0)
        second = (mean.unsqueeze(1) - middle).square() + spread.square().unsqueeze(1)
        return middle, (share * second).sum(0).clamp(min=LEAST).sqrt()


class FullGaussianCodes(GaussianCodes):
    """The same guesses, and components of any covariance, whose root is their spread."""

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

    def match(self, mean: Tensor, spread: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        share, z = (weight / weight.sum(0)).mT.double(), mean.double()  # squares that cancel
        middle = share @ z
        square = share @ (z.unsqueeze(-1) * z.unsqueeze(-2)).flatten(1)
        second = square.view(-1, *2 * z.shape[1:]) - middle.unsqueeze(-1) * middle.unsqueeze(-2)
        second = second + (share @ spread.double().square() + LEAST).diag_embed()
        return middle.to(mean), torch.linalg.cholesky(second).to(mean)


class DirichletCodes(CodeFamily):
    r"""Codes on the simplex of D shares, the paper's; Dirichlet with concentration mean / spread^2.

    The spread, equal in all dimensions, is one over the root of the summed concentration. Matched
    components are the maximum likelihood of Minka, "Estimating a Dirichlet distribution", 2000,
    by his Newton steps; of the guesses only E[log z] counts.
    """

    width = 1

    def raw(self, code: int) -> tuple[int, ...]:
        return (1,)

    def law(self, mean: Tensor, spread: Tensor) -> TorchDistribution:
        return dist.Dirichlet(mean / spread.square())

    def guess(self, output: Tensor) -> tuple[Tensor, Tensor]:
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
        shape = loc / scale.square()
        constant = torch.lgamma(shape.sum(-1)) - torch.lgamma(shape).sum(-1)
        return constant + _expected_log_code(mean, spread) @ (shape - 1).mT

    def match(self, mean: Tensor, spread: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        share = (weight / weight.sum(0)).mT
        logs = share @ _expected_log_code(mean, spread)
        shape = share @ mean * self._total(share, mean).unsqueeze(-1)
        for _ in range(NEWTON):
            total = shape.sum(-1, keepdim=True)
            slope = torch.digamma(total) - torch.digamma(shape) + logs
            curve, common = -torch.polygamma(1, shape), torch.polygamma(1, total)
            shared = (slope / curve).sum(-1, keepdim=True)
            shared = shared / (1 / common + (1 / curve).sum(-1, keepdim=True))
            moved = shape - (slope - shared) / curve
            shape = torch.where(moved > shape / 3, moved, shape / 3).clamp(1e-3, 1e4)
        return self._split(shape)

    def _total(self, share: Tensor, mean: Tensor) -> Tensor:
        """``(K,)`` summed concentrations that the variance of the means suggests, to begin with."""
        middle = share @ mean
        variance = (share @ mean.square() - middle.square()).sum(-1).clamp(min=1e-6)
        return ((middle * (1 - middle)).sum(-1) / variance - 1).clamp(0.1, 1e3)

    def _split(self, shape: Tensor) -> tuple[Tensor, Tensor]:
        total = shape.sum(-1, keepdim=True)
        return shape / total, total.rsqrt().expand_as(shape)


def _expected_log_code(mean: Tensor, spread: Tensor) -> Tensor:
    total = spread[..., :1].square().reciprocal()
    return torch.digamma(mean * total) - torch.digamma(total)


def _diagonal(square: Tensor) -> Tensor:
    return square.diagonal(dim1=-2, dim2=-1)


FAMILIES: dict[str, CodeFamily] = {
    "gaussian": GaussianCodes(),
    "full": FullGaussianCodes(),
    "dirichlet": DirichletCodes(),
}
