"""The guide of the factorial mixture prior: encoder, responsibilities, conjugate globals."""

from collections.abc import Sequence

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from priorzoo.models.distributions.expected import Component
from priorzoo.models.distributions.exponential import Dirichlet, Natural, NormalGamma, conjugate
from priorzoo.models.distributions.gaussian import diagonal_normal
from priorzoo.models.factorial import FactorialMixture, factors
from priorzoo.models.plates import data_plate


class FactorialCode(nn.Module):
    r""":math:`q(z \mid x) \prod_i q(r_i)\, q(\pi_i) \prod_{kd} q(\mu_{ikd}, \alpha_{ikd})`.

    The code is Gaussian, the globals are of their priors' families, and the responsibilities are
    the optimum given both, eq. (5) of Paquet, Ghaisas and Tieleman, 2018:

    .. math:: \gamma_{ik} \propto \exp\bigl(\mathbb E \log \pi_{ik} +
        \mathbb E_{q(z)} \mathbb E \log \mathcal N(z_i; \mu_{ik}, 1 / \alpha_{ik})\bigr)

    Args:
        encoder: maps rows ``(B, P)`` to locations and raw variances ``(B, 2 code)``.
        code, clusters: as those of the model.
        pseudo: number of data that each component is worth at the start, around a random mean.
    """

    unit: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        code: int = 64,
        clusters: int | Sequence[int] = 64,
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
        self.register_buffer("unit", torch.ones(()), persistent=False)

    def forward(self, x: Tensor, size: int | None = None) -> None:
        for i, (weights, components) in enumerate(self.globals(), 1):
            conjugate((f"pi_{i}",), Dirichlet, weights, self.unit)
            conjugate((f"mu_{i}", f"alpha_{i}"), NormalGamma, components, self.unit)
        self.local(x, size)

    def local(self, x: Tensor, size: int | None = None) -> None:
        """The sites that belong to a row alone."""
        with data_plate(x, size):
            codes = self.split(diagonal_normal(self.encoder(x)))
            for i, q in enumerate(codes, 1):
                responsibilities = dist.Categorical(logits=self.logits(i, q))
                pyro.sample(f"r_{i}", responsibilities, infer={"enumerate": "parallel"})
                pyro.sample(f"z_{i}", q)

    def predictive(
        self, model: FactorialMixture, prune: bool = False
    ) -> tuple["FactorialPredictive", "FactorialLocal"]:
        """The model of a new row given the training set, and the guide of its local sites."""
        return FactorialPredictive(model, self, prune), FactorialLocal(self)

    def split(self, code: dist.Independent) -> list[dist.Independent]:
        """q(z_1 | x), ..., q(z_I | x) from q(z | x)."""
        normal, count = code.base_dist, len(self.weights)
        parts = zip(normal.loc.chunk(count, -1), normal.scale.chunk(count, -1), strict=True)
        return [dist.Normal(loc, scale).to_event(1) for loc, scale in parts]

    def logits(self, i: int, code: dist.Independent) -> Tensor:
        """Logits ``(B, K_i)`` of the responsibilities, the globals held fixed."""
        weights, components = self.globals()[i - 1]
        log_pi = Dirichlet.expected_statistics(weights.detach())
        t = NormalGamma.expected_statistics(components.detach())
        parts = Component.of(t, self.unit.dtype)
        loc, variance = code.base_dist.loc[..., None, :], code.base_dist.variance[..., None, :]
        return parts.expected_score(loc, variance) + log_pi.to(self.unit.dtype)

    def globals(self) -> list[tuple[Tensor, Tensor]]:
        """Natural parameters of weights and components, for each factor."""
        return list(zip(self.weights, self.components, strict=True))


class FactorialPredictive(nn.Module):
    r"""The story of a new row, pi, mu and alpha averaged over their posterior.

    .. math:: r_i \sim \mathrm{Cat}(c_i / \textstyle\sum_k c_{ik}), \quad z_{id} \mid r_i = k \sim
        \mathrm{StudentT}\bigl(2 a, m, \sqrt{(s + 1) / s \cdot b / a}\bigr), \quad
        x \mid z \sim p(x \mid \mathrm{decoder}(z))

    Paquet, Ghaisas and Tieleman, 2018, eq. (10), whose third argument is the squared scale. They
    draw pi and then r; of one row the distribution is the same. Any site may be conditioned.

    Args:
        model, guide: a trained :class:`FactorialMixture` and its :class:`FactorialCode`.
        prune: whether components are left out to which less than one datum was added.
    """

    def __init__(self, model: FactorialMixture, guide: FactorialCode, prune: bool = False) -> None:
        super().__init__()
        self.model, self.guide, self.prune = model, guide, prune

    def forward(self, x: Tensor | None = None, size: int | None = None) -> Tensor:
        unit, z = self.guide.unit, []
        with data_plate(x, size):
            for i, (weights, components) in enumerate(self.guide.globals(), 1):
                (counts,) = Dirichlet.usual(weights.detach())
                used = self.used(i)
                counts = counts.where(used | ~used.any(), 0.0) if self.prune else counts
                r = pyro.sample(f"r_{i}", dist.Categorical(probs=counts.to(unit.dtype)))
                m, s, a, b = NormalGamma.usual(components.detach())
                scale = ((s + 1) / s * b / a).sqrt()
                df, loc, scale = ((part.to(unit.dtype)[r]) for part in (2 * a, m, scale))
                z.append(pyro.sample(f"z_{i}", dist.StudentT(df, loc, scale).to_event(1)))
            batch = torch.broadcast_shapes(*(part.shape[:-1] for part in z))
            code = torch.cat([part.expand(*batch, -1) for part in z], -1)
            x_of = self.model.likelihood(self.model.decoder(code))
            return pyro.sample("x", x_of, obs=x)

    def used(self, i: int) -> Tensor:
        """Which of the K_i components hold at least one datum, ``(K_i,)``."""
        (counts,) = Dirichlet.usual(self.guide.weights[i - 1].detach())
        return counts - self.model.concentration >= 1


class FactorialLocal(nn.Module):
    """The sites of a :class:`FactorialCode` that belong to a row, without the globals'.

    Args:
        guide: whose sites.
    """

    def __init__(self, guide: FactorialCode) -> None:
        super().__init__()
        self.guide = guide

    def forward(self, x: Tensor, size: int | None = None) -> None:
        self.guide.local(x, size)
