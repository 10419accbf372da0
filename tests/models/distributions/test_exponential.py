import numpy as np
import pytest
import torch
from pyro import poutine
from pyro.distributions import Laplace as PyroLaplace
from pyro.distributions import Normal as PyroNormal
from scipy import integrate, stats
from torch.distributions import Dirichlet as TorchDirichlet
from torch.distributions import Gamma as TorchGamma
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from priorzoo.models.distributions.expected import Choice, Component, DiagonalComponent
from priorzoo.models.distributions.exponential import (
    Dirichlet,
    ExponentialFamily,
    Gamma,
    NormalGamma,
    NormalWishart,
    conjugate,
)
from priorzoo.models.distributions.gamma_draws import PathwiseDirichlet

FAMILIES = [Dirichlet, Gamma, NormalGamma, NormalWishart]
RATE = torch.tensor([[2.0, 0.6, -0.3], [0.6, 1.5, 0.2], [-0.3, 0.2, 0.8]]).double()
USUAL = {
    Dirichlet: [torch.tensor([0.3, 2.0, 7.5]).double()],
    Gamma: [torch.tensor(0.7).double(), torch.tensor(2.5).double()],
    NormalGamma: [torch.tensor(v).double() for v in (-1.3, 2.4, 3.1, 0.6)],
    NormalWishart: [
        torch.tensor([0.4, -1.2, 0.7]).double(),
        torch.tensor(2.4).double(),
        torch.tensor(5.5).double(),
        RATE,
    ],
}
OTHER = {
    Dirichlet: [torch.tensor([1.0, 1.0, 1.0]).double()],
    Gamma: [torch.tensor(0.01).double(), torch.tensor(0.01).double()],
    NormalGamma: [torch.tensor(v).double() for v in (0.0, 1.0, 0.01, 0.01)],
    NormalWishart: [
        torch.zeros(3).double(),
        torch.tensor(1.0).double(),
        torch.tensor(3.0).double(),
        torch.eye(3).double(),
    ],
}


def draw(family, usual, count):
    if family is Dirichlet:
        return (TorchDirichlet(usual[0]).sample((count,)),)
    if family is Gamma:
        return (TorchGamma(*usual).sample((count,)),)
    m, s, a, b = usual
    if family is NormalWishart:
        matrices = stats.wishart(a.item(), b.inverse().numpy()).rvs(count, np.random.default_rng(0))
        precision = torch.from_numpy(matrices)
        noise = torch.randn(count, len(m), 1).double()
        root = torch.linalg.cholesky(s * precision).mT  # of the precision, and so R mu is white
        return m + torch.linalg.solve_triangular(root, noise, upper=True).squeeze(-1), precision
    alpha = TorchGamma(a, b).sample((count,))
    return Normal(m, (s * alpha).rsqrt()).sample(), alpha


def density(family, usual, values):
    """By the distributions of torch and scipy."""
    if family is Dirichlet:
        return TorchDirichlet(usual[0]).log_prob(values[0])
    if family is Gamma:
        return TorchGamma(*usual).log_prob(values[0])
    (m, s, a, b), (mu, alpha) = usual, values
    if family is NormalWishart:
        wishart = stats.wishart(a.item(), b.inverse().numpy())
        of_precision = torch.from_numpy(wishart.logpdf(alpha.permute(1, 2, 0).numpy()))
        return of_precision + MultivariateNormal(m, precision_matrix=s * alpha).log_prob(mu)
    return TorchGamma(a, b).log_prob(alpha) + Normal(m, (s * alpha).rsqrt()).log_prob(mu)


@pytest.mark.parametrize("family", FAMILIES)
def test_density_is_that_of_the_log_normaliser(family):
    values = draw(family, USUAL[family], 50)
    natural = family.natural(*USUAL[family])
    found = (natural * family.statistics(*values)).sum(-1) - family.log_normaliser(natural)
    torch.testing.assert_close(found, density(family, USUAL[family], values))


