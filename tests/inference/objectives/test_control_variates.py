"""The objective on draws that are not wholly reparameterised, and what baselines do to it."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch import nn

from priorzoo.inference import ELBO, KL, check_pair, fit
from priorzoo.inference.batch import Batch
from priorzoo.inference.objectives.control_variates import Baselined
from priorzoo.models import data_plate
from priorzoo.models.distributions.estimators import estimated

pytestmark = pytest.mark.usefixtures("double")
N, B = 6, 3


class Proportions(nn.Module):
    """A global v, if it is shared, and a local w, and x near their sum."""

    def __init__(self, shared=True):
        super().__init__()
        self.shared = shared
        self.rate = nn.Parameter(torch.tensor(0.5))

    def forward(self, x=None, size=None):
        v = pyro.sample("v", dist.Gamma(2.0, 2.0)).unsqueeze(-1) if self.shared else 0.8
        with data_plate(x, size):
            w = pyro.sample("w", dist.Beta(self.rate.exp(), 1.0).expand((2,)).to_event(1))
            return pyro.sample("x", dist.Normal(w + v, 0.7).to_event(1), obs=x)


class Guess(nn.Module):
    def __init__(self, gradient, shared=True):
        super().__init__()
        self.gradient, self.shared = gradient, shared
        self.shape = nn.Parameter(torch.tensor(1.5))
        self.layer = nn.Linear(2, 4)

    def forward(self, x, size=None):
        if self.shared:
            pyro.sample("v", estimated(dist.Gamma(self.shape, 1.2), self.gradient))
        with data_plate(x, size):
            a, b = (self.layer(x).exp() + 0.5).chunk(2, -1)
            pyro.sample("w", estimated(dist.Beta(a, b).to_event(1), self.gradient))


def pair(gradient, shared=True):
    torch.manual_seed(0)
    return Proportions(shared), Guess(gradient, shared), torch.rand(B, 2) + 0.5


def gradient_of(objective, x, seed=1):
    torch.manual_seed(seed)
    loss, _ = objective(x, N)
    parameters = [p for part in (objective.model, objective.guide) for p in part.parameters()]
    return torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, parameters)])


@pytest.mark.parametrize("gradient", ["rsvi", "pathwise", "score"])
def test_equals_pyros_on_the_same_draws(gradient):
    """In value and gradient, for local sites.

    With v as well Pyro would charge a local draw with the cost of v, which it does not influence.
    """
    model, guide, x = pair(gradient, shared=False)
    parameters = [model.rate, *guide.layer.parameters()]
    torch.manual_seed(1)
    loss, _ = ELBO(model, guide)(x)
    torch.manual_seed(1)
    expected = Trace_ELBO().differentiable_loss(model, guide, x)
    torch.testing.assert_close(loss * B, expected)
    torch.testing.assert_close(
        torch.autograd.grad(loss * B, parameters), torch.autograd.grad(expected, parameters)
    )


@pytest.mark.parametrize("gradient", ["rsvi", "score"])
@pytest.mark.parametrize("particles", [1, 4])
def test_is_unbiased_with_policies_and_with_particles(gradient, particles):
    """Against the implicit gradient's mean, component by component."""
    kl = {"w": KL(weight=0.3)}
    runs = 120
    means, errors = [], []
    for kind in (gradient, "pathwise"):
        model, guide, x = pair(kind)
        objective = ELBO(model, guide, kl, particles=particles)
        found = torch.stack([gradient_of(objective, x, seed) for seed in range(runs)])
        means.append(found.mean(0))
        errors.append(found.var(0) / runs)
    assert ((means[0] - means[1]).abs() < 4.5 * (errors[0] + errors[1]).sqrt() + 1e-12).all()


def spread(objective, x, runs=60):
    return torch.stack([gradient_of(objective, x, s) for s in range(runs)]).var(0).sum().item()


def test_baselines_reduce_the_variance_and_not_the_mean():
    """The running mean and a network for one draw; the other particles for several."""
    model, guide, x = pair("score")
    x = x + 4  # far from what the model expects, so that the cost is mostly no draw's merit
    plain = spread(ELBO(model, guide), x)
    for network in (None, nn.Linear(2, 1)):
        objective = Baselined(model, guide, network=network)
        optimiser = torch.optim.Adam(objective.parameters(), lr=0.05)
        for _ in range(60):  # of the baseline alone
            optimiser.zero_grad()
            loss = objective.loss(Batch(x, N))
            loss.value.backward()
            objective.commit(loss.carry)
            for p in (*model.parameters(), *guide.parameters()):
                p.grad = None
            optimiser.step()
        objective.eval()
        assert spread(objective, x) < 0.5 * plain
        assert objective.network is not None or objective.level > 1
    crowd = spread(ELBO(model, guide, particles=4), x)
    assert crowd < 0.5 * plain / 4


def test_a_baseline_leaves_value_and_expected_gradient():
    model, guide, x = pair("score")
    objective = Baselined(model, guide).eval()
    objective.level += 2.0
    torch.manual_seed(1)
    value, terms = objective(x, N)
    torch.manual_seed(1)
    expected, others = ELBO(model, guide)(x, N)
    torch.testing.assert_close((value, terms), (expected, others))
    runs = 80
    change = torch.stack(
        [gradient_of(objective, x, s) - gradient_of(ELBO(model, guide), x, s) for s in range(runs)]
    )
    assert (change.mean(0).abs() <= 4.5 * change.std(0) / math.sqrt(runs) + 1e-12).all()
    assert (change.abs().sum(-1) > 0).all()


def test_the_running_mean_is_that_of_the_costs_so_far():
    model, guide, x = pair("score")
    objective = Baselined(model, guide, decay=0.9)
    costs = []
    for _ in range(5):
        loss = objective.loss(Batch(x, N))
        objective.commit(loss.carry)
        costs.append(-loss.terms["elbo"].mean().item())
    assert objective.level.item() == pytest.approx(sum(costs) / 5)


def test_trains_and_refuses_several_particles():
    model, guide, x = pair("score")
    check_pair(model, guide)
    settings = {"steps": 150, "every": 50, "optimiser": lambda p: torch.optim.Adam(p, lr=0.03)}
    history = fit(model, guide, x, objective=Baselined(model, guide), **settings)
    assert history[-1]["elbo"] > history[0]["elbo"]
    with pytest.raises(ValueError, match="Expected particles=1 with a baseline but got 3"):
        Baselined(model, guide, particles=3)
