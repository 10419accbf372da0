"""Closed forms in evaluation, and densities at draws near the ends of their support."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn
from torch.distributions import kl_divergence

from priorzoo.guides import ClusterThenCode, CodeThenCluster, Sticks
from priorzoo.inference import ELBO, KL, Training, evaluate, importance_bound
from priorzoo.inference.batch import Batch
from priorzoo.inference.objectives.closed_forms import exact_sites
from priorzoo.inference.training.tracing import trace
from priorzoo.models import GMVAE, MLP, StickBreakingVAE, data_plate
from priorzoo.models.distributions.estimators import estimated
from priorzoo.models.distributions.sticks import Kumaraswamy, LogitNormal

ROWS, P = 4, 6
EXTREME = {  # raw parameters for which most draws round to an end, by family
    "kumaraswamy": [(-3.5, -3.5), (-3.5, 1.0), (2.0, -3.5)],
    "beta": [(-3.5, -3.5), (-3.5, 1.0), (2.0, -3.5)],
    "logit-normal": [(20.0, 1.0), (-30.0, 100.0), (0.0, 900.0)],
}


class Ignorant(nn.Module):
    """A decoder that does not look at the sticks, so that log p(x) is known."""

    def forward(self, pi):
        return pi.new_zeros(*pi.shape[:-1], P)


class Told(nn.Module):
    """An encoder that gives every row the same output."""

    def __init__(self, *raw):
        super().__init__()
        self.raw = nn.Parameter(torch.tensor(raw))

    def forward(self, x):
        return self.raw.expand(len(x), -1)


def extreme_pair(family, place, gradient="pathwise"):
    first, second = EXTREME[family][place]
    guide = Sticks(Told(first, first, second, second), family, gradient)
    return StickBreakingVAE(Ignorant(), code=3), guide


def divergence(guide):
    """KL(q || p) of both sticks."""
    first, second = guide.encoder.raw.detach().double().chunk(2)
    q = guide._sticks(first, second)
    return kl_divergence(q, dist.Beta(torch.ones(2).double(), 5.0)).sum().item()


CASES = [
    (family, place, gradient)
    for family in EXTREME
    for place in range(3)
    for gradient in ("pathwise", "score", "rsvi")
    if gradient != "rsvi" or family == "beta"
]


@pytest.mark.parametrize(("family", "place", "gradient"), CASES)
def test_evaluation_takes_the_closed_form_of_sticks(family, place, gradient):
    model, guide = extreme_pair(family, place, gradient)
    found = evaluate(model, guide, torch.rand(ROWS, P).round())
    assert found["kl[v]"] == pytest.approx(divergence(guide), rel=2e-6)
    assert found["elbo"] == pytest.approx(P * math.log(0.5) - found["kl[v]"], rel=1e-5)


@pytest.mark.parametrize(("family", "place", "gradient"), CASES)
def test_terms_at_draws_near_the_ends_have_the_closed_form_as_their_mean(family, place, gradient):
    """In training without ``analytic``; and in the importance bound of one sample."""
    model, guide = extreme_pair(family, place, gradient)
    x = torch.rand(1, P).round().expand(20_000, P)
    exact = divergence(guide)
    with torch.no_grad():
        drawn = ELBO(model, guide).terms(x)["kl[v]"]
        bound = importance_bound(model, guide, x, 1)
    for found, mean in ((drawn, exact), (bound, P * math.log(0.5) - exact)):
        error = found.std().item() / math.sqrt(len(found))
        assert found.mean().item() == pytest.approx(mean, abs=4.5 * error + 1e-5 * exact)


@pytest.mark.parametrize(("family", "place", "gradient"), CASES)
def test_compiled_steps_draw_the_same_near_the_ends(family, place, gradient):
    model, guide = extreme_pair(family, place, gradient)
    objective = ELBO(model, guide)
    batch = Batch(torch.rand(ROWS, P).round())
    graph = trace(objective, batch)
    torch.manual_seed(3)
    loss = objective.loss(batch).value
    eager = torch.autograd.grad(loss, guide.encoder.raw)[0]
    torch.manual_seed(3)
    means, gradient_of = graph.graph(*graph.inputs, *batch.tensors)
    torch.testing.assert_close(gradient_of, eager)
    torch.testing.assert_close(means[graph.terms.index("objective")], -loss.detach())


class Shares(nn.Module):
    """Codes on the simplex, or positive codes, that x does not depend on."""

    def __init__(self, fn):
        super().__init__()
        self.fn = fn
        self.level = nn.Parameter(torch.zeros(()))

    def forward(self, x=None, size=None):
        with data_plate(x, size):
            pyro.sample("z", self.fn)
            return pyro.sample("x", dist.Normal(self.level.expand(P), 1.0).to_event(1), obs=x)


class Draws(nn.Module):
    def __init__(self, fn):
        super().__init__()
        self.fn = fn

    def forward(self, x, size=None):
        with data_plate(x, size):
            pyro.sample("z", self.fn)


SMALL = torch.tensor([0.02, 0.05, 0.01])
OTHERS = {
    "dirichlet": (dist.Dirichlet(SMALL), dist.Dirichlet(torch.ones(3))),
    "large dirichlet": (dist.Dirichlet(1e4 * SMALL), dist.Dirichlet(2e4 * SMALL)),
    "gamma": (dist.Gamma(SMALL, 2.0).to_event(1), dist.Gamma(torch.ones(3), 1.0).to_event(1)),
    "large gamma": (
        dist.Gamma(torch.full((3,), 1e5), 1e4).to_event(1),
        dist.Gamma(torch.full((3,), 1.01e5), 1e4).to_event(1),
    ),
    "beta": (dist.Beta(SMALL, SMALL).to_event(1), dist.Beta(torch.ones(3), 1.0).to_event(1)),
}


@pytest.mark.parametrize("gradient", ["pathwise", "rsvi", "score"])
@pytest.mark.parametrize("name", OTHERS)
def test_programs_of_ones_own_are_exact_in_the_same_way(name, gradient):
    """Evaluation in closed form; at draws its mean, with a stock Pyro distribution as the prior."""
    q, p = OTHERS[name]
    model, guide = Shares(p), Draws(estimated(q, gradient))
    x = torch.zeros(1, P)
    wide = [
        type(f)(*(getattr(f, n).double() for n in f.arg_constraints))
        for f in (getattr(each, "base_dist", each) for each in (q, p))
    ]
    exact = kl_divergence(*wide).sum().item()
    assert evaluate(model, guide, x)["kl[z]"] == pytest.approx(exact, rel=2e-6)
    with torch.no_grad():
        drawn = ELBO(model, guide).terms(x.expand(20_000, P))["kl[z]"]
    error = drawn.std().item() / math.sqrt(20_000)
    assert drawn.mean().item() == pytest.approx(exact, abs=4.5 * error + 1e-5 * exact)


def test_closed_forms_are_taken_only_where_they_are_the_expectation():
    """Not of a code whose cluster's probabilities depend on it: that is a lower bound."""
    torch.manual_seed(0)
    x = torch.rand(50, P).round()
    model = GMVAE(MLP(2, P, (4,)), code=2, clusters=3)
    before = ClusterThenCode(MLP(P, 3, (4,)), MLP(P, 4, (4,), clusters=3))
    after = CodeThenCluster(MLP(P, 4, (4,)), model)
    for guide, sites in ((before, ["y", "z"]), (after, ["y"])):
        objective = ELBO(model, guide)
        assert sorted(exact_sites(objective.draw(Batch(x)))) == sites
        with torch.no_grad():
            many = ELBO(model, guide, particles=4000).terms(x)
        found = evaluate(model, guide, x.repeat(100, 1))
        for name in ("kl[z]", "kl[y]"):
            assert found[name] == pytest.approx(many[name].mean().item(), abs=0.02)
    closed = ELBO(model, before, {"z": KL(analytic=True)}).terms(x)["kl[z]"].mean().item()
    assert evaluate(model, before, x)["kl[z]"] == pytest.approx(closed, rel=1e-6)


@pytest.mark.parametrize("kind", [Kumaraswamy, dist.Beta, LogitNormal])
def test_training_near_the_ends_stays_finite(kind):
    family = {Kumaraswamy: "kumaraswamy", LogitNormal: "logit-normal"}.get(kind, "beta")
    model, guide = extreme_pair(family, 0)
    training = Training(model, guide, torch.rand(20, P).round(), batch_size=10)
    training.run(20)
    assert guide.encoder.raw.isfinite().all()
