"""The collapsed prior, against the enumeration of all assignments."""

import itertools
import math

import pytest
import torch
from scipy.integrate import quad

from priorzoo.models.nggp.law import NGGP
from priorzoo.models.nggp.occupancy import (
    ERRORS,
    Occupancy,
    expected_log_joint,
    expected_log_prior,
    log_prior,
)
from priorzoo.models.nggp.size_sums import exact_log_prior, least_log_prior, size_sums

pytestmark = pytest.mark.usefixtures("double")
LAW, V = NGGP(1.4, 0.4, 0.7), torch.tensor(0.6)


def enumerated(q):
    """Every assignment of n data to K clusters or to be alone: sizes, and its probability."""
    n, k = len(q), q.shape[1] - 1
    choices = torch.tensor(list(itertools.product(range(k + 1), repeat=n)))
    weight = torch.stack([q[i][choices[:, i]] for i in range(n)]).prod(0)
    ones = torch.nn.functional.one_hot(choices, k + 1)
    alone = ones[..., -1].cumsum(-1) * ones[..., -1]  # each is a cluster of its own
    lonely = torch.nn.functional.one_hot(alone, n + 1)[..., 1:].sum(1)
    return torch.cat([ones[..., :-1].sum(1), lonely], -1).double(), weight, choices


def exact_log_joint(q, v=V):
    sizes, weight, _ = enumerated(q)
    joint = LAW.log_joint(sizes, v.expand(len(sizes)))
    return (weight * joint).sum()


def guess(n, k, sharpness):
    return (sharpness * torch.randn(n, k + 1)).softmax(-1)


@pytest.mark.parametrize(("n", "k"), [(5, 3), (8, 2)])
@pytest.mark.parametrize(("sharpness", "tolerance"), [(1e3, 1e-6), (4.0, 0.1), (1.0, 0.3)])
def test_expected_joint_is_that_of_all_assignments(n, k, sharpness, tolerance):
    """Exact where the sizes are certain, and within Taylor's error, in nats in all, elsewhere."""
    q = guess(n, k, sharpness)
    sizes = Occupancy.of(q[:, :-1]).sum()
    found = expected_log_joint(LAW, sizes, q[:, -1].sum(), n, V)
    torch.testing.assert_close(found, exact_log_joint(q), rtol=0, atol=tolerance)


def test_moments_are_those_of_all_assignments():
    q = guess(7, 2, 1.0)
    sizes, weight, _ = enumerated(q)
    n_k = sizes[:, :2]
    found = Occupancy.of(q[:, :-1]).sum()
    mean = (weight.unsqueeze(-1) * n_k).sum(0)
    torch.testing.assert_close(found.mean, mean)
    torch.testing.assert_close(found.variance, (weight.unsqueeze(-1) * (n_k - mean) ** 2).sum(0))
    torch.testing.assert_close(found.occupied, (weight.unsqueeze(-1) * (n_k > 0)).sum(0))
    exact = (weight.unsqueeze(-1) * torch.where(n_k > 0, n_k.square(), 0.0)).sum(0)
    square = found.expect(torch.square, lambda m: torch.full_like(m, 2.0))  # Taylor is exact
    torch.testing.assert_close(square, exact)


@pytest.mark.parametrize(("sharpness", "tolerance"), [(1e3, 1e-6), (4.0, 0.1), (1.0, 0.25)])
def test_prior_term_is_the_conditional_expectation_of_all_assignments(sharpness, tolerance):
    """E[log p(z_n = k, others)] - E[log p(z_n alone, others)] for each k, n = 8."""
    q = guess(8, 2, sharpness)
    given = [torch.cat([torch.eye(3)[j : j + 1], q[1:]]) for j in range(3)]
    exact = torch.stack([exact_log_joint(g) for g in given])
    found = log_prior(LAW, Occupancy.of(q[1:, :-1]).sum(), V)
    torch.testing.assert_close(found - found[-1], exact - exact[-1], rtol=0, atol=tolerance)


def bound(q, fits):
    """The collapsed ELBO given u, by enumeration."""
    return exact_log_joint(q) + (q * fits).sum() - torch.xlogy(q, q).sum()


