"""Plates beside the data, sequential plates, and rows in a plate of another name."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from priorzoo.models import data_plate

D, K, PARTS = 2, 3, 3
EVERY = {"enumerate": "parallel"}


def standard(m):
    return dist.Normal(torch.zeros(D), m.raw.exp()).to_event(1)


def sequential(m, x=None, size=None):
    """A plate that is a Python loop."""
    with data_plate(x, size):
        z = pyro.sample("z", standard(m))
        for i in pyro.plate("steps", 3):
            z = z + pyro.sample(f"w_{i}", dist.Normal(z * m.weight[i], 1.0).to_event(1))
        pyro.sample("x", m.pixels(z), obs=x)


def sequential_guide(m, x, size=None):
    with data_plate(x, size):
        pyro.sample("z", m.code(x))
        for i in pyro.plate("steps", 3):
            pyro.sample(f"w_{i}", dist.Normal(m.loc[i], m.raw.exp()).to_event(1))


def global_components(m, x=None, size=None):
    """A plate of components beside the data, at the dimension of the data."""
    with pyro.plate("components", K, dim=-1):
        mu = pyro.sample("mu", standard(m))
    with data_plate(x, size):
        y = pyro.sample("y", dist.Categorical(logits=m.logits))
        z = pyro.sample("z", dist.Normal(mu[y], 1.0).to_event(1))
        pyro.sample("x", m.pixels(z), obs=x)


def global_components_guide(m, x, size=None):
    with pyro.plate("components", K, dim=-1):
        pyro.sample("mu", dist.Normal(m.loc, m.raw.exp()).to_event(1))
    with data_plate(x, size):
        pyro.sample("y", dist.Categorical(logits=m.classify(x)), infer=EVERY)
        pyro.sample("z", m.code(x))


def global_grid(m, x=None, size=None):
    """Two plates, neither of which is the data."""
    with pyro.plate("words", PARTS, dim=-2), pyro.plate("topics", 2, dim=-1):
        w = pyro.sample("w", dist.Normal(m.weight.unsqueeze(-1), 1.0))
    with data_plate(x, size):
        z = pyro.sample("z", standard(m))
        pyro.sample("x", m.pixels(z + w.sum(-2)), obs=x)


def global_grid_guide(m, x, size=None):
    with pyro.plate("words", PARTS, dim=-2), pyro.plate("topics", 2, dim=-1):
        pyro.sample("w", dist.Normal(m.loc, m.raw.exp()))
    with data_plate(x, size):
        pyro.sample("z", m.code(x))


def plate_of_ones_own_name(m, x=None, size=None):
    """The rows are a plate that is not called data."""
    count = size if x is None else len(x)
    with pyro.plate("rows", size or count, subsample=torch.arange(count)):
        y = pyro.sample("y", dist.Categorical(logits=m.logits))
        z = pyro.sample("z", dist.Normal(m.loc[y], 1.0).to_event(1))
        pyro.sample("x", m.pixels(z), obs=x)


def plate_of_ones_own_name_guide(m, x, size=None):
    with pyro.plate("rows", size or len(x), subsample=torch.arange(len(x))):
        pyro.sample("y", dist.Categorical(logits=m.classify(x)), infer=EVERY)
        pyro.sample("z", m.code(x))


def pixels_in_a_plate(m, x=None, size=None):
    """Each pixel is an observation of its own, so that rows of x are not events."""
    with data_plate(x, size):
        z = pyro.sample("z", standard(m))
        with pyro.plate("pixels", 5, dim=-2):
            logits = m.decode(z).movedim(-1, -2)
            pyro.sample("x", dist.Bernoulli(logits=logits), obs=None if x is None else x.T)


def code_guide(m, x, size=None):
    with data_plate(x, size):
        pyro.sample("z", m.code(x))


PROGRAMS = {
    "sequential plate": (
        sequential,
        sequential_guide,
        {"stock": "trace", "untraceable": "_local_scalar_dense"},
    ),
    "plate of global components": (global_components, global_components_guide, {}),
    "grid of global variables": (global_grid, global_grid_guide, {"nesting": 2, "stock": "trace"}),
    "rows in a plate of another name": (plate_of_ones_own_name, plate_of_ones_own_name_guide, {}),
}
REFUSED = {
    "pixels in an inner plate": (pixels_in_a_plate, code_guide, "'x'.*plates.*to_event"),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_equals_stock_pyro(name, equals_stock_pyro):
    model, guide, settings = PROGRAMS[name]
    equals_stock_pyro(model, guide, **settings)


@pytest.mark.parametrize("name", REFUSED)
def test_is_refused_by_name(name, is_refused):
    is_refused(*REFUSED[name])
