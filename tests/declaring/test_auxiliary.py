"""Auxiliary sites of a guide: summed out exactly, given a reverse term by the model, or refused.

Stock Pyro adds the entropy of such a site and bounds nothing, so that it is not the measure here:
the evidence in closed form is, and a guide that draws from the mixture itself.
"""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoDiagonalNormal, AutoNormal, AutoStructured
from torch import nn

from priorzoo.inference import ELBO, KL, Batch, check_pair, importance_bound
from priorzoo.models import data_plate
from priorzoo.models.distributions.estimators import estimated

pytestmark = pytest.mark.usefixtures("double")
SUMMED = {"enumerate": "parallel", "is_auxiliary": True}
ENUMERATE = {"enumerate": "parallel"}
B, K, NOISE = 4, 3, 0.7


class Program(nn.Module):
    """A function as a module, which :func:`check_pair` wants."""

    def __init__(self, story):
        super().__init__()
        self.story = story

    def forward(self, x=None, size=None):
        return self.story(x, size)


@Program
def model(x=None, size=None):
    with data_plate(x, size):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        return pyro.sample("x", dist.Normal(z, NOISE).to_event(1), obs=x)


def evidence(x):
    return dist.Normal(torch.zeros(2), math.sqrt(1 + NOISE**2)).to_event(1).log_prob(x)


class Guide(nn.Module):
    """q(c) q(z | x, c) with ``spread`` between the components, none for a z without c."""

    def __init__(self, spread=1.0, infer=SUMMED, gradient="pathwise"):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([0.3, -0.4, 0.8]))
        self.loc = nn.Parameter(spread * torch.tensor([[-0.6, 0.1], [0.2, 0.4], [0.7, -0.5]]))
        self.infer, self.gradient = infer, gradient

    def component(self, x, loc):
        return dist.Normal(x / (1 + NOISE**2) + loc, 0.6).to_event(1)

    def forward(self, x, size=None):
        with data_plate(x, size):
            c = pyro.sample("c", dist.Categorical(logits=self.logits), infer=self.infer)
            pyro.sample("z", estimated(self.component(x, self.loc[c]), self.gradient))

    def mixture(self, x):
        weights = dist.Categorical(logits=self.logits.expand(len(x), K))
        parts = self.component(x.unsqueeze(1), self.loc)
        return dist.MixtureSameFamily(weights, parts)


@pytest.fixture
def x():
    return torch.tensor([[0.3, -1.0], [1.2, 0.4], [-0.5, 0.9], [2.0, 1.5]])


def test_a_site_that_nothing_depends_on_changes_nothing(x):
    """With the exact posterior of z both bounds are the evidence, and not log 3 above it."""

    @Program
    def guide(x, size=None):
        with data_plate(x, size):
            pyro.sample("c", dist.Categorical(logits=torch.zeros(3)), infer=SUMMED)
            var = NOISE**2 / (1 + NOISE**2)
            pyro.sample("z", dist.Normal(x / (1 + NOISE**2), var**0.5).to_event(1))

    check_pair(model, guide)
    terms = ELBO(model, guide).terms(x)
    torch.testing.assert_close(terms["elbo"], evidence(x))
    assert set(terms) == {"kl[z]", "reconstruction", "elbo"}
    torch.testing.assert_close(importance_bound(model, guide, x, 3), evidence(x))


@pytest.mark.parametrize("particles", [1, 3])
def test_the_mixture_density_is_in_the_bound(x, particles):
    """At the draws: sum_c q(c) (log p(x, z_c) - log q(z_c)), q the mixture."""
    guide = Guide()
    check_pair(model, guide)
    draws = ELBO(model, guide, particles=particles).draw(Batch(x))
    z = draws.guide_trace.nodes["z"]["value"].reshape(K, particles, B, 2)
    joint = dist.Normal(0.0, 1.0).log_prob(z).sum(-1) + dist.Normal(z, NOISE).log_prob(x).sum(-1)
    cost = joint - guide.mixture(x).log_prob(z)
    q = guide.logits.softmax(-1)
    expected = (q[:, None, None] * cost).sum(0).mean(0)
    torch.testing.assert_close(ELBO(model, guide).terms_of(draws)["elbo"], expected)
    weights = (guide.logits.log_softmax(-1)[:, None, None] + cost).logsumexp(0)
    torch.testing.assert_close(draws.log_weights(), weights)


