"""The variational autoencoder whose clusters are a normalised random measure's."""

import math
from typing import get_args

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from priorzoo.models.contract import decodes
from priorzoo.models.likelihoods import Bernoulli
from priorzoo.models.nggp.code_families import FAMILIES, FamilyName
from priorzoo.models.nggp.law import NGGP
from priorzoo.models.nggp.log_u import LogU
from priorzoo.models.nggp.occupancy import Occupancy, expected_log_prior, log_prior
from priorzoo.models.plates import data_plate

ABSENT = -1e4  # the logit of a cluster that is not there: its probability is exactly 0


class NGGPMixture(nn.Module):
    r"""Clusters ``x`` by the atom of a random measure that produced its code; their number is open.

    .. math:: v = \log u \mid z, \quad p(y_n = k \mid \text{others}, u) \propto n_k - \sigma, \quad
        p(y_n = \text{new} \mid \text{others}, u) \propto \alpha (u + \tau)^\sigma, \quad
        z_n \mid y_n \sim p(z \mid \eta_{y_n}), \quad x_n \sim p(x \mid z_n)

    Mehta & Lu, "Normalized Random Measure Mixture Models in Variational Autoencoders", 2018, with
    the weights integrated out. The story is that of a datum among others: their expected sizes are
    the model's state, which ``observe`` keeps while it trains, and from which samples are drawn.
    Components are Gaussian or, as in the paper, Dirichlet; their parameters are learnt as numbers,
    not integrated out. Arrays have room for ``clusters``, of which ``active`` ones exist; the last
    value of ``y``, number K, is a cluster of its own, drawn from the base measure.

    Table 1 of the paper is no target: four of its five entries equal averages on MNIST, not
    Fashion-MNIST, in Dilokthanakul et al., 2016, two of which are other methods there.

    Args:
        decoder: maps codes ``(..., D)`` to the likelihood's parameters ``(..., width P)``.
        likelihood: maps these to p(x | z); :class:`Bernoulli` if None.
        code, clusters: D and the room K.
        start: number of clusters at first.
        concentration, discount, tilt: alpha, sigma and tau of :class:`NGGP`.
        breadth: of the base measure: standard deviation around 0, or one over the root of the
            concentration in each dimension, so that 1 is the uniform law.
        family: of the components, ``gaussian`` of independent dimensions, ``full``, Gaussian of
            any covariance, or ``dirichlet``, of codes on the simplex of D shares.
        learn_law: whether alpha and sigma are learnt, from where they stand; by the collapsed
            bound, see :class:`Collapsed`, and not by the predictive law of each datum.
    """

    mean: Tensor
    variance: Tensor
    log_empty: Tensor
    active: Tensor
    counted: Tensor
    law_numbers: Tensor
    networks = staticmethod(decodes)

    def __init__(
        self,
        decoder: nn.Module,
        likelihood: nn.Module | None = None,
        code: int = 10,
        clusters: int = 64,
        start: int = 5,
        concentration: float = 1.0,
        discount: float = 0.25,
        tilt: float = 1.0,
        breadth: float = 1.0,
        family: FamilyName = "gaussian",
        learn_law: bool = False,
    ) -> None:
        super().__init__()
        if family not in get_args(FamilyName):
            raise ValueError(f"Expected family among {get_args(FamilyName)} but got {family!r}.")
        if not 1 <= start <= clusters:
            raise ValueError(f"Expected 1 to {clusters} clusters at the start but got {start}.")
        if not (concentration > 0 and 0 <= discount < 1 and tilt >= 0 and tilt + discount > 0):
            raise ValueError(
                "Expected concentration > 0, 0 <= discount < 1 and tilt >= 0, not both of these 0, "
                f"but got {concentration}, {discount} and {tilt}."
            )
        if learn_law and not discount > 0:
            raise ValueError("Expected discount > 0 to learn it from but got 0; begin at 0.1.")
        self.decoder = decoder
        self.likelihood = Bernoulli() if likelihood is None else likelihood
        self.code, self.clusters, self.start = code, clusters, start
        self.concentration, self.discount, self.tilt = concentration, discount, tilt
        self.breadth, self.family, self.learn_law = breadth, family, learn_law
        self.kind = FAMILIES[family]
        bound = math.sqrt(6 / (start + code))
        self.loc = nn.Parameter(torch.empty(clusters, code).uniform_(-bound, bound))
        self.raw = nn.Parameter(torch.zeros(clusters, *self.kind.raw(code)))
        if learn_law:
            odds = math.log(discount / (1 - discount))
            self.law_numbers = nn.Parameter(torch.tensor([math.log(concentration), odds]))
        self.register_buffer("counted", torch.zeros((), dtype=torch.int64))
        self.register_buffer("active", torch.arange(clusters) < start)
        share = torch.where(self.active, 1 / start, torch.zeros(clusters)) * (1 - 1 / start / 10)
        for name, part in Occupancy.of(share)._asdict().items():
            self.register_buffer(name, part)

    @property
    def law(self) -> NGGP:
        """The process, of the same type as the codes, its numbers as they stand."""
        free = self.free_law
        return NGGP(free.concentration.detach(), free.discount.detach(), self.tilt)

    @property
    def free_law(self) -> NGGP:
        """The process, with gradients for what is learnt of it."""
        if self.learn_law:
            return NGGP(self.law_numbers[0].exp(), self.law_numbers[1].sigmoid(), self.tilt)
        numbers = self.mean.new_tensor([self.concentration, self.discount])
        return NGGP(numbers[0], numbers[1], self.tilt)

    def log_evidence(self, data: int) -> Tensor:
        """The collapsed bound's log p(y) of so many data at the state's sizes, v integrated out."""
        return expected_log_prior(
            self.free_law, self.occupancy(data), self.alone(data), float(data)
        )

    def occupancy(self, data: int) -> Occupancy:
        """Of so many data, of each of which the state holds the mean share, ``(K,)``."""
        return Occupancy(self.mean, self.variance, self.log_empty).times(data)

    def alone(self, data: int) -> Tensor:
        """Expected number of data in clusters of their own."""
        return (1 - self.mean.sum()).clamp(min=0) * data

    def law_of_v(self, data: int) -> LogU:
        """p(v | z) at the expected number of clusters."""
        occupied = self.occupancy(data).occupied.sum() + self.alone(data)
        return self.law.law_of_v(float(data), occupied.clamp(1, max(data, 1)))

    def log_prior(self, v: Tensor, data: int) -> Tensor:
        """``(..., K + 1)`` logits of a datum's cluster among data - 1 others."""
        logits = log_prior(self.law, self.occupancy(data - 1), v)
        present = torch.cat([self.active, torch.ones_like(self.active[:1])])
        return torch.where(present, logits, ABSENT)

    def components(self) -> tuple[Tensor, Tensor]:
        """Means and spreads ``(K + 1, ...)`` in the code's family, the base measure's last."""
        loc, scale = self.kind.components(self.loc, self.raw)
        middle, wide = self.kind.base(loc, scale, self.breadth)
        return torch.cat([loc, middle]), torch.cat([scale, wide])

    def forward(self, x: Tensor | None = None, size: int | None = None) -> Tensor:
        data = size if size is not None else len(x if x is not None else ())
        if x is None and self.counted > 0:  # one more among those that were counted
            data = int(self.counted) + 1
        loc, scale = self.components()
        v = pyro.sample("v", self.law_of_v(max(data, 1)))
        with data_plate(x, size):
            y = pyro.sample("y", dist.Categorical(logits=self.log_prior(v, max(data, 1))))
            z = pyro.sample("z", self.kind.component(loc[y], scale[y]))
            return pyro.sample("x", self.likelihood(self.decoder(z)), obs=x)

    @torch.no_grad()
    def place(self, loc: Tensor, scale: Tensor, active: Tensor) -> None:
        """Put components, means and spreads ``(K, ...)``, and say which of them are there."""
        placed, raw = self.kind.parameters(loc, scale)
        self.loc.copy_(placed)
        self.raw.copy_(raw)
        self.active.copy_(active)

    @torch.no_grad()
    def observe(self, q: Tensor, rate: float = 1.0, data: Tensor | int | None = None) -> None:
        """Move the state towards the mean share of data with probabilities ``(B, K + 1)``.

        Rows are sampled from the prior as one more among the ``data`` that these stand for.
        """
        if data is not None:
            self.counted.copy_(torch.as_tensor(data))
        shares = Occupancy.of(q[..., :-1])
        for name, part in shares._asdict().items():
            getattr(self, name).lerp_(part.mean(0).to(self.mean), rate)
