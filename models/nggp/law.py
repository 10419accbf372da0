"""The distribution of partitions under a normalised generalised gamma process (NGGP)."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor

from priorzoo.models.nggp.log_u import LogU


class NextLogU(dist.MixtureSameFamily):
    """The law of V = log U of n data and the next one, which may join a cluster or begin one.

    Args:
        laws: p(v) given n + 1 data in K and in K + 1 clusters, of batch shape ``(2,)``.
        log_weights: ``(2,)`` log probabilities that the next datum joins a cluster and that it
            begins one, each without the normaliser of its law.
    """

    support = constraints.real  # instead of MixtureSameFamily's own constraint, which wraps it

    def __init__(self, laws: LogU, log_weights: Tensor) -> None:
        choice = dist.Categorical(logits=log_weights + laws.log_normaliser, validate_args=False)
        super().__init__(choice, laws, validate_args=False)


@dataclass(frozen=True)
class NGGP:
    r"""Normalised generalised gamma process, with the mixture weights integrated out.

    The weights are the jumps of a random measure with Lévy intensity

    .. math:: \rho(dw) = \frac{\alpha}{\Gamma(1-\sigma)} w^{-1-\sigma} e^{-\tau w} dw

    divided by their sum. With V = log U, a partition of n data into K clusters of sizes n_k has

    .. math:: p(z_{1..n}, v) = \frac{e^{nv} e^{-\psi(e^v)}}{\Gamma(n) (e^v + \tau)^{n - \sigma K}}
        \left(\frac{\alpha}{\Gamma(1-\sigma)}\right)^K \prod_k \Gamma(n_k - \sigma)

    James, Lijoi & Prünster, "Posterior Analysis for Normalized Random Measures with Independent
    Increments", 2009; Favaro & Teh, "MCMC for Normalized Random Measure Mixture Models", 2013.
    Special cases: the Dirichlet process at sigma = 0 (here a smooth limit), the sigma-stable
    process at tau = 0, the normalised inverse Gaussian process at sigma = 1/2. As (alpha, tau) and
    (alpha c^sigma, tau / c) are the same process, tau = 1 covers every case except tau = 0.

    Cluster sizes are rows ``(..., K)``; entries of 0 are not clusters. Log probabilities are in
    nats.

    Args:
        concentration, discount: alpha > 0 and 0 <= sigma < 1, numbers or 0-dimensional tensors,
            which may require gradients.
        tilt: tau >= 0; above 0 if sigma is 0.
    """

    concentration: Tensor
    discount: Tensor
    tilt: float = 1.0

    def __post_init__(self) -> None:
        for name in ("concentration", "discount"):
            value = getattr(self, name)
            if not isinstance(value, Tensor):
                object.__setattr__(self, name, torch.tensor(float(value)))

    def law_of_v(self, data: Tensor | float, occupied: Tensor | float) -> LogU:
        """p(v | z), which depends only on n and K."""
        return LogU(data, occupied, self.concentration, self.discount, self.tilt, False)

    def law_of_v_and_next(self, data: Tensor | float, occupied: Tensor, joined: Tensor) -> NextLogU:
        """p(v | z_1..n), where u is that of n + 1 data and the cluster of the last is unknown.

        Given a draw of v, the next datum is in cluster k with probability proportional to n_k -
        sigma, and in a new one to exp(:meth:`log_new`): on average these are :meth:`predictive`.

        Args:
            data, occupied: n and K, 0-dimensional.
            joined: the sum of n_k - sigma over the clusters that can be joined, 0-dimensional.
        """
        laws = self.law_of_v(data + 1, torch.stack([occupied, occupied + 1]))
        weights = torch.stack([joined, self.concentration.to(joined)])
        return NextLogU(laws, weights.clamp(min=torch.finfo(weights.dtype).tiny).log())

    def log_joint(self, sizes: Tensor, v: Tensor) -> Tensor:
        """log p(z, v) of sizes ``(..., K)`` and ``v`` of shape ``(...)``."""
        law, wide, data, occupied = self._in_float64(sizes)
        found = law.law_of_v(data, occupied).energy(v.double()) + law._rest(wide, data, occupied)
        return found.to(sizes.dtype)

    def log_probability(self, sizes: Tensor) -> Tensor:
        """log p(z) of the partition: the joint with v integrated out by quadrature."""
        law, wide, data, occupied = self._in_float64(sizes)
        found = law.law_of_v(data, occupied).log_normaliser + law._rest(wide, data, occupied)
        return found.to(sizes.dtype)

    def _in_float64(self, sizes: Tensor) -> tuple["NGGP", Tensor, Tensor, Tensor]:
        """The process, sizes, n and K in float64, since terms of the order of n log n cancel."""
        law = NGGP(self.concentration.double(), self.discount.double(), self.tilt)
        return law, sizes.double(), sizes.double().sum(-1), (sizes > 0).sum(-1).double()

    def _rest(self, sizes: Tensor, data: Tensor, occupied: Tensor) -> Tensor:
        """The terms of log p(z, v) that do not depend on v."""
        each = torch.where(sizes > 0, torch.lgamma(sizes.clamp(min=1) - self.discount), 0.0)
        return occupied * self.log_birth - torch.lgamma(data) + each.sum(-1)

    @property
    def log_birth(self) -> Tensor:
        r""":math:`\log \alpha - \log \Gamma(1 - \sigma)`, the factor of each occupied cluster."""
        return self.concentration.log() - torch.lgamma(1 - self.discount)

    def log_new(self, v: Tensor) -> Tensor:
        r""":math:`\log \alpha + \sigma \log(u + \tau)`, the weight of a new cluster given u.

        The weight of an occupied cluster is n_k - sigma. (Mehta & Lu, 2018, eq. (7), have u - tau
        in place of u + tau.)
        """
        tilt = v.new_tensor(self.tilt).log()
        return self.concentration.log() + self.discount * torch.logaddexp(v, tilt)

    def log_share(self, data: Tensor | float, occupied: Tensor | float) -> Tensor:
        r"""log V(n, K), with :math:`p(z) = V(n, K) \prod_k \Gamma(n_k-\sigma) / \Gamma(1-\sigma)`.

        V(n, K) = (n - sigma K) V(n + 1, K) + V(n + 1, K + 1), by the rule of total probability.
        """
        law = self.law_of_v(data, occupied)
        return law.log_normaliser - torch.lgamma(law.data) + law.occupied * self.concentration.log()

    def predictive(self, sizes: Tensor) -> Tensor:
        """``(..., K + 1)`` probabilities of the next datum's cluster; the last is a new cluster."""
        law, wide, data, occupied = self._in_float64(sizes)
        now = law.log_share(data, occupied)
        joined = (law.log_share(data + 1, occupied) - now).exp()
        fresh = (law.log_share(data + 1, occupied + 1) - now).exp()
        old = torch.where(wide > 0, wide - law.discount, 0.0) * joined.unsqueeze(-1)
        return torch.cat([old, fresh.unsqueeze(-1)], -1).to(sizes.dtype)

    def cluster_law(self, data: int, most: int | None = None) -> Tensor:
        """``(most,)`` log probabilities of K = 1, 2, ... clusters of n data; up to n by default.

        log P(K) = log V(n, K) + log S(n, K), where S are generalised Stirling numbers:
        S(m + 1, K) = S(m, K - 1) + (m - sigma K) S(m, K). Time is proportional to n ``most``.
        """
        most = data if most is None else min(most, data)
        law, k, *_ = self._in_float64(torch.arange(1, most + 1))
        *_, stirling = law._log_stirling(data, k)
        return (law.log_share(torch.tensor(float(data)), k) + stirling).to(self.discount.dtype)

    def _log_stirling(self, data: int, k: Tensor) -> Iterator[Tensor]:
        """log S(m, K) at all K in ``k``, for m = 1 to n."""
        stirling = torch.where(k == 1, 0.0, -math.inf)
        first = torch.tensor([-math.inf], dtype=k.dtype)
        yield stirling
        for m in range(1, data):
            stay = (m - self.discount * k).clamp(min=0).log() + stirling
            stirling = torch.logaddexp(stay, torch.cat([first, stirling[:-1]]))
            yield stirling

    def simulate(self, data: int, size: int) -> Tensor:
        """``(size, n)`` independent partitions from the prior, as labels in order of appearance.

        First K is drawn by :meth:`cluster_law`. Then, from the last datum to the first, it is drawn
        which data begin a cluster: the last of m data in K clusters does with probability
        S(m - 1, K - 1) / S(m, K). The others join a cluster with probability proportional to
        n_k - sigma. (The weights n_k - sigma and alpha (u + tau)^sigma cannot be used to draw the
        next datum given the u of the data before it, since u must count that datum too.)
        """
        k = torch.arange(1, data + 1, dtype=self.discount.dtype)
        stirling = torch.stack(list(self._log_stirling(data, k)))
        law = self.log_share(torch.tensor(float(data)), k) + stirling[-1]
        place = torch.multinomial(law.softmax(-1), size, replacement=True)
        fresh = torch.zeros(size, data, dtype=torch.int64)
        fresh[:, 0] = 1
        for m in range(data - 1, 0, -1):
            before = torch.where(place > 0, stirling[m - 1][place - 1], -math.inf)
            fresh[:, m] = torch.bernoulli((before - stirling[m][place]).exp().clamp(max=1)).long()
            place = place - fresh[:, m]
        return self._seat(fresh)

    def _seat(self, fresh: Tensor) -> Tensor:
        """Labels ``(size, n)`` of data; ``fresh`` marks those that begin a cluster."""
        labels = fresh.cumsum(-1) - 1
        sizes = torch.zeros(labels.shape, dtype=self.discount.dtype)
        sizes[:, 0] = 1
        rows = torch.arange(len(labels))
        for m in range(1, labels.shape[1]):
            joined = torch.multinomial((sizes - self.discount).clamp(min=0), 1)[:, 0]
            labels[:, m] = torch.where(fresh[:, m] == 1, labels[:, m], joined)
            sizes[rows, labels[:, m]] += 1
        return labels

    def weights(self, sizes: Tensor, v: Tensor) -> Tensor:
        """A draw ``(..., K + 1)`` of the weights of the occupied clusters given z and u.

        The draws are exact, without truncation: Gamma(n_k - sigma, rate u + tau). The last entry is
        the expected sum of all other weights, alpha (u + tau)^(sigma - 1). They do not sum to 1.
        """
        log_rate = torch.logaddexp(v, v.new_tensor(self.tilt).log())
        shape = torch.where(sizes > 0, sizes - self.discount, 1.0)
        jumps = torch.where(sizes > 0, torch._standard_gamma(shape), 0.0)
        rest = (self.concentration.log() + (self.discount - 1) * log_rate).exp()
        return torch.cat([jumps / log_rate.exp().unsqueeze(-1), rest.unsqueeze(-1)], -1)
