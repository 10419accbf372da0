"""Stick-breaking weights and the distributions of sticks."""

import math

import mpmath
import numpy as np
import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from scipy.integrate import quad
from scipy.special import expit
from torch.distributions import kl_divergence

from priorzoo.models.distributions.sticks import (
    Kumaraswamy,
    LogitNormal,
    log1mexp,
    log_stick_weights,
)

pytestmark = pytest.mark.usefixtures("double")


def test_log1mexp_is_exact_where_the_plain_form_is_not():
    x = torch.tensor([1e-12, 1e-3, 0.5, 3.0, 40.0, 700.0], requires_grad=True)
    with mpmath.workdps(400):
        expected = [float(mpmath.log(1 - mpmath.exp(-mpmath.mpf(t)))) for t in x.tolist()]
    found = log1mexp(x)
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-13, atol=0)
    found.sum().backward()
    torch.testing.assert_close(x.grad, 1 / x.detach().expm1(), rtol=1e-12, atol=0)


def test_stick_weights_are_the_products():
    v = torch.rand(3, 4)
    pi = log_stick_weights(v).exp()
    left = torch.ones(3)
    for k in range(4):
        torch.testing.assert_close(pi[:, k], v[:, k] * left)
        left = left * (1 - v[:, k])
    torch.testing.assert_close(pi[:, 4], left)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_stick_weights_are_finite_to_the_ends(dtype):
    limits = torch.finfo(dtype)
    v = torch.tensor([limits.tiny, 1 - limits.eps / 2], dtype=dtype).repeat(30).requires_grad_()
    log_pi = log_stick_weights(v)
    assert log_pi.isfinite().all()
    assert log_pi.exp().sum().item() == pytest.approx(1, abs=1e-5)
    log_pi.logsumexp(-1).backward()
    assert v.grad.isfinite().all()


@pytest.mark.parametrize(("a", "b"), [(2.0, 3.0), (0.3, 0.4), (1.0, 5.0), (20.0, 0.5)])
def test_kumaraswamy_is_its_density_and_draws_from_it(a, b):
    """Whose distribution function is 1 - (1 - x^a)^b."""
    q = Kumaraswamy(a, b)
    x = torch.tensor([0.01, 0.3, 0.9])
    written = a * b * x ** (a - 1) * (1 - x**a) ** (b - 1)
    torch.testing.assert_close(q.log_prob(x), written.log())
    drawn = q.sample((20_000,)).numpy()
    assert stats.kstest(drawn, lambda x: 1 - (1 - x**a) ** b).pvalue > 1e-3
    mean = quad(lambda t: (1 - t ** (1 / b)) ** (1 / a), 0, 1)[0]
    assert q.mean.item() == pytest.approx(mean, rel=1e-6)


def test_kumaraswamy_survives_single_precision():
    """Shapes from 0.001 to 1000: draws inside (0, 1), densities and gradients finite."""
    grid = torch.logspace(-3, 3, 25, dtype=torch.float32)
    a, b = (x.reshape(-1).requires_grad_() for x in torch.meshgrid(grid, grid, indexing="ij"))
    q = Kumaraswamy(a, b)
    x = q.rsample((200,))
    assert ((x > 0) & (x < 1)).all()
    assert q.log_prob(x).isfinite().all()
    kl = kl_divergence(q, dist.Beta(torch.tensor(1.0), torch.tensor(5.0)))
    assert kl.isfinite().all()
    (x.mean() + kl.mean()).backward()
    assert a.grad.isfinite().all()
    assert b.grad.isfinite().all()


def test_kumaraswamy_draws_move_with_their_shapes():
    """Gradients of draws are the implicit ones, -dF/dtheta / density."""
    a, b = torch.tensor(1.7, requires_grad=True), torch.tensor(0.6, requires_grad=True)
    x = Kumaraswamy(a, b).rsample()
    found = torch.autograd.grad(x, (a, b))
    at = x.detach()
    survival = (1 - at**a) ** b
    flow = torch.autograd.grad(1 - survival, (a, b))
    density = Kumaraswamy(a, b).log_prob(at).exp().detach()
    torch.testing.assert_close(found, tuple(-f / density for f in flow))


