"""Guides for the stick fractions of a stick-breaking prior."""

from typing import Literal, Unpack, get_args

import pyro
import pyro.distributions as dist
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.nn import functional

from priorzoo.models.contract import Beside, Sizes
from priorzoo.models.distributions.estimators import Gradient, estimated
from priorzoo.models.distributions.gaussian import deviation
from priorzoo.models.distributions.sticks import Kumaraswamy, LogitNormal
from priorzoo.models.observation import encode
from priorzoo.models.plates import data_plate

SHAPE_FLOOR = 0.01  # with smaller shapes most draws round to 0 or 1 in float32
StickFamily = Literal["kumaraswamy", "logit-normal", "beta"]


class Sticks(nn.Module):
    r""":math:`q(v \mid x)`, independent sticks, for models whose only local site is ``v``.

    Nalisnick & Smyth, "Stick-Breaking Variational Autoencoders", 2017, and their "Deep Generative
    Models with Stick-Breaking Priors", 2016, for the last two families. Unlike there, shape
    parameters have a floor of 0.01, and the gradient estimator of Beta draws is unbiased.

    Args:
        encoder: maps rows ``(B, P)`` to ``(B, 2 (K - 1))``: the raw first parameters of the K - 1
            sticks (a shape, or the location of the logit), then the raw second parameters.
        family: ``kumaraswamy``, ``logit-normal`` or ``beta``.
        gradient: gradient estimator, see :func:`estimated`; ``rsvi`` only for ``beta``.
    """

    def __init__(
        self,
        encoder: nn.Module,
        family: StickFamily = "kumaraswamy",
        gradient: Gradient = "pathwise",
    ) -> None:
        super().__init__()
        if family not in get_args(StickFamily):
            raise ValueError(f"Expected family among {get_args(StickFamily)} but got {family!r}.")
        if gradient == "rsvi" and family != "beta":
            raise ValueError(f"Expected family 'beta' for gradient 'rsvi' but got {family!r}.")
        self.encoder, self.family, self.gradient = encoder, family, gradient

    @staticmethod
    def networks(rows: int, code: int) -> dict[str, Sizes]:
        return {"encoder": Sizes(rows, 2 * (code - 1))}

    def forward(self, x: Tensor, size: int | None = None, **beside: Unpack[Beside]) -> None:
        with data_plate(x, size):
            first, second = encode(self.encoder, x, beside).chunk(2, -1)
            q_v = self._sticks(first, second).to_event(1)
            pyro.sample("v", estimated(q_v, self.gradient))

    def _sticks(self, first: Tensor, second: Tensor) -> TorchDistribution:
        if self.family == "logit-normal":
            return LogitNormal(first, deviation(second))
        a, b = (functional.softplus(raw) + SHAPE_FLOOR for raw in (first, second))
        return Kumaraswamy(a, b) if self.family == "kumaraswamy" else dist.Beta(a, b)
