"""The guide of the factorial mixture: encoder, responsibilities, conjugate global variables."""

from collections.abc import Sequence
from typing import Unpack

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from priorzoo.models.contract import Beside, encodes
from priorzoo.models.distributions.expected import Component
from priorzoo.models.distributions.exponential import Dirichlet, Natural, NormalGamma, conjugate
from priorzoo.models.distributions.gaussian import diagonal_normal
from priorzoo.models.factorial import factors
from priorzoo.models.observation import encode
from priorzoo.models.plates import data_plate


class FactorialCode(nn.Module):
    r""":math:`q(z \mid x) \prod_i q(r_i)\, q(\pi_i) \prod_{kd} q(\mu_{ikd}, \alpha_{ikd})`.

    The code is Gaussian. The posteriors of the global variables are in the same families as their
    priors. The responsibilities are optimal given both, eq. (5) of Paquet, Ghaisas and Tieleman,
    2018:

    .. math:: \gamma_{ik} \propto \exp\bigl(\mathbb E \log \pi_{ik} +
        \mathbb E_{q(z)} \mathbb E \log \mathcal N(z_i; \mu_{ik}, 1 / \alpha_{ik})\bigr)

    Args:
        encoder: maps rows ``(B, P)`` to locations and raw variances ``(B, 2 code)``.
        code, clusters: the same values as the model's.
        pseudo: pseudo-count of each component at initialisation, where its mean is random.
    """

    networks = staticmethod(encodes)

    def __init__(
        self,
        encoder: nn.Module,
        code: int,
        clusters: int | Sequence[int],
        pseudo: float = 10.0,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.code, self.clusters, self.pseudo = code, clusters, pseudo
        weights, components = [], []
        for _, k, d in factors(code, clusters):
            count = torch.tensor(pseudo)
            start = NormalGamma.natural(torch.randn(k, d), count, count / 2, count / 2)
            weights.append(Natural(Dirichlet.natural(count.expand(k))))
            components.append(Natural(start))
        self.weights = nn.ParameterList(weights)
        self.components = nn.ParameterList(components)
        self.unit: Tensor = nn.Buffer(torch.ones(()), persistent=False)

    def forward(self, x: Tensor, size: int | None = None, **beside: Unpack[Beside]) -> None:
        for i, (weights, components) in enumerate(self.globals(), 1):
            conjugate((f"pi_{i}",), Dirichlet, weights, self.unit)
            conjugate((f"mu_{i}", f"alpha_{i}"), NormalGamma, components, self.unit)
        self.local(x, size, **beside)

    def local(self, x: Tensor, size: int | None = None, **beside: Unpack[Beside]) -> None:
        """Sample the local sites, ``r_i`` and ``z_i`` of each row."""
        with data_plate(x, size):
            codes = self.split(diagonal_normal(encode(self.encoder, x, beside)))
            for i, q in enumerate(codes, 1):
                responsibilities = dist.Categorical(logits=self.logits(i, q))
                pyro.sample(f"r_{i}", responsibilities, infer={"enumerate": "parallel"})
                pyro.sample(f"z_{i}", q)

    def split(self, code: dist.Independent) -> list[dist.Independent]:
        """Split q(z | x) into q(z_1 | x), ..., q(z_I | x)."""
        normal, count = code.base_dist, len(self.weights)
        parts = zip(normal.loc.chunk(count, -1), normal.scale.chunk(count, -1), strict=True)
        return [dist.Normal(loc, scale).to_event(1) for loc, scale in parts]

    def logits(self, i: int, code: dist.Independent) -> Tensor:
        """Logits ``(B, K_i)`` of the responsibilities; no gradient flows to global variables."""
        weights, components = self.globals()[i - 1]
        log_pi = Dirichlet.expected_statistics(weights.detach())
        t = NormalGamma.expected_statistics(components.detach())
        parts = Component.of(t, self.unit.dtype)
        loc, variance = code.base_dist.loc[..., None, :], code.base_dist.variance[..., None, :]
        return parts.expected_score(loc, variance) + log_pi.to(self.unit.dtype)

    def globals(self) -> list[tuple[Tensor, Tensor]]:
        """Natural parameters of weights and components, for each factor."""
        return list(zip(self.weights, self.components, strict=True))


class FactorialLocal(nn.Module):
    """The local sites of a :class:`FactorialCode`, without its global variables.

    Args:
        guide: the whole guide.
    """

    def __init__(self, guide: FactorialCode) -> None:
        super().__init__()
        self.guide = guide

    def forward(self, x: Tensor, size: int | None = None, **beside: Unpack[Beside]) -> None:
        self.guide.local(x, size, **beside)
