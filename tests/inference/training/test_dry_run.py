"""What a pair makes in its first call is trained, and what cannot be trained is said before."""

import math
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer.autoguide import (
    AutoDelta,
    AutoDiagonalNormal,
    AutoGuideList,
    AutoLowRankMultivariateNormal,
    AutoMultivariateNormal,
    AutoNormal,
)
from pyro.nn import PyroModule, PyroParam, PyroSample
from torch import nn
from torch.distributions import constraints
from torch.utils.data import DataLoader

from priorzoo.guides import Code
from priorzoo.inference import ELBO, ConjugateAdam, ConjugateELBO, Training, descend, evaluate, fit
from priorzoo.models import MLP, VAE, data_plate

P, D = 6, 2


def adam(rate):
    return lambda parameters: torch.optim.Adam(parameters, lr=rate)


def numbers(pair):
    return {
        f"{i}.{n}": p.detach().clone() for i, m in enumerate(pair) for n, p in m.named_parameters()
    }


# Parameters made in the first call


class Location(nn.Module):
    """x ~ N(m, 1) with m ~ N(0, 100), whose exact posterior mean is sum x / (N + .01)."""

    def forward(self, x=None, size=None):
        m = pyro.sample("m", dist.Normal(0.0, 10.0).expand([2]).to_event(1))
        with data_plate(x, size):
            return pyro.sample("x", dist.Normal(m, 1.0).to_event(1), obs=x)


class Sampled(PyroModule):
    """The same with a random attribute."""

    def __init__(self):
        super().__init__()
        self.m = PyroSample(dist.Normal(0.0, 10.0).expand([2]).to_event(1))

    def forward(self, x=None, size=None):
        m = self.m
        with data_plate(x, size):
            return pyro.sample("x", dist.Normal(m, 1.0).to_event(1), obs=x)


class Positive(PyroModule):
    """A guide with a constrained parameter."""

    def __init__(self):
        super().__init__()
        self.loc = PyroParam(torch.zeros(2), event_dim=1)
        self.scale = PyroParam(torch.ones(2), constraint=constraints.positive, event_dim=1)

    def forward(self, x, size=None):
        pyro.sample("m", dist.Normal(self.loc, self.scale).to_event(1))


class Late(PyroModule):
    """A guide that makes its parameters when it is called, by a property."""

    @PyroParam(event_dim=1)
    def loc(self):
        return torch.zeros(2)

    @PyroParam(constraint=constraints.positive, event_dim=1)
    def scale(self):
        return torch.ones(2)

    def forward(self, x, size=None):
        pyro.sample("m", dist.Normal(self.loc, self.scale).to_event(1))


class LateLayer(nn.Module):
    """A guide that registers a parameter at its first call."""

    def forward(self, x, size=None):
        if not hasattr(self, "loc"):
            self.loc = nn.Parameter(x.new_zeros(2))
            self.log_scale = nn.Parameter(x.new_zeros(2))
        pyro.sample("m", dist.Normal(self.loc, self.log_scale.exp()).to_event(1))


def listed(model):
    guide = AutoGuideList(model)
    guide.append(AutoNormal(poutine.block(model, expose=["m"])))
    return guide


GUIDES = {
    "AutoNormal": AutoNormal,
    "AutoDiagonalNormal": AutoDiagonalNormal,
    "AutoMultivariateNormal": AutoMultivariateNormal,
    "AutoLowRankMultivariateNormal": AutoLowRankMultivariateNormal,
    "AutoDelta": AutoDelta,
    "AutoGuideList": listed,
    "PyroParam": lambda model: Positive(),
    "PyroParam by a property": lambda model: Late(),
    "registered in the call": lambda model: LateLayer(),
}


def mean_of(pair, x):
    """The mean of the guide's draws of m."""
    with torch.no_grad(), pyro.get_param_store().scope():
        draws = [poutine.trace(pair[1]).get_trace(x).nodes["m"]["value"] for _ in range(300)]
    return torch.stack(draws).mean(0)


@pytest.mark.parametrize("model", [Location, Sampled])
@pytest.mark.parametrize("name", GUIDES)
def test_parameters_of_the_first_call_are_trained(model, name):
    """The guide's mean becomes the exact posterior mean; Pyro's store stays empty."""
    x = 3 + torch.randn(200, 2)
    pair = model(), GUIDES[name](model())
    fit(*pair, x, steps=200, optimiser=adam(0.1))
    torch.testing.assert_close(mean_of(pair, x), x.sum(0) / 200.01, atol=0.15, rtol=0)
    assert not dict(pyro.get_param_store())


