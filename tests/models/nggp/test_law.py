"""The partition law of the normalised generalised gamma process."""

import math
from collections import Counter

import pytest
import torch
from scipy.integrate import quad

from priorzoo.models.nggp.law import NGGP

pytestmark = pytest.mark.usefixtures("double")
PROCESSES = [(1.0, 0.0, 1.0), (0.5, 0.25, 1.0), (5.0, 0.1, 2.0), (1.4, 0.4, 0.7), (2.0, 0.9, 0.0)]
# E[K] at n = 10, 64 and 1000, known to two decimals
EXPECTED = {
    (1.0, 0.0, 1.0): (2.93, 4.74, 7.49),
    (1.0, 0.1, 1.0): (3.34, 6.00, 11.05),
    (1.0, 0.25, 1.0): (4.07, 8.70, 21.21),
    (0.5, 0.25, 1.0): (3.26, 6.36, 14.62),
    (5.0, 0.1, 1.0): (6.17, 15.62, 35.83),
    (1.0, 0.5, 1.0): (5.59, 16.74, 71.77),
    (1.4, 0.4, 0.7): (5.18, 13.82, 47.37),
}


def set_partitions(n):
    """Sizes of clusters, as a row of n with zeros, with the number of set partitions of each."""
    rows = [(1,)]
    for _ in range(n - 1):
        rows = [
            grown
            for sizes in rows
            for grown in (
                *(tuple(s + (i == k) for i, s in enumerate(sizes)) for k in range(len(sizes))),
                (*sizes, 1),
            )
        ]
    found = Counter(tuple(sorted(sizes)) for sizes in rows)
    padded = [[*sizes, *[0] * (n - len(sizes))] for sizes in found]
    return torch.tensor(padded).double(), torch.tensor(list(found.values())).double()


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("n", [1, 2, 4, 7])
def test_probabilities_of_all_set_partitions_sum_to_one(process, n):
    sizes, number = set_partitions(n)
    total = (NGGP(*process).log_probability(sizes).exp() * number).sum()
    assert total.item() == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("process", PROCESSES)
def test_removing_the_last_point_leaves_the_law_of_the_rest(process):
    """And the predictive is the ratio of the two laws."""
    law, sizes = NGGP(*process), torch.tensor([3.0, 1.0, 2.0, 0.0])
    grown = sizes + torch.eye(4)
    ratio = (law.log_probability(grown) - law.log_probability(sizes)).exp()
    assert ratio.sum().item() == pytest.approx(1, abs=1e-9)
    expected = torch.cat([ratio[:3], torch.zeros(1), ratio[3:]])
    torch.testing.assert_close(law.predictive(sizes), expected)


@pytest.mark.parametrize("process", PROCESSES)
def test_probability_is_the_joint_integrated(process):
    law, sizes = NGGP(*process), torch.tensor([3.0, 1.0, 2.0])

    def density(v):
        return law.log_joint(sizes, torch.tensor(v)).exp().item()

    total = quad(density, -60, 2, limit=400)[0] + quad(density, 2, 60, limit=400)[0]
    assert law.log_probability(sizes).exp().item() == pytest.approx(total, rel=1e-6)


def test_is_the_dirichlet_process_at_zero_discount_and_meets_it_smoothly():
    """Ewens' formula, which every tau gives; from sigma > 0 the way there is of first order."""
    sizes, alpha = torch.tensor([4.0, 1.0, 2.0]), 1.7
    ewens = (
        3 * math.log(alpha)
        + torch.lgamma(sizes).sum().item()
        + math.lgamma(alpha)
        - math.lgamma(alpha + 7)
    )
    for tau in (0.2, 1.0, 9.0):
        assert NGGP(alpha, 0.0, tau).log_probability(sizes).item() == pytest.approx(ewens)
    near = [NGGP(alpha, s, 1.0).log_probability(sizes).item() - ewens for s in (1e-3, 1e-5, 1e-9)]
    assert near[1] == pytest.approx(near[0] / 100, rel=1e-2)
    assert abs(near[2]) < 1e-8


def test_is_the_stable_process_at_zero_tilt():
    """Pitman and Yor with theta = 0: sigma^(K-1) Gamma(K) / Gamma(n) times the usual product."""
    sizes, sigma = torch.tensor([4.0, 1.0, 2.0]), 0.3
    product = (torch.lgamma(sizes - sigma) - math.lgamma(1 - sigma)).sum().item()
    expected = 2 * math.log(sigma) + math.lgamma(3) - math.lgamma(7) + product
    for alpha in (0.2, 3.0):
        found = NGGP(alpha, sigma, 0.0).log_probability(sizes).item()
        assert found == pytest.approx(expected)


