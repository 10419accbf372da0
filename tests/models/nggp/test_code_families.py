"""Codes and components of each family, against quadrature, optimisers and densities of scipy."""

import numpy as np
import pytest
import torch
from scipy import optimize, stats

from priorzoo.models.nggp.code_families import FAMILIES

pytestmark = pytest.mark.usefixtures("double")
GAUSSIAN, FULL, DIRICHLET = (FAMILIES[name] for name in ("gaussian", "full", "dirichlet"))


def dirichlet(*shapes):
    """Mean and spread of Dirichlet distributions, one a row."""
    shape = torch.tensor(shapes)
    total = shape.sum(-1, keepdim=True)
    return shape / total, total.rsqrt().expand_as(shape)


def test_a_mean_and_a_spread_are_the_dirichlet_they_came_from():
    law = DIRICHLET.distribution(*dirichlet([0.3, 4.0, 1.1]))
    expected = stats.dirichlet([0.3, 4.0, 1.1])
    s = np.array([0.2, 0.5, 0.3])
    assert law.log_prob(torch.tensor(s)).item() == pytest.approx(expected.logpdf(s))
    torch.testing.assert_close(law.variance[0], torch.tensor(expected.var()))


def test_expected_log_density_of_shares_is_its_integral():
    """Two shares are a Beta."""
    guesses, components = ([2.0, 0.7], [0.3, 5.0]), ([1.0, 1.0], [3.0, 0.5], [0.4, 8.0])
    found = DIRICHLET.expected_log(*dirichlet(*guesses), *dirichlet(*components))
    for i, guess in enumerate(guesses):
        for k, component in enumerate(components):
            expected = stats.beta(*guess).expect(stats.beta(*component).logpdf)
            assert found[i, k].item() == pytest.approx(expected, abs=1e-6)


def test_expected_log_density_of_real_codes_is_its_integral():
    mean, spread = torch.tensor([[0.3], [-1.0]]), torch.tensor([[0.5], [2.0]])
    loc, scale = torch.tensor([[0.0], [1.5]]), torch.tensor([[1.0], [0.2]])
    found = GAUSSIAN.expected_log(mean, spread, loc, scale)
    for i in range(2):
        for k in range(2):
            component = stats.norm(loc[k].item(), scale[k].item())
            guess = stats.norm(mean[i].item(), spread[i].item())
            assert found[i, k].item() == pytest.approx(guess.expect(component.logpdf), rel=1e-5)


def test_expected_log_density_of_correlated_codes_is_its_integral():
    """By Gauss-Hermite quadrature in the plane, exact for polynomials of degree four."""
    mean, spread = torch.randn(2, 2), torch.rand(2, 2) + 0.1
    loc, root = torch.randn(3, 2), (torch.rand(3, 2, 2) + 0.3).tril()
    found = FULL.expected_log(mean, spread, loc, root)
    nodes, weights = np.polynomial.hermite_e.hermegauss(5)
    grid = np.stack(np.meshgrid(nodes, nodes), -1).reshape(-1, 2)
    weight = np.outer(weights, weights).reshape(-1) / (2 * np.pi)
    for i in range(2):
        z = mean[i].numpy() + spread[i].numpy() * grid
        for k in range(3):
            component = stats.multivariate_normal(loc[k], root[k] @ root[k].T)
            assert found[i, k].item() == pytest.approx(weight @ component.logpdf(z), rel=1e-9)


def test_a_matched_correlated_component_has_the_moments_of_its_guesses():
    """Those of many draws of them, and a little more variance."""
    mean, spread = torch.randn(40, 3) @ torch.randn(3, 3), torch.rand(40, 3) + 0.1
    weight = torch.rand(40, 2)
    loc, root = FULL.match(mean, spread, weight)
    rows = torch.multinomial(weight.mT, 400_000, replacement=True)
    for k in range(2):
        z = mean[rows[k]] + spread[rows[k]] * torch.randn(400_000, 3)
        torch.testing.assert_close(loc[k], z.mean(0), rtol=0, atol=0.03)
        more = 1e-3 * torch.eye(3)
        torch.testing.assert_close(root[k] @ root[k].mT, z.mT.cov() + more, rtol=0.02, atol=0.03)


def test_a_correlated_component_of_a_diagonal_root_is_the_independent_one():
    guess, (loc, scale) = (
        (torch.randn(4, 3), torch.rand(4, 3)),
        (torch.randn(2, 3), torch.rand(2, 3)),
    )
    full = loc, scale.diag_embed()
    torch.testing.assert_close(
        FULL.expected_log(*guess, *full), GAUSSIAN.expected_log(*guess, loc, scale)
    )
    torch.testing.assert_close(FULL.variance(full[1]), GAUSSIAN.variance(scale))
    base, independent = FULL.base(*full, 2.0), GAUSSIAN.base(loc, scale, 2.0)
    torch.testing.assert_close(base, (independent[0], independent[1].diag_embed()))


@pytest.mark.parametrize("family", ["gaussian", "dirichlet"])
def test_matched_components_are_where_an_optimiser_finds_the_maximum(family):
    kind = FAMILIES[family]
    if family == "dirichlet":
        guess = dirichlet(*(torch.rand(30, 3) * torch.tensor([6.0, 2.0, 0.5]) + 0.1).tolist())
    else:
        guess = torch.randn(30, 3), torch.rand(30, 3) + 0.1
    weight = torch.rand(30, 2)
    loc, scale = kind.match(*guess, weight)
    for k in range(2):

        def loss(numbers, k=k):
            half = torch.as_tensor(numbers)
            if family == "dirichlet":
                component = dirichlet(half.exp().tolist())
            else:
                component = half[None, :3], half[None, 3:].exp()
            return -(weight[:, k] @ kind.expected_log(*guess, *component)[:, 0]).item()

        start = np.zeros(3 if family == "dirichlet" else 6)
        best = optimize.minimize(
            loss, start, method="Powell", options={"xtol": 1e-9, "ftol": 1e-14}
        ).x
        mine = (loc[k] / scale[k] ** 2).log() if family == "dirichlet" else loc[k]
        np.testing.assert_allclose(mine, best[:3], atol=1e-4)
        if family == "gaussian":
            np.testing.assert_allclose(scale[k].log(), best[3:], atol=1e-4)


@pytest.mark.parametrize("shape", [[1e-3, 1e-3, 1e-3], [500.0, 1.0, 0.02], [900.0, 900.0, 900.0]])
def test_matching_copies_of_one_guess_ends_and_is_finite(shape):
    """A Dirichlet with that E[log z] is the guess itself, however far Newton's start is off."""
    mean, spread = dirichlet(*[shape] * 20)
    loc, scale = DIRICHLET.match(mean, spread, torch.ones(20, 1))
    torch.testing.assert_close(loc / scale**2, torch.tensor([shape]), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_parameters_give_the_components_they_were_made_of(family):
    kind = FAMILIES[family]
    loc, scale = torch.randn(2, 3), torch.rand(2, 3) + 0.1
    given = {
        "gaussian": (loc, scale),
        "full": (loc, torch.randn(2, 3, 3).tril(-1) + scale.diag_embed()),
        "dirichlet": dirichlet([0.5, 3.0, 1.0], [9.0, 90.0, 1.0]),
    }[family]
    torch.testing.assert_close(kind.components(*kind.parameters(*given)), given)


def test_the_base_of_breadth_one_is_the_uniform_law_of_shares():
    base = DIRICHLET.base(torch.empty(2, 4), torch.empty(2, 4), 1.0)
    torch.testing.assert_close(DIRICHLET.component(*base).concentration, torch.ones(1, 4))
