"""The variational autoencoder with a vector-quantised code."""

from typing import Unpack

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from priorzoo.models.contract import Beside, Sizes
from priorzoo.models.likelihoods import Bernoulli
from priorzoo.models.observation import sample_x
from priorzoo.models.plates import data_plate


class VQVAE(nn.Module):
    r"""Decodes ``x`` from M vectors that are chosen from a codebook of K vectors.

    .. math:: y_m \sim \mathrm{Cat}(1/K), \quad z = (e_{y_1}, \dots, e_{y_M}), \quad
        x \mid z \sim p(x \mid \mathrm{decoder}(z))

    van den Oord et al., "Neural Discrete Representation Learning", 2017. With the guide
    :class:`Quantised`, whose q(y | x) is a point, the ELBO is log p(x | e_y) - M log K, a lower
    bound of log p(x). It has no gradient for the codebook, which is trained by the penalty
    :class:`Quantisation`. ``z`` is deterministic given y and contributes nothing to the bound; it
    is a site so that the guide can pass the decoder's gradient straight to the encoder. In samples
    from the model the M positions are independent; the paper fits another model of y afterwards.

    Args:
        decoder: maps ``(..., M D)`` to the likelihood's parameters ``(..., width P)``.
        likelihood: maps these to p(x | z); :class:`Bernoulli` if None.
        code, clusters, positions: D, K and M.
    """

    def __init__(
        self,
        decoder: nn.Module,
        likelihood: nn.Module | None = None,
        code: int = 64,
        clusters: int = 512,
        positions: int = 1,
    ) -> None:
        super().__init__()
        self.decoder = decoder
        self.likelihood = Bernoulli() if likelihood is None else likelihood
        self.code, self.clusters, self.positions = code, clusters, positions
        self.codebook = nn.Parameter(torch.empty(clusters, code).uniform_(-1, 1) / clusters)
        self.uniform = nn.Buffer(torch.zeros(positions, clusters), persistent=False)

    @staticmethod
    def networks(outputs: int, code: int, positions: int) -> dict[str, Sizes]:
        return {"decoder": Sizes(positions * code, outputs, role="decoder")}

    def forward(
        self, x: Tensor | None = None, size: int | None = None, **beside: Unpack[Beside]
    ) -> Tensor:
        with data_plate(x, size):
            y = pyro.sample("y", dist.Categorical(logits=self.uniform).to_event(1))
            chosen = dist.Delta(self.codebook[y].flatten(-2), event_dim=1)
            z = pyro.sample("z", chosen.mask(False))
            return sample_x(x, beside, self.likelihood, self.decoder, z)
