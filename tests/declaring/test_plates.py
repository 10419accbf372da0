"""Plates of one's own beside ``data``, and enumerated sites in them, against Pyro and full sums."""

import itertools

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import TraceEnum_ELBO
from pyro.ops.indexing import Vindex
from torch import nn

from priorzoo.inference import ELBO, Batch, draw_pair, importance_bound
from priorzoo.models import data_plate

pytestmark = pytest.mark.usefixtures("double")
ENUMERATE = {"enumerate": "parallel"}
B, N, K, J = 3, 9, 4, 4  # as many members of a plate as values: a shape alone tells nothing


class Program(nn.Module):
    """A story with parameters that it makes at its first call."""

    def __init__(self, story):
        super().__init__()
        self.story, self.values = story, nn.ParameterDict()

    def __call__(self, x=None, size=None):
        return self.story(self.value, x, size)

    def value(self, name, *shape):
        if name not in self.values:
            self.values[name] = nn.Parameter(torch.randn(shape))
        return self.values[name]


def category(name, logits, **infer):
    return pyro.sample(name, dist.Categorical(logits=logits), infer=infer)


def normal(name, loc, scale=1.0, obs=None):
    return pyro.sample(name, dist.Normal(loc, scale), obs=obs)


def below_a_global_cluster():
    """A global g given an enumerated global k, both above x."""

    def model(v, x=None, size=None):
        k = category("k", v("k", K))
        g = normal("g", v("g", K)[k], 0.5)
        with data_plate(x, size):
            normal("x", g, obs=x)

    def guide(v, x, size=None):
        k = category("k", v("k", K), **ENUMERATE)
        normal("g", v("g", K)[k], v("scale", K)[k].exp())

    return model, guide


def a_local_cluster_below_a_global_one():
    def model(v, x=None, size=None):
        k = category("k", v("k", K))
        with data_plate(x, size):
            y = category("y", v("y", K, 3)[k])
            normal("x", Vindex(v("x", K, 3))[k, y], obs=x)

    def guide(v, x, size=None):
        k = category("k", v("k", K), **ENUMERATE)
        with data_plate(x, size):
            category("y", v("y", K, 3)[k] + x.unsqueeze(-1) * v("slope", 3), **ENUMERATE)

    return model, guide


def a_cluster_above_a_plate():
    """y of each row, and J values of the row given y: the plate has as many members as values."""

    def model(v, x=None, size=None):
        with data_plate(x, size):
            y = category("y", v("y", K))
            with pyro.plate("parts", J, dim=-2):
                z = normal("z", v("z", K)[y])
                normal("w", z, obs=None if x is None else x.expand(J, -1))
            normal("x", v("x", K)[y], obs=x)

    def guide(v, x, size=None):
        with data_plate(x, size):
            y = category("y", x.unsqueeze(-1) * v("y", K), **ENUMERATE)
            with pyro.plate("parts", J, dim=-2):
                normal("z", v("z", J, 1) * x + v("m", K)[y], v("scale", J, 1).exp())

    return model, guide


def clusters_inside_a_plate():
    """A cluster of each of J parts of each row, beside a cluster of the row that they depend on."""

    def model(v, x=None, size=None):
        with data_plate(x, size):
            y = category("y", v("y", 3))
            normal("x", v("x", 3)[y], obs=x)
            with pyro.plate("parts", J, dim=-2):
                t = category("t", v("t", 3, K)[y])
                z = normal("z", v("z", K)[t])
                normal("w", z, obs=None if x is None else x.expand(J, -1))

    def guide(v, x, size=None):
        with data_plate(x, size):
            category("y", x.unsqueeze(-1) * v("y", 3), **ENUMERATE)
            with pyro.plate("parts", J, dim=-2):
                t = category("t", v("t", J, 1, K) + x.unsqueeze(-1), **ENUMERATE)
                normal("z", v("z", K)[t], v("scale", J, 1).exp())

    return model, guide


def clusters_of_groups():
    """An enumerated global site in a plate of its own, and values of each row in each group."""

    def model(v, x=None, size=None):
        groups = pyro.plate("groups", J, dim=-2)
        with groups:
            c = category("c", v("c", K))
            g = normal("g", v("g", K)[c])
        with data_plate(x, size):
            with groups:
                normal("w", g, obs=None if x is None else x.expand(J, -1))
            normal("x", v("x"), obs=x)

    def guide(v, x, size=None):
        with pyro.plate("groups", J, dim=-2):
            c = category("c", v("c", J, 1, K), **ENUMERATE)
            normal("g", v("g", K)[c], v("scale", J, 1).exp())

    return model, guide