def test_divergence_from_a_beta_is_never_negative():
    """Over 100,000 random shapes from 0.01 to 100, also of the Beta with the same shapes."""
    a, b, alpha, beta = torch.empty(4, 100_000).uniform_(math.log(0.01), math.log(100)).exp()
    assert (kl_divergence(Kumaraswamy(a, b), dist.Beta(alpha, beta)) > 0).all()
    assert (kl_divergence(Kumaraswamy(a, b), dist.Beta(a, b)) >= 0).all()


def test_divergence_is_zero_from_the_beta_that_it_is():
    """a = 1 or b = 1."""
    free, one = torch.logspace(-2, 2, 50), torch.ones(50)
    for a, b in ((one, free), (free, one)):
        found = kl_divergence(Kumaraswamy(a, b), dist.Beta(a, b))
        torch.testing.assert_close(found, torch.zeros(50), rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    "shapes", [(2.0, 3.0, 1.0, 5.0), (0.3, 0.4, 2.0, 0.5), (5.0, 0.5, 1.0, 1.0)]
)
def test_divergence_is_that_of_monte_carlo(shapes):
    a, b, alpha, beta = map(float, shapes)
    log_w = np.log(np.random.default_rng(0).random(200_000)) / b
    log_rest = np.log(-np.expm1(log_w))  # log of x^a = 1 - w
    log_x, log_left = log_rest / a, np.log(-np.expm1(log_rest / a))
    log_q = math.log(a * b) + (a - 1) * log_x + (b - 1) * log_w
    log_p = stats.beta(alpha, beta).logpdf(0.5) - (alpha + beta - 2) * math.log(0.5)
    draws = log_q - log_p - (alpha - 1) * log_x - (beta - 1) * log_left
    found = kl_divergence(Kumaraswamy(a, b), dist.Beta(alpha, beta)).item()
    assert found == pytest.approx(draws.mean(), abs=4 * draws.std() / math.sqrt(len(draws)))


def test_logit_normal_has_its_mean():
    q = LogitNormal(torch.tensor([0.5, -2.0]), torch.tensor([1.0, 3.0]))
    for i, (loc, scale) in enumerate(((0.5, 1.0), (-2.0, 3.0))):
        mean = stats.norm(loc, scale).expect(expit, lb=loc - 9 * scale, ub=loc + 9 * scale)
        assert q.mean[i].item() == pytest.approx(mean, rel=1e-6)
    assert q.expand((3, 2)).rsample().shape == (3, 2)


LOCS, SCALES = (-60.0, -20.0, -3.0, 0.0, 0.7, 8.0, 40.0), (1e-3, 0.3, 1.4, 1.6, 4.0, 20.0, 300.0)


def logit_normal_mean(loc, scale):
    """By mpmath with 30 digits, over the standard Gaussian variable, divided at the steep place."""
    with mpmath.workdps(30):
        peak = min(scale, -loc / scale)  # of the integrand, if the mean is near 0
        ends = {-40, 40, *(p for p in (0, peak, -loc / scale) if abs(p) < 40)}
        width = max(1, 30 / scale)
        ends |= {p for p in (-loc / scale - width, -loc / scale + width, peak - 8) if abs(p) < 40}
        return mpmath.quad(
            lambda z: mpmath.npdf(z) / (1 + mpmath.exp(-loc - scale * z)), sorted(ends), maxdegree=9
        )


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_logit_normal_mean_holds_at_any_scale(dtype, tolerance):
    loc, scale = torch.meshgrid(torch.tensor(LOCS), torch.tensor(SCALES), indexing="ij")
    found = LogitNormal(loc.to(dtype), scale.to(dtype)).mean
    for i, mu in enumerate(LOCS):
        for j, sigma in enumerate(SCALES):
            expected = float(logit_normal_mean(mu, sigma))
            assert found[i, j].item() == pytest.approx(expected, rel=tolerance, abs=1e-30)


def test_logit_normal_mean_has_the_gradient_of_the_integral():
    for mu, sigma in ((0.7, 0.3), (-2.0, 4.0), (3.0, 20.0)):
        loc, scale = (torch.tensor(value, requires_grad=True) for value in (mu, sigma))
        LogitNormal(loc, scale).mean.backward()
        step = 1e-4
        for got, change in ((loc.grad, (step, 0)), (scale.grad, (0, step))):
            up, down = (
                logit_normal_mean(mu + sign * change[0], sigma + sign * change[1])
                for sign in (1, -1)
            )
            assert got.item() == pytest.approx(float((up - down) / (2 * step)), rel=1e-6)
