"""Estimators, densities and closed forms in float32, over shapes from 1e-3 to 1e5."""

import math

import mpmath
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import kl_divergence

from priorzoo.benchmarks.speed.exact import (
    kl_dirichlet,
    kl_gamma,
    kl_kumaraswamy,
    kl_logit_normal,
    log_beta,
    number,
)
from priorzoo.models.distributions.divergences import closed_kl
from priorzoo.models.distributions.estimators import estimated
from priorzoo.models.distributions.log_space import log_density, log_of, logit_of
from priorzoo.models.distributions.sticks import Kumaraswamy, LogitNormal
from priorzoo.models.nggp.code_families import DirichletCodes
from priorzoo.models.nggp.law import NGGP
from priorzoo.models.nggp.log_u import LogU

SHAPES = (1e-3, 0.05, 0.3, 1.0, 7.0, 100.0, 1e4, 1e5)
SMALL = (1e-3, 0.01, 0.05)
GRADIENTS = ("pathwise", "rsvi", "score")
DRAWS = 40_000
mp = mpmath.mp


@pytest.fixture(autouse=True)
def digits():
    """Sixty, in which differences of terms of 1e6 have fifty left."""
    with mpmath.workdps(60):
        yield


def gamma(a):
    return dist.Gamma(a, torch.ones_like(a))


def beta(a):
    return dist.Beta(a, torch.full_like(a, 0.7))


def dirichlet(a):
    rest = torch.tensor([0.2, 3.0]).expand(*a.shape, 2)
    return dist.Dirichlet(torch.cat([a.unsqueeze(-1), rest], -1))


def kumaraswamy(a):
    return Kumaraswamy(a, torch.full_like(a, 0.7))


def first(x):
    return x.log()


def share(x):
    return x[..., 0].log()


def complement(x):
    return (-x).log1p()


# what to draw, the cost, and d/da of its expectation
COSTS = {
    "gamma": (gamma, first, lambda a: mp.psi(1, a)),
    "beta": (beta, first, lambda a: mp.psi(1, a) - mp.psi(1, a + number(0.7))),
    "beta, the rest": (beta, complement, lambda a: -mp.psi(1, a + number(0.7))),
    "dirichlet": (
        dirichlet,
        share,
        lambda a: mp.psi(1, a) - mp.psi(1, a + number(0.2) + 3),
    ),
    "kumaraswamy": (
        kumaraswamy,
        first,
        lambda a: (mp.euler + mp.psi(0, number(0.7) + 1)) / a**2,
    ),
}


def gradients(make, cost, shape, gradient, mean=0.0):
    """One for each draw, as objectives compute them: through the draw, and by its score."""
    theta = torch.full((DRAWS,), shape, requires_grad=True)
    fn = estimated(make(theta), gradient)
    x = fn()
    f = cost(x)
    total = f + (f.detach() - mean) * fn.score_parts(x).score_function
    return torch.autograd.grad(total.sum(), theta)[0].double()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("name", "gradient"),
    [(n, g) for n in COSTS for g in GRADIENTS if (n, g) != ("kumaraswamy", "rsvi")],
)
def test_gradients_have_no_bias(name, gradient, shape):
    """E log x and E log(1 - x): to 4.5 standard errors and the 5e-4 of torch's own gradients.

    The score is multiplied by the cost less its mean, without which it shows nothing at 1e5.
    """
    make, cost, slope = COSTS[name]
    exact = float(slope(number(shape)))
    mean = 0.0
    if gradient == "score":
        mean = cost(estimated(make(torch.full((DRAWS,), shape)))()).mean()
    found = gradients(make, cost, shape, gradient, mean)
    error = found.std().item() / math.sqrt(DRAWS)
    assert abs(found.mean().item() - exact) < 4.5 * error + 5e-4 * abs(exact)


def score_of_gamma(a, z):
    return mp.log(z) - mp.psi(0, a)


def correction_of_gamma(a, z):
    """d/da of log q(h; a) + log |dh/d epsilon| at the epsilon that gives this h, numerically."""
    epsilon = (mp.cbrt(z / (a - mp.mpf(1) / 3)) - 1) * mp.sqrt(9 * a - 3)

    def density(a):
        width = a - mp.mpf(1) / 3
        t = epsilon / mp.sqrt(9 * a - 3)
        h = width * (1 + t) ** 3
        slope = 3 * width * (1 + t) ** 2 / mp.sqrt(9 * a - 3)
        return (a - 1) * mp.log(h) - h - mp.loggamma(a) + mp.log(slope)

    return mp.diff(density, a)