def test_update_is_the_coordinate_ascent_of_the_enumerated_bound():
    """With the others certain, where the prior term is exact: no direction of q_n raises it."""
    fits = torch.randn(8, 3)
    q = torch.nn.functional.one_hot(torch.tensor([0, 0, 1, 0, 2, 1, 1, 2]), 3).double()
    others = Occupancy.of(q[1:, :-1]).sum()
    best = (fits[0] + log_prior(LAW, others, V)).softmax(-1)
    step = 1e-4
    for i, j in itertools.permutations(range(3), 2):
        change = step * (torch.eye(3)[i] - torch.eye(3)[j])
        up, down = (
            bound(torch.cat([(best + sign * change).unsqueeze(0), q[1:]]), fits) for sign in (1, -1)
        )
        middle = bound(torch.cat([best.unsqueeze(0), q[1:]]), fits)
        assert abs((up - down).item()) / (2 * step) < 1e-5
        assert up < middle
        assert down < middle


def test_sweeps_raise_the_enumerated_bound():
    """From uncertain guesses, where the prior term is Taylor's: each sweep over the data."""
    fits, q = 2 * torch.randn(7, 3), guess(7, 2, 0.5)
    values = [bound(q, fits).item()]
    for _ in range(3):
        for n in range(7):
            others = Occupancy.of(q[:, :-1]).sum().without(Occupancy.of(q[n, :-1]))
            q[n] = (fits[n] + log_prior(LAW, others, V)).softmax(-1)
        values.append(bound(q, fits).item())
    assert values[1] > values[0] + 0.1
    assert min(b - a for a, b in itertools.pairwise(values)) > -1e-3


def test_without_u_the_joint_is_the_partition_law():
    """With certain sizes; the integral over v is the best q(v)'s bound."""
    q = torch.nn.functional.one_hot(torch.tensor([0, 0, 1, 0, 2, 1, 1, 2]), 3).double()
    found = expected_log_prior(LAW, Occupancy.of(q[:, :-1]).sum(), q[:, -1].sum(), 8)
    expected = LAW.log_probability(torch.tensor([3.0, 3.0, 1.0, 1.0]))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    joint = expected_log_joint(LAW, Occupancy.of(q[:, :-1]).sum(), q[:, -1].sum(), 8, V)
    written = LAW.log_joint(torch.tensor([3.0, 3.0, 1.0, 1.0]), V)
    torch.testing.assert_close(joint, written, rtol=0, atol=1e-6)
    assert found > joint


def size_laws(q):
    """``(R, n + 1)`` probabilities of the sizes of R clusters of n data, q ``(R, n)``."""
    law = torch.zeros(len(q), q.shape[1] + 1)
    law[:, 0] = 1
    for chance in q.T.unsqueeze(-1):
        law = law * (1 - chance) + chance * torch.nn.functional.pad(law[:, :-1], (1, 0))
    return law


def clusters_of(n):
    """Some data for certain, some with one probability and one with another; and random ones."""
    chances = [1e-4, 1e-3, 0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 0.99, 1.0]
    rows = [
        [1.0] * sure + [a] * many + [b] * (sure + many < n) + [0.0] * (n - sure - many - 1)
        for sure in (0, 1, 2, 4)
        for many in range(1, n - sure + 1)
        for a in chances
        for b in chances[::3]
    ]
    return torch.cat([torch.tensor(rows), torch.rand(500, n) ** (6 * torch.rand(500, 1))])


@pytest.mark.parametrize("n", [1, 2, 3, 8, 40])
@pytest.mark.parametrize(("sigma", "most"), ERRORS.items())
def test_error_of_the_expansion_is_bounded_as_it_says(sigma, most, n):
    """Against the exact law of each size, also where the expected size is 8 and 16 or more."""
    q = clusters_of(n)
    sizes = Occupancy(*(part.sum(1) for part in Occupancy.of(q)))
    x = torch.arange(1, n + 1) - sigma
    logs = sizes.expect(lambda k: (k - sigma).log(), lambda k: -((k - sigma) ** -2))
    gammas = sizes.expect_log_gamma(torch.tensor(sigma))
    for found, exact in ((logs, x.log()), (gammas, torch.lgamma(x))):
        error = (found - size_laws(q)[:, 1:] @ exact).abs()
        for least, bound in ((0, most), (8, 0.04), (16, 0.01)):
            assert (error[sizes.mean >= least] <= bound).all()


