"""Distributions whose gradient comes, at least in part, from the score of their draws."""

from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions.constraints import Constraint
from torch.types import _size

from priorzoo.models.distributions import log_space
from priorzoo.models.pyro_internals import ScoreParts, sum_rightmost


class Events(dist.Independent):
    """``Independent`` whose score is the sum of the scores of its dimensions."""

    scored = True

    def score_parts(self, value: Tensor) -> ScoreParts:
        parts = self.base_dist.score_parts(value)
        return ScoreParts(*(sum_rightmost(p, self.reinterpreted_batch_ndims) for p in parts))


class Scoring(TorchDistribution):
    """Base class of distributions whose gradient comes, at least in part, from the score."""

    scored = True

    def to_event(self, reinterpreted_batch_ndims: int | None = None) -> TorchDistribution:
        count = reinterpreted_batch_ndims
        count = len(self.batch_shape) if count is None else count
        return self if count == 0 else Events(self, count)


class Scored(Scoring):
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
    def support(self) -> Constraint | None:
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
            value = self.base.sample(sample_shape)
        if not log_space.is_kept(value):
            return value
        return log_space.scored(value, self.log_prob(value), len(self.event_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        return self.base.log_prob(value)