def test_is_the_normalised_inverse_gaussian_process_at_one_half():
    r"""Two data together: :math:`\int u \kappa_2(u) e^{-\psi(u)} du` of its Lévy intensity."""
    alpha, tau = 0.8, 1.3

    def integrand(u):
        kappa = alpha * math.gamma(1.5) / math.gamma(0.5) * (u + tau) ** -1.5
        return u * kappa * math.exp(-2 * alpha * (math.sqrt(u + tau) - math.sqrt(tau)))

    total = quad(integrand, 0, 50)[0] + quad(integrand, 50, math.inf)[0]
    found = NGGP(alpha, 0.5, tau).log_probability(torch.tensor([2.0])).exp().item()
    assert found == pytest.approx(total, rel=1e-6)


@pytest.mark.parametrize("process", PROCESSES[1:4])
def test_scales_of_concentration_and_tilt_can_be_exchanged(process):
    alpha, sigma, tau = process
    sizes, c = torch.tensor([[4.0, 1.0, 2.0], [7.0, 0.0, 0.0]]), 3.7
    scaled = NGGP(alpha * c**sigma, sigma, tau / c).log_probability(sizes)
    torch.testing.assert_close(scaled, NGGP(*process).log_probability(sizes))


@pytest.mark.parametrize("process", EXPECTED)
def test_expected_number_of_clusters(process):
    for n, expected in zip((10, 64, 1000), EXPECTED[process], strict=True):
        law = NGGP(*process).cluster_law(n).exp()
        assert law.sum().item() == pytest.approx(1, abs=1e-9)
        mean = (law * torch.arange(1, n + 1)).sum().item()
        assert mean == pytest.approx(expected, abs=0.006)


def test_cluster_law_is_the_sum_over_partitions():
    sizes, number = set_partitions(6)
    law = NGGP(1.4, 0.4, 0.7)
    found = law.cluster_law(6).exp()
    mass = law.log_probability(sizes).exp() * number
    occupied = (sizes > 0).sum(-1)
    expected = torch.stack([mass[occupied == k].sum() for k in range(1, 7)])
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(law.cluster_law(6, most=3).exp(), expected[:3])


@pytest.mark.parametrize("process", [(1.0, 0.0, 1.0), (1.4, 0.4, 0.7)])
def test_simulated_partitions_follow_the_law(process):
    """Every partition of 4 by a chi-square of 4,000 draws, and E[K] at n = 64 within 4 errors."""
    from scipy.stats import chisquare

    law = NGGP(*process)
    drawn = Counter(map(tuple, law.simulate(4, 4_000).tolist()))
    found, expected = [], []
    for labels in {(0, a, b, c) for a in range(2) for b in range(3) for c in range(4)}:
        if all(label <= max(labels[:i]) + 1 for i, label in enumerate(labels) if i):
            sizes = torch.bincount(torch.tensor(labels), minlength=4).double()
            found.append(drawn[labels])
            expected.append(4_000 * law.log_probability(sizes).exp().item())
    assert len(found) == 15
    assert chisquare(found, expected).pvalue > 1e-3
    clusters = law.simulate(64, 1_000).amax(-1) + 1.0
    error = clusters.std().item() / math.sqrt(1_000)
    assert clusters.mean().item() == pytest.approx(EXPECTED[process][1], abs=4 * error)


def test_weights_given_u_are_gammas_beside_the_mean_of_the_rest():
    """Moments over 50,000 draws; the weight of what was never seen is the unseen part's mean."""
    law, v = NGGP(1.4, 0.4, 0.7), torch.tensor(1.0)
    sizes = torch.tensor([5.0, 0.0, 1.0]).expand(50_000, 3)
    drawn = law.weights(sizes, v.expand(50_000))
    rate = math.e + 0.7
    expected = torch.tensor([4.6 / rate, 0.0, 0.6 / rate, 1.4 * rate**-0.6])
    torch.testing.assert_close(drawn.mean(0), expected, rtol=0.02, atol=0)
    assert drawn[:, 0].var().item() == pytest.approx(4.6 / rate**2, rel=0.03)


def test_a_cluster_is_born_as_likely_as_the_joint_says():
    """Given u, the joint with one more in a cluster against one more alone: the weights' ratio."""
    law, v = NGGP(1.4, 0.4, 0.7), torch.tensor(0.3)
    joined = law.log_joint(torch.tensor([3.0, 2.0, 0.0]), v)
    alone = law.log_joint(torch.tensor([2.0, 2.0, 1.0]), v)
    torch.testing.assert_close(alone - joined, law.log_new(v) - math.log(2 - 0.4))
