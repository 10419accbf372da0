"""Small Pyro programs, each compared with stock Pyro on the same draws, or refused by name.

A program is a function ``(self, x=None, size=None)`` that becomes the ``forward`` of a module with
the parts below. It is written as for Pyro: with plates, factors and handlers of its own.
"""

import re
import sys
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, TraceMeanField_ELBO
from torch import nn

from priorzoo.inference import ELBO, KL, Training, check_pair, draw_pair, fit
from priorzoo.inference.batch import Batch
from priorzoo.inference.sites import is_local, sample_sites
from priorzoo.inference.training.tracing import UntraceableError, trace
from priorzoo.models.contract import accepted

B, N, P, D, K = 4, 10, 5, 2, 3


class Parts(nn.Module):
    """What programs are made of; each uses some of it."""

    def __init__(self):
        super().__init__()
        self.decode, self.encode = nn.Linear(D, P), nn.Linear(P, 2 * D)
        self.classify, self.second = nn.Linear(P, K), nn.Linear(P, K)
        self.logits, self.table = nn.Parameter(torch.randn(K)), nn.Parameter(torch.randn(K, K))
        self.loc, self.raw = nn.Parameter(torch.randn(K, D)), nn.Parameter(0.3 * torch.randn(D))
        self.weight = nn.Parameter(torch.randn(3))

    def code(self, x, scale=1.0):
        """Amortised Gaussian."""
        loc, raw = self.encode(x).chunk(2, -1)
        return dist.Normal(loc, scale * raw.exp()).to_event(1)

    def pixels(self, z):
        return dist.Bernoulli(logits=self.decode(z)).to_event(1)


def module(program):
    """A program as a module; a class makes its own."""
    if isinstance(program, type):
        return program()
    return type(program.__name__, (Parts,), {"forward": program})()


def pair_of(model, guide):
    """The modules of two programs; a guide with ``of_model`` is made of its model."""
    made = module(model)
    return made, guide(made) if getattr(guide, "of_model", False) else module(guide)


def parameters_of(*programs):
    named = {f"{i}.{n}": p for i, m in enumerate(programs) for n, p in m.named_parameters()}
    known = set(map(id, named.values()))
    store = {n: p for n, p in pyro.get_param_store().named_parameters() if id(p) not in known}
    return named | store


def gradients(loss, named):
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True, retain_graph=True)
    pairs = zip(named.items(), found, strict=True)
    return {n: torch.zeros_like(p) if g is None else g for (n, p), g in pairs}


@pytest.fixture(autouse=True)
def _double_and_own_store():
    torch.set_default_dtype(torch.float64)
    with pyro.get_param_store().scope():
        yield
    torch.set_default_dtype(torch.float32)


def rows(count=B):
    return torch.bernoulli(torch.full((count, P), 0.5))


def seeded(run, *args, **settings):
    torch.manual_seed(1)
    return run(*args, **settings)


STOCK = {"trace": Trace_ELBO, "enum": TraceEnum_ELBO, "mean field": TraceMeanField_ELBO}


@pytest.fixture
def equals_stock_pyro():
    """Compares value and gradient with those of a bound of Pyro's, eager and compiled.

    ``nesting`` is the depth of plates, ``size`` the number of data of which the rows are a part,
    ``analytic`` names the sites whose KL is in closed form. A program that is ``untraceable``, for
    the reason that matches, is run eagerly. Then one step of a training must move
    each parameter that has a gradient. The importance weights of local programs without enumerated
    sites are compared too, unless ``weights`` is False.
    """

    def compare(
        model,
        guide,
        stock="enum",
        nesting=1,
        size=N,
        x=None,
        context=None,
        analytic=(),
        weights=True,
        particles=1,
        untraceable=None,
    ):
        context = context or {}
        programs = model, guide
        x = rows() if x is None else x
        model, guide = seeded(pair_of, *programs)
        check_pair(model, guide, x, context)
        kl = {name: KL(analytic=True) for name in analytic}
        objective = ELBO(model, guide, kl, particles)
        loss, _ = seeded(objective, x, size, context=context)
        bound = STOCK[stock](
            max_plate_nesting=nesting,
            num_particles=particles,
            vectorize_particles=particles > 1,
        )
        taken = seeded_stock(bound, model, guide, x, size, context)
        named = parameters_of(model, guide)
        torch.testing.assert_close(loss * size, taken, rtol=1e-10, atol=1e-12)
        found, expected = gradients(loss * size, named), gradients(taken, named)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
        assert any(g.any() for g in expected.values())
        if untraceable is None:
            compiled(objective, Batch(x, size, {}, context), loss, found)
        else:
            with pytest.raises(UntraceableError, match=untraceable):
                trace(objective, Batch(x, size, {}, context))
        if stock == "trace" and weights:
            compare_weights(model, guide, x, context)
        moves(programs, x, context, [n for n, g in expected.items() if g.any()])

    return compare


def seeded_stock(bound, model, guide, x, size, context):
    """The loss of one of Pyro's bounds; a program gets the context that it names."""

    def told(program):
        return lambda: program(x, size, **accepted(program, context))

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Found non-auxiliary vars in guide")  # in some on purpose
        return seeded(bound.differentiable_loss, told(model), told(guide))


def compiled(objective, batch, loss, found):
    """The recorded graph gives the loss and the gradients of the eager step."""
    traced = trace(objective, batch)
    means, *values = seeded(traced.graph, *traced.inputs, *batch.tensors)
    value = -means[traced.terms.index("objective")]
    torch.testing.assert_close(value, loss, rtol=1e-10, atol=1e-12)
    names = {id(p): n for n, p in parameters_of(objective.model, objective.guide).items()}
    learnt = [names[id(objective.get_parameter(name))] for name in traced.learnt]
    recorded = dict(zip(learnt, values[len(values) - len(learnt) :], strict=True))
    for name, gradient in found.items():
        given = recorded.get(name, torch.zeros(())) * batch.data
        torch.testing.assert_close(given.expand_as(gradient), gradient, rtol=1e-10, atol=1e-10)


def compare_weights(model, guide, x, context):
    """Of one draw of each row: their sum is the bound."""
    draws = seeded(draw_pair, model, guide, Batch(x, None, {}, context))
    traces = draws.guide_trace, draws.model_trace
    if not all(is_local(site) for trace in traces for _, site in sample_sites(trace)):
        return
    found = draws.log_weights()
    taken = seeded_stock(Trace_ELBO(), model, guide, x, None, context)
    torch.testing.assert_close(-found.sum(), taken, rtol=1e-10, atol=1e-12)


def moves(programs, x, context, names):
    """A training of a new pair, which was never run, changes the parameters of these names."""
    pyro.clear_param_store()
    pair = seeded(pair_of, *programs)
    training = Training(*pair, x, context=context)
    training.run(1)
    first = {name: value.detach().clone() for name, value in parameters_of(*pair).items()}
    training.run(3)
    found = parameters_of(*pair)
    assert not [name for name in names if torch.equal(found[name], first[name])]


@pytest.fixture
def is_refused():
    """One line says what is not supported, in the check of the pair and before a training."""

    def check(model, guide, message, x=None, context=None):
        pair, x = pair_of(model, guide), rows() if x is None else x
        for run in (
            lambda: check_pair(*pair, x, context),
            lambda: fit(*pair, x, steps=1, context=context),
        ):
            with pytest.raises(ValueError, match=message) as error:
                run()
            assert "\n" not in str(error.value)
            assert re.search(r"'\w+'", str(error.value))  # the site is named

    return check


@pytest.fixture
def programs():
    """The functions of this file, which is on no import path."""
    return sys.modules[__name__]