def two_plates_beside_each_other():
    def model(v, x=None, size=None):
        with data_plate(x, size):
            normal("x", v("x"), obs=x)
            for name in "ab":
                with pyro.plate(name, 2, dim=-2):
                    y = category(f"y_{name}", v(f"y_{name}", 2))
                    normal(f"w_{name}", v("w", 2)[y], obs=None if x is None else x.expand(2, -1))

    def guide(v, x, size=None):
        with data_plate(x, size):
            for name in "ab":
                with pyro.plate(name, 2, dim=-2):
                    category(f"y_{name}", v(f"y_{name}", 2, 1, 2) * x.unsqueeze(-1), **ENUMERATE)

    return model, guide


def plates_in_a_plate():
    """At dims -2 and -3, with a cluster in the inner one given that of the outer one."""

    def model(v, x=None, size=None):
        with data_plate(x, size):
            normal("x", v("x"), obs=x)
            with pyro.plate("parts", 2, dim=-2):
                y = category("y", v("y", 3))
                with pyro.plate("bits", 2, dim=-3):
                    t = category("t", v("t", 3, 2)[y])
                    normal("w", v("w", 2)[t], obs=None if x is None else x.expand(2, 2, -1))

    def guide(v, x, size=None):
        with data_plate(x, size), pyro.plate("parts", 2, dim=-2):
            y = category("y", v("y", 2, 1, 3) * x.unsqueeze(-1), **ENUMERATE)
            with pyro.plate("bits", 2, dim=-3):
                category("t", v("t", 3, 2)[y] + v("b", 2, 1, 1, 2), **ENUMERATE)

    return model, guide


def a_plate_in_sequence():
    """Members one by one, each with a cluster of its own name."""

    def model(v, x=None, size=None):
        with data_plate(x, size):
            total = 0.0
            for i in pyro.plate("steps", 2):
                total = total + v("x", 3)[category(f"y_{i}", v(f"y_{i}", 3))]
            normal("x", total, obs=x)

    def guide(v, x, size=None):
        with data_plate(x, size):
            for i in pyro.plate("steps", 2):
                category(f"y_{i}", v(f"y_{i}", 3) * x.unsqueeze(-1), **ENUMERATE)

    return model, guide


def components_in_a_plate():
    """Means of B clusters, drawn in a plate that has the dimension of the data's."""

    def model(v, x=None, size=None):
        with pyro.plate("components", B, dim=-1):
            loc = normal("loc", 0.0, 2.0)
        with data_plate(x, size):
            y = category("y", v("y", B))
            chosen = nn.functional.one_hot(y, B) * loc.unsqueeze(-2)
            normal("x", chosen.sum(-1), 0.5, obs=x)

    def guide(v, x, size=None):
        with pyro.plate("components", B, dim=-1):
            normal("loc", v("loc", B), v("scale", B).exp())
        with data_plate(x, size):
            category("y", v("q", B) * x.unsqueeze(-1), **ENUMERATE)

    return model, guide


def a_plate_without_a_dimension():
    """Pyro chooses the dimension to the left of the data's."""

    def model(v, x=None, size=None):
        with data_plate(x, size):
            y = category("y", v("y", K))
            with pyro.plate("parts", J):
                normal("w", v("w", K)[y], obs=None if x is None else x.expand(J, -1))
            normal("x", v("x", K)[y], obs=x)

    def guide(v, x, size=None):
        with data_plate(x, size):
            category("y", x.unsqueeze(-1) * v("y", K), **ENUMERATE)

    return model, guide


STORIES = [
    below_a_global_cluster,
    a_local_cluster_below_a_global_one,
    a_cluster_above_a_plate,
    clusters_inside_a_plate,
    clusters_of_groups,
    two_plates_beside_each_other,
    plates_in_a_plate,
    a_plate_in_sequence,
    components_in_a_plate,
    a_plate_without_a_dimension,
]
LOCAL = [
    a_cluster_above_a_plate,
    clusters_inside_a_plate,
    two_plates_beside_each_other,
    plates_in_a_plate,
    a_plate_in_sequence,
    a_plate_without_a_dimension,
]
every = pytest.mark.parametrize("story", STORIES)


def made(story):
    torch.manual_seed(3)
    pair = [Program(part) for part in story()]
    x = torch.randn(B)
    with torch.no_grad():
        for program in pair:
            program(x)
    return *pair, x


def gradients(loss, *modules):
    named = [p for module in modules for p in module.parameters()]
    return torch.autograd.grad(loss, named, allow_unused=True, materialize_grads=True)