@pytest.mark.parametrize("family", FAMILIES)
def test_conversions_are_inverse(family):
    again = family.usual(family.natural(*USUAL[family]))
    for old, new in zip(USUAL[family], again, strict=True):
        torch.testing.assert_close(old, new)


@pytest.mark.parametrize("family", FAMILIES)
def test_closed_forms_are_those_of_autodiff_and_monte_carlo(family):
    natural = family.natural(*USUAL[family])
    found = family.expected_statistics(natural)
    by_autodiff = ExponentialFamily.expected_statistics.__func__(family, natural)
    torch.testing.assert_close(found, by_autodiff)
    t = family.statistics(*draw(family, USUAL[family], 200_000))
    error = t.std(0) / len(t) ** 0.5
    assert ((t.mean(0) - found).abs() < 5 * error).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_kl_by_monte_carlo(family):
    values = draw(family, USUAL[family], 40_000 if family is NormalWishart else 400_000)
    ratio = density(family, USUAL[family], values) - density(family, OTHER[family], values)
    found = family.kl(family.natural(*USUAL[family]), family.natural(*OTHER[family]))
    assert (ratio.mean() - found).abs() < 5 * ratio.std() / len(ratio) ** 0.5


def test_kl_of_torch():
    for family, kind in ((Dirichlet, TorchDirichlet), (Gamma, TorchGamma)):
        found = family.kl(family.natural(*USUAL[family]), family.natural(*OTHER[family]))
        expected = kl_divergence(kind(*USUAL[family]), kind(*OTHER[family]))
        torch.testing.assert_close(found, expected)


def test_kl_of_normal_gammas_in_the_lgamma_form():
    """Appendix C.1 of the paper with lgamma where it prints psi, for random pairs."""
    (mq, m0), (sq, s0, aq, a0, bq, b0) = torch.randn(2, 20).double(), torch.rand(6, 20).double() * 9
    found = NormalGamma.kl(NormalGamma.natural(mq, sq, aq, bq), NormalGamma.natural(m0, s0, a0, b0))
    of_mean = s0 * aq / bq * (mq - m0) ** 2 + s0 / sq - (s0 / sq).log() - 1
    of_precision = (
        a0 * (bq / b0).log()
        - (aq.lgamma() - a0.lgamma())
        + (aq - a0) * aq.digamma()
        - (bq - b0) * aq / bq
    )
    torch.testing.assert_close(found, of_mean / 2 + of_precision)


def test_statistics_of_normal_wishart_by_the_book():
    """Bishop, 2006, (10.64), (10.65) and what follows from them, for a batch of parameters."""
    m, s, nu, rate = USUAL[NormalWishart]
    counts = torch.tensor([1.0, 2.0, 5.0]).double()
    found = NormalWishart.expected_statistics(NormalWishart.natural(m, s * counts, nu, rate))
    degrees = (nu - torch.arange(3)) / 2
    log_det = degrees.digamma().sum() + 3 * np.log(2) - rate.logdet()
    mean = nu * rate.inverse()
    squares = 3 / (s * counts) + m @ mean @ m
    expected = [log_det.expand(3, 1), mean.flatten().expand(3, 9), (mean @ m).expand(3, 3)]
    torch.testing.assert_close(found, torch.cat([*expected, squares[:, None]], -1))


def test_normal_wishart_in_one_dimension_is_normal_gamma():
    q, p = (
        NormalWishart.natural(m[None], s, 2 * a, 2 * b[None, None])
        for m, s, a, b in (USUAL[NormalGamma], OTHER[NormalGamma])
    )
    q_, p_ = (NormalGamma.natural(*usual[NormalGamma]) for usual in (USUAL, OTHER))
    torch.testing.assert_close(q, q_)
    torch.testing.assert_close(NormalWishart.log_normaliser(q), NormalGamma.log_normaliser(q_))
    torch.testing.assert_close(NormalWishart.kl(q, p), NormalGamma.kl(q_, p_))


