"""Gradients of scored draws beside enumerated sites, against quadrature.

The gradients of thousands of independent losses come from one call of ``torch.vmap``. Their mean is
compared with the gradient of the exact loss, an integral over z and a sum over y, by Hotelling's
statistic at the level of three standard deviations.
"""

from contextlib import nullcontext

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from scipy.stats import chi2
from torch import nn

from priorzoo.inference import ELBO, Penalty
from priorzoo.inference.objectives.control_variates import Baselined
from priorzoo.models import data_plate
from priorzoo.models.distributions.estimators import estimated

pytestmark = pytest.mark.usefixtures("double")
ENUMERATE = {"enumerate": "parallel"}
THREE_SIGMA = 0.9973
X = (0.4, 1.9, -0.8)
ESTIMATORS = [("pathwise", "gumbel"), ("score", "normal"), ("rsvi", "gamma")]
# The places of the scored z and the enumerated y, and where y stands: below z, above it, or beside.
PLACES = [
    *(("local", "local", where) for where in ("below", "above", "beside")),
    *(("global", "global", where) for where in ("below", "above", "beside")),
    *(("local", "global", where) for where in ("above", "beside")),
    *(("global", "local", where) for where in ("below", "beside")),
]
START = {"a": 0.3, "b": -0.2, "c": (0.5, -0.6), "slope": 0.9}


class Pair(nn.Module):
    """Densities of z and y in one program, ``q`` or ``p``, and the program that draws them."""

    def __init__(self, family, where, places, gradient=None):
        super().__init__()
        self.family, self.where, self.places, self.gradient = family, where, places, gradient
        for name, value in START.items():
            self.register_parameter(name, nn.Parameter(torch.tensor(value)))

    def z(self, y):
        shift = 0.0 if y is None else 0.7 * (y - 1)
        if self.gradient is None:
            shift = shift / 2
        if self.family != "gamma":
            kind = dist.Normal if self.family == "normal" else dist.Gumbel
            return kind(self.a + shift, self.b.exp())
        return dist.Gamma((self.a + shift).exp() + 0.5, self.b.exp())

    def y(self, z):
        logits = torch.cat([torch.zeros(1), self.c])
        slopes = self.slope * torch.tensor([-1.0, 0.0, 1.0])
        return dist.Categorical(logits=logits if z is None else logits + slopes * z.unsqueeze(-1))

    def forward(self, x=None, size=None):
        plate = data_plate(x, size)
        inside = {"local": plate, "global": nullcontext()}

        def draw_z(y=None):
            fn = self.z(y)
            with inside[self.places[0]]:
                return pyro.sample("z", estimated(fn, self.gradient) if self.gradient else fn)

        def draw_y(z=None):
            with inside[self.places[1]]:
                return pyro.sample("y", self.y(z), infer=ENUMERATE if self.gradient else {})

        if self.where == "above":
            y = draw_y()
            z = draw_z(y)
        else:
            z = draw_z()
            y = draw_y(z if self.where == "below" else None)
        if self.gradient is None:
            with plate:
                pyro.sample("x", dist.Normal(z + 1.5 * y, 0.8), obs=x)


def pair(family, gradient, z_place, y_place, where):
    model = Pair(family, where, (z_place, y_place)).requires_grad_(False)
    model.a.fill_(0.1)
    model.slope.fill_(-0.3)
    return model, Pair(family, where, (z_place, y_place), gradient)


def exact(model, guide, x):
    """The loss per datum: every term depends on one z and one y only."""
    t = torch.linspace(-25, 25, 8001)
    z, step = (t.clamp(max=6).exp(), t.clamp(max=6).exp()) if guide.family == "gamma" else (t, 1.0)
    total = 0.0
    for y in torch.arange(3):
        above, below = (
            (y if guide.where == "above" else None),
            (z if guide.where == "below" else None),
        )
        q_z, q_y = guide.z(above).log_prob(z), guide.y(below).log_prob(y).expand(len(z))
        p_z, p_y = model.z(above).log_prob(z), model.y(below).log_prob(y).expand(len(z))
        likelihood = dist.Normal(z + 1.5 * y, 0.8).log_prob(x.unsqueeze(-1)).mean(0)
        share = [1.0 if place == "local" else 1 / len(x) for place in guide.places]
        cost = share[0] * (q_z - p_z) + share[1] * (q_y - p_y) - likelihood
        total = total + torch.trapezoid((q_z + q_y).exp() * cost * step, t)
    return total


