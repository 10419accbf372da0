"""The prior of cluster assignments with the weights integrated out, in expectation over guesses."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from priorzoo.models.nggp.law import NGGP


class Occupancy(NamedTuple):
    r"""What is known of the sizes n_k when each datum chooses its cluster by its own q(z_n).

    ``mean`` and ``variance`` of n_k, and ``log_empty``, the log probability that n_k = 0, all
    ``(..., K)``. Sums over data, and so additive and scalable to a larger data set.
    """

    mean: Tensor
    variance: Tensor
    log_empty: Tensor

    @classmethod
    def of(cls, q: Tensor) -> "Occupancy":
        """The share of a datum with probabilities ``(..., K)``, or of several, to be summed."""
        limit = 1 - torch.finfo(q.dtype).eps
        return cls(q, q * (1 - q), (-q.clamp(max=limit)).log1p())

    def sum(self) -> "Occupancy":
        """Over data, the first dimension."""
        return Occupancy(*(part.sum(0) for part in self))

    def without(self, part: "Occupancy") -> "Occupancy":
        """Less some of the data."""
        return Occupancy(*(whole - less for whole, less in zip(self, part, strict=True)))

    def times(self, factor: float) -> "Occupancy":
        """As many data of the same kind."""
        return Occupancy(*(part * factor for part in self))

    @property
    def occupied(self) -> Tensor:
        """P(n_k > 0); their sum over k is E[K]."""
        return -self.log_empty.clamp(max=0).expm1()

    def expect(
        self, f: Callable[[Tensor], Tensor], curvature: Callable[[Tensor], Tensor]
    ) -> Tensor:
        r"""E[f(n_k); n_k > 0], by Taylor's expansion of order 2 at the mean of the n_k > 0.

        .. math:: P_+ [f(E_+) + f''(E_+) V_+ / 2], \quad E_+ = E / P_+, \quad
            V_+ = V / P_+ - (1 - P_+) E_+^2

        Prior term and bound both go through here. Unlike in Mehta & Lu, 2018, eq. (7), whose
        log(1 - Var) does not exist once the variance reaches 1.
        """
        chance = self.occupied
        some = chance.clamp(min=torch.finfo(chance.dtype).tiny)
        mean = (self.mean / some).clamp(min=1)
        variance = (self.variance / some - (1 - chance) * mean.square()).clamp(min=0)
        return chance * (f(mean) + curvature(mean) * variance / 2)


def log_prior(law: NGGP, others: Occupancy, v: Tensor) -> Tensor:
    r"""``(..., K + 1)``: E[log p(z_n = k | others, u)], for each k and a new cluster, unnormalised.

    E[log(n_k - sigma)] where the cluster holds others, log alpha + sigma log(u + tau) where it does
    not; the latter for a datum that stays alone as well, last.

    Args:
        law: the process.
        others: of the data but n, ``(..., K)``.
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
    """E_q[log p(z_1..n, v)], exactly linear in each q(z_n) but for Taylor's expansion.

    Args:
        law: the process.
        sizes: of all data, ``(K,)``.
        alone: expected number of data that are clusters of their own, 0-dimensional.
        data: n.
        v: log u, ``(...)``.
    """
    known = sizes.expect(
        lambda n: torch.lgamma(n - law.discount), lambda n: torch.polygamma(1, n - law.discount)
    )
    occupied = sizes.occupied.sum(-1) + alone
    held = known.sum(-1) + alone * torch.lgamma(1 - law.discount)
    constant = torch.lgamma(torch.as_tensor(float(data)).to(held))
    return law.law_of_v(data, occupied).energy(v) + occupied * law.log_birth + held - constant


def expected_log_prior(law: NGGP, sizes: Occupancy, alone: Tensor, data: float) -> Tensor:
    """The same with the best q(v), whose entropy is added: log of the integral over v."""
    occupied = sizes.occupied.sum(-1) + alone
    q = law.law_of_v(data, occupied)
    middle = q.mean.detach()
    return expected_log_joint(law, sizes, alone, data, middle) - q.log_prob(middle)
