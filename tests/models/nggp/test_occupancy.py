"""The collapsed prior, against the enumeration of all assignments."""

import itertools

import pytest
import torch

from priorzoo.models.nggp.law import NGGP
from priorzoo.models.nggp.occupancy import (
    Occupancy,
    expected_log_joint,
    expected_log_prior,
    log_prior,
)

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