def draws(objective, x, runs):
    """Gradients of independent losses with respect to the guide's parameters, ``(runs, P)``."""
    names = [f"guide.{name}" for name, _ in objective.guide.named_parameters()]
    values = {name: p.detach() for name, p in objective.named_parameters() if name in names}

    def loss(values, _):
        return torch.func.functional_call(objective, values, (x,))[0]

    every = torch.vmap(torch.func.grad(loss), in_dims=(None, 0), randomness="different")
    return torch.cat([g.reshape(runs, -1) for g in every(values, torch.zeros(runs)).values()], -1)


def assert_mean(found, expected):
    """Within three standard deviations, in the directions that vary; equal in the others."""
    error, (size, axes) = found.mean(0) - expected, torch.linalg.eigh(found.T.cov())
    free = size > 1e-12
    statistic = ((axes.T @ error)[free] ** 2 / (size[free] / len(found))).sum()
    assert statistic < chi2.ppf(THREE_SIGMA, max(int(free.sum()), 1))
    assert ((axes.T @ error)[~free].abs() < 1e-6).all()


def gradient(loss, module):
    parts = torch.autograd.grad(
        loss, list(module.parameters()), materialize_grads=True, allow_unused=True
    )
    return torch.cat([part.flatten() for part in parts])


@pytest.mark.parametrize(("z_place", "y_place", "where"), PLACES)
@pytest.mark.parametrize(("estimator", "family"), ESTIMATORS)
@pytest.mark.parametrize("particles", [1, 2, 5])
def test_is_that_of_the_integral(particles, estimator, family, z_place, y_place, where):
    model, guide = pair(family, estimator, z_place, y_place, where)
    x = torch.tensor(X)
    expected = gradient(exact(model, guide, x), guide)
    found = draws(ELBO(model, guide, particles=particles), x, 4_000)
    assert_mean(found, expected)


class Square(Penalty):
    def forward(self, draws):
        return draws.weights.expect(draws.guide_trace.nodes["z"]["value"].square(), draws.particles)


class Locs(nn.Module):
    """A guide of scored normal draws: ``where`` draws z from it."""

    def __init__(self, where, count):
        super().__init__()
        self.where = where
        self.loc = nn.Parameter(torch.linspace(-0.5, 1.0, count))
        self.log_scale = nn.Parameter(torch.tensor(-0.4))

    def forward(self, x, size=None):
        fn = estimated(dist.Normal(self.loc, self.log_scale.exp()), "score")
        self.where(fn, data_plate(x, size))


def local(fn, plate):
    with plate:
        return pyro.sample("z", fn)


def in_parts(fn, plate):
    with plate, pyro.plate("parts", 4, dim=-2):
        return pyro.sample("z", fn.expand((4, 1)))


def in_components(fn, plate):
    with pyro.plate("components", 3, dim=-1):
        return pyro.sample("z", fn)


def model_of(where, mean, tie=False):
    def model(x, size=None):
        plate = data_plate(x, size)
        z = where(dist.Normal(0.0, 1.0), plate)
        if tie:
            pyro.factor("tie", -(z.sum(-1, keepdim=True) - 1).square())
        with plate:
            pyro.sample("x", dist.Normal(mean(z), 0.8), obs=x)

    return model


plain = model_of(local, lambda z: z)
tied = model_of(local, lambda z: z, tie=True)
of_parts = model_of(in_parts, lambda z: z.sum(-2, keepdim=True))
of_components = model_of(in_components, lambda z: z.sum(-1, keepdim=True))


