"""Gradient estimators that one argument swaps, against gradients known in closed form."""

import math

import pyro.distributions as dist
import pytest
import torch
from torch import tensor

from priorzoo.models.distributions.estimators import estimated
from priorzoo.models.distributions.gamma_draws import RejectionDirichlet, RejectionGamma
from priorzoo.models.distributions.scoring import Scored
from priorzoo.models.nggp.log_u import LogU

pytestmark = pytest.mark.usefixtures("double")
DRAWS = 100_000


def estimates(make, cost, parameter, gradient, augmentation=5):
    """Independent estimates of the derivative of E[cost] for one parameter."""
    theta = torch.full((DRAWS,), parameter, requires_grad=True)
    fn = estimated(make(theta), gradient, augmentation)
    value = fn()
    score = fn.score_parts(value).score_function
    return torch.autograd.grad((cost(value) + cost(value).detach() * score).sum(), theta)[0]


def z_score(found, expected):
    return abs(found.mean().item() - expected) / (found.std().item() / math.sqrt(len(found)))


def gamma(a):
    return dist.Gamma(a, torch.ones(()))


def xlogx(z):
    return torch.xlogy(z, z)


@pytest.mark.parametrize(
    ("shape", "gradient", "augmentation"),
    [
        (shape, gradient, augmentation)
        for shape in (0.1, 0.4, 1.0, 1.7, 20.0)
        for gradient, augmentation in (
            ("rsvi", 0),
            ("rsvi", 1),
            ("rsvi", 10),
            ("pathwise", 0),
            ("score", 0),
        )
        if gradient != "rsvi" or shape + augmentation >= 1  # where the sampler is defined
    ],
)
def test_gamma_gradients_are_unbiased(shape, gradient, augmentation):
    """E[z log z] = a psi(a + 1): its derivative is 1.5570 at a = 1.7, and .3488 at a = .4."""
    a = tensor(shape, requires_grad=True)
    expected = torch.autograd.grad(a * torch.digamma(a + 1), a)[0].item()
    known = {1.7: 1.5570, 0.4: 0.3488}
    assert expected == pytest.approx(known.get(shape, expected), abs=5e-5)
    assert z_score(estimates(gamma, xlogx, shape, gradient, augmentation), expected) < 4


def test_the_correction_vanishes_as_the_shape_is_augmented():
    """The part that goes through the draw alone is biased at B = 1, and less and less after."""
    bias = []
    for augmentation in (0, 1, 10):
        a = torch.full((DRAWS,), 1.7, requires_grad=True)
        fn = RejectionGamma(a, tensor(1.0), augmentation)
        z = fn()
        score = fn.score_parts(z).score_function
        correction = torch.autograd.grad((xlogx(z).detach() * score).sum(), a)[0]
        bias.append(correction.square().mean().item())
    assert bias[0] > 5 * bias[1] > 25 * bias[2] > 0


@pytest.mark.parametrize("gradient", ["rsvi", "pathwise", "score"])
def test_beta_gradients_are_unbiased(gradient):
    """E[v^2] = a (a + 1) / ((a + b) (a + b + 1)), at a = .6, b = 2."""
    a = tensor(0.6, requires_grad=True)
    expected = torch.autograd.grad(a * (a + 1) / ((a + 2) * (a + 3)), a)[0].item()
    found = estimates(lambda t: dist.Beta(t, tensor(2.0)), torch.square, 0.6, gradient)
    assert z_score(found, expected) < 4


@pytest.mark.parametrize("gradient", ["rsvi", "pathwise", "score"])
def test_dirichlet_gradients_are_unbiased(gradient):
    """E[log s_1] = psi(a_1) - psi(sum a), at a = (.5, 1, 3)."""
    a = tensor(0.5, requires_grad=True)
    expected = torch.autograd.grad(torch.digamma(a) - torch.digamma(a + 4), a)[0].item()
    rest = tensor([1.0, 3.0]).expand(DRAWS, 2)
    found = estimates(
        lambda t: dist.Dirichlet(torch.cat([t.unsqueeze(-1), rest], -1)),
        lambda s: s[..., 0].log(),
        0.5,
        gradient,
    )
    assert z_score(found, expected) < 4


@pytest.mark.parametrize("parameter", ["concentration", "discount", "occupied"])
def test_score_gradients_of_the_law_of_v_are_those_of_quadrature(parameter):
    """E[softplus(v)] for n = 20, K = 4, alpha = 2, sigma = .3, over 100,000 draws."""
    values = {"occupied": 4.0, "concentration": 2.0, "discount": 0.3}
    theta = tensor(values[parameter], requires_grad=True)
    exact = LogU(20.0, **values | {parameter: theta}).expect(torch.nn.functional.softplus)
    expected = torch.autograd.grad(exact, theta)[0].item()
    theta = tensor(values[parameter], requires_grad=True)
    q = LogU(20.0, **values | {parameter: theta})
    v = q.sample((DRAWS,))
    fixed = dict.fromkeys(values)
    step, scores = 1e-5, []
    for sign in (1, -1):  # the derivative of log q at each draw, by central differences
        fixed = values | {parameter: values[parameter] + sign * step}
        scores.append(LogU(20.0, **fixed).log_prob(v))
    slope = (scores[0] - scores[1]) / (2 * step)
    found = torch.nn.functional.softplus(v) * slope
    assert z_score(found, expected) < 4
    mean = torch.autograd.grad((torch.nn.functional.softplus(v) * q.log_prob(v)).mean(), theta)[0]
    torch.testing.assert_close(mean, found.mean(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("gradient", ["rsvi", "pathwise", "score"])
def test_estimators_leave_the_distribution_as_it_is(gradient):
    for fn in (
        dist.Gamma(tensor([0.3, 4.0]), tensor(2.0)),
        dist.Beta(tensor([0.3, 4.0]), tensor(2.0)).to_event(1),
        dist.Dirichlet(tensor([0.3, 4.0, 1.0])),
    ):
        wide = fn.expand((5, *fn.batch_shape))
        other = estimated(fn, gradient).expand((5, *fn.batch_shape))
        value = wide.sample((30_000,))
        torch.testing.assert_close(other.log_prob(value), wide.log_prob(value))
        assert str(other.support) == str(fn.support)
        assert other.batch_shape == wide.batch_shape
        assert other.event_shape == wide.event_shape
        torch.testing.assert_close(other.mean, wide.mean)
        drawn = other.sample((30_000,))
        torch.testing.assert_close(drawn.mean(0), wide.mean, rtol=0.1, atol=0)
        torch.testing.assert_close(drawn.var(0), value.var(0), rtol=0.15, atol=0)


def test_small_shapes_survive_single_precision():
    a = torch.full((1000, 4), 0.01, dtype=torch.float32, requires_grad=True)
    fn = RejectionDirichlet(a)
    s = fn()
    assert (s > 0).all()
    (fn.log_prob(s).sum() + fn.score_parts(s).score_function.sum()).backward()
    assert a.grad.isfinite().all()


def test_what_no_estimator_serves_is_refused():
    with pytest.raises(ValueError, match=r"Expected a Gamma, Beta or Dirichlet .* got Normal"):
        estimated(dist.Normal(0.0, 1.0), "rsvi")
    with pytest.raises(ValueError, match=r"Expected gradient among .* got 'reinforce'"):
        estimated(dist.Normal(0.0, 1.0), "reinforce")
    assert not Scored(dist.Normal(0.0, 1.0)).has_rsample
