"""AutoGuides, PyroModules, PyroSample, lazy modules, and Pyro's parameter store."""

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.distributions import constraints
from pyro.infer import autoguide
from pyro.nn import PyroModule, PyroParam, PyroSample
from torch import nn

from priorzoo.models import data_plate

P, D = 5, 2


def of_model(make):
    """A guide that is made of its model, as AutoGuides are."""

    def guide(model):
        return make(model)

    guide.of_model = True
    return guide


def standard(m):
    return dist.Normal(torch.zeros(D), m.raw.exp()).to_event(1)


def plain(m, x=None, size=None):
    with data_plate(x, size):
        z = pyro.sample("z", standard(m))
        pyro.sample("x", m.pixels(z), obs=x)


def code_guide(m, x, size=None):
    with data_plate(x, size):
        pyro.sample("z", m.code(x))


def whole(m, x=None, size=None):
    """Variables of the whole data set, one of them positive."""
    v = pyro.sample("v", standard(m))
    width = pyro.sample("width", dist.LogNormal(m.weight[0], 1.0))
    with data_plate(x, size):
        logits = (m.decode(v) * width).expand(size if x is None else len(x), P)
        pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)


def rows_and_clusters(m, x=None, size=None):
    with data_plate(x, size):
        y = pyro.sample("y", dist.Categorical(logits=m.logits))
        z = pyro.sample("z", dist.Normal(m.loc[y], 1.0).to_event(1))
        pyro.sample("x", m.pixels(z), obs=x)


def codes_and_clusters(model):
    """AutoNormal for the codes, AutoDiscreteParallel for the clusters: parameters of each row."""
    guide = autoguide.AutoGuideList(model)
    guide.append(autoguide.AutoNormal(poutine.block(model, hide=["y"])))
    guide.append(autoguide.AutoDiscreteParallel(poutine.block(model, expose=["y"])))
    return guide


class Layer(PyroModule):
    """A decoder with random weights."""

    def __init__(self):
        super().__init__()
        self.linear = PyroModule[nn.Linear](D, P)
        self.linear.weight = PyroSample(dist.Normal(0.0, 1.0).expand([P, D]).to_event(2))
        self.bias = nn.Parameter(torch.randn(P))

    def forward(self, z):
        return self.linear(z) + self.bias


class Bayesian(PyroModule):
    """A model whose decoder is a layer of random weights."""

    def __init__(self):
        super().__init__()
        self.layer = Layer()
        self.scale = PyroParam(torch.tensor(0.8), constraint=constraints.positive)

    def forward(self, x=None, size=None):
        rows = size if x is None else len(x)
        code = torch.linspace(-1, 1, D).expand(rows, D) * self.scale
        logits = self.layer(code)
        with data_plate(x, size):
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)


class Positive(PyroModule):
    """A guide whose scale is a parameter with a constraint."""

    def __init__(self):
        super().__init__()
        self.encode = nn.Linear(P, D)
        self.scale = PyroParam(torch.tensor([0.5, 0.7]), constraint=constraints.positive)

    def forward(self, x, size=None):
        with data_plate(x, size):
            pyro.sample("z", dist.Normal(self.encode(x), self.scale).to_event(1))


class Lazy(nn.Module):
    """A guide whose input width is found at the first call."""

    def __init__(self):
        super().__init__()
        self.hidden, self.out = nn.LazyLinear(6), nn.LazyLinear(2 * D)

    def forward(self, x, size=None):
        with data_plate(x, size):
            loc, raw = self.out(self.hidden(x).tanh()).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, raw.exp()).to_event(1))


class MadeAtTheFirstCall(nn.Module):
    """Creates its network when it is first run."""

    def forward(self, x, size=None):
        if not hasattr(self, "network"):
            self.network = nn.Linear(x.shape[-1], 2 * D)
        with data_plate(x, size):
            loc, raw = self.network(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, raw.exp()).to_event(1))


def with_param(m, x, size=None):
    """Parameters by name, in Pyro's store."""
    loc = pyro.param("offset", lambda: torch.tensor([0.2, -0.1]))
    scale = pyro.param("scale", torch.tensor([0.5, 0.7]), constraint=constraints.positive)
    with data_plate(x, size):
        pyro.sample("z", dist.Normal(m.encode(x)[..., :D] + loc, scale).to_event(1))


def with_registered_module(m, x, size=None):
    """As Pyro's tutorials do."""
    pyro.module("encoder", m.encode)
    code_guide(m, x, size)


def scheduled(m, x, size=None):
    """A guide with a buffer in its density."""
    if not hasattr(m, "factor"):
        m.register_buffer("factor", torch.tensor(0.5))
    with data_plate(x, size):
        pyro.sample("z", m.code(x, m.factor))


def auto(make, **settings):
    return of_model(partial(make, **settings))


TRACE = {"stock": "trace"}
PROGRAMS = {
    "AutoNormal": (whole, auto(autoguide.AutoNormal), TRACE),
    "AutoDelta": (whole, auto(autoguide.AutoDelta), TRACE),
    "AutoDiagonalNormal": (whole, auto(autoguide.AutoDiagonalNormal), TRACE),
    "AutoMultivariateNormal": (whole, auto(autoguide.AutoMultivariateNormal), TRACE),
    "AutoLowRank": (whole, auto(autoguide.AutoLowRankMultivariateNormal, rank=1), TRACE),
    "AutoIAFNormal": (whole, auto(autoguide.AutoIAFNormal, hidden_dim=[4]), TRACE),
    "AutoStructured": (
        whole,
        auto(
            autoguide.AutoStructured,
            conditionals={"v": "mvn", "width": "normal"},
            dependencies={"width": {"v": "linear"}},
        ),
        TRACE,
    ),
    "PyroSample": (Bayesian, auto(autoguide.AutoNormal), TRACE),
    "PyroParam": (plain, Positive, TRACE),
    "lazy modules": (plain, Lazy, TRACE),
    "module made at the first call": (plain, MadeAtTheFirstCall, TRACE),
    "pyro.module": (plain, with_registered_module, TRACE),
    "buffer made at the first call": (plain, scheduled, TRACE),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_equals_stock_pyro(name, equals_stock_pyro):
    model, guide, settings = PROGRAMS[name]
    equals_stock_pyro(model, guide, **settings)


REFUSED = {
    "AutoNormal for rows": (plain, auto(autoguide.AutoNormal), r"AutoNormal.*'z'"),
    "AutoGuideList with clusters": (rows_and_clusters, of_model(codes_and_clusters), r"Auto.*'z'"),
    "pyro.param": (plain, with_param, r"'offset', 'scale'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_is_refused_by_name(name, is_refused):
    is_refused(*REFUSED[name])
