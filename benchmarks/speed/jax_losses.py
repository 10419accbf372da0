"""Losses of the zoo's pairs in JAX, without a probabilistic language; needs the extra ``peers``.

Each is registered for the class of a model, and has its weights from a pair in torch.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import singledispatch
from typing import NamedTuple

import jax
from jax import Array
from jax import numpy as jnp
from jax.scipy.special import digamma, gammaln
from torch import nn

from priorzoo.benchmarks.speed.jax_networks import Weights, array, network
from priorzoo.guides import ClusterThenCode, Code, FactorialCode
from priorzoo.models import GMVAE, VAE, FactorialMixture
from priorzoo.models.components import Components
from priorzoo.models.distributions.gaussian import VARIANCE_FLOOR

Trained = Mapping[str, Weights]


@dataclass(frozen=True)
class JaxLoss:
    """A loss of binary rows.

    Args:
        trained: weights that Adam trains, by network.
        noise: shape of the standard normal noise of one row, with a 0 where the batch is.
        value: loss in nats per datum of weights, globals, rows and noise.
        globals: natural parameters, float64; None without conjugate globals.
        optimum: the optimal natural parameters given weights, globals and rows.
    """

    trained: Trained
    noise: tuple[int, ...]
    value: Callable[[Trained, "Globals | None", Array, Array], Array]
    globals: "Globals | None" = None
    optimum: Callable[[Trained, "Globals", Array], "Globals"] | None = None


class Globals(NamedTuple):
    """Natural parameters of the weights ``(K,)`` and the components ``(K, D, 4)``."""

    weights: Array
    components: Array


@singledispatch
def jax_loss(model: nn.Module, guide: nn.Module, data: int) -> JaxLoss | None:
    """The loss of a pair with binary pixels and N data, or None where it is not written."""
    return None


def deviation(raw: Array) -> Array:
    """As :func:`priorzoo.models.distributions.gaussian.deviation`."""
    return jnp.sqrt(jax.nn.softplus(raw) + VARIANCE_FLOOR)


def cross_entropy(logits: Array, x: Array) -> Array:
    """Sum over the pixels, in nats."""
    return (jax.nn.softplus(logits) - x * logits).sum(-1)


def mixture(model: Components) -> Weights:
    """The weights of a mixture's components, with the clusters first and one row: ``(K, 1, D)``."""
    names = ("loc", "raw", "shared") if model.offset else ("loc", "raw")
    return {name: array(getattr(model, name))[:, None] for name in names}


def components(weights: Weights) -> tuple[Array, Array]:
    """Means and standard deviations ``(K, 1, D)`` of a :func:`mixture`."""
    loc, raw = weights.get("shared", jnp.zeros((2, 1, 1), weights["loc"].dtype))
    return weights["loc"] + loc, deviation(weights["raw"] + raw)


@jax_loss.register
def _(model: VAE, guide: nn.Module, data: int) -> JaxLoss | None:
    if type(guide) is not Code:
        return None
    (encoder, encode), (decoder, decode) = network(guide.encoder), network(model.decoder)

    def value(trained: Trained, _: Globals | None, x: Array, noise: Array) -> Array:
        loc, raw = jnp.split(encode(trained["encoder"], x), 2, -1)
        scale = deviation(raw)
        z = loc + scale * noise
        kl = ((z**2 - noise**2) / 2 - jnp.log(scale)).sum(-1)
        return (cross_entropy(decode(trained["decoder"], z), x) + kl).mean()

    return JaxLoss({"encoder": encoder, "decoder": decoder}, (0, model.code), value)


@jax_loss.register
def _(model: GMVAE, guide: nn.Module, data: int) -> JaxLoss | None:
    if type(guide) is not ClusterThenCode or model.learn_weights:
        return None
    parts = {"classifier": guide.classifier, "encoder": guide.conditional_encoder}
    made = {name: network(part) for name, part in {**parts, "decoder": model.decoder}.items()}
    trained: Trained = {name: weights for name, (weights, _) in made.items()}
    prior = mixture(model)
    clusters, code = model.loc.shape

    def value(trained: Trained, _: Globals | None, x: Array, noise: Array) -> Array:
        def run(name: str, rows: Array) -> Array:
            return made[name][1](trained[name], rows)

        log_q = jax.nn.log_softmax(run("classifier", x)).T  # (K, B)
        loc, raw = jnp.split(run("encoder", x), 2, -1)  # (K, B, D)
        scale, (centre, spread) = deviation(raw), components(trained["prior"])
        z = loc + scale * noise
        distance = (z - centre) / spread
        kl = ((distance**2 - noise**2) / 2 + jnp.log(spread) - jnp.log(scale)).sum(-1)
        cost = cross_entropy(run("decoder", z), x) + kl + log_q
        return (jnp.exp(log_q) * cost).sum(0).mean() + math.log(clusters)

    return JaxLoss({**trained, "prior": prior}, (clusters, 0, code), value)


