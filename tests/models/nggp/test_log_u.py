"""The law of V = log U."""

import math

import mpmath
import numpy as np
import pytest
import torch
from scipy import stats
from scipy.integrate import quad

from priorzoo.models.nggp.log_u import LogU

pytestmark = pytest.mark.usefixtures("double")
# n, K, alpha, sigma, tau
LAWS = [
    (5, 2, 1.0, 0.25, 1.0),
    (60_000, 66, 1.0, 0.25, 1.0),
    (1_000, 7.5, 1.0, 0.0, 1.0),
    (10, 5.2, 1.4, 0.4, 0.7),
    (4, 2, 2.0, 0.3, 0.0),
    (1, 1, 0.1, 0.0, 1.0),
    (60_000, 79, 0.1, 0.01, 1.0),
    (1, 1, 20.0, 0.9, 1.0),
]


def law(n, k, alpha, sigma, tau):
    return LogU(*map(float, (n, k, alpha, sigma)), tau)


def energy(v, n, k, alpha, sigma, tau):
    """n v - (n - sigma K) log(e^v + tau) - psi(e^v), in 60 digits."""
    with mpmath.workdps(60):
        u, alpha, sigma, tau = (mpmath.mpf(x) for x in (mpmath.exp(v), alpha, sigma, tau))
        if sigma == 0:
            psi = alpha * mpmath.log(1 + u / tau)
        else:
            psi = alpha / sigma * ((u + tau) ** sigma - tau**sigma)
        return float(n * mpmath.mpf(v) - (n - sigma * k) * mpmath.log(u + tau) - psi)


@pytest.mark.parametrize("case", LAWS)
def test_is_the_density_of_the_paper_corrected_and_normalised(case):
    q = law(*case)
    centre, spread = q.mean.item(), q.variance.sqrt().item()
    v = torch.linspace(centre - 4 * spread, centre + 4 * spread, 9)
    shape = torch.tensor([energy(x, *case) for x in v.tolist()])
    found = q.log_prob(v)
    torch.testing.assert_close(found - found[4], shape - shape[4], rtol=1e-9, atol=1e-7)

    def density(x):
        return math.exp(q.log_prob(torch.tensor(x)).item())

    ends = q._edges[[0, -1]].tolist()
    total = sum(quad(density, *sorted((centre, end)), limit=200)[0] for end in ends)
    assert total == pytest.approx(1, abs=1e-7)


@pytest.mark.parametrize("case", LAWS)
def test_is_strictly_log_concave(case):
    q = law(*case)
    v = q.mean + q.variance.sqrt() * torch.linspace(-1, 1, 41)
    assert (q.log_prob(v).diff().diff() < 0).all()


@pytest.mark.parametrize("case", LAWS)
def test_draws_fit(case):
    """Kolmogorov and Smirnov over 20,000 draws, against the integrated density."""
    q = law(*case)
    v = q.mean + q.variance.sqrt() * torch.linspace(-30, 30, 60_001)
    density = q.log_prob(v).exp().numpy()
    ladder = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)])
    drawn = q.sample((20_000,)).numpy()
    found = stats.kstest(drawn, lambda x: np.interp(x, v.numpy(), ladder / ladder[-1]))
    assert found.pvalue > 1e-3


def test_batches_of_laws_draw_each_its_own():
    q = LogU(torch.tensor([5.0, 60_000.0]), torch.tensor([2.0, 66.0]), 1.0, 0.25)
    drawn = q.expand((3, 2)).sample((4_000,))
    assert drawn.shape == (4_000, 3, 2)
    error = q.variance.sqrt() / math.sqrt(4_000)
    assert ((drawn.mean(0) - q.mean).abs() < 4 * error).all()


def test_gradients_are_those_of_finite_differences():
    """Through the normaliser as well, and at sigma = 0, where the exponent has its limit."""
    start = (torch.tensor(50.0), torch.tensor(4.5), torch.tensor(2.0), torch.tensor(0.3))
    inputs = tuple(x.requires_grad_() for x in start)
    v = torch.tensor([0.5, 3.0])
    assert torch.autograd.gradcheck(lambda *x: LogU(*x).log_prob(v), inputs)
    zero, step = torch.zeros((), requires_grad=True), 1e-4
    LogU(50.0, 4.5, 2.0, zero).log_prob(v).sum().backward()
    f = [LogU(50.0, 4.5, 2.0, s * step).log_prob(v).sum().item() for s in range(3)]
    assert zero.grad.item() == pytest.approx((4 * f[1] - 3 * f[0] - f[2]) / (2 * step), rel=1e-5)


@pytest.mark.parametrize("case", LAWS)
def test_single_precision_suffices(case):
    q = law(*case)
    single = LogU(*(torch.tensor(float(x), dtype=torch.float32) for x in case[:4]), case[4])
    assert single.mean.item() == pytest.approx(q.mean.item(), abs=1e-4)
    torch.manual_seed(1)
    assert single.sample((1000,)).isfinite().all()