@every
@pytest.mark.parametrize("particles", [1, 3])
def test_equals_pyros_on_the_same_draws(story, particles):
    model, guide, x = made(story)
    torch.manual_seed(1)
    loss, _ = ELBO(model, guide, particles=particles)(x, N)
    pyros = TraceEnum_ELBO(
        max_plate_nesting=3, num_particles=particles, vectorize_particles=particles > 1
    )
    torch.manual_seed(1)
    expected = pyros.differentiable_loss(model, guide, x, N)
    torch.testing.assert_close(loss * N, expected, rtol=1e-10, atol=0)
    torch.testing.assert_close(
        gradients(loss * N, model, guide),
        gradients(expected, model, guide),
        rtol=1e-10,
        atol=1e-10,
    )


@pytest.mark.parametrize("story", [s for s in STORIES if s is not a_plate_in_sequence])
@pytest.mark.usefixtures("recorded")
def test_it_trains_compiled_as_eagerly(story, trained_both_ways):
    x = torch.randn(12)
    _, history = trained_both_ways(lambda: made(story)[:2], x, steps=8, every=4, batch_size=6)
    assert all(row["elbo"] == row["elbo"] for row in history)


def conditioned(story, values, x):
    """log p and log q of each row with the enumerated sites at these values."""
    model, guide, _ = made(story)
    traces = []
    for program in (guide, model):
        trace = poutine.trace(poutine.condition(program, values)).get_trace(x)
        trace.compute_log_prob()
        traces.append(trace)
    return traces


def assignments(sites):
    """All values of the enumerated sites of one row."""
    sizes = [(name, *site["fn"].batch_shape[-3:-1]) for name, site in sites]
    counts = [site["fn"].logits.shape[-1] for _, site in sites]
    spaces = [
        itertools.product(range(k), repeat=int(torch.Size(size[1:]).numel()))
        for k, size in zip(counts, sizes, strict=True)
    ]
    for chosen in itertools.product(*spaces):
        yield {
            name: torch.tensor(one).reshape(*shape, 1)
            for (name, *shape), one in zip(sizes, chosen, strict=True)
        }


@pytest.mark.parametrize("story", LOCAL)
def test_importance_weights_are_sums_over_all_values(story):
    """Of a row with one particle: log sum_y p(x, y, z_y) / q(z_y | x, y), all y written out."""
    model, guide, x = made(story)
    x = x[:1]
    drawn = draw_pair(model, guide, Batch(x))
    plain = poutine.trace(guide).get_trace(x).nodes
    sites = [(n, s) for n, s in plain.items() if s.get("infer", {}).get("enumerate")]
    total = []
    for values in assignments(sites):
        held = {name: value.expand(plain[name]["value"].shape) for name, value in values.items()}
        held |= {n: of_draws(drawn.guide_trace.nodes, n, held) for n in ("z",) if n in plain}
        log_p = log_q = 0.0
        guessed = poutine.trace(poutine.condition(guide, held)).get_trace(x)
        told = poutine.trace(poutine.condition(model, held)).get_trace(x)
        for name, site in told.nodes.items():
            if site["type"] == "sample" and name not in ("data", "parts", "bits", "a", "b"):
                log_p = log_p + site["fn"].log_prob(site["value"]).sum()
        if "z" in plain:
            z = guessed.nodes["z"]
            log_q = z["fn"].log_prob(held["z"]).sum()
        total.append(log_p - log_q)
    torch.testing.assert_close(drawn.log_weights().squeeze(), torch.stack(total).logsumexp(0))


def of_draws(nodes, name, held):
    """What the guide drew for these values: each member of the plate has those of its own."""
    value = nodes[name]["value"]  # (K_2, K_1, J, 1), or (K_1, J, 1)
    own = torch.arange(value.shape[-2])
    above = [held[site].flatten().expand(len(own)) for site in ("t", "y") if site in held]
    lead = [
        index if size > 1 else 0 * index for index, size in zip(above, value.shape, strict=False)
    ]
    return value[(*lead, own)]


@pytest.mark.parametrize("story", LOCAL)
def test_the_importance_bound_does_not_fall_below_the_elbo(story):
    model, guide, x = made(story)
    many = x.repeat(500)
    with torch.no_grad():
        lower = ELBO(model, guide).terms(many)["elbo"].reshape(500, B)
        upper = importance_bound(model, guide, many, 10).reshape(500, B)
    assert (upper.mean(0) > lower.mean(0) - 4 * (upper - lower).std(0) / 500**0.5).all()