@jax_loss.register
def _(model: FactorialMixture, guide: nn.Module, data: int) -> JaxLoss | None:
    if type(guide) is not FactorialCode or len(guide.weights) > 1:
        return None
    (encoder, encode), (decoder, decode) = network(guide.encoder), network(model.decoder)
    clusters, size = guide.components[0].shape[:2]
    with jax.enable_x64(True):
        prior = Globals(*map(array, model.priors(clusters, size)))
        start = Globals(array(guide.weights[0]), array(guide.components[0]))

    def code_of(trained: Trained, x: Array) -> tuple[Array, Array]:
        loc, raw = jnp.split(encode(trained["encoder"], x), 2, -1)
        return loc, deviation(raw)

    def value(trained: Trained, q: Globals | None, x: Array, noise: Array) -> Array:
        assert q is not None
        loc, scale = code_of(trained, x)
        log_pi, scores = expected(q, loc, scale)
        log_r = jax.lax.stop_gradient(jax.nn.log_softmax(scores + log_pi))
        entropy = (jnp.log(scale) + (1 + math.log(2 * math.pi)) / 2).sum(-1)
        kl = (jnp.exp(log_r) * (log_r - log_pi - scores)).sum(-1) - entropy
        pixels = cross_entropy(decode(trained["decoder"], loc + scale * noise), x)
        return (pixels + kl).mean() + divergence(q, prior).astype(x.dtype) / data

    def optimum(trained: Trained, q: Globals, x: Array) -> Globals:
        loc, scale = code_of(trained, x)
        log_pi, scores = expected(q, loc, scale)
        r = jax.nn.softmax(scores + log_pi).astype(jnp.float64) * (data / len(x))  # (B, K)
        loc, square = loc.astype(jnp.float64), (loc**2 + scale**2).astype(jnp.float64)
        count = r.sum(0)
        half = jnp.broadcast_to(count[:, None] / 2, (clusters, size))
        counted = jnp.stack([half, -(r.T @ square) / 2, r.T @ loc, -half], -1)
        return Globals(prior.weights + count, prior.components + counted)

    trained = {"encoder": encoder, "decoder": decoder}
    return JaxLoss(trained, (0, model.code), value, start, optimum)


def expected(q: Globals, loc: Array, scale: Array) -> tuple[Array, Array]:
    """Expected log weights ``(K,)`` and expected log densities of the codes ``(B, K)``."""
    counts = q.weights + 1
    log_pi = (digamma(counts) - digamma(counts.sum())).astype(loc.dtype)
    shape, rate, location, count = jnp.moveaxis(q.components, -1, 0)
    s = -2 * count
    m = location / s
    a, b = shape + 0.5, -rate - location * m / 2
    alpha, offset = a / b, digamma(a) - jnp.log(b) - 1 / s
    z, variance = loc.astype(jnp.float64), (scale**2).astype(jnp.float64)
    square = (z**2 + variance) @ alpha.T - 2 * z @ (alpha * m).T + (alpha * m**2).sum(-1)
    level = (offset - math.log(2 * math.pi)).sum(-1)
    return log_pi, ((level - square) / 2).astype(loc.dtype)


def divergence(q: Globals, prior: Globals) -> Array:
    """KL of the globals from their prior, in nats."""

    def normaliser(natural: Globals) -> Array:
        counts = natural.weights + 1
        shape, rate, location, count = jnp.moveaxis(natural.components, -1, 0)
        a, b = shape + 0.5, -rate + location**2 / (4 * count)
        parts = gammaln(a) - a * jnp.log(b) - jnp.log(-2 * count) / 2
        return gammaln(counts).sum() - gammaln(counts.sum()) + parts.sum()

    statistics = jax.grad(normaliser)(q)
    gap = sum(((a - b) * t).sum() for a, b, t in zip(q, prior, statistics, strict=True))
    return gap - normaliser(q) + normaliser(prior)