@pytest.mark.parametrize("shape", [1.0, 3.0, 30.0, 1e3, 1e4, 1e5])
@pytest.mark.parametrize(
    ("gradient", "expected"), [("rsvi", correction_of_gamma), ("score", score_of_gamma)]
)
def test_rounding_adds_nothing_to_the_mean(gradient, expected, shape):
    """z log z under Gamma(a): a cost of the size of a log a, and so of a large baseline.

    It multiplies what rounding leaves of a score that is a difference of logs; the gradient is
    log a + 1.
    """
    a = torch.full((100,), shape, requires_grad=True)
    fn = estimated(gamma(a), gradient, augmentation=0)
    z = fn()
    found = torch.autograd.grad(fn.score_parts(z).score_function.sum(), a)[0].tolist()
    cost = shape * math.log(shape + 1)
    wrong = [
        cost * float(f - expected(number(shape), mp.mpf(each)))
        for f, each in zip(found, z.tolist(), strict=True)
    ]
    assert abs(sum(wrong) / 100) < 1e-3 * (math.log(shape) + 1)


@pytest.mark.parametrize("shape", SMALL)
@pytest.mark.parametrize("gradient", GRADIENTS)
def test_logs_of_small_draws_are_exact(gradient, shape):
    """E log x of each family over 40,000 draws, where most values round to 0 or to 1."""
    a = torch.full((DRAWS,), shape)
    cases = [
        (log_of(estimated(gamma(a), gradient)()), mp.psi(0, number(shape))),
        (
            log_of(estimated(dist.Beta(a, a), gradient)()),
            mp.psi(0, number(shape)) - mp.psi(0, 2 * number(shape)),
        ),
        (
            log_of(estimated(dirichlet(a), gradient)())[..., 0],
            mp.psi(0, number(shape)) - mp.psi(0, number(shape) + number(0.2) + 3),
        ),
    ]
    if gradient != "rsvi":
        x = estimated(Kumaraswamy(a, a), gradient)()
        exact = -(mp.euler + mp.psi(0, number(shape) + 1)) / number(shape)
        cases.append((log_of(x), exact))
    for found, exact in cases:
        assert found.isfinite().all()
        error = found.std().item() / math.sqrt(DRAWS)
        assert found.mean().item() == pytest.approx(float(exact), abs=4.5 * error)


def entropies(shape):
    """Distributions, and their entropies in nats."""
    a = torch.full((DRAWS,), shape)
    m, h = number(shape), number(0.3)
    yield gamma(a), m + mp.loggamma(m) + (1 - m) * mp.psi(0, m)
    for b, n in ((a, m), (torch.full_like(a, 0.3), h)):
        psi = (m - 1) * mp.psi(0, m) + (n - 1) * mp.psi(0, n) - (m + n - 2) * mp.psi(0, m + n)
        yield dist.Beta(a, b), log_beta(m, n) - psi
        harmonic = mp.euler + mp.psi(0, n + 1)
        yield (
            Kumaraswamy(a, b),
            (1 - 1 / n) + (1 - 1 / m) * harmonic - mp.log(m) - mp.log(n),
        )
    flat = torch.stack([a, a, torch.ones_like(a)], -1)
    total = 2 * m + 1
    constant = 2 * mp.loggamma(m) - mp.loggamma(total)
    rest = (total - 3) * mp.psi(0, total) - 2 * (m - 1) * mp.psi(0, m)
    yield dist.Dirichlet(flat), constant + rest


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("gradient", GRADIENTS)
def test_densities_at_draws_have_the_entropy_as_their_mean(gradient, shape):
    """Where values round to 0 or 1 too, also of stock torch distributions at such a draw."""
    for fn, entropy in entropies(shape):
        if gradient == "rsvi" and isinstance(fn, Kumaraswamy):
            continue
        q = estimated(fn, gradient)
        x = q()
        for density in (log_density(fn, x), q.log_prob(x)):
            mean, error = -density.mean().item(), density.std().item() / math.sqrt(DRAWS)
            limit = 4.5 * error + 2e-6 * abs(float(entropy)) + 1e-5
            assert mean == pytest.approx(float(entropy), abs=limit)


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_values_outside_of_draws_have_their_density(gradient):
    """At given values, at 0 and at 1, and at draws that were computed with: that of torch."""
    x, a = torch.tensor([0.0, 1e-6, 0.3, 1 - 1e-6, 1.0]), torch.full((5,), 0.4)
    for fn in (dist.Beta(a, 2.0), dist.Beta(1.0, 1 / a), dist.Gamma(a, 2.0), dist.Gamma(1.0, a)):
        stock = fn.expand((5,))
        expected = fn.__class__(
            *(getattr(stock, name).double() for name in stock.arg_constraints), validate_args=False
        ).log_prob(x.double())
        for found in (estimated(stock, gradient), stock):
            found._validate_args = False
            torch.testing.assert_close(log_density(found, x), expected.float())
    q = estimated(dist.Beta(a, a), gradient)
    halved = q() * 0.5  # has no logit of its own
    expected = dist.Beta(a.double(), a.double()).log_prob(halved.double())
    torch.testing.assert_close(log_density(q, halved), expected.float())