@pytest.mark.parametrize("name", ["AutoNormal", "PyroParam"])
def test_pairs_of_one_process_have_parameters_of_their_own(name):
    """Two pairs whose parameters have the same names, trained by turns, and one by stock Pyro."""
    pairs = [(Location(), GUIDES[name](Location())) for _ in range(3)]
    data = [c + torch.randn(100, 2) for c in (-3.0, 3.0, 6.0)]
    trainings = [
        Training(*pair, x, optimiser=adam(0.1)) for pair, x in zip(pairs[:2], data[:2], strict=True)
    ]
    svi = pyro.infer.SVI(*pairs[2], pyro.optim.Adam({"lr": 0.1}), pyro.infer.Trace_ELBO())
    with pyro.get_param_store().scope():
        for _ in range(10):
            for training in trainings:
                training.run(15)
            for _ in range(15):
                svi.step(data[2])
    for pair, x in zip(pairs, data, strict=True):
        torch.testing.assert_close(mean_of(pair, x), x.mean(0), atol=0.2, rtol=0)


@pytest.mark.parametrize("step", ["eager", "compiled"])
def test_compiled_steps_train_them_too(step, monkeypatch):
    monkeypatch.setattr(torch._inductor, "compile", lambda graph, inputs, options: graph)
    x = 3 + torch.randn(100, 2)
    for name in ("AutoNormal", "AutoDiagonalNormal", "PyroParam"):
        pair = Location(), GUIDES[name](Location())
        training = Training(*pair, x, step=step, optimiser=adam(0.1))
        training.run(150)
        assert step == "eager" or training.steps.descend.reason == ""
        torch.testing.assert_close(mean_of(pair, x), x.mean(0), atol=0.2, rtol=0)


def lazily(*layers):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch's, that lazy modules are new
        return nn.Sequential(*(layer() for layer in layers))


LAZY = {
    "LazyLinear": lambda: lazily(lambda: nn.LazyLinear(5), nn.ReLU, lambda: nn.LazyLinear(2 * D)),
    "LazyBatchNorm": lambda: lazily(nn.LazyBatchNorm1d, lambda: nn.LazyLinear(2 * D)),
    "LazyConv": lambda: lazily(
        lambda: nn.Unflatten(1, (1, P)), lambda: nn.LazyConv1d(2, 3), nn.Flatten,
        lambda: nn.LazyLinear(2 * D),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LAZY)
def test_lazy_modules_are_trained(name):
    """All of their parameters move; their initial values are the seed's; statistics start clean."""
    x = torch.bernoulli(torch.full((20, P), 0.5))
    made = []
    for seed in (1, 1, 2):
        pair = VAE(lazily(lambda: nn.LazyLinear(P)), code=D), Code(LAZY[name]())
        training = Training(*pair, x, seed=seed, optimiser=adam(0.1))
        before = numbers(pair)
        for buffer, value in pair[1].named_buffers():
            assert value.sum() == (P if buffer.endswith("running_var") else 0), buffer
        made.append(before)
        training.run(3)
        same = [key for key, value in numbers(pair).items() if torch.equal(value, before[key])]
        assert not same
    torch.testing.assert_close(made[0], made[1], rtol=0, atol=0)
    assert not all(torch.equal(value, made[2][key]) for key, value in made[0].items())


def test_lazy_modules_get_their_widths_from_batches_of_an_iterable():
    pair = VAE(MLP(D, P, ()), code=D), Code(lazily(lambda: nn.LazyLinear(2 * D)))
    fit(*pair, DataLoader(torch.zeros(20, P), 5), steps=3, size=20)
    assert pair[1].encoder[0].weight.shape == (2 * D, P)


class Registering(nn.Module):
    """Names its own network to Pyro, as programs without PyroModule do."""

    def __init__(self):
        super().__init__()
        self.decoder = MLP(D, P, (5,))

    def forward(self, x=None, size=None):
        pyro.module("decoder", self.decoder)
        with data_plate(x, size):
            z = pyro.sample("z", dist.Normal(torch.zeros(D), 1.0).to_event(1))
            return pyro.sample("x", dist.Bernoulli(logits=self.decoder(z)).to_event(1), obs=x)


@pytest.mark.parametrize("step", ["eager", "compiled"])
def test_networks_that_are_named_to_pyro_are_trained_alike(step, monkeypatch):
    monkeypatch.setattr(torch._inductor, "compile", lambda graph, inputs, options: graph)
    x, results = torch.bernoulli(torch.full((20, P), 0.5)), []
    for kind in (Registering, lambda: VAE(MLP(D, P, (5,)), code=D)):
        torch.manual_seed(0)
        pair = kind(), Code(MLP(P, 2 * D, (5,)))
        fit(*pair, x, steps=10, batch_size=5, step=step)
        results.append(numbers(pair))
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=0)
    assert not dict(pyro.get_param_store())


