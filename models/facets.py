"""The variational autoencoder with several partitions of the data, each by a mixture of its own."""

from collections.abc import Sequence
from typing import Unpack, cast

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from priorzoo.models.components import Components
from priorzoo.models.contract import Beside, decodes
from priorzoo.models.factorial import factors
from priorzoo.models.joining import side_by_side
from priorzoo.models.likelihoods import Bernoulli
from priorzoo.models.observation import sample_x
from priorzoo.models.plates import data_plate


class FacetMixture(nn.Module):
    r"""Splits the code of ``x`` into J facets, each with a Gaussian mixture of its own as prior.

    .. math:: r_j \sim \mathrm{Cat}(\pi_j), \quad
        z_j \mid r_j = k \sim \mathcal N(\mu_{jk}, \sigma_{jk}^2), \quad
        x \mid z \sim p(x \mid \mathrm{decoder}([z_1, \dots, z_J]))

    MFCVAE: Falck et al., "Multi-Facet Clustering Variational Autoencoders", 2021. Sites are
    ``r_j``, ``z_j`` and ``x``, j from 1, as in a :class:`FactorialMixture`; weights, means and
    variances are parameters here, where the other has posteriors of them. With J = 1 it is VaDE.

    Args:
        decoder: maps codes ``(..., code)`` to the likelihood's parameters ``(..., width P)``.
        likelihood: maps these to p(x | z); :class:`Bernoulli` if None.
        code: total size of all z_j.
        clusters: K_1, ..., K_J; the code is divided equally among them. One number for J = 1.

    Raises:
        ValueError: for a code that cannot be shared equally.
    """

    networks = staticmethod(decodes)

    def __init__(
        self,
        decoder: nn.Module,
        likelihood: nn.Module | None = None,
        code: int = 10,
        clusters: int | Sequence[int] = (25, 25),
    ) -> None:
        super().__init__()
        self.decoder = decoder
        self.likelihood = Bernoulli() if likelihood is None else likelihood
        self.code, self.clusters = code, clusters
        sizes = [(k, d) for _, k, d in factors(code, clusters)]
        self.mixtures = nn.ModuleList(Components(d, k) for k, d in sizes)
        self.logits = nn.ParameterList(torch.zeros(k) for k, _ in sizes)

    @property
    def facets(self) -> list[Components]:
        """The components of each facet."""
        return [cast(Components, facet) for facet in self.mixtures]

    def forward(
        self, x: Tensor | None = None, size: int | None = None, **beside: Unpack[Beside]
    ) -> Tensor:
        with data_plate(x, size):
            z = []
            for j, (logits, facet) in enumerate(zip(self.logits, self.facets, strict=True), 1):
                r = pyro.sample(f"r_{j}", dist.Categorical(logits=logits))
                z.append(pyro.sample(f"z_{j}", facet.component(r)))
            code = side_by_side(z)
            return sample_x(x, beside, self.likelihood, self.decoder, code)
