"""Exact expectations of log p(z) over uncertain cluster sizes, computed from sums over data."""

import math

import torch
from torch import Tensor

from priorzoo.models.nggp.law import NGGP
from priorzoo.models.nggp.log_u import LogU
from priorzoo.models.nggp.occupancy import Occupancy

STEP, NODES = 0.4, 60  # of the trapezoidal rule over log t
LARGEST = 18.0  # t, beyond which the integrand is below rounding errors
MARGIN = 1e-12  # minimum distance of probabilities from 1, where the odds are infinite
MANY = 64.0  # expected size, from which the error of Occupancy.expect is below 0.002 nats


def size_sums(q: Tensor) -> Tensor:
    r"""``(..., K, S)`` statistics of each datum whose sums over data determine the cluster sizes.

    Those of :class:`Occupancy`, the odds q / (1 - q), and the logarithm of the generating function,
    :math:`\log(1 - q + q e^{-t})`, at 60 nodes t; all in float64, for probabilities ``(..., K)``.
    """
    q = q.double().clamp(max=1 - MARGIN)
    empty = (-q).log1p()
    log_g = (q.unsqueeze(-1) * torch.expm1(-_nodes(q))).log1p()
    moments = torch.stack([q, q * (1 - q), empty, q / (1 - q)], -1)
    return torch.cat([moments, log_g], -1)


def exact_log_prior(law: NGGP, sums: Tensor, alone: Tensor, data: float) -> Tensor:
    r"""A lower bound of E_q[log p(z_1..n)], exact except for the law of v, which all z share.

    It uses :math:`q(v) \propto \exp E_q[\log p(z_{1..n}, v)]`, so its error is that of Jensen's
    inequality for log p(z) as a function of the number of clusters. The expected log Gamma
    functions of sizes up to 64 are integrals of the generating function of the size (Malmstén),

    .. math:: \log \Gamma(x) = \int_0^\infty \Big[(x - 1) e^{-t} -
        \frac{e^{-t} - e^{-x t}}{1 - e^{-t}}\Big] \frac{dt}{t}, \quad x = n_k - \sigma,

    except for the sizes 0 and 1, whose probabilities are known. In nats, float64.

    Args:
        law: the process.
        sums: sums of :func:`size_sums` over all data, ``(..., K, S)``.
        alone: expected number of data that are alone in their cluster, ``(...)``.
        data: n.
    """
    law = NGGP(law.concentration.double(), law.discount.double(), law.tilt)
    sizes = Occupancy(*sums[..., :3].unbind(-1))
    many, few = sizes.expect_log_gamma(law.discount), _expected_log_gamma(law.discount, sums)
    return _log_prior(law, sizes, alone.double(), data, torch.where(sizes.mean > MANY, many, few))


def least_log_prior(
    law: NGGP, sizes: Occupancy, alone: Tensor, data: float, of_v: LogU | None = None
) -> Tensor:
    """A lower bound of :func:`exact_log_prior` from three moments: log Gamma is convex (Jensen).

    It is lower by up to about half a nat for each cluster whose size is uncertain. The law of v at
    these sizes may be given, to save its quadrature.
    """
    held = sizes.expect(lambda n: torch.lgamma(n - law.discount), torch.zeros_like)
    return _log_prior(law, sizes, alone, data, held, of_v)


def _log_prior(
    law: NGGP,
    sizes: Occupancy,
    alone: Tensor,
    data: float,
    held: Tensor,
    of_v: LogU | None = None,
) -> Tensor:
    r""":math:`\log \int \exp E_q[\log p(z_{1..n}, v)] dv`, where held is E[lgamma(n_k - sigma)]."""
    occupied = sizes.occupied.sum(-1) + alone
    of_v = law.law_of_v(data, occupied.clamp(1, data)) if of_v is None else of_v
    each = held.sum(-1) + alone * torch.lgamma(1 - law.discount)
    return of_v.log_normaliser + occupied * law.log_birth + each - torch.lgamma(of_v.data)


def _expected_log_gamma(discount: Tensor, sums: Tensor) -> Tensor:
    """``(..., K)``: E[lgamma(n_k - sigma); n_k > 0]."""
    mean, _, log_empty, odds = sums[..., :4].unbind(-1)
    none = log_empty.exp()
    one = none * odds
    more = (1 - none - one).clamp(min=0).unsqueeze(-1)
    t = _nodes(sums)
    generated = sums[..., 4:].exp() - none.unsqueeze(-1) - one.unsqueeze(-1) * (-t).exp()
    rise = more * (-t).exp() - (discount * t).exp() * generated
    linear = (mean - one).unsqueeze(-1) - (1 + discount) * more
    values = linear * (-t).exp() + rise / torch.expm1(-t)
    return one * torch.lgamma(1 - discount) + STEP * values.sum(-1)


def _nodes(like: Tensor) -> Tensor:
    place = torch.arange(NODES, dtype=torch.float64, device=like.device)
    return (math.log(LARGEST) - STEP * place).exp()
