"""Plates within the data, in which each row has several latent variables or clusters."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from priorzoo.models import data_plate

D, PARTS = 2, 3  # as many parts as clusters, so that a collision of dimensions goes unseen
EVERY = {"enumerate": "parallel"}


def standard(m):
    return dist.Normal(torch.zeros(D), m.raw.exp()).to_event(1)


def parts_of(x):
    """The first values of each row as the observations of an inner plate."""
    return None if x is None else x[:, :PARTS].T


def inner_latent(m, x=None, size=None):
    """Several numbers a row, of which the pixels see the sum."""
    with data_plate(x, size):
        with pyro.plate("parts", PARTS, dim=-2):
            w = pyro.sample("w", dist.Normal(m.weight.unsqueeze(-1), 1.0))
        z = pyro.sample("z", standard(m))
        pyro.sample("x", m.pixels(z + w.sum(-2, keepdim=w.dim() > 2).unsqueeze(-1)), obs=x)


def inner_latent_guide(m, x, size=None):
    with data_plate(x, size):
        with pyro.plate("parts", PARTS, dim=-2):
            pyro.sample("w", dist.Normal(m.second(x).T, 0.7))
        pyro.sample("z", m.code(x))


def inner_vectors(m, x=None, size=None):
    """The plate outside of the data, with vectors."""
    rows = data_plate(x, size)
    with pyro.plate("parts", PARTS, dim=-2), rows:
        w = pyro.sample("w", standard(m))
    with rows:
        pyro.sample("x", m.pixels(w.sum(-3)), obs=x)


def inner_vectors_guide(m, x, size=None):
    with pyro.plate("parts", PARTS, dim=-2), data_plate(x, size):
        loc, raw = m.encode(x).chunk(2, -1)
        shift = m.weight.reshape(PARTS, 1, 1)
        pyro.sample("w", dist.Normal(loc + shift, raw.exp()).to_event(1))


def inner_clusters(m, x=None, size=None):
    """A cluster for each of the parts of a row, which are observed."""
    with data_plate(x, size):
        z = pyro.sample("z", standard(m))
        pyro.sample("x", m.pixels(z), obs=x)
        with pyro.plate("parts", PARTS, dim=-2):
            y = pyro.sample("y", dist.Categorical(logits=m.table.unsqueeze(-2)))
            pyro.sample("s", dist.Normal(m.logits[y] + z[..., 0], 0.5), obs=parts_of(x))


def inner_clusters_guide(m, x, size=None):
    with data_plate(x, size):
        pyro.sample("z", m.code(x))
        with pyro.plate("parts", PARTS, dim=-2):
            logits = m.second(x) + m.table.unsqueeze(-2)
            pyro.sample("y", dist.Categorical(logits=logits), infer=EVERY)


def added_up_parts(m, x=None, size=None):
    """The plate's dimension is kept, in draws of x too."""
    with data_plate(x, size):
        y = pyro.sample("y", dist.Categorical(logits=m.logits))
        with pyro.plate("parts", PARTS, dim=-2):
            z = pyro.sample("z", dist.Normal(m.loc[y], m.raw.exp()).to_event(1))
        pyro.sample("x", m.pixels(z.sum(-3, keepdim=True)), obs=x)


def added_up_parts_guide(m, x, size=None):
    with data_plate(x, size):
        pyro.sample("y", dist.Categorical(logits=m.classify(x)), infer=EVERY)
        with pyro.plate("parts", PARTS, dim=-2):
            pyro.sample("z", m.code(x))


def cluster_above_parts(m, x=None, size=None):
    """One cluster a row; the parts below it are drawn."""
    with data_plate(x, size):
        y = pyro.sample("y", dist.Categorical(logits=m.logits))
        z = pyro.sample("z", dist.Normal(m.loc[y], 1.0).to_event(1))
        with pyro.plate("parts", PARTS, dim=-2):
            w = pyro.sample("w", dist.Normal(m.logits[y], 1.0))
            pyro.sample("s", dist.Normal(w, 0.5), obs=parts_of(x))
        pyro.sample("x", m.pixels(z), obs=x)


def cluster_above_parts_guide(m, x, size=None):
    with data_plate(x, size):
        y = pyro.sample("y", dist.Categorical(logits=m.classify(x)), infer=EVERY)
        loc, raw = (m.encode(x) + m.logits[y].unsqueeze(-1)).chunk(2, -1)
        pyro.sample("z", dist.Normal(loc, raw.exp()).to_event(1))
        with pyro.plate("parts", PARTS, dim=-2):
            pyro.sample("w", dist.Normal(m.second(x).T, 0.7))