DISCOUNTS = [0.0, 1e-3, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999]


def given_sizes(law, laws, alone):
    """log of the integral of exp E[log p(z, v)] over v, by quadrature and the laws of the sizes."""
    n = laws.shape[1] - 1
    data, sizes = n, torch.arange(1.0, n + 1)
    occupied = (1 - laws[:, 0]).sum() + alone
    held = (laws[:, 1:] @ torch.lgamma(sizes - law.discount)).sum()
    sigma, alpha = law.discount.item(), law.concentration.item()

    def log_density(v):
        rate = math.exp(v) + 1
        rise = math.log(rate) if sigma == 0 else math.expm1(sigma * math.log(rate)) / sigma
        power = data - sigma * occupied.item()
        return data * v - power * math.log(rate) - alpha * rise

    peak = max(log_density(v / 10) for v in range(-100, 300))
    mass = quad(lambda v: math.exp(log_density(v) - peak), -40, 40, limit=1_000, points=[0, 5])[0]
    single = torch.lgamma(1 - law.discount)
    births = occupied * (law.concentration.log() - single)
    return math.log(mass) + peak + births + held + alone * single - math.lgamma(data)


@pytest.mark.parametrize("discount", DISCOUNTS)
@pytest.mark.parametrize(("n", "k"), [(1, 1), (2, 3), (5, 3), (30, 2), (100, 4)])
@pytest.mark.parametrize("sharpness", [0.3, 2.0, 1e4])
def test_log_gammas_are_those_of_the_laws_of_the_sizes(discount, n, k, sharpness):
    """To 1e-5 nats up to a size of 64, and to .002 for each cluster beyond it."""
    law, q = NGGP(1.4, discount), guess(n, k, sharpness)
    laws, alone = size_laws(q[:, :-1].T), q[:, -1].sum()
    found = exact_log_prior(law, size_sums(q[:, :-1]).sum(0), alone, float(n))
    many = (q[:, :-1].sum(0) > 64).sum().item()
    expected = given_sizes(law, laws, alone).item()
    assert found.item() == pytest.approx(expected, abs=1e-5 + 0.002 * many, rel=1e-7)


@pytest.mark.parametrize("discount", DISCOUNTS)
@pytest.mark.parametrize("sharpness", [0.3, 1.0, 4.0, 1e4])
def test_is_below_the_expectation_over_labellings_and_above_three_moments(discount, sharpness):
    """E[log p(z)] of all labellings of 6 data; exact where the number of clusters is certain."""
    law, q = NGGP(1.4, discount), guess(6, 2, sharpness)
    sizes, weight, _ = enumerated(q)
    expected = (weight * law.log_probability(sizes)).sum()
    alone = q[:, -1].sum()
    found = exact_log_prior(law, size_sums(q[:, :-1]).sum(0), alone, 6.0)
    assert found < expected + 1e-6
    assert found > expected - 0.15
    if sharpness == 1e4:
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    least = least_log_prior(law, Occupancy.of(q[:, :-1]).sum(), alone, 6.0)
    assert least < found + 1e-6


def test_single_precision_probabilities_lose_nothing_that_counts():
    """Probabilities that are rounded to 1, and many that are tiny."""
    q = torch.tensor([[1.0, 1e-20], [1.0, 0.0], [0.3, 0.7 - 1e-7]], dtype=torch.float32)
    law = NGGP(torch.tensor(1.0), torch.tensor(0.5))
    found = exact_log_prior(law, size_sums(q).sum(0), torch.tensor(0.0), 3.0)
    expected = given_sizes(law, size_laws(q.double().T), torch.tensor(0.0))
    assert found.item() == pytest.approx(expected.item(), abs=1e-5)
    assert found.dtype == torch.float64
