"""Enumerated sites of the whole data set, and what is below them."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from priorzoo.models import data_plate

D, K = 2, 3
EVERY = {"enumerate": "parallel"}


def given(logits, value):
    """Rows of logits for a cluster that may be enumerated."""
    return dist.Categorical(logits=logits[value])


def decoded(m, x, loc):
    z = pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))
    return pyro.sample("x", m.pixels(z), obs=x)


def of_the_whole(m, x=None, size=None):
    """A cluster of the whole data set."""
    g = pyro.sample("g", dist.Categorical(logits=m.logits))
    with data_plate(x, size):
        decoded(m, x, m.loc[g])


def of_the_whole_guide(m, x, size=None):
    g = pyro.sample("g", dist.Categorical(logits=m.weight), infer=EVERY)
    with data_plate(x, size):
        loc, raw = (m.encode(x) + m.logits[g].unsqueeze(-1)).chunk(2, -1)
        pyro.sample("z", dist.Normal(loc, raw.exp()).to_event(1))


def whole_and_local(m, x=None, size=None):
    g = pyro.sample("g", dist.Categorical(logits=m.logits))
    with data_plate(x, size):
        y = pyro.sample("y", given(m.table, g))
        decoded(m, x, m.loc[y])


def whole_and_local_guide(m, x, size=None):
    g = pyro.sample("g", dist.Categorical(logits=m.weight), infer=EVERY)
    with data_plate(x, size):
        pyro.sample("y", dist.Categorical(logits=m.classify(x) + m.table[g]), infer=EVERY)
        pyro.sample("z", m.code(x))


def below_the_whole(m, x=None, size=None):
    """A number of the whole data set below a cluster of the whole data set."""
    g = pyro.sample("g", dist.Categorical(logits=m.logits))
    v = pyro.sample("v", dist.Normal(m.loc[g], 1.0).to_event(1))
    with data_plate(x, size):
        decoded(m, x, v)


def below_the_whole_guide(m, x, size=None):
    g = pyro.sample("g", dist.Categorical(logits=m.weight), infer=EVERY)
    pyro.sample("v", dist.Normal(m.loc[g], m.raw.exp()).to_event(1))
    with data_plate(x, size):
        pyro.sample("z", m.code(x))


def below_the_whole_drawn_once_guide(m, x, size=None):
    """The number does not depend on the cluster in the guide, but does in the model."""
    pyro.sample("g", dist.Categorical(logits=m.weight), infer=EVERY)
    pyro.sample("v", dist.Normal(m.loc[0], m.raw.exp()).to_event(1))
    with data_plate(x, size):
        pyro.sample("z", m.code(x))


def components_of_two_kinds(m, x=None, size=None):
    """A discrete variable of each component, in a plate of components."""
    with pyro.plate("components", K, dim=-1):
        kind = pyro.sample("kind", dist.Bernoulli(logits=m.logits))
        mu = pyro.sample("mu", dist.Normal(kind.unsqueeze(-1) * m.loc, 1.0).to_event(1))
    with data_plate(x, size):
        decoded(m, x, torch.zeros(D) if mu.dim() > 2 else mu.mean(0))


def components_of_two_kinds_guide(m, x, size=None):
    with pyro.plate("components", K, dim=-1):
        pyro.sample("kind", dist.Bernoulli(logits=m.weight), infer=EVERY)
        pyro.sample("mu", dist.Normal(m.loc, m.raw.exp()).to_event(1))
    with data_plate(x, size):
        pyro.sample("z", m.code(x))


PROGRAMS = {
    "global cluster": (of_the_whole, of_the_whole_guide, {}),
    "several draws below a global cluster": (of_the_whole, of_the_whole_guide, {"particles": 3}),
    "global and local cluster": (whole_and_local, whole_and_local_guide, {}),
    "global number below a global cluster": (below_the_whole, below_the_whole_guide, {}),
    "global number below it in the model only": (
        below_the_whole,
        below_the_whole_drawn_once_guide,
        {},
    ),
    "clusters in a plate of components": (
        components_of_two_kinds,
        components_of_two_kinds_guide,
        {},
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_equals_stock_pyro(name, equals_stock_pyro):
    model, guide, settings = PROGRAMS[name]
    equals_stock_pyro(model, guide, **settings)