# What is refused


class Global(nn.Module):
    def forward(self, x, size=None):
        loc = pyro.param("loc", torch.zeros(2))
        scale = pyro.param("scale", lambda: torch.ones(2), constraint=constraints.positive)
        pyro.sample("m", dist.Normal(loc, scale).to_event(1))


class GlobalInside(PyroModule):
    forward = Global.forward


outside = nn.Linear(2, 4)


class GlobalModule(nn.Module):
    def forward(self, x, size=None):
        loc, log_scale = pyro.module("outside", outside)(torch.ones(2)).chunk(2)
        pyro.sample("m", dist.Normal(loc, log_scale.exp()).to_event(1))


class Unregistered(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = [nn.Linear(2, 4)]

    def forward(self, x, size=None):
        loc, log_scale = self.layers[0](torch.ones(2)).chunk(2)
        pyro.sample("m", dist.Normal(loc, log_scale.exp()).to_event(1))


class NoParameter(nn.Module):
    def __init__(self):
        super().__init__()
        self.loc = torch.zeros(2, requires_grad=True)

    def forward(self, x, size=None):
        pyro.sample("m", dist.Normal(self.loc, 1.0).to_event(1))


class Scaled(Location):
    """A model with a parameter, so that there is one to train."""

    def __init__(self):
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(2))

    def forward(self, x=None, size=None):
        m = pyro.sample("m", dist.Normal(0.0, self.log_scale.exp()).to_event(1))
        with data_plate(x, size):
            return pyro.sample("x", dist.Normal(m, 1.0).to_event(1), obs=x)


@pytest.mark.parametrize(
    ("guide", "message"),
    [
        (Global, r"\['loc', 'scale'\] in Pyro's global store"),
        (GlobalInside, r"\['loc', 'scale'\] in Pyro's global store"),
        (GlobalModule, r"\['outside\$\$\$weight', 'outside\$\$\$bias'\] in Pyro's"),
        (Unregistered, r"tensors of shapes \[\(4, 2\), \(4,\)\] that no module keeps"),
        (NoParameter, r"tensors of shapes \[\(2,\)\] that no module keeps"),
    ],
)
def test_parameters_that_no_optimiser_would_see_are_named(guide, message):
    x = torch.randn(20, 2)
    with pytest.raises(ValueError, match=message):
        Training(Scaled(), guide(), x)
    assert not dict(pyro.get_param_store())


def one_step(pair, x):
    objective = ELBO(*pair)
    return descend(objective, torch.optim.SGD(objective.parameters(), 0.1), x)


@pytest.mark.parametrize("use", [one_step, lambda pair, x: evaluate(*pair, x)])
def test_global_parameters_are_named_outside_of_trainings_too(use):
    pair, x = (Scaled(), Global()), torch.randn(20, 2)
    with pytest.raises(ValueError, match=r"\['loc', 'scale'\] in Pyro's global store"):
        use(pair, x)


def test_a_step_of_ones_own_names_parameters_that_it_has_made():
    """The optimiser was made before, and would never see them."""
    objective, x = ELBO(Scaled(), AutoNormal(Scaled())), torch.randn(20, 2)
    optimiser = torch.optim.SGD(objective.parameters(), 0.1)
    with pytest.raises(ValueError, match=r"made in this call: \['guide\.locs\.m_unconstrained'"):
        descend(objective, optimiser, x)
    descend(objective, torch.optim.SGD(objective.parameters(), 0.1), x)


def test_a_pair_that_cannot_make_its_parameters_says_why():
    class Fails(Location):
        def forward(self, x=None, size=None):
            raise TypeError("no such thing")

    with pytest.raises(ValueError, match="Fails cannot run on size=2: no such thing"):
        Training(Fails(), AutoNormal(Fails()), torch.zeros(20, 2))