def test_normal_wishart_is_conjugate_to_the_normal():
    """Natural parameters add up to the posterior of mean and precision given rows."""
    x = torch.randn(40, 3).double() @ RATE + 1
    m, s, nu, rate = OTHER[NormalWishart]
    halves = torch.full((40, 1), 0.5).double()
    squares = -(x[:, :, None] * x[:, None, :]).flatten(1) / 2
    added = torch.cat([halves, squares, x, -halves], -1).sum(0)
    found = NormalWishart.usual(NormalWishart.natural(m, s, nu, rate) + added)
    mean, scatter = x.mean(0), 39 * x.T.cov()
    shift = 40 * s / (40 + s) * torch.outer(mean - m, mean - m)
    expected = ((s * m + 40 * mean) / (s + 40), s + 40, nu + 40, rate + scatter + shift)
    for ours, book in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, book)


def test_normal_wishart_is_drawn_at_two_sites():
    """Lambda has its mean, and (mu - m)' s Lambda (mu - m) is chi-squared."""
    m, s, nu, rate = USUAL[NormalWishart]
    natural = NormalWishart.natural(m, s, nu, rate).expand(4000, -1)
    trace = poutine.trace(conjugate).get_trace(
        ("mu", "precision"), NormalWishart, natural, torch.ones(()).double()
    )
    mu, precision = (trace.nodes[name]["value"] for name in ("mu", "precision"))
    error = precision.std(0) / 4000**0.5
    assert ((precision.mean(0) - nu * rate.inverse()).abs() < 5 * error).all()
    gap = mu - m
    squares = s * (gap[:, None] @ precision @ gap[..., None]).flatten()
    assert stats.kstest(squares.numpy(), stats.chi2(3).cdf).pvalue > 1e-3
    assert trace.log_prob_sum().isfinite()


def test_a_million_data_leave_the_rate_of_a_narrow_component():
    """Mean 1000 standard deviations from 0, pseudo-count 1e7: in float32 nothing of b is left."""
    usual = [torch.tensor(v) for v in (10.0, 1e7, 5e6, 5e6 * 1e-4)]
    natural = NormalGamma.natural(*usual)
    *_, b = NormalGamma.usual(natural)
    torch.testing.assert_close(b.item(), 500.0, rtol=1e-4, atol=0)
    t = NormalGamma.expected_statistics(natural)
    component = Component.of(t, torch.float32)
    z = torch.tensor([10.0, 10.02])
    expected = Normal(10.0, 0.01).log_prob(z.double())
    torch.testing.assert_close(component.log_prob(z).double(), expected, rtol=1e-3, atol=1e-3)
    prior = NormalGamma.natural(*(torch.tensor(v) for v in (0.0, 1.0, 0.01, 0.01)))
    assert NormalGamma.kl(natural, prior).isfinite()
    assert NormalGamma.kl(prior, prior) == 0
    assert Component.of(NormalGamma.expected_statistics(prior), torch.float32).offset.isfinite()


def test_component_scores_by_quadrature():
    """The expectation of the normal's log density over mean and precision, at one z."""
    m, s, a, b = (value.item() for value in USUAL[NormalGamma])
    z = 0.4

    nodes, weights = np.polynomial.hermite.hermgauss(20)  # exact, the score being quadratic in mu

    def score(alpha):
        mu = m + nodes * (2 / (s * alpha)) ** 0.5
        inner = weights @ stats.norm.logpdf(z, mu, alpha**-0.5) / np.pi**0.5
        return stats.gamma.pdf(alpha, a, scale=1 / b) * inner

    expected, _ = integrate.quad(score, 0, 80)
    t = NormalGamma.expected_statistics(NormalGamma.natural(*USUAL[NormalGamma]))
    found = Component.of(t, torch.float64).log_prob(torch.tensor(z).double())
    assert found.item() == pytest.approx(expected, abs=1e-6)


