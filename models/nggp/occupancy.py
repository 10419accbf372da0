"""The prior of clusters with the mixture weights integrated out, in expectation under q(y)."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from priorzoo.models.nggp.law import NGGP

ERRORS = {0.0: 0.04, 0.25: 0.05, 0.5: 0.1, 0.75: 0.25, 0.9: 0.9, 0.95: 2.1, 0.99: 12.0}
"""Bounds of the error of :meth:`Occupancy.expect` in nats, by sigma."""


class Occupancy(NamedTuple):
    r"""Moments of the cluster sizes n_k when each datum's cluster is drawn from its q(z_n).

    ``mean`` and ``variance`` of n_k, and ``log_empty``, the log probability that n_k = 0, all
    ``(..., K)``. All three are sums over data, so that they can be added up, and scaled to a larger
    data set.
    """

    mean: Tensor
    variance: Tensor
    log_empty: Tensor

    @classmethod
    def of(cls, q: Tensor) -> "Occupancy":
        """The terms of each datum, from cluster probabilities ``(..., K)``; not yet summed."""
        limit = 1 - torch.finfo(q.dtype).eps
        return cls(q, q * (1 - q), (-q.clamp(max=limit)).log1p())

    def sum(self) -> "Occupancy":
        """Sum over data, the first dimension."""
        return Occupancy(*(part.sum(0) for part in self))

    def plus(self, part: "Occupancy") -> "Occupancy":
        """The occupancy with the data of ``part`` too."""
        return Occupancy(*(whole + more for whole, more in zip(self, part, strict=True)))

    def without(self, part: "Occupancy") -> "Occupancy":
        """The occupancy without the data of ``part``."""
        return Occupancy(*(whole - less for whole, less in zip(self, part, strict=True)))

    def times(self, factor: float) -> "Occupancy":
        """The occupancy of ``factor`` times as many data with the same q."""
        return Occupancy(*(part * factor for part in self))

    @property
    def occupied(self) -> Tensor:
        """P(n_k > 0); their sum over k is E[K]."""
        return -self.log_empty.clamp(max=0).expm1()

    def expect(
        self, f: Callable[[Tensor], Tensor], curvature: Callable[[Tensor], Tensor]
    ) -> Tensor:
        r"""E[f(n_k); n_k > 0], by a second-order Taylor expansion at the mean of n_k given n_k > 0.

        .. math:: P_+ [f(E_+) + f''(E_+) V_+ / 2], \quad E_+ = E / P_+, \quad
            V_+ = V / P_+ - (1 - P_+) E_+^2

        Both the prior of a datum and the collapsed bound use it. It differs from Mehta & Lu, 2018,
        eq. (7), whose log(1 - Var) is undefined when the variance reaches 1.

        For log(n - sigma) and lgamma(n - sigma) the error of a cluster is at most :data:`ERRORS` of
        sigma, in nats: 0.05 at 0.25, but 2.1 at 0.95. It is that large only for small clusters:
        from an expected size of 8 it is below 0.04, and from 16 below 0.01, for any sigma.
        :func:`exact_log_prior` is exact, but needs more statistics of the data than these three.
        """
        chance = self.occupied
        some = chance.clamp(min=torch.finfo(chance.dtype).tiny)
        mean = (self.mean / some).clamp(min=1)
        variance = (self.variance / some - (1 - chance) * mean.square()).clamp(min=0)
        return chance * (f(mean) + curvature(mean) * variance / 2)

    def expect_log_gamma(self, discount: Tensor) -> Tensor:
        """``(..., K)``: E[lgamma(n_k - sigma); n_k > 0], by :meth:`expect`."""
        return self.expect(
            lambda n: torch.lgamma(n - discount), lambda n: torch.polygamma(1, n - discount)
        )


def log_prior(law: NGGP, others: Occupancy, v: Tensor) -> Tensor:
    r"""``(..., K + 1)``: E[log p(z_n = k | others, u)] of each cluster k and of a new one.

    Unnormalised. It is log(n_k - sigma) if other data are in the cluster, averaged over n_k, and
    log alpha + sigma log(u + tau) if not. The latter is also the last entry, a new cluster. The
    average is a Taylor expansion; :meth:`Occupancy.expect` gives bounds of its error.

    Args:
        law: the process.
        others: occupancy of all data except n, ``(..., K)``.
        v: log u, ``(...)``.
    """
    new = law.log_new(v).unsqueeze(-1)
    joined = others.expect(
        lambda n: (n - law.discount).log(), lambda n: -(n - law.discount).pow(-2)
    )
    held = joined + (1 - others.occupied) * new
    return torch.cat([held, new.expand(*held.shape[:-1], 1)], -1)


def expected_log_joint(
    law: NGGP, sizes: Occupancy, alone: Tensor, data: float, v: Tensor
) -> Tensor:
    """E_q[log p(z_1..n, v)], up to the Taylor expansion exactly linear in each q(z_n).

    Args:
        law: the process.
        sizes: occupancy of all data, ``(K,)``.
        alone: expected number of data that are alone in their cluster, 0-dimensional.
        data: n.
        v: log u, ``(...)``.
    """
    known = sizes.expect_log_gamma(law.discount)
    occupied = sizes.occupied.sum(-1) + alone
    held = known.sum(-1) + alone * torch.lgamma(1 - law.discount)
    constant = torch.lgamma(torch.as_tensor(float(data)).to(held))
    return law.law_of_v(data, occupied).energy(v) + occupied * law.log_birth + held - constant


def expected_log_prior(law: NGGP, sizes: Occupancy, alone: Tensor, data: float) -> Tensor:
    """:func:`expected_log_joint` with v integrated out: at the optimal q(v), plus its entropy."""
    occupied = sizes.occupied.sum(-1) + alone
    q = law.law_of_v(data, occupied)
    middle = q.mean.detach()
    return expected_log_joint(law, sizes, alone, data, middle) - q.log_prob(middle)
