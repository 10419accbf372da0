"""Several discrete sites of each row, with dependence between them."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from priorzoo.models import data_plate, estimated

D = 2
EVERY = {"enumerate": "parallel"}


def given(logits, value):
    """Rows of logits for a cluster that may be enumerated."""
    return dist.Categorical(logits=logits[value])


def decoded(m, x, loc):
    z = pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))
    return pyro.sample("x", m.pixels(z), obs=x)


def code_guide(m, x, size=None):
    with data_plate(x, size):
        pyro.sample("z", m.code(x))


def independent(m, x=None, size=None):
    with data_plate(x, size):
        a = pyro.sample("a", dist.Categorical(logits=m.logits))
        b = pyro.sample("b", dist.Bernoulli(logits=m.weight[0]))
        decoded(m, x, m.loc[a] * b.unsqueeze(-1))


def independent_guide(m, x, size=None):
    with data_plate(x, size):
        pyro.sample("a", dist.Categorical(logits=m.classify(x)), infer=EVERY)
        pyro.sample("b", dist.Bernoulli(logits=m.second(x)[..., 0]), infer=EVERY)
        pyro.sample("z", m.code(x))


def chain(m, x=None, size=None):
    with data_plate(x, size):
        a = pyro.sample("a", dist.Categorical(logits=m.logits))
        b = pyro.sample("b", given(m.table, a))
        decoded(m, x, m.loc[b])


def chain_guide(m, x, size=None):
    """Draws the code below both."""
    with data_plate(x, size):
        a = pyro.sample("a", dist.Categorical(logits=m.classify(x)), infer=EVERY)
        logits = m.second(x) + m.table[a]
        b = pyro.sample("b", dist.Categorical(logits=logits), infer=EVERY)
        loc, raw = (m.encode(x) + m.loc[b].repeat_interleave(2, -1)).chunk(2, -1)
        pyro.sample("z", dist.Normal(loc + m.logits[a].unsqueeze(-1), raw.exp()).to_event(1))


def chain_turned_guide(m, x, size=None):
    """From the last to the first, with the code first of all."""
    with data_plate(x, size):
        z = pyro.sample("z", m.code(x))
        b = pyro.sample("b", dist.Categorical(logits=z @ m.loc.T), infer=EVERY)
        pyro.sample("a", given(m.table, b), infer=EVERY)


def diamond(m, x=None, size=None):
    """Two clusters below a third, and a last one below both."""
    with data_plate(x, size):
        a = pyro.sample("a", dist.Categorical(logits=m.logits))
        b = pyro.sample("b", given(m.table, a))
        c = pyro.sample("c", given(m.table.T, a))
        d = pyro.sample("d", dist.Bernoulli(logits=m.logits[b] - m.weight[c]))
        decoded(m, x, m.loc[b] + m.loc[c] * d.unsqueeze(-1))


def diamond_guide(m, x, size=None):
    with data_plate(x, size):
        pyro.sample("z", m.code(x))
        a = pyro.sample("a", dist.Categorical(logits=m.classify(x)), infer=EVERY)
        b = pyro.sample("b", dist.Categorical(logits=m.second(x)), infer=EVERY)
        c = pyro.sample("c", given(m.table, b), infer=EVERY)
        pyro.sample("d", dist.Bernoulli(logits=m.logits[a] + m.weight[c]), infer=EVERY)


def one_hot(m, x=None, size=None):
    with data_plate(x, size):
        y = pyro.sample("y", dist.OneHotCategorical(logits=m.logits))
        decoded(m, x, y @ m.loc)


def one_hot_guide(m, x, size=None):
    with data_plate(x, size):
        pyro.sample("y", dist.OneHotCategorical(logits=m.classify(x)), infer=EVERY)
        pyro.sample("z", m.code(x))


def below_the_code(m, x=None, size=None):
    """A code, then a cluster of it, then a code of the cluster."""
    with data_plate(x, size):
        w = pyro.sample("w", dist.Normal(torch.zeros(D), 1.0).to_event(1))
        y = pyro.sample("y", dist.Categorical(logits=w @ m.loc.T))
        decoded(m, x, m.loc[y] + w)


def below_the_code_guide(m, x, size=None):
    with data_plate(x, size):
        w = pyro.sample("w", m.code(x))
        y = pyro.sample("y", dist.Categorical(logits=w @ m.loc.T), infer=EVERY)
        pyro.sample("z", dist.Normal(m.loc[y] - w, m.raw.exp()).to_event(1))


def steps_of_a_chain(m, x=None, size=None):
    """A hidden Markov chain without markov, each step with an observation."""
    with data_plate(x, size):
        y = pyro.sample("y_0", dist.Categorical(logits=m.logits))
        for i in range(1, 4):
            y = pyro.sample(f"y_{i}", given(m.table, y))
        decoded(m, x, m.loc[y])


def steps_of_a_chain_guide(m, x, size=None):
    with data_plate(x, size):
        y = pyro.sample("y_0", dist.Categorical(logits=m.classify(x)), infer=EVERY)
        for i in range(1, 4):
            y = pyro.sample(f"y_{i}", given(m.table, y), infer=EVERY)
        pyro.sample("z", m.code(x))


def markov(m, x=None, size=None):
    """The same chain with dimensions used again, as Pyro's markov does."""
    with data_plate(x, size):
        y = pyro.sample("y_0", dist.Categorical(logits=m.logits))
        for i in pyro.markov(range(1, 4)):
            y = pyro.sample(f"y_{i}", given(m.table, y))
            pyro.sample(f"s_{i}", dist.Normal(m.logits[y], 1.0), obs=torch.zeros(()))
        z = pyro.sample("z", dist.Normal(torch.zeros(D), 1.0).to_event(1))
        pyro.sample("x", m.pixels(z), obs=x)


