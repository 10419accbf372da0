"""Pairs of the zoo in NumPyro, as its users would write them; needs the extra ``peers``.

A model and a guide are registered for the class of the model. Steps run by jit and a scan.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import singledispatch

import jax
import numpyro
import numpyro.distributions as dist
from jax import Array
from jax import numpy as jnp
from numpyro import handlers
from numpyro.infer import SVI, Trace_ELBO
from numpyro.infer.svi import SVIState
from numpyro.optim import Adam
from torch import Tensor, nn
from torch.optim import Optimizer

from priorzoo.benchmarks.recipes.building import make
from priorzoo.benchmarks.recipes.recipe import Recipe
from priorzoo.benchmarks.speed.in_jax import Arm, new_key, scanned
from priorzoo.benchmarks.speed.jax_losses import components, deviation, mixture
from priorzoo.benchmarks.speed.jax_networks import array, network
from priorzoo.guides import ClusterThenCode, Code
from priorzoo.models import GMVAE, VAE

Program = Callable[[Array], None]  # of rows (B, P)


@singledispatch
def numpyro_pair(model: nn.Module, guide: nn.Module) -> tuple[Program, Program] | None:
    """Model and guide of a pair with binary pixels, or None where they are not written."""
    return None


@numpyro_pair.register
def _(model: VAE, guide: nn.Module) -> tuple[Program, Program] | None:
    if type(guide) is not Code:
        return None
    encode, decode = _module("encoder", guide.encoder), _module("decoder", model.decoder)

    def story(x: Array) -> None:
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", dist.Normal(jnp.zeros(model.code), 1).to_event(1))
            numpyro.sample("x", dist.Bernoulli(logits=decode(z)).to_event(1), obs=x)

    def posterior(x: Array) -> None:
        with numpyro.plate("data", len(x)):
            loc, raw = jnp.split(encode(x), 2, -1)
            numpyro.sample("z", dist.Normal(loc, deviation(raw)).to_event(1))

    return story, posterior


@numpyro_pair.register
def _(model: GMVAE, guide: nn.Module) -> tuple[Program, Program] | None:
    """The cluster is summed out by hand, since NumPyro enumerates no sites of a guide.

    All sites stand in a plate over the clusters, and are weighted by q(y | x).
    """
    if type(guide) is not ClusterThenCode or model.learn_weights:
        return None
    classify = _module("classifier", guide.classifier)
    encode = _module("encoder", guide.conditional_encoder)
    decode = _module("decoder", model.decoder)
    prior, clusters = mixture(model), len(model.loc)

    def over_clusters(x: Array) -> tuple[Array, Array]:
        log_q = jax.nn.log_softmax(classify(x)).T  # (K, B)
        return log_q, jnp.exp(log_q)

    def story(x: Array) -> None:
        log_q, weights = over_clusters(x)
        loc, scale = components({n: numpyro.param(f"prior.{n}", prior[n]) for n in prior})
        with _plates(x, clusters), handlers.scale(scale=weights):
            numpyro.factor("y", -math.log(clusters) - log_q)
            z = numpyro.sample("z", dist.Normal(loc, scale).to_event(1))
            numpyro.sample("x", dist.Bernoulli(logits=decode(z)).to_event(1), obs=x)

    def posterior(x: Array) -> None:
        _, weights = over_clusters(x)
        loc, raw = jnp.split(encode(x), 2, -1)
        with _plates(x, clusters), handlers.scale(scale=weights):
            numpyro.sample("z", dist.Normal(loc, deviation(raw)).to_event(1))

    return story, posterior


def _module(name: str, module: nn.Module) -> Callable[[Array], Array]:
    """A network whose weights are parameters of NumPyro."""
    weights, apply = network(module)

    def run(x: Array) -> Array:
        given = {part: numpyro.param(f"{name}.{part}", value) for part, value in weights.items()}
        return apply(given, x)

    return run


@contextmanager
def _plates(x: Array, clusters: int) -> Iterator[None]:
    with numpyro.plate("clusters", clusters, dim=-2), numpyro.plate("data", len(x), dim=-1):
        yield


def arm_of(
    model: nn.Module, guide: nn.Module, data: Tensor, recipe: Recipe
) -> Callable[[], Arm] | None:
    """What builds the steps of NumPyro's SVI, or None where the pair is not written.

    Args:
        model, guide: give the sizes and the first weights.
        data: rows ``(N, P)``.
        recipe: its optimiser, batch size and binarisation.
    """
    pair = numpyro_pair(model, guide)
    if pair is None:
        return None
    optimiser = make(recipe.optimiser, Optimizer, [*model.parameters(), *guide.parameters()])
    chosen = optimiser.param_groups[0]
    adam = Adam(chosen["lr"], *chosen["betas"], chosen["eps"])
    svi = SVI(*pair, adam, Trace_ELBO())

    def step(state: SVIState, x: Array, _: Array) -> SVIState:
        return svi.update(state, x)[0]

    def build() -> Arm:
        rows = array(data[: recipe.batch_size])
        return scanned(step, svi.init(new_key(data), rows), data, recipe)

    return build
