"""The guide of a mixture for each facet: encoder, and optimal responsibilities."""

import math
from typing import cast

import pyro
import pyro.distributions as dist
from torch import Tensor, nn

from priorzoo.guides.exact import ModelReader
from priorzoo.models.contract import encodes
from priorzoo.models.distributions.gaussian import diagonal_normal
from priorzoo.models.facets import FacetMixture
from priorzoo.models.observation import encode
from priorzoo.models.plates import data_plate


class FacetCode(ModelReader):
    r""":math:`q(z \mid x) \prod_j q(r_j \mid x)`, the second optimal given the first.

    .. math:: q(r_j = k \mid x) \propto \exp\bigl(\mathbb E_{q(z_j \mid x)}
        \log [\pi_{jk}\, \mathcal N(z_j; \mu_{jk}, \sigma_{jk}^2)]\bigr)

    Falck et al., "Multi-Facet Clustering Variational Autoencoders", 2021, where the expectation is
    estimated by a draw; here it is in closed form.

    Args:
        encoder: maps rows ``(B, P)`` to locations and raw variances ``(B, 2 code)``.
        model: the :class:`FacetMixture`, whose mixtures it reads.
    """

    networks = staticmethod(encodes)

    def __init__(self, encoder: nn.Module, model: nn.Module) -> None:
        super().__init__(model)
        self.encoder = encoder

    def forward(self, x: Tensor, size: int | None = None, **context: Tensor) -> None:
        with data_plate(x, size):
            normal = diagonal_normal(encode(self.encoder, x, context)).base_dist
            count = len(cast(FacetMixture, self.model).facets)
            parts = zip(normal.loc.chunk(count, -1), normal.scale.chunk(count, -1), strict=True)
            for j, (loc, scale) in enumerate(parts, 1):
                logits = self.responsibilities(j, loc, scale)
                shares = dist.Categorical(logits=logits)
                pyro.sample(f"r_{j}", shares, infer={"enumerate": "parallel"})
                pyro.sample(f"z_{j}", dist.Normal(loc, scale).to_event(1))

    def responsibilities(self, j: int, loc: Tensor, scale: Tensor) -> Tensor:
        """Logits ``(B, K_j)`` of q(r_j | x) for q(z_j | x) with this mean and scale ``(B, D)``."""
        model = cast(FacetMixture, self.model)
        means, scales = model.facets[j - 1].components()
        distances = (loc[..., None, :] - means).square() + scale[..., None, :].square()
        score = -0.5 * distances / scales.square() - scales.log() - 0.5 * math.log(2 * math.pi)
        return model.logits[j - 1].log_softmax(-1) + score.sum(-1)