@pytest.mark.parametrize("name", ["factorial", "factorial-two"])
def test_tensors_that_a_loss_makes_itself_are_no_parameters(name, zoo):
    """A conjugate objective differentiates by the expectations that it has computed."""
    pair = zoo[name].pair()
    settings = {"objective": ConjugateELBO(*pair), "optimiser": ConjugateAdam}
    Training(*pair, zoo[name].rows(20), **settings).run(2)


@pytest.mark.parametrize("guide", [AutoNormal, AutoDelta])
def test_automatic_guides_of_each_row_are_refused(guide):
    """The rows of a batch are random, and the guide has its parameters in their order."""
    model = VAE(MLP(D, P, ()), code=D)
    with pytest.raises(ValueError, match=rf"{guide.__name__} has its own for \['z'\]"):
        Training(model, guide(model), torch.zeros(20, P))


# Random states


def test_a_training_draws_what_it_drew_before_there_was_a_first_call(zoo, monkeypatch):
    from priorzoo.inference.training import loop

    results, x = [], 0.5 * zoo["gmvae"].rows(20)
    for skipped in (False, True):
        if skipped:
            for name in ("create_parameters", "check_last_batch"):
                monkeypatch.setattr(loop, name, lambda *_: None)
        torch.manual_seed(0)
        pair = zoo["gmvae"].pair()
        state = torch.get_rng_state()
        fit(*pair, x, steps=9, batch_size=8, transform=torch.bernoulli)
        assert torch.equal(torch.get_rng_state(), state)
        results.append(numbers(pair))
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=0)


# Small last batches


def normed(norm):
    return VAE(MLP(D, P, ()), code=D), Code(nn.Sequential(norm, MLP(P, 2 * D, ())))


class Squeezes(nn.Module):
    """Wrong for one row alone."""

    def forward(self, x):
        return x - x.squeeze().mean(1, keepdim=True)


@pytest.mark.parametrize(
    ("layer", "rows", "batch_size", "message"),
    [
        (lambda: nn.BatchNorm1d(P), 21, 20, "on 1 row in the last batch of each pass over 21"),
        (lambda: nn.BatchNorm1d(P), 5, 1, r"on 1 row in a batch.*larger batch_size"),
        (Squeezes, 21, 20, "in the last batch of each pass over 21"),
    ],
)
def test_batches_that_cannot_be_trained_on_are_named_before_training(
    layer, rows, batch_size, message
):
    x = torch.bernoulli(torch.full((rows, P), 0.5))
    with pytest.raises(ValueError, match=message):
        Training(*normed(layer()), x, batch_size=batch_size)
    if rows == 21:
        loader = DataLoader(x, batch_size)
        with pytest.raises(ValueError, match=message):
            Training(*normed(layer()), loader, size=rows)
        Training(*normed(layer()), DataLoader(x, batch_size, drop_last=True), size=rows)


@pytest.mark.parametrize(
    ("layer", "rows", "values"),
    [
        (lambda: nn.BatchNorm1d(P), 22, 2),
        (lambda: nn.BatchNorm1d(P), 29, 9),
        (lambda: nn.BatchNorm1d(P), 30, None),
        (lambda: nn.BatchNorm1d(P), 40, None),
        (lambda: nn.BatchNorm1d(P), 4, None),  # in one batch, all the data there are
        (lambda: nn.LayerNorm(P), 22, None),
        (lambda: nn.Sequential(nn.Unflatten(1, (1, P)), nn.BatchNorm1d(1), nn.Flatten()), 21, 6),
        (lambda: nn.Sequential(nn.Unflatten(1, (1, P)), nn.BatchNorm1d(1), nn.Flatten()), 22, None),
    ],
)
def test_small_last_batches_of_batch_norm_are_warned_of(layer, rows, values):
    """By the values from which it computes a variance, which the warning names."""
    x = torch.bernoulli(torch.full((rows, P), 0.5))
    if values is None:
        Training(*normed(layer()), x, batch_size=20)
        return
    with pytest.warns(UserWarning, match=rf"guide\.encoder\.0.* variances from {values} values"):
        training = Training(*normed(layer()), x, batch_size=20)
    training.run(4)
    assert math.isfinite(training.history[-1]["elbo"])