def test_component_of_a_draw_is_normal():
    mu, alpha = torch.randn(5).double(), torch.rand(5).double() + 0.1
    component = Component.of(NormalGamma.statistics(mu, alpha), torch.float64)
    z, twin = torch.randn(7, 5).double(), Normal(mu, alpha.rsqrt())
    torch.testing.assert_close(component.log_prob(z), twin.log_prob(z))
    torch.testing.assert_close(component.expand((3, 5)).log_prob(z[:3]), twin.log_prob(z[:3]))
    q = Normal(torch.randn(5).double(), torch.rand(5).double() + 0.1)
    torch.testing.assert_close(kl_divergence(q, component), kl_divergence(q, twin))
    drawn = component.rsample((100_000,))
    assert ((drawn.mean(0) - mu) * (1e5 * alpha).sqrt()).abs().max() < 5
    torch.testing.assert_close(drawn.var(0) * alpha, torch.ones(5).double(), rtol=0.05, atol=0)


def test_summed_scores_are_those_of_each_dimension():
    """Also where mean and component are a thousand standard deviations from zero."""
    loc = torch.randn(3, 1, 6) + torch.tensor([0.0, 1000.0])[:, None, None, None]  # (2, 3, 1, 6)
    component = Component(loc, torch.rand(6) + 0.5, torch.randn(3, 1, 6)).expand((2, 3, 5, 6))
    q = PyroNormal(loc[:, 0] + torch.randn(2, 5, 6), torch.rand(5, 6) + 0.1).to_event(1)
    each = component.expected_log_prob(
        q.base_dist.loc[:, None].double(), q.base_dist.variance[:, None].double()
    )
    mean, variance = q.base_dist.loc[:, None], q.base_dist.variance[:, None]
    found = component.expected_score(mean, variance)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), each.sum(-1), rtol=1e-5, atol=1e-4)


def test_divergence_from_a_diagonal_component_of_a_draw_is_that_from_a_normal():
    mu, alpha = torch.randn(3, 1, 4).double(), torch.rand(3, 1, 4).double() + 0.1
    component = Component.of(NormalGamma.statistics(mu, alpha), torch.float64)
    told = DiagonalComponent(component, 1).expand((3, 5))
    q = PyroNormal(torch.randn(5, 4).double(), torch.rand(5, 4).double() + 0.1).to_event(1)
    twin = Independent(Normal(mu, alpha.rsqrt()).expand((3, 5, 4)), 1)
    torch.testing.assert_close(kl_divergence(q.expand((3, 5)), told), kl_divergence(q, twin))
    assert told.mean.shape == told.variance.shape == told.sample().shape == (3, 5, 4)
    with pytest.raises(NotImplementedError):
        kl_divergence(PyroLaplace(mu, 1.0).to_event(1), told)


def test_choice_scores_any_values_of_any_batch():
    logits = torch.randn(2, 1, 4)
    choice = Choice(logits).expand((2, 5))
    values = torch.randint(4, (3, 2, 5))
    found = choice.log_prob(values)
    expected = [
        [[logits[i, 0, values[s, i, j]] for j in range(5)] for i in range(2)] for s in range(3)
    ]
    torch.testing.assert_close(found, torch.tensor(expected))
    assert choice.log_prob(torch.arange(4)[:, None, None]).shape == (4, 2, 5)


def test_choice_scores_without_normalising():
    logits = torch.tensor([-1.0, -2.0, -0.5])
    choice = Choice(logits)
    torch.testing.assert_close(choice.expand((4,)).log_prob(torch.tensor([0, 1, 2, 0]))[:3], logits)
    counts = torch.bincount(choice.sample((60_000,)), minlength=3) / 60_000
    torch.testing.assert_close(counts, logits.softmax(-1), rtol=0, atol=0.01)


def test_proportions_are_dirichlet():
    """Each weight is Beta distributed, by Kolmogorov and Smirnov."""
    c = torch.tensor([0.4, 1.0, 3.0]).double()
    weights = PathwiseDirichlet(c).sample((4000,))
    torch.testing.assert_close(weights.sum(-1), torch.ones(4000).double())
    for k in range(3):
        twin = stats.beta(c[k].item(), (c.sum() - c[k]).item())
        assert stats.kstest(weights[:, k].numpy(), twin.cdf).pvalue > 1e-3