def torch_gamma(a, b, c, d):
    return dist.Gamma(a, b), dist.Gamma(c, d)


def torch_beta(a, b, c, d):
    return dist.Beta(a, b), dist.Beta(c, d)


def torch_dirichlet(a, b, c, d):
    return dist.Dirichlet(torch.stack([a, b])), dist.Dirichlet(torch.stack([c, d]))


PAIRS = {
    "gamma": (torch_gamma, kl_gamma),
    "beta": (torch_beta, lambda a, b, c, d: kl_dirichlet((a, b), (c, d))),
    "dirichlet": (torch_dirichlet, lambda a, b, c, d: kl_dirichlet((a, b), (c, d))),
}


def assert_close(found, exact):
    assert found == pytest.approx(float(exact), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("gradient", [*GRADIENTS, "stock"])
@pytest.mark.parametrize("name", PAIRS)
def test_divergences_are_those_of_sixty_digits(name, gradient):
    """For all pairs of shapes, with gradients for each parameter, whatever the estimator."""
    make, exact = PAIRS[name]
    for a in SHAPES:
        for b in (0.05, 1.0, 1e4):
            for c, d in ((1.0, 5.0), (b, a), (1e5, 1e-3)):
                given = [torch.tensor(v, requires_grad=True) for v in (a, b, c, d)]
                q, p = make(*given)
                q = q if gradient == "stock" else estimated(q, gradient)
                found = closed_kl(q, p)
                assert found.dtype == torch.float32
                numbers = [number(v) for v in (a, b, c, d)]
                assert_close(found.item(), exact(*numbers))
                slopes = torch.autograd.grad(found, given)
                for place, slope in enumerate(slopes):
                    order = tuple(int(i == place) for i in range(4))
                    assert_close(slope.item(), mp.diff(exact, tuple(numbers), order))


@pytest.mark.parametrize("b", [1e-3, 0.05, 0.7, 4.0, 1e4, 1e5])
@pytest.mark.parametrize("a", [1e-3, 0.05, 1.0, 30.0, 1e5])
def test_divergences_of_kumaraswamys_are_those_of_quadrature(a, b):
    with mpmath.workdps(25):
        for alpha, beta in ((1.0, 5.0), (0.05, 0.3)):
            given = [torch.tensor(v, requires_grad=True) for v in (a, b)]
            prior = dist.Beta(torch.tensor(alpha), torch.tensor(beta))
            found = kl_divergence(Kumaraswamy(*given), prior)
            numbers = [number(v) for v in (a, b)]
            rest = number(alpha), number(beta)
            exact = kl_kumaraswamy(*numbers, *rest)
            size = float(abs(beta - 1) / min(b, 1) + abs(alpha - a) / a)
            assert found.item() == pytest.approx(float(exact), rel=2e-6, abs=2e-6 * min(size, 10))
            for place, slope in enumerate(torch.autograd.grad(found, given)):
                step = numbers[place] / 10_000
                ends = [list(numbers), list(numbers)]
                ends[0][place], ends[1][place] = numbers[place] - step, numbers[place] + step
                low, high = (kl_kumaraswamy(*end, *rest) for end in ends)
                expected = float((high - low) / (2 * step))
                assert slope.item() == pytest.approx(
                    expected, rel=2e-5, abs=1e-4 / float(numbers[place])
                )


@pytest.mark.parametrize("scale", [1e-3, 0.3, 0.99, 1.0, 4.0, 20.0, 1e3])
def test_divergences_of_logit_normals_are_those_of_quadrature(scale):
    with mpmath.workdps(25):
        for loc in (-30.0, -2.0, 0.0, 0.7, 12.0):
            for alpha, beta in ((1.0, 5.0), (0.05, 0.3), (40.0, 2.0)):
                q = LogitNormal(torch.tensor(loc), torch.tensor(scale))
                found = kl_divergence(q, dist.Beta(torch.tensor(alpha), torch.tensor(beta)))
                exact = kl_logit_normal(*map(number, (loc, scale, alpha, beta)))
                assert found.item() == pytest.approx(float(exact), rel=2e-6, abs=1e-6)


@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_logit_normals_keep_their_logits(scale):
    """Beyond +-16, where values round to 1 and stock torch clamps: density and gradient."""
    loc = torch.tensor([-120.0, -20.0, 0.0, 20.0, 120.0], requires_grad=True)
    q = LogitNormal(loc, torch.full((5,), scale))
    x = q.rsample()
    assert ((x > 0) & (x < 1)).all()
    logit = logit_of(x)
    normal = dist.Normal(loc.detach().double(), scale).log_prob(logit)
    jacobian = torch.nn.functional.softplus(logit) + torch.nn.functional.softplus(-logit)
    torch.testing.assert_close(q.log_prob(x), (normal + jacobian).float(), rtol=1e-6, atol=1e-5)
    moved = torch.autograd.grad((x.log() - (-x).log1p()).sum(), loc)[0]
    torch.testing.assert_close(moved, torch.ones(5), rtol=1e-3, atol=0)


@pytest.mark.parametrize("shape", [0.01, 1.0, 100.0, 1e4])
def test_expected_logs_of_codes_on_the_simplex(shape):
    """E log p(s | k) of Dirichlets whose summed concentration is up to 1e4."""
    c = torch.tensor([shape, 2 * shape, 0.5])
    p = torch.tensor([3.0, shape, 40.0])
    kind = DirichletCodes()
    split = [kind._split(each.double()) for each in (c, p)]
    (mean, spread), (loc, scale) = ([part.float() for part in pair] for pair in split)
    found = kind.expected_log(mean, spread, loc.unsqueeze(0), scale.unsqueeze(0)).item()
    q, of = (
        [mp.mpf(m.item()) / mp.mpf(s.item()) ** 2 for m, s in zip(*pair, strict=True)]
        for pair in ((mean, spread), (loc, scale))
    )
    total = 1 / mp.mpf(spread[0].item()) ** 2
    exact = mp.loggamma(mp.fsum(of)) + mp.fsum(
        (b - 1) * (mp.psi(0, a) - mp.psi(0, total)) - mp.loggamma(b)
        for a, b in zip(q, of, strict=True)
    )
    assert found == pytest.approx(float(exact), rel=2e-6, abs=1e-5)


@pytest.mark.parametrize("data", [10.0, 1e3, 6e4, 1e5])
@pytest.mark.parametrize(("alpha", "sigma"), [(1.0, 0.25), (1e-3, 0.5), (100.0, 0.05)])
def test_laws_of_partitions_are_those_of_float64(data, alpha, sigma):
    """Predictive probabilities, which sum to 1, and log probabilities, where n log n cancels."""
    numbers = [torch.tensor(value) for value in (alpha, sigma)]
    single, double = NGGP(*numbers), NGGP(*(value.double() for value in numbers))
    sizes = torch.tensor([data - 5, 4.0, 1.0])
    predictive = single.predictive(sizes)
    torch.testing.assert_close(predictive, double.predictive(sizes.double()).float())
    assert predictive.sum().item() == pytest.approx(1, abs=1e-6)
    if data < 1e4:
        laws = (each.cluster_law(int(data), 50) for each in (single, double))
        found, expected = (law.double() for law in laws)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    v = single.law_of_v(data, 3.0).mean
    for one, two in (
        (single.log_probability(sizes), double.log_probability(sizes.double())),
        (single.log_joint(sizes, v), double.log_joint(sizes.double(), v.double())),
    ):
        torch.testing.assert_close(one.double(), two, rtol=1e-6, atol=1e-6)


LAWS = [
    (n, k, alpha, sigma, tau)
    for n, k in ((1.0, 1.0), (1e3, 30.0), (1e5, 1.0), (1e5, 9e4))
    for alpha in (1e-3, 1.0, 1e5)
    for sigma in (0.0, 1e-3, 0.3, 0.99)
    for tau in (0.0, 1.0)
    if tau + sigma > 0
]


@pytest.mark.parametrize("case", LAWS)
def test_the_law_of_log_u_is_that_of_float64(case):
    """Log density, its gradients, mean and draws, where terms of the size of n cancel."""
    *numbers, tau = case
    single = [torch.tensor(x, requires_grad=True) for x in numbers]
    double = [x.detach().double().requires_grad_() for x in single]
    q, p = LogU(*single, tau), LogU(*double, tau)
    spread = p.variance.sqrt().item()
    v = (p.mean + spread * torch.tensor([-1.0, 0.0, 2.0])).float().detach()
    found, expected = q.log_prob(v), p.log_prob(v.double())
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-6)
    assert q.mean.item() == pytest.approx(p.mean.item(), rel=1e-6, abs=1e-6)
    draws = q.sample((500,))
    assert draws.isfinite().all()
    assert draws.mean().item() == pytest.approx(p.mean.item(), abs=5 * spread / math.sqrt(500))
    slopes = torch.autograd.grad(found.sum(), single, materialize_grads=True)
    wide = torch.autograd.grad(expected.sum(), double, materialize_grads=True)
    for one, two in zip(slopes, wide, strict=True):
        assert one.item() == pytest.approx(two.item(), rel=1e-5, abs=1e-5 * (1 + abs(v[2].item())))
