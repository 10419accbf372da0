"""The variational autoencoder."""

from typing import Unpack

import pyro
import torch
from torch import Tensor, nn

from priorzoo.models.contract import Beside, decodes
from priorzoo.models.distributions.gaussian import standard_normal
from priorzoo.models.likelihoods import Bernoulli
from priorzoo.models.observation import sample_x
from priorzoo.models.plates import data_plate


class VAE(nn.Module):
    r"""Decodes ``x`` from one Gaussian code ``z``; the reference for all other models.

    .. math:: z \sim \mathcal N(0, I), \quad x \mid z \sim p(x \mid \mathrm{decoder}(z))

    Kingma & Welling, "Auto-Encoding Variational Bayes", 2014.

    Args:
        decoder: maps codes ``(..., D)`` to the likelihood's parameters ``(..., width P)``.
        likelihood: maps these to p(x | z); :class:`Bernoulli` if None.
        code: D.
    """

    networks = staticmethod(decodes)

    def __init__(
        self, decoder: nn.Module, likelihood: nn.Module | None = None, code: int = 64
    ) -> None:
        super().__init__()
        self.decoder = decoder
        self.likelihood = Bernoulli() if likelihood is None else likelihood
        self.code = code
        self.origin = nn.Buffer(torch.zeros(code), persistent=False)

    def forward(
        self, x: Tensor | None = None, size: int | None = None, **beside: Unpack[Beside]
    ) -> Tensor:
        with data_plate(x, size):
            z = pyro.sample("z", standard_normal(self.origin))
            return sample_x(x, beside, self.likelihood, self.decoder, z)