def three_levels(m, x=None, size=None):
    with data_plate(x, size):
        z = pyro.sample("z", standard(m))
        with pyro.plate("parts", PARTS, dim=-2):
            w = pyro.sample("w", dist.Normal(z[..., 0], 1.0))
            with pyro.plate("grains", 2, dim=-3):
                v = pyro.sample("v", dist.Normal(w, m.raw.exp().reshape(2, 1, 1)))
        pyro.sample("x", m.pixels(z + v.sum((-3, -2)).unsqueeze(-1)), obs=x)


def three_levels_guide(m, x, size=None):
    with data_plate(x, size):
        pyro.sample("z", m.code(x))
        with pyro.plate("parts", PARTS, dim=-2):
            w = pyro.sample("w", dist.Normal(m.second(x).T, 0.7))
            with pyro.plate("grains", 2, dim=-3):
                pyro.sample("v", dist.Normal(w * m.raw.reshape(2, 1, 1), 0.4))


def two_inner_plates(m, x=None, size=None):
    """At one dimension, one beside the other."""
    with data_plate(x, size):
        with pyro.plate("rows", PARTS, dim=-2):
            w = pyro.sample("w", dist.Normal(m.weight.unsqueeze(-1), 1.0))
        with pyro.plate("columns", 2, dim=-2):
            v = pyro.sample("v", dist.Normal(m.raw.unsqueeze(-1), 1.0))
        z = pyro.sample("z", standard(m))
        pyro.sample("x", m.pixels(z + (w.sum(-2) - v.sum(-2)).unsqueeze(-1)), obs=x)


def two_inner_plates_guide(m, x, size=None):
    with data_plate(x, size):
        pyro.sample("z", m.code(x))
        with pyro.plate("columns", 2, dim=-2):
            pyro.sample("v", dist.Normal(m.encode(x).T[:2], 0.5))
        with pyro.plate("rows", PARTS, dim=-2):
            pyro.sample("w", dist.Normal(m.second(x).T, 0.7))


def inner_subsample(m, x=None, size=None):
    """Two of the parts are drawn for each batch."""
    with data_plate(x, size):
        z = pyro.sample("z", standard(m))
        with pyro.plate("parts", PARTS, subsample_size=2, dim=-2) as some:
            w = pyro.sample("w", dist.Normal(m.weight[some].unsqueeze(-1), 1.0))
            observed = None if x is None else x.T[some]
            pyro.sample("s", dist.Normal(w + z[..., 0], 0.5), obs=observed)
        pyro.sample("x", m.pixels(z), obs=x)


def inner_subsample_guide(m, x, size=None):
    with data_plate(x, size):
        pyro.sample("z", m.code(x))
        with pyro.plate("parts", PARTS, subsample_size=2, dim=-2) as some:
            pyro.sample("w", dist.Normal(m.second(x).T[some], 0.7))


PROGRAMS = {
    "latent in an inner plate": (
        inner_latent,
        inner_latent_guide,
        {"nesting": 2, "stock": "trace"},
    ),
    "vectors in an inner plate": (
        inner_vectors,
        inner_vectors_guide,
        {"nesting": 2, "stock": "trace"},
    ),
    "clusters in an inner plate of K members": (
        inner_clusters,
        inner_clusters_guide,
        {"nesting": 2},
    ),
    "cluster above an inner plate of K members": (
        cluster_above_parts,
        cluster_above_parts_guide,
        {"nesting": 2},
    ),
    "parts added up in their dimension": (
        added_up_parts,
        added_up_parts_guide,
        {"nesting": 2},
    ),
    "three levels": (three_levels, three_levels_guide, {"nesting": 3, "stock": "trace"}),
    "two inner plates": (
        two_inner_plates,
        two_inner_plates_guide,
        {"nesting": 2, "stock": "trace"},
    ),
    "several draws in an inner plate": (
        inner_latent,
        inner_latent_guide,
        {"nesting": 2, "stock": "trace", "particles": 3, "weights": False},
    ),
    "several draws beside clusters in an inner plate": (
        inner_clusters,
        inner_clusters_guide,
        {"nesting": 2, "particles": 3},
    ),
    "subsampled inner plate": (
        inner_subsample,
        inner_subsample_guide,
        {"nesting": 2, "stock": "trace", "weights": False},
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_equals_stock_pyro(name, equals_stock_pyro):
    model, guide, settings = PROGRAMS[name]
    equals_stock_pyro(model, guide, **settings)
