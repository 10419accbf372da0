"""Factors of rows, of clusters and of the whole, in models and in guides."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO

from priorzoo.inference import ELBO
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


def factor_of_a_row(m, x=None, size=None):
    with data_plate(x, size):
        z = pyro.sample("z", standard(m))
        pyro.factor("pull", -(z - m.loc[0]).square().sum(-1))
        pyro.sample("x", m.pixels(z), obs=x)


def factor_of_the_whole(m, x=None, size=None):
    pyro.factor("ridge", -m.loc.square().sum())
    plain(m, x, size)


def factor_of_a_cluster(m, x=None, size=None):
    with data_plate(x, size):
        y = pyro.sample("y", dist.Categorical(logits=m.logits))
        pyro.factor("bonus", m.weight[y])
        z = pyro.sample("z", dist.Normal(m.loc[y], 1.0).to_event(1))
        pyro.sample("x", m.pixels(z), obs=x)


def factor_in_guide(of_the_whole=False):
    def guide(m, x, size=None):
        if of_the_whole:
            pyro.factor("f", m.weight.square().sum(), has_rsample=True)
        with data_plate(x, size):
            z = pyro.sample("z", m.code(x))
            if not of_the_whole:
                pyro.factor("f", (z * m.raw).sum(-1), has_rsample=True)

    return guide


def factor_below_a_cluster_guide(m, x, size=None):
    with data_plate(x, size):
        y = pyro.sample("y", dist.Categorical(logits=m.classify(x)), infer=EVERY)
        pyro.factor("f", m.weight[y], has_rsample=True)
        pyro.sample("z", m.code(x))


PROGRAMS = {
    "factor of a row": (factor_of_a_row, code_guide, {"stock": "trace"}),
    "factor of the whole": (factor_of_the_whole, code_guide, {"stock": "trace"}),
    "factor of a cluster": (factor_of_a_cluster, mixture_guide, {}),
    "factor in the guide": (plain, factor_in_guide(), {"stock": "trace"}),
    "factor of the whole in the guide": (
        plain,
        factor_in_guide(of_the_whole=True),
        {"stock": "trace"},
    ),
    "factor of a cluster in the guide": (mixture, factor_below_a_cluster_guide, {}),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_equals_stock_pyro(name, equals_stock_pyro):
    model, guide, settings = PROGRAMS[name]
    equals_stock_pyro(model, guide, **settings)


def drawn_by_hand(coin):
    """A guide that tosses a coin itself, here with a given outcome, and states its density."""

    def guide(m, x, size=None):
        log_q = dist.Bernoulli(logits=m.classify(x)[..., 0]).log_prob(torch.tensor(coin))
        loc, raw = m.encode(x).chunk(2, -1)
        with data_plate(x, size):
            pyro.factor("f", log_q, has_rsample=False)
            pyro.sample("z", dist.Normal(loc + coin, raw.exp()).to_event(1))

    return guide


def bound_at(coin, model, guide, x, z):
    """q(coin) [log p(x, z) - log q(z, coin)], written out for one row, and q(coin)."""
    logit = guide.classify(x)[0, 0]
    share = logit.sigmoid() if coin else (-logit).sigmoid()
    loc, raw = guide.encode(x).chunk(2, -1)
    log_q = dist.Normal(loc + coin, raw.exp()).log_prob(z).sum() + share.log()
    log_p = dist.Normal(0.0, model.raw.exp()).log_prob(z).sum() + model.pixels(z).log_prob(x)
    return (share * (log_p - log_q)).sum(), share.detach()


def test_a_factor_of_draws_by_hand_is_right_where_stock_pyro_is_not(programs):
    """The gradient averaged over both outcomes is that of the averaged bound.

    Stock Pyro leaves the factor itself out of the cost by which it multiplies the score.
    """
    x, totals = programs.rows(1), {"exact": 0.0, "ours": 0.0, "stock": 0.0}
    for coin in (0.0, 1.0):
        model, guide = programs.seeded(programs.pair_of, plain, drawn_by_hand(coin))
        named = programs.parameters_of(model, guide)
        loss, _ = programs.seeded(ELBO(model, guide), x)
        taken = programs.seeded_stock(Trace_ELBO(), model, guide, x, None, {})
        torch.testing.assert_close(loss, taken, rtol=1e-10, atol=1e-12)
        loc, raw = guide.encode(x).chunk(2, -1)
        z = loc + coin + programs.seeded(torch.randn, 1, D) * raw.exp()
        exact, share = bound_at(coin, model, guide, x, z)
        bounds = {"exact": exact, "ours": -share * loss, "stock": -share * taken}
        for name, bound in bounds.items():
            found = programs.gradients(bound, named)
            totals[name] = totals[name] + torch.cat([g.flatten() for g in found.values()])
    torch.testing.assert_close(totals["ours"], totals["exact"], rtol=1e-10, atol=1e-10)
    assert (totals["stock"] - totals["exact"]).abs().max() > 0.01