def squared(mean, scale, x):
    """-E log p(x) of a normal mean: half the expected square, and a constant."""
    return ((x - mean).square() + scale.square()) / (2 * 0.8**2)


def divergence(guide):
    q = dist.Normal(guide.loc, guide.log_scale.exp())
    return torch.distributions.kl_divergence(q, dist.Normal(0.0, 1.0))


def closed(model, guide, x):
    """The loss per datum without its constants."""
    mean, scale, kl = guide.loc, guide.log_scale.exp(), divergence(guide)
    if model is of_parts:
        return (4 * kl + squared(4 * mean, 2 * scale, x)).mean()
    if model is of_components:
        return kl.sum() / len(x) + squared(mean.sum(), 3**0.5 * scale, x).mean()
    tie = ((mean.sum() - 1).square() + len(x) * scale.square()) / len(x)
    return (kl + squared(mean, scale, x)).mean() + tie * (model is tied)


CASES = [
    (plain, local, 3),
    (tied, local, 3),
    (of_parts, in_parts, 1),
    (of_components, in_components, 3),
]


@pytest.mark.parametrize(("model", "where", "count"), CASES)
@pytest.mark.parametrize("particles", [1, 2, 5])
def test_reaches_costs_in_other_plates(particles, model, where, count):
    """A global factor of local draws, plates inside data, and global draws in a plate of B."""
    guide, x = Locs(where, count), torch.tensor(X)
    expected = gradient(closed(model, guide, x), guide)
    assert_mean(draws(ELBO(model, guide, particles=particles), x, 20_000), expected)


@pytest.mark.parametrize("particles", [1, 2, 5])
def test_of_a_penalty(particles):
    """The expected square of z is added to the loss."""
    guide, x = Locs(local, 3), torch.tensor(X)
    square = (guide.loc.square() + (2 * guide.log_scale).exp()).mean()
    expected = gradient(closed(plain, guide, x) + square, guide)
    objective = ELBO(plain, guide, particles=particles, penalties={"square": Square()})
    assert_mean(draws(objective, x, 20_000), expected)


@pytest.mark.parametrize(("model", "where", "count"), CASES)
def test_with_a_learnt_baseline(model, where, count):
    guide, x = Locs(where, count), torch.tensor(X)
    objective = Baselined(model, guide)
    objective.level += 2.0
    assert_mean(draws(objective, x, 20_000), gradient(closed(model, guide, x), guide))


class Coins(nn.Module):
    """Coins of which those of some rows count nowhere; the model's are fair."""

    def __init__(self, draw):
        super().__init__()
        self.draw, self.logits = draw, nn.Parameter(torch.tensor([0.6, -0.4, 0.9]))

    def forward(self, x, size=None):
        with data_plate(x, size):
            self.draw(dist.Bernoulli(logits=self.logits), torch.tensor([True, False, True]))


def fair_coins(x, size=None):
    with data_plate(x, size):
        z = pyro.sample("z", dist.Bernoulli(0.5).mask(torch.tensor([True, False, True])))
        pyro.sample("x", dist.Normal(z, 0.8), obs=x)


def summed(fn, mask):
    with poutine.mask(mask=mask):
        pyro.sample("z", fn, infer=ENUMERATE)


MASKED = {
    "outside": lambda fn, mask: estimated(fn, "score").mask(mask),
    "inside": lambda fn, mask: estimated(fn.mask(mask), "score"),
}


@pytest.mark.parametrize("name", MASKED)
@pytest.mark.parametrize("particles", [1, 2])
def test_of_masked_draws(particles, name):
    """A draw whose density does not count has a score all the same."""
    guide = Coins(lambda fn, mask: pyro.sample("z", MASKED[name](fn, mask)))
    x, exactly = torch.tensor(X), Coins(summed)
    expected = gradient(ELBO(fair_coins, exactly)(x)[0], exactly)
    assert_mean(draws(ELBO(fair_coins, guide, particles=particles), x, 20_000), expected)