def markov_guide(m, x, size=None):
    with data_plate(x, size):
        y = pyro.sample("y_0", dist.Categorical(logits=m.classify(x)), infer=EVERY)
        for i in pyro.markov(range(1, 4)):
            y = pyro.sample(f"y_{i}", given(m.table, y), infer=EVERY)
        pyro.sample("z", m.code(x))


def counts(m, x=None, size=None):
    with data_plate(x, size):
        n = pyro.sample("n", dist.Poisson(2 * m.logits[0].exp()))
        decoded(m, x, m.loc[0] * n.unsqueeze(-1))


def counts_guide(m, x, size=None):
    with data_plate(x, size):
        rate = 2 * m.classify(x)[..., 0].exp()
        pyro.sample("n", estimated(dist.Poisson(rate), "score"))
        pyro.sample("z", m.code(x))


def bare_counts_guide(m, x, size=None):
    with data_plate(x, size):
        pyro.sample("n", dist.Poisson(m.classify(x)[..., 0].exp()))
        pyro.sample("z", m.code(x))


def single(m, x=None, size=None):
    with data_plate(x, size):
        y = pyro.sample("y", dist.Categorical(logits=m.logits))
        decoded(m, x, m.loc[y])


def single_guide(infer):
    def guide(m, x, size=None):
        with data_plate(x, size):
            pyro.sample("y", dist.Categorical(logits=m.classify(x)), infer=infer)
            pyro.sample("z", m.code(x))

    return guide


PROGRAMS = {
    "one cluster": (single, single_guide(EVERY), {}),
    "two independent clusters": (independent, independent_guide, {}),
    "chain": (chain, chain_guide, {}),
    "chain, turned round in the guide": (chain, chain_turned_guide, {}),
    "diamond of four": (diamond, diamond_guide, {}),
    "one-hot cluster": (one_hot, one_hot_guide, {}),
    "cluster between two codes": (below_the_code, below_the_code_guide, {}),
    "chain of four steps": (steps_of_a_chain, steps_of_a_chain_guide, {}),
    "several draws below a diamond": (diamond, diamond_guide, {"particles": 3}),
    "counts by the score": (counts, counts_guide, {"stock": "trace"}),
}
REFUSED = {
    "cluster that the model alone has": (single, code_guide, r"lacks the latent sites \['y'\]"),
    "cluster that is drawn": (single, single_guide({}), "'y'.*enumerate"),
    "enumerated one after the other": (
        single,
        single_guide({"enumerate": "sequential"}),
        "'y'.*enumerate",
    ),
    "enumerated by several draws": (
        single,
        single_guide({"enumerate": "parallel", "num_samples": 5}),
        "'y'.*num_samples",
    ),
    "markov chain": (markov, markov_guide, "'y_1'.*pyro.markov"),
    "counts without a gradient": (counts, bare_counts_guide, "'n'.*estimated"),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_equals_stock_pyro(name, equals_stock_pyro):
    model, guide, settings = PROGRAMS[name]
    equals_stock_pyro(model, guide, **settings)


@pytest.mark.parametrize("name", REFUSED)
def test_is_refused_by_name(name, is_refused):
    is_refused(*REFUSED[name])
