"""The variational autoencoder whose prior is an NGGP mixture with an open number of clusters."""

import math
from typing import Unpack, get_args

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from priorzoo.models.contract import Beside, decodes
from priorzoo.models.likelihoods import Bernoulli
from priorzoo.models.nggp.code_families import FAMILIES, FamilyName
from priorzoo.models.nggp.law import NGGP, NextLogU
from priorzoo.models.nggp.log_u import LogU
from priorzoo.models.nggp.occupancy import Occupancy, expected_log_prior, log_prior
from priorzoo.models.observation import sample_x
from priorzoo.models.plates import data_plate

INACTIVE_LOGIT = -1e4  # of a cluster that does not exist: its probability is exactly 0


class NGGPMixture(nn.Module):
    r"""Clusters ``x`` by the mixture component of its code; the number of clusters is learnt.

    .. math:: v = \log u \mid z, \quad p(y_n = k \mid \text{others}, u) \propto n_k - \sigma, \quad
        p(y_n = \text{new} \mid \text{others}, u) \propto \alpha (u + \tau)^\sigma, \quad
        z_n \mid y_n \sim p(z \mid \eta_{y_n}), \quad x_n \sim p(x \mid z_n)

    Mehta & Lu, "Normalized Random Measure Mixture Models in Variational Autoencoders", 2018, with
    the mixture weights integrated out. The model describes one datum given the clusters of all
    others. It stores their expected cluster sizes as buffers, which ``observe`` updates during
    training; samples are drawn with these sizes. Components are Gaussian or, as in the paper,
    Dirichlet; their parameters are point estimates, not integrated out. Tensors have room for K
    clusters; the mask ``active`` marks those that exist. The last value of ``y``, y = K, is a
    cluster with this one datum, whose code is drawn from the base measure.

    Table 1 of the paper is not used as a reference: four of its five values for Fashion-MNIST equal
    averages on MNIST in Dilokthanakul et al., 2016, and two of these belong to other methods there.

    Args:
        decoder: maps codes ``(..., D)`` to the likelihood's parameters ``(..., width P)``.
        likelihood: maps these to p(x | z); :class:`Bernoulli` if None.
        code, clusters: D and K, the maximal number of clusters.
        start: initial number of clusters.
        concentration, discount, tilt: alpha, sigma and tau of :class:`NGGP`.
        breadth: width of the base measure. For Gaussian codes, its standard deviation around 0; for
            Dirichlet codes, one over the root of its concentration, so that 1 is uniform.
        family: family of the components: ``gaussian``, with independent dimensions; ``full``,
            Gaussian of any covariance; or ``dirichlet``, for codes on the simplex of D shares.
        learn_law: whether alpha and sigma are learnt, starting at the given values. Their gradient
            is that of the collapsed bound, see :class:`Collapsed`, and not of each datum's prior.
    """

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
            raise ValueError("Expected discount > 0 to learn it but got 0; start at 0.1.")
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
        self.counted = nn.Buffer(torch.zeros((), dtype=torch.int64))
        self.active = nn.Buffer(torch.arange(clusters) < start)
        share = torch.where(self.active, 1 / start, torch.zeros(clusters)) * (1 - 1 / start / 10)
        self.mean, self.variance, self.log_empty = map(nn.Buffer, Occupancy.of(share))

    @property
    def law(self) -> NGGP:
        """The process at the current alpha and sigma, in the codes' dtype, without gradients."""
        free = self.free_law
        return NGGP(free.concentration.detach(), free.discount.detach(), self.tilt)

    @property
    def free_law(self) -> NGGP:
        """The process at the current alpha and sigma, with gradients if they are learnt."""
        if self.learn_law:
            return NGGP(self.law_numbers[0].exp(), self.law_numbers[1].sigmoid(), self.tilt)
        numbers = self.mean.new_tensor([self.concentration, self.discount])
        return NGGP(numbers[0], numbers[1], self.tilt)

    def log_evidence(self, data: int) -> Tensor:
        """log p(y) of the collapsed bound for N data at the stored sizes, v integrated out."""
        return expected_log_prior(
            self.free_law, self.occupancy(data), self.alone(data), float(data)
        )

    def occupancy(self, data: int) -> Occupancy:
        """Occupancy ``(K,)`` of N data, from the stored averages per datum."""
        return Occupancy(self.mean, self.variance, self.log_empty).times(data)

    def alone(self, data: int) -> Tensor:
        """Expected number of data that are alone in their cluster (y = K)."""
        return (1 - self.mean.sum()).clamp(min=0) * data

    def law_of_v(self, data: int) -> LogU:
        """p(v | z) at the expected number of clusters."""
        occupied = self.occupancy(data).occupied.sum() + self.alone(data)
        return self.law.law_of_v(float(data), occupied.clamp(1, max(data, 1)))

    def log_prior(self, v: Tensor, data: int) -> Tensor:
        """``(..., K + 1)`` logits of a datum's cluster given the N - 1 others."""
        logits = log_prior(self.law, self.occupancy(data - 1), v)
        present = torch.cat([self.active, torch.ones_like(self.active[:1])])
        return torch.where(present, logits, INACTIVE_LOGIT)

    def law_of_v_and_next(self) -> NextLogU:
        """p(v | z) of the training data and one more datum: see :meth:`NGGP.law_of_v_and_next`."""
        data = int(self.counted)
        occupied = (self.occupancy(data).occupied.sum() + self.alone(data)).clamp(1, data)
        return self.law.law_of_v_and_next(float(data), occupied, self.joined().sum())

    def log_predictive(self, v: Tensor) -> Tensor:
        """``(..., K + 1)`` logits of the cluster of one more datum beside the training data.

        A cluster that may be empty is weighted by the probability that it is not; one more datum
        does not join data that are alone in their cluster.
        """
        new = self.law.log_new(v).unsqueeze(-1)
        tiny = torch.finfo(new.dtype).tiny
        existing = torch.where(self.active, self.joined().clamp(min=tiny).log(), INACTIVE_LOGIT)
        return torch.cat([existing.expand(*new.shape[:-1], -1), new], -1)

    def joined(self) -> Tensor:
        """``(K,)`` weights E[n_k - sigma; n_k > 0] by which one more datum joins each cluster."""
        sizes = self.occupancy(int(self.counted))
        weight = (sizes.mean - self.law.discount * sizes.occupied).clamp(min=0)
        return torch.where(self.active, weight, 0.0)

    def components(self) -> tuple[Tensor, Tensor]:
        """Means and spreads ``(K + 1, ...)`` of the components; the last is the base measure."""
        loc, scale = self.kind.components(self.loc, self.raw)
        middle, wide = self.kind.base(loc, scale, self.breadth)
        return torch.cat([loc, middle]), torch.cat([scale, wide])

    def forward(
        self, x: Tensor | None = None, size: int | None = None, **beside: Unpack[Beside]
    ) -> Tensor:
        data = max(size if size is not None else len(x if x is not None else ()), 1)
        loc, scale = self.components()
        next_one = x is None and bool(self.counted > 0)  # one more datum beside the training set
        v = pyro.sample("v", self.law_of_v_and_next() if next_one else self.law_of_v(data))
        with data_plate(x, size):
            logits = self.log_predictive(v) if next_one else self.log_prior(v, data)
            y = pyro.sample("y", dist.Categorical(logits=logits))
            z = pyro.sample("z", self.kind.component(loc[y], scale[y]))
            return sample_x(x, beside, self.likelihood, self.decoder, z)

    @torch.no_grad()
    def set_components(self, loc: Tensor, scale: Tensor, active: Tensor) -> None:
        """Set means and spreads ``(K, ...)`` of the components, and the mask of existing ones."""
        new, raw = self.kind.parameters(loc, scale)
        self.loc.copy_(new)
        self.raw.copy_(raw)
        self.active.copy_(active)

    @torch.no_grad()
    def observe(
        self,
        q: Tensor,
        rate: float = 1.0,
        data: Tensor | int | None = None,
        weights: Tensor | None = None,
    ) -> None:
        """Update the running averages of cluster sizes by q(y) of a batch, ``(B, K + 1)``.

        Args:
            q: cluster probabilities of the batch.
            rate: weight of the batch in the running averages.
            data: number N of data that the batch stands for; samples are drawn given N data.
            weights: weights of its rows, ``(B,)``, with mean 1 over the data set; 1 if None.
        """
        if data is not None:
            self.counted.copy_(torch.as_tensor(data))
        shares = Occupancy.of(q[..., :-1])
        for name, part in shares._asdict().items():
            part = part if weights is None else part * weights.unsqueeze(-1)
            getattr(self, name).lerp_(part.mean(0).to(self.mean), rate)