@pytest.mark.parametrize("gradient", ["pathwise", "score"])
@pytest.mark.parametrize("particles", [1, 2])
def test_the_gradient_is_that_of_quadrature(gradient, particles):
    """Of the bound in one dimension, to three standard errors in each parameter."""
    x = torch.tensor([[0.8, 0.0]])
    guide = Guide(gradient=gradient)
    grid = torch.linspace(-7, 7, 301)
    z = torch.cartesian_prod(grid, grid).unsqueeze(1)
    log_q = guide.mixture(x).log_prob(z)[:, 0]
    log_p = (dist.Normal(0.0, 1.0).log_prob(z) + dist.Normal(z, NOISE).log_prob(x)).sum((-2, -1))
    area = (grid[1] - grid[0]) ** 2
    exact = (log_q.exp() * (log_q - log_p)).sum() * area
    names = [name for name, _ in guide.named_parameters()]
    expected = torch.autograd.grad(exact, list(guide.parameters()))
    rows = x.expand(4000, -1)
    objective, found = ELBO(model, guide, particles=particles), []
    for _ in range(30):
        loss, _ = objective(rows)
        found.append(torch.autograd.grad(loss, list(guide.parameters())))
    for name, target, draws in zip(names, expected, zip(*found, strict=True), strict=True):
        draws = torch.stack(draws)
        error = draws.std(0) / len(draws) ** 0.5
        assert ((draws.mean(0) - target).abs() < 3.5 * error + 1e-9).all(), name


def test_it_bounds_the_evidence_as_the_mixture_does(x):
    """On average both are the same, below the evidence; weights have the evidence as their mean."""
    guide, many = Guide(), x.repeat(5000, 1)

    def direct(x, size=None):
        with data_plate(x, size):
            pyro.sample("z", guide.mixture(x))

    with torch.no_grad():
        summed, drawn = (ELBO(model, g).terms(many)["elbo"].reshape(-1, B) for g in (guide, direct))
        weights = importance_bound(model, guide, many, 2).reshape(-1, B) - evidence(x)
    error = ((summed.var(0) + drawn.var(0)) / len(summed)).sqrt()
    assert ((summed.mean(0) - drawn.mean(0)).abs() < 4 * error).all()
    assert (summed.mean(0) < evidence(x) - 10 * error).all()
    ratio = weights.exp()
    assert ((ratio.mean(0) - 1).abs() < 4 * ratio.std(0) / len(ratio) ** 0.5).all()


