"""The guide of the nonparametric VAE, which gives each row a code and a place in the plane."""

from typing import Unpack

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from priorzoo.models.contract import Beside, Sizes
from priorzoo.models.distributions.gaussian import diagonal_normal
from priorzoo.models.observation import encode
from priorzoo.models.plates import data_plate


class CodeAndPlace(nn.Module):
    r""":math:`q(z \mid x) = \mathcal N(m(x), s^2(x))`, and the place :math:`u = g(x)`.

    The guide of Bodin et al., "Nonparametric Inference for Auto-Encoding Variational Bayes", 2017,
    for :class:`NonparametricVAE`. Its deterministic site ``q``, m stacked on s, ``(B, 2, D)``,
    passes the moments of q(z | x) to the model's coupling.

    Args:
        encoder: maps rows ``(B, P)`` to locations and raw variances ``(B, 2 D)``.
        locator: g, maps rows ``(B, P)`` to places ``(B, 2)``.
    """

    def __init__(self, encoder: nn.Module, locator: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.locator = locator

    @staticmethod
    def networks(rows: int, code: int, plane: int) -> dict[str, Sizes]:
        return {"encoder": Sizes(rows, 2 * code), "locator": Sizes(rows, plane)}

    def forward(self, x: Tensor, size: int | None = None, **beside: Unpack[Beside]) -> None:
        with data_plate(x, size):
            code = diagonal_normal(encode(self.encoder, x, beside))
            pyro.sample("z", code)
            pyro.sample("q", dist.Delta(torch.stack([code.mean, code.stddev], -2), event_dim=2))
            pyro.sample("u", dist.Delta(encode(self.locator, x, beside), event_dim=1))
