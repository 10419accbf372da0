"""Observed sites beside x, of several types, with labels, masks and context."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

from priorzoo.models import data_plate

D = 2
EVERY = {"enumerate": "parallel"}
MASK = torch.tensor([True, False, True, True])


def standard(m):
    return dist.Normal(torch.zeros(D), m.raw.exp()).to_event(1)


def code_guide(m, x, size=None):
    with data_plate(x, size):
        pyro.sample("z", m.code(x))


def mixture_guide(m, x, size=None):
    with data_plate(x, size):
        pyro.sample("y", dist.Categorical(logits=m.classify(x)), infer=EVERY)
        pyro.sample("z", m.code(x))


def several_kinds(m, x=None, size=None, *, label=None, length=None, height=None):
    """A class, a count and a real number of each row beside its pixels."""
    with data_plate(x, size):
        z = pyro.sample("z", standard(m))
        pyro.sample("label", dist.Categorical(logits=z @ m.loc.T), obs=label)
        pyro.sample("length", dist.Poisson(z[..., 0].exp()), obs=length)
        pyro.sample("height", dist.StudentT(3.0, z[..., 1], m.raw[0].exp()), obs=height)
        pyro.sample("x", m.pixels(z), obs=x)


SEVERAL = {
    "label": torch.tensor([0, 2, 1, 1]),
    "length": torch.tensor([0.0, 3.0, 1.0, 2.0], dtype=torch.float64),
    "height": torch.tensor([0.3, -1.0, 2.0, 0.1], dtype=torch.float64),
}


def read_off_the_row(m, x=None, size=None):
    """A second observation that is computed from the row, so that it exists only with data."""
    with data_plate(x, size):
        z = pyro.sample("z", standard(m))
        if x is not None:
            pyro.sample("total", dist.Normal(z.sum(-1), 1.0), obs=x.sum(-1))
        pyro.sample("x", m.pixels(z), obs=x)


def none_without_data(m, x=None, size=None):
    """The same, written with obs=None."""
    with data_plate(x, size):
        z = pyro.sample("z", standard(m))
        pyro.sample("total", dist.Normal(z.sum(-1), 1.0), obs=None if x is None else x.sum(-1))
        pyro.sample("x", m.pixels(z), obs=x)


def two_below_a_cluster(m, x=None, size=None):
    with data_plate(x, size):
        y = pyro.sample("y", dist.Categorical(logits=m.logits))
        total = None if x is None else x.sum(-1)
        pyro.sample("total", dist.Normal(m.weight[y], 1.0), obs=total)
        z = pyro.sample("z", dist.Normal(m.loc[y], 1.0).to_event(1))
        pyro.sample("x", m.pixels(z), obs=x)


def constant(m, x=None, size=None):
    """An observation of the whole: a penalty written as data."""
    pyro.sample("sum", dist.Normal(m.logits.sum(), 0.1), obs=torch.zeros(()))
    with data_plate(x, size):
        z = pyro.sample("z", standard(m))
        pyro.sample("x", m.pixels(z), obs=x)


def partly_observed(m, x=None, size=None, *, height=None, known=None):
    """The heights of some rows are missing: the guide has them as latent."""
    with data_plate(x, size):
        z = pyro.sample("z", standard(m))
        fn = dist.Normal(z[..., 1], m.raw[0].exp())
        pyro.sample("height", fn, obs=height, obs_mask=known)
        pyro.sample("x", m.pixels(z), obs=x)


def partly_observed_guide(m, x, size=None):
    with data_plate(x, size):
        pyro.sample("z", m.code(x))
        pyro.sample("height_unobserved", dist.Normal(m.second(x)[..., 0], 0.5))


PARTLY = {"height": SEVERAL["height"], "known": MASK}


def partly_observed_rows(m, x=None, size=None):
    """Rows of x itself are missing."""
    with data_plate(x, size):
        z = pyro.sample("z", dist.Normal(torch.zeros(D), 1.0).to_event(1))
        fn = dist.Normal(m.decode(z), 1.0).to_event(1)
        mask = None if x is None else torch.arange(len(x)) != 1
        pyro.sample("x", fn, obs=x, obs_mask=mask)


def partly_observed_rows_guide(m, x, size=None):
    with data_plate(x, size):
        pyro.sample("z", m.code(x))
        pyro.sample("x_unobserved", dist.Normal(m.decode.bias, 0.5).to_event(1))


def observed_in_guide(m, x, size=None):
    """A term of the guide that is observed: it counts as in the model, with the other sign."""
    with data_plate(x, size):
        z = pyro.sample("z", m.code(x))
        pyro.sample("r", dist.Normal(z @ m.raw, 1.0), obs=torch.zeros(len(x)))


def observed_in_guide_of_the_whole(m, x, size=None):
    pyro.sample("r", dist.Normal(m.weight, 1.0).to_event(1), obs=torch.ones(3))
    with data_plate(x, size):
        pyro.sample("z", m.code(x))


def plain(m, x=None, size=None):
    with data_plate(x, size):
        z = pyro.sample("z", standard(m))
        pyro.sample("x", m.pixels(z), obs=x)


def labelled(m, x=None, size=None, *, label=None):
    """A cluster that is observed in the model, so that the guide has none."""
    with data_plate(x, size):
        y = pyro.sample("y", dist.Categorical(logits=m.logits), obs=label)
        z = pyro.sample("z", dist.Normal(m.loc[y], 1.0).to_event(1))
        pyro.sample("x", m.pixels(z), obs=x)


def conditioned(m, x=None, size=None):
    """An inner condition handler."""
    with poutine.condition(data={"v": torch.ones(D)}):
        v = pyro.sample("v", dist.Normal(m.loc[0], 1.0).to_event(1))
    with data_plate(x, size):
        z = pyro.sample("z", standard(m))
        pyro.sample("x", m.pixels(z + v), obs=x)


PROGRAMS = {
    "class, count and real number": (
        several_kinds,
        code_guide,
        {"stock": "trace", "context": SEVERAL},
    ),
    "only with data": (read_off_the_row, code_guide, {"stock": "trace"}),
    "no observation without data": (none_without_data, code_guide, {"stock": "trace"}),
    "two below a cluster": (two_below_a_cluster, mixture_guide, {}),
    "of the whole": (constant, code_guide, {"stock": "trace"}),
    "some rows have no height": (
        partly_observed,
        partly_observed_guide,
        {"stock": "trace", "context": PARTLY},
    ),
    "some rows are missing": (partly_observed_rows, partly_observed_rows_guide, {"stock": "trace"}),
    "observed in the guide": (plain, observed_in_guide, {"stock": "trace"}),
    "observed in the guide, of the whole": (
        plain,
        observed_in_guide_of_the_whole,
        {"stock": "trace"},
    ),
    "labelled rows": (
        labelled,
        code_guide,
        {"stock": "trace", "context": {"label": SEVERAL["label"]}},
    ),
    "conditioned": (conditioned, code_guide, {"stock": "trace"}),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_equals_stock_pyro(name, equals_stock_pyro):
    model, guide, settings = PROGRAMS[name]
    equals_stock_pyro(model, guide, **settings)