class Chained(nn.Module):
    """Two auxiliary sites, a then b given a, above an enumerated y and a drawn z."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.randn(2)), nn.Parameter(torch.randn(2, 3))
        self.y, self.loc = nn.Parameter(torch.randn(3, 4)), nn.Parameter(torch.randn(2, 3, 4))

    def forward(self, x, size=None):
        with data_plate(x, size):
            a = pyro.sample("a", dist.Categorical(logits=self.a), infer=SUMMED)
            b = pyro.sample("b", dist.Categorical(logits=self.b[a]), infer=SUMMED)
            y = pyro.sample("y", dist.Categorical(logits=self.y[b]), infer=ENUMERATE)
            pyro.sample("z", dist.Normal(self.loc[a, b, y] + x, 0.5))


@Program
def clustered(x=None, size=None):
    with data_plate(x, size):
        y = pyro.sample("y", dist.Categorical(logits=torch.zeros(4)))
        z = pyro.sample("z", dist.Normal(y - 1.5, 1.0))
        return pyro.sample("x", dist.Normal(z, NOISE), obs=x)


def test_several_auxiliary_sites_above_several_others():
    """Every sum written out: q(y, z) = sum_ab q(a) q(b | a) q(y | b) q(z | a, b, y)."""
    guide, x = Chained(), torch.randn(B)
    check_pair(clustered, guide)
    draws = ELBO(clustered, guide).draw(Batch(x))
    z = draws.guide_trace.nodes["z"]["value"].reshape(4, 3, 2, B)  # y, b, a, rows
    log_a, log_b = guide.a.log_softmax(-1), guide.b.log_softmax(-1)
    log_y = guide.y.log_softmax(-1)
    elbo, weights = torch.zeros(B), []
    for a in range(2):
        for b in range(3):
            for y in range(4):
                own = z[y, b, a]
                parts = [
                    log_a[i]
                    + log_b[i, j]
                    + log_y[j, y]
                    + dist.Normal(guide.loc[i, j, y] + x, 0.5).log_prob(own)
                    for i in range(2)
                    for j in range(3)
                ]
                log_q = torch.stack(parts).logsumexp(0)
                log_p = dist.Normal(y - 1.5, 1.0).log_prob(own) - math.log(4)
                log_p = log_p + dist.Normal(own, NOISE).log_prob(x)
                weight = log_a[a] + log_b[a, b] + log_y[b, y]
                elbo = elbo + weight.exp() * (log_p - log_q)
                weights.append(weight + log_p - log_q)
    torch.testing.assert_close(ELBO(clustered, guide).terms_of(draws)["elbo"], elbo)
    torch.testing.assert_close(draws.log_weights()[0], torch.stack(weights).logsumexp(0))


def test_a_closed_form_is_not_used_for_a_mixture(x):
    """The KL of z given c is not that of z."""
    guide = Guide()
    torch.manual_seed(1)
    plain = ELBO(model, guide).terms(x)
    torch.manual_seed(1)
    torch.testing.assert_close(ELBO(model, guide, kl={"z": KL(analytic=True)}).terms(x), plain)


@pytest.mark.usefixtures("recorded")
def test_it_trains_compiled_as_eagerly(trained_both_ways):
    x = torch.randn(20, 2)
    _, history = trained_both_ways(lambda: (Model(), Guide()), x, steps=10, batch_size=10)
    assert history


class Model(nn.Module):
    def __init__(self, reverse=False):
        super().__init__()
        self.bias, self.reverse = nn.Parameter(torch.zeros(2)), reverse
        self.posterior = nn.Linear(2, K)

    def forward(self, x=None, size=None):
        with data_plate(x, size):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            if self.reverse:
                pyro.sample("c", dist.Categorical(logits=self.posterior(z)))
            return pyro.sample("x", dist.Normal(z + self.bias, NOISE).to_event(1), obs=x)


@pytest.mark.parametrize("infer", [SUMMED, ENUMERATE])
def test_a_reverse_term_of_the_model_is_the_other_way(x, infer):
    """E [log p(x, z) + log r(c | z) - log q(c) - log q(z | c)], a bound below that of the sum."""
    own, guide = Model(reverse=True), Guide(infer=infer)
    check_pair(own, guide)
    draws = ELBO(own, guide).draw(Batch(x))
    z = draws.guide_trace.nodes["z"]["value"]
    q = dist.Categorical(logits=guide.logits)
    c = torch.arange(K)
    log_q = q.log_prob(c)[:, None] + guide.component(x, guide.loc[:, None]).log_prob(z)
    log_p = dist.Normal(0.0, 1.0).log_prob(z) + dist.Normal(z, NOISE).log_prob(x)
    log_r = torch.stack([own.posterior(z[k]).log_softmax(-1)[:, k] for k in range(K)])
    expected = (q.probs[:, None] * (log_p.sum(-1) + log_r - log_q)).sum(0)
    terms = ELBO(own, guide).terms_of(draws)
    torch.testing.assert_close(terms["elbo"], expected)
    summed = ELBO(model, Guide()).terms(x.repeat(2000, 1))["elbo"].mean()
    assert ELBO(own, guide).terms(x.repeat(2000, 1))["elbo"].mean() < summed


@Program
def drawn(x, size=None):
    with data_plate(x, size):
        u = pyro.sample("u", dist.Normal(x, 1.0).to_event(1), infer={"is_auxiliary": True})
        pyro.sample("z", dist.Normal(u, 0.5).to_event(1))


@Program
def drawn_cluster(x, size=None):
    with data_plate(x, size):
        c = estimated(dist.Categorical(logits=torch.zeros(3)), "score")
        c = pyro.sample("c", c, infer={"is_auxiliary": True})
        pyro.sample("z", dist.Normal(x + c.unsqueeze(-1), 0.5).to_event(1))


@Program
def too_many_coordinates(x, size=None):
    """A point that forgets one of the three coordinates of u."""
    with data_plate(x, size):
        u = dist.Normal(torch.zeros(3), 1.0).to_event(1)
        u = pyro.sample("u", u, infer={"is_auxiliary": True})
        pyro.sample("z", dist.Delta(u[..., :2], event_dim=1))


@Program
def shared_component(x, size=None):
    c = pyro.sample("c", dist.Categorical(logits=torch.zeros(3)), infer=SUMMED)
    with data_plate(x, size):
        pyro.sample("z", dist.Normal(x + c.unsqueeze(-1), 0.5).to_event(1))


@Program
def unflagged(x, size=None):
    with data_plate(x, size):
        c = pyro.sample("c", dist.Categorical(logits=torch.zeros(3)), infer=ENUMERATE)
        pyro.sample("z", dist.Normal(x + c.unsqueeze(-1), 0.5).to_event(1))


@Program
def two_codes(x=None, size=None):
    with data_plate(x, size):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        w = pyro.sample("w", dist.Normal(z, 1.0))
        return pyro.sample("x", dist.Normal(w, 1.0), obs=x)


@Program
def two_drawn(x, size=None):
    with data_plate(x, size):
        c = pyro.sample("c", dist.Categorical(logits=torch.zeros(3)), infer=SUMMED)
        z = pyro.sample("z", dist.Normal(x + c, 0.5))
        pyro.sample("w", dist.Normal(z, 0.5))


@pytest.mark.parametrize(
    ("own", "guide", "message"),
    [
        (model, drawn, r"reverse term of the guide's auxiliary site 'u' .* sample it from r\(u"),
        (model, drawn_cluster, "reverse term of the guide's auxiliary site 'c'"),
        (model, too_many_coordinates, "reverse term of the guide's auxiliary site 'u'"),
        (model, shared_component, "site 'z' in the plates of the auxiliary sites"),
        (model, unflagged, r"the model lacks the guide's sites \['c'\]"),
        (two_codes, two_drawn, r"one drawn site, the last, .* but \['z', 'w'\] do"),
    ],
)
def test_what_has_neither_is_refused(own, guide, message):
    """In one line, by the check and by both bounds."""
    x = own(size=3)
    runs = [lambda: ELBO(own, guide)(x), lambda: importance_bound(own, guide, x, 2)]
    for run in (lambda: check_pair(own, guide), *runs):
        with pytest.raises(ValueError, match=message) as error:
            run()
        assert "\n" not in str(error.value)


def shared(x=None, size=None):
    loc = pyro.sample("loc", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
    weights = pyro.sample("weights", dist.Dirichlet(torch.ones(2)))
    with data_plate(x, size):
        mean = (loc * weights).sum(-1, keepdim=True)
        return pyro.sample("x", dist.Normal(mean, scale.unsqueeze(-1)).to_event(1), obs=x)


@pytest.mark.parametrize("kind", [AutoNormal, AutoDiagonalNormal, AutoStructured])
def test_automatic_guides_have_their_coordinates_as_auxiliary_sites(kind):
    """Their points carry the Jacobian: the loss is that of Pyro, on the same draws."""
    settings = {"conditionals": "normal", "dependencies": {}} if kind is AutoStructured else {}
    guide, x = kind(shared, **settings), torch.randn(5, 1)
    guide(x)
    torch.manual_seed(1)
    loss, _ = ELBO(shared, guide)(x)
    torch.manual_seed(1)
    expected = Trace_ELBO().differentiable_loss(shared, guide, x)
    torch.testing.assert_close(loss * 5, expected)
