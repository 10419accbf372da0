"""The variational autoencoder whose prior is a product of Gaussian mixtures."""

from collections.abc import Sequence
from typing import Protocol, Unpack

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from priorzoo.models.contract import Beside, decodes
from priorzoo.models.distributions.expected import Choice, Component, DiagonalComponent
from priorzoo.models.distributions.exponential import Dirichlet, NormalGamma, conjugate
from priorzoo.models.joining import side_by_side
from priorzoo.models.likelihoods import Bernoulli
from priorzoo.models.observation import sample_x
from priorzoo.models.plates import data_plate


class FactorialMixture(nn.Module):
    r"""Splits the code of ``x`` into I parts, each with a Gaussian mixture of its own as prior.

    .. math:: \pi_i \sim \mathrm{Dir}(c), \quad \alpha_{ikd} \sim \mathrm{Gamma}(a, b), \quad
        \mu_{ikd} \mid \alpha_{ikd} \sim \mathcal N(m, 1 / (s \alpha_{ikd}))

    .. math:: r_i \sim \mathrm{Cat}(\pi_i), \quad
        z_i \mid r_i = k \sim \mathcal N(\mu_{ik}, 1 / \alpha_{ik}), \quad
        x \mid z \sim p(x \mid \mathrm{decoder}([z_1, \dots, z_I]))

    Paquet, Ghaisas and Tieleman, "A Factorial Mixture Prior for Compositional Deep Generative
    Models", 2018, eq. (2). With I = 1 it is the structured VAE of Johnson et al., 2016, with a
    Gaussian mixture, and with points in place of pi, mu and alpha it is VaDE (Jiang et al., 2017).

    Sites are ``pi_i``, ``mu_i`` and ``alpha_i`` (global), ``r_i``, ``z_i`` and ``x``, i from 1.

    Args:
        decoder: maps codes ``(..., code)`` to the likelihood's parameters ``(..., width P)``.
        likelihood: maps these to p(x | z); :class:`Bernoulli` if None.
        code: total size of all z_i, D I in the paper.
        clusters: K_1, ..., K_I; the code is divided equally among them. One number for I = 1.
        concentration: c.
        mean, count, shape, rate: m, s, a and b.

    Raises:
        ValueError: for a code that cannot be shared equally.
    """

    networks = staticmethod(decodes)

    def __init__(
        self,
        decoder: nn.Module,
        likelihood: nn.Module | None = None,
        code: int = 64,
        clusters: int | Sequence[int] = 64,
        concentration: float = 1.0,
        mean: float = 0.0,
        count: float = 1.0,
        shape: float = 0.01,
        rate: float = 0.01,
    ) -> None:
        super().__init__()
        self.decoder = decoder
        self.likelihood = Bernoulli() if likelihood is None else likelihood
        self.code, self.clusters = code, clusters
        self.concentration, self.mean, self.count = concentration, mean, count
        self.shape, self.rate = shape, rate
        factors(code, clusters)
        self.unit = nn.Buffer(torch.ones(()), persistent=False)

    def forward(
        self, x: Tensor | None = None, size: int | None = None, **beside: Unpack[Beside]
    ) -> Tensor:
        mixtures = [self._mixture(i, k, d) for i, k, d in factors(self.code, self.clusters)]
        with data_plate(x, size):
            z = []
            for i, (weights, components) in enumerate(mixtures, 1):
                r = pyro.sample(f"r_{i}", Choice(weights))
                z.append(pyro.sample(f"z_{i}", DiagonalComponent(components.at(r), 1)))
            code = side_by_side(z)
            return sample_x(x, beside, self.likelihood, self.decoder, code)

    def _mixture(self, i: int, clusters: int, size: int) -> tuple[Tensor, Component]:
        """Log weights ``(..., K)`` and components ``(..., K, D)``, drawn or expected."""
        weights, components = self.priors(clusters, size)
        log_pi = conjugate((f"pi_{i}",), Dirichlet, weights, self.unit)
        t = conjugate((f"mu_{i}", f"alpha_{i}"), NormalGamma, components, self.unit)
        dtype = self.unit.dtype
        # A global variable gets a dimension of length 1 where local variables have the data plate.
        return log_pi.to(dtype), Component.of(t, dtype)

    def priors(self, clusters: int, size: int) -> tuple[Tensor, Tensor]:
        """Natural parameters ``(K,)`` of the weights and ``(K, D, 4)`` of the components."""
        unit = self.unit.double()
        parts = [unit * value for value in (self.mean, self.count, self.shape, self.rate)]
        weights = Dirichlet.natural((unit * self.concentration).expand(clusters))
        return weights, NormalGamma.natural(*parts).expand(clusters, size, 4)


class FactorPosterior(Protocol):
    """A posterior over the global variables of a :class:`FactorialMixture`."""

    unit: Tensor

    def globals(self) -> list[tuple[Tensor, Tensor]]:
        """Natural parameters ``(K_i,)`` of weights and ``(K_i, D, 4)`` of components, by factor."""


class FactorialPredictive(nn.Module):
    r"""The predictive model of a new row: pi, mu and alpha averaged over their posterior.

    .. math:: r_i \sim \mathrm{Cat}(c_i / \textstyle\sum_k c_{ik}), \quad z_{id} \mid r_i = k \sim
        \mathrm{StudentT}\bigl(2 a, m, \sqrt{(s + 1) / s \cdot b / a}\bigr), \quad
        x \mid z \sim p(x \mid \mathrm{decoder}(z))

    Paquet, Ghaisas and Tieleman, 2018, eq. (10), whose third argument is the squared scale. They
    draw pi and then r, which gives one row the same distribution. Any site may be conditioned.

    Args:
        model: a trained :class:`FactorialMixture`.
        guide: its posterior over pi, mu and alpha, such as a :class:`FactorialCode`.
        prune: whether to leave out components that hold less than one datum.
    """

    def __init__(
        self, model: FactorialMixture, guide: FactorPosterior, prune: bool = False
    ) -> None:
        super().__init__()
        self.model, self.guide, self.prune = model, guide, prune

    def forward(
        self, x: Tensor | None = None, size: int | None = None, **beside: Unpack[Beside]
    ) -> Tensor:
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
            code = side_by_side(z)
            return sample_x(x, beside, self.model.likelihood, self.model.decoder, code)

    def used(self, i: int) -> Tensor:
        """Mask ``(K_i,)`` of the components that hold at least one datum."""
        weights, _ = self.guide.globals()[i - 1]
        (counts,) = Dirichlet.usual(weights.detach())
        return counts - self.model.concentration >= 1


def factors(code: int, clusters: int | Sequence[int]) -> list[tuple[int, int, int]]:
    """The triples (i, K_i, D) of the factors, i from 1.

    Raises:
        ValueError: for a code that cannot be shared equally.
    """
    counts = [clusters] if isinstance(clusters, int) else list(clusters)
    if not counts or code % len(counts):
        raise ValueError(
            f"Expected a code that {len(counts)} factors share equally but got {code}; "
            "give a multiple of the number of factors."
        )
    return [(i, k, code // len(counts)) for i, k in enumerate(counts, 1)]
