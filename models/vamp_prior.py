"""The variational autoencoder whose prior is a mixture of variational posteriors."""

from typing import Unpack

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from priorzoo.models.contract import Beside, Sizes
from priorzoo.models.distributions.gaussian import deviation
from priorzoo.models.likelihoods import Bernoulli
from priorzoo.models.observation import sample_x
from priorzoo.models.plates import data_plate


class VampPrior(nn.Module):
    r"""A mixture prior whose components are the guide's posteriors at learnt pseudo-inputs.

    .. math:: y \sim \mathrm{Cat}(1/K), \quad z \mid y \sim q(z \mid u_y) = \mathcal N(m(u_y),
        s^2(u_y)), \quad x \mid z \sim p(x \mid \mathrm{decoder}(z))

    Tomczak & Welling, "VAE with a VampPrior", 2018, eq. (9). Here the component is a site, so that
    the model also clusters. Model and guide share the encoder, which gets gradients from both. The
    model evaluates it at the K pseudo-inputs once for all rows. Use it with the guide
    :class:`CodeThenCluster`.

    Args:
        decoder: maps codes ``(..., D)`` to the likelihood's parameters ``(..., width P)``.
        encoder: maps rows ``(..., P)`` to locations and raw variances ``(..., 2 D)`` of codes.
        rows: P, the number of values in a row.
        likelihood: maps these to p(x | z); :class:`Bernoulli` if None.
        code: D.
        clusters: K.
        bounded: whether pseudo-inputs are clamped to [0, 1], the range of pixels.
    """

    def __init__(
        self,
        decoder: nn.Module,
        encoder: nn.Module,
        rows: int,
        likelihood: nn.Module | None = None,
        code: int = 64,
        clusters: int = 500,
        bounded: bool = True,
    ) -> None:
        super().__init__()
        self.decoder, self.encoder = decoder, encoder
        self.likelihood = Bernoulli() if likelihood is None else likelihood
        self.rows, self.code, self.clusters, self.bounded = rows, code, clusters, bounded
        self.pseudo_inputs = nn.Parameter(0.05 + 0.01 * torch.randn(clusters, rows))
        self.uniform = nn.Buffer(torch.zeros(clusters), persistent=False)

    @staticmethod
    def networks(rows: int, outputs: int, code: int) -> dict[str, Sizes]:
        decoder = Sizes(code, outputs, role="decoder")
        return {"decoder": decoder, "encoder": Sizes(rows, 2 * code)}

    def forward(
        self, x: Tensor | None = None, size: int | None = None, **beside: Unpack[Beside]
    ) -> Tensor:
        u = self.pseudo_inputs.clamp(0, 1) if self.bounded else self.pseudo_inputs
        loc, raw = self.encoder(u).chunk(2, -1)
        scale = deviation(raw)
        with data_plate(x, size):
            y = pyro.sample("y", dist.Categorical(logits=self.uniform))
            z = pyro.sample("z", dist.Normal(loc[y], scale[y]).to_event(1))
            return sample_x(x, beside, self.likelihood, self.decoder, z)
