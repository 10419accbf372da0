"""Masks, scales, deterministic sites and points, in models and in guides."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

from priorzoo.inference import Batch, draw_pair
from priorzoo.models import data_plate

D = 2
EVERY = {"enumerate": "parallel"}


def standard(m):
    return dist.Normal(torch.zeros(D), m.raw.exp()).to_event(1)


def plain(m, x=None, size=None):
    with data_plate(x, size):
        z = pyro.sample("z", standard(m))
        pyro.sample("x", m.pixels(z), obs=x)


def code_guide(m, x, size=None):
    with data_plate(x, size):
        pyro.sample("z", m.code(x))


def mixture(m, x=None, size=None):
    with data_plate(x, size):
        y = pyro.sample("y", dist.Categorical(logits=m.logits))
        z = pyro.sample("z", dist.Normal(m.loc[y], 1.0).to_event(1))
        pyro.sample("x", m.pixels(z), obs=x)


def mixture_guide(m, x, size=None):
    with data_plate(x, size):
        pyro.sample("y", dist.Categorical(logits=m.classify(x)), infer=EVERY)
        pyro.sample("z", m.code(x))


def first_half(x, count=4):
    return torch.arange(count if x is None else len(x)) < 2


def masked_data(m, x=None, size=None):
    """Rows without data, by a mask over rows."""
    with data_plate(x, size):
        z = pyro.sample("z", standard(m))
        pyro.sample("x", m.pixels(z).mask(first_half(x, size)), obs=x)


def masked_pixels(m, x=None, size=None):
    """Single values that are missing, by a mask within the event."""
    with data_plate(x, size):
        z = pyro.sample("z", standard(m))
        seen = torch.arange(5) != 3
        likelihood = dist.Bernoulli(logits=m.decode(z)).mask(seen).to_event(1)
        pyro.sample("x", likelihood, obs=x)


def masked_rows(m, x=None, size=None):
    with poutine.mask(mask=first_half(x, size)):
        mixture(m, x, size)


def masked_rows_guide(m, x, size=None):
    with poutine.mask(mask=first_half(x)):
        mixture_guide(m, x, size)


def unscored_site(m, x=None, size=None):
    """A variable that counts nowhere: mask=False in both programs."""
    with data_plate(x, size):
        with poutine.mask(mask=False):
            w = pyro.sample("w", standard(m))
        z = pyro.sample("z", standard(m))
        pyro.sample("x", m.pixels(z + w), obs=x)


def unscored_site_guide(m, x, size=None):
    with data_plate(x, size):
        with poutine.mask(mask=False):
            pyro.sample("w", dist.Normal(m.loc[0], m.raw.exp()).to_event(1))
        pyro.sample("z", m.code(x))


def tempered(m, x=None, size=None):
    """The prior of the code, and in the guide its density, count less than the data."""
    with data_plate(x, size):
        with poutine.scale(scale=0.3):
            z = pyro.sample("z", standard(m))
        pyro.sample("x", m.pixels(z), obs=x)


def tempered_guide(m, x, size=None):
    with data_plate(x, size), poutine.scale(scale=0.3):
        pyro.sample("z", m.code(x))


def tempered_cluster(m, x=None, size=None):
    with poutine.scale(scale=0.3):
        mixture(m, x, size)


def tempered_cluster_guide(m, x, size=None):
    with data_plate(x, size), poutine.scale(scale=0.3):
        pyro.sample("y", dist.Categorical(logits=m.classify(x)), infer=EVERY)
        pyro.sample("z", m.code(x))


def masked_distribution(m, x=None, size=None):
    """Rows whose cluster does not count, by a mask of its distribution."""
    with data_plate(x, size):
        y = pyro.sample("y", dist.Categorical(logits=m.logits).mask(first_half(x, size)))
        z = pyro.sample("z", dist.Normal(m.loc[y], m.raw.exp()).to_event(1))
        pyro.sample("x", m.pixels(z), obs=x)


def masked_distribution_guide(m, x, size=None):
    with data_plate(x, size):
        pyro.sample("y", dist.Categorical(logits=m.classify(x)).mask(first_half(x)), infer=EVERY)
        pyro.sample("z", m.code(x))


def tensor_scale(m, x=None, size=None):
    """Rows of different weight."""
    with poutine.scale(scale=1.0 + first_half(x, size).double()):
        plain(m, x, size)


def tensor_scale_guide(m, x, size=None):
    with poutine.scale(scale=1.0 + first_half(x).double()):
        code_guide(m, x, size)


def deterministic(m, x=None, size=None):
    norm = pyro.deterministic("norm", m.loc.norm())
    with data_plate(x, size):
        z = pyro.sample("z", standard(m))
        shown = pyro.deterministic("shown", z * norm, event_dim=1)
        pyro.sample("x", m.pixels(shown), obs=x)


def deterministic_guide(m, x, size=None):
    pyro.deterministic("width", m.raw.exp().sum())
    with data_plate(x, size):
        loc = pyro.deterministic("mean", m.encode(x)[..., :D], event_dim=1)
        pyro.sample("z", dist.Normal(loc, m.raw.exp()).to_event(1))


def point_guide(m, x, size=None):
    """The code as a point: the maximum of the posterior."""
    with data_plate(x, size):
        pyro.sample("z", dist.Delta(m.encode(x)[..., :D], event_dim=1))


def whole_point(m, x=None, size=None):
    v = pyro.sample("v", standard(m))
    with data_plate(x, size):
        z = pyro.sample("z", standard(m))
        pyro.sample("x", m.pixels(z + v), obs=x)


def whole_point_guide(m, x, size=None):
    pyro.sample("v", dist.Delta(m.loc[0], event_dim=1))
    code_guide(m, x, size)


PROGRAMS = {
    "rows without data": (masked_data, code_guide, {"stock": "trace"}),
    "values without data": (masked_pixels, code_guide, {"stock": "trace"}),
    "masked rows of a mixture": (masked_rows, masked_rows_guide, {}),
    "site that is not scored": (unscored_site, unscored_site_guide, {"stock": "trace"}),
    "scaled KL": (tempered, tempered_guide, {"stock": "trace", "weights": False}),
    "scaled KL in closed form": (
        tempered,
        tempered_guide,
        {"stock": "mean field", "analytic": ["z"]},
    ),
    "scaled mixture": (tempered_cluster, tempered_cluster_guide, {}),
    "masked distribution of a cluster": (masked_distribution, masked_distribution_guide, {}),
    "scaled in the model alone": (tempered, code_guide, {"stock": "trace", "weights": False}),
    "rows of different weight": (
        tensor_scale,
        tensor_scale_guide,
        {"stock": "trace", "weights": False},
    ),
    "deterministic sites": (deterministic, deterministic_guide, {"stock": "trace"}),
    "code as a point": (plain, point_guide, {"stock": "trace"}),
    "global point": (whole_point, whole_point_guide, {"stock": "trace"}),
    "closed form": (plain, code_guide, {"stock": "mean field", "analytic": ["z"]}),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_equals_stock_pyro(name, equals_stock_pyro):
    model, guide, settings = PROGRAMS[name]
    equals_stock_pyro(model, guide, **settings)


CLUSTERS = {
    "masked rows": (masked_rows, masked_rows_guide),
    "masked distribution": (masked_distribution, masked_distribution_guide),
    "masked in the model alone": (masked_distribution, mixture_guide),
    "scaled": (tempered_cluster, tempered_cluster_guide),
}


@pytest.mark.parametrize("name", CLUSTERS)
def test_a_summed_out_site_weighs_as_its_draws_do(name, programs):
    """The importance weight is the mean over draws of y of p / q, as stock Pyro counts both."""
    model, guide = programs.seeded(programs.pair_of, *CLUSTERS[name])
    x = programs.rows()
    draws = draw_pair(model, guide, Batch(x))
    z = draws.guide_trace.nodes["z"]["value"]
    weight = 0.0
    for y in torch.arange(3):
        fixed = {"y": y.expand(len(x)), "z": z.expand(3, len(x), D)[y]}
        told, guessed = (poutine.trace(poutine.condition(p, fixed)) for p in (model, guide))
        told, guessed = told.get_trace(x), guessed.get_trace(x)
        told.compute_log_prob()
        guessed.compute_log_prob()
        ratio = sum(told.nodes[n]["log_prob"] for n in ("x", "y", "z"))
        ratio = ratio - sum(guessed.nodes[n]["log_prob"] for n in ("y", "z"))
        chance = dist.Categorical(logits=guide.classify(x)).log_prob(y)
        weight = weight + (chance + ratio).exp()
    torch.testing.assert_close(draws.log_weights(), weight.log().unsqueeze(0))
