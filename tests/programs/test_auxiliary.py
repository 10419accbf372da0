"""Auxiliary sites of guides, against bounds by brute force: stock Pyro adds their entropy alone.

A guide that draws c and then z given c has the density q(z) = sum_c q(c) q(z | c). The bound is
E[log p(x, z) - log q(z)], or with a reverse term r(c | z) that the model names
E[log p(x, z) + log r(c | z) - log q(c) q(z | c)]. Without it, log q(c) - log p is not a bound.
"""

import pyro
import pyro.distributions as dist
import pytest
import torch

from priorzoo.inference import ELBO, Batch, check_pair, draw_pair, importance_bound
from priorzoo.models import data_plate

D, K = 2, 3
EVERY = {"enumerate": "parallel"}
HIDDEN = {"is_auxiliary": True}


def plain(m, x=None, size=None):
    with data_plate(x, size):
        z = pyro.sample("z", dist.Normal(torch.zeros(D), m.raw.exp()).to_event(1))
        pyro.sample("x", m.pixels(z), obs=x)


def reversed_model(m, x=None, size=None):
    """Has c itself: r(c | z) is a part of the model, and c no auxiliary site."""
    with data_plate(x, size):
        z = pyro.sample("z", dist.Normal(torch.zeros(D), m.raw.exp()).to_event(1))
        pyro.sample("c", dist.Categorical(logits=z @ m.loc.T))
        pyro.sample("x", m.pixels(z), obs=x)


def mixed(infer, dependent=True):
    """A guide that enumerates or draws a component c before its code."""

    def guide(m, x, size=None):
        with data_plate(x, size):
            c = pyro.sample("c", dist.Categorical(logits=m.classify(x)), infer=infer)
            loc, raw = m.encode(x).chunk(2, -1)
            shift = m.loc[c] if dependent else m.loc[0]
            pyro.sample("z", dist.Normal(loc + shift, 1 + raw.exp()).to_event(1))

    return guide


def continuous(m, x, size=None):
    """A Gaussian u before the code."""
    with data_plate(x, size):
        u = pyro.sample("u", m.code(x), infer=HIDDEN)
        pyro.sample("z", dist.Normal(m.loc[0] + u, 0.5).to_event(1))


def of_the_whole(m, x, size=None):
    u = pyro.sample("u", dist.Normal(m.loc[0], 1.0).to_event(1), infer=HIDDEN)
    with data_plate(x, size):
        pyro.sample("z", dist.Normal(m.encode(x)[..., :D] + u, 0.5).to_event(1))


def transformed(m, x, size=None):
    """An invertible map of an auxiliary site, as AutoGuides write it: right as it is."""
    with data_plate(x, size):
        u = pyro.sample("u", m.code(x), infer=HIDDEN)
        z = m.loc[0] + u * m.weight[:D].exp()
        density = -m.weight[:D].sum().expand(len(x))
        pyro.sample("z", dist.Delta(z, log_density=density, event_dim=1))


PROGRAMS = {
    "invertible map": (plain, transformed, {"stock": "trace"}),
}
REFUSED = {
    "drawn component": (plain, mixed(HIDDEN), "'c'"),
    "drawn before the code": (plain, continuous, "'u'"),
    "of the whole": (plain, of_the_whole, "'u'"),
}
SUMMED = {
    "component of a mixture": (plain, mixed(EVERY | HIDDEN)),
    "component that moves nothing": (plain, mixed(EVERY | HIDDEN, dependent=False)),
    "component with a reverse term in the model": (reversed_model, mixed(EVERY)),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_equals_stock_pyro(name, equals_stock_pyro):
    model, guide, settings = PROGRAMS[name]
    equals_stock_pyro(model, guide, **settings)


@pytest.mark.parametrize("name", REFUSED)
def test_is_refused_by_name(name, is_refused):
    is_refused(*REFUSED[name])


def by_brute_force(model, guide, x, z, reverse):
    """The sum over rows and components of q(c) [log p(x, z_c) - log q], from the draws z_c."""
    loc, raw = guide.encode(x).chunk(2, -1)
    log_c = guide.classify(x).log_softmax(-1).T
    moves = len(z) > 1 or reverse
    shifts = guide.loc if moves else guide.loc[:1].expand(K, D)
    parts = [dist.Normal(loc + shift, 1 + raw.exp()).to_event(1) for shift in shifts]
    bound = 0.0
    for k in range(K):
        code = z[k % len(z)]
        log_p = dist.Normal(torch.zeros(D), model.raw.exp()).to_event(1).log_prob(code)
        log_p = log_p + model.pixels(code).log_prob(x)
        joint = torch.stack([log_c[j] + parts[j].log_prob(code) for j in range(K)])
        if reverse:
            log_p = log_p + (code @ model.loc.T).log_softmax(-1)[:, k]
        log_q = joint[k] if reverse else joint.logsumexp(0)
        bound = bound + (log_c[k].exp() * (log_p - log_q)).sum()
    return bound


def log_evidence(model, x):
    """log p(x) by quadrature over the two elements of z."""
    grid = torch.linspace(-8, 8, 161)
    z = torch.stack(torch.meshgrid(grid, grid, indexing="ij"), -1)
    log_p = dist.Normal(torch.zeros(D), model.raw.exp()).to_event(1).log_prob(z)
    pixels = model.pixels(z.unsqueeze(-2)).log_prob(x)
    return (log_p.unsqueeze(-1) + pixels).flatten(0, 1).logsumexp(0) + 2 * (grid[1] - grid[0]).log()


@pytest.mark.parametrize("name", SUMMED)
def test_equals_the_bound_by_brute_force(name, programs):
    """Value and gradient; the importance bound is that of the same density."""
    model, guide = programs.pair_of(*SUMMED[name])
    x = programs.rows()
    check_pair(model, guide, x)
    loss, _ = programs.seeded(ELBO(model, guide), x)
    draws = programs.seeded(draw_pair, model, guide, Batch(x))
    z = draws.guide_trace.nodes["z"]["value"].reshape(-1, len(x), D)
    expected = by_brute_force(model, guide, x, z, model.__class__.__name__ == "reversed_model")
    torch.testing.assert_close(-loss * len(x), expected, rtol=1e-10, atol=1e-12)
    named = programs.parameters_of(model, guide)
    found = programs.gradients(-loss * len(x), named)
    torch.testing.assert_close(found, programs.gradients(expected, named), rtol=1e-10, atol=1e-10)
    with torch.no_grad():
        assert -ELBO(model, guide, particles=1_000)(x)[0] < log_evidence(model, x).mean()
        importance = importance_bound(model, guide, x, 4_000)
    torch.testing.assert_close(importance, log_evidence(model, x), rtol=0, atol=0.1)
