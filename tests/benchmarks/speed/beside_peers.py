"""Prints how far losses and steps of the peers are from the zoo's, as JSON.

A program of its own, since JAX warns in every later fork of its process.
"""

import json
import sys
from dataclasses import replace

import jax
import numpy as np
import torch
from numpyro import handlers
from numpyro.infer import Trace_ELBO

from priorzoo.benchmarks.recipes.building import build_objective, build_pair, make
from priorzoo.benchmarks.recipes.recipe import BINARY
from priorzoo.benchmarks.speed import measure as speed
from priorzoo.benchmarks.speed.by_hand import SHAPE
from priorzoo.benchmarks.speed.in_jax import hand_step
from priorzoo.benchmarks.speed.in_numpyro import numpyro_pair
from priorzoo.benchmarks.speed.jax_losses import jax_loss
from priorzoo.benchmarks.speed.jax_networks import array
from priorzoo.inference.batch import Batch
from priorzoo.inference.training.step import take_step

ROWS, DATA = 5, 40
torch.set_default_dtype(torch.float64)
jax.config.update("jax_enable_x64", True)


def built(name):
    (case,) = speed.cases([name], ["small"], False, "float32", clusters=4)
    recipe = replace(case.settings(), likelihood=BINARY)
    torch.manual_seed(0)
    model, guide = build_pair(recipe, SHAPE)
    return recipe, model, guide, torch.bernoulli(torch.rand(ROWS, 784))


def noise_of(loss, seed):
    """The numbers that torch draws first after a seed."""
    torch.manual_seed(seed)
    return torch.randn([size or ROWS for size in loss.noise])


def relative(found, expected):
    found, expected = np.asarray(found, float), np.asarray(expected, float)
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def of_jax(name, steps=3):
    """Of the loss, then of what three steps on equal rows and noise make of the parameters."""
    recipe, model, guide, x = built(name)
    objective, loss = build_objective(recipe, model, guide), jax_loss(model, guide, DATA)
    optimiser = make(recipe.optimiser, torch.optim.Optimizer, list(objective.parameters()))
    state, take = hand_step(loss, optimiser)
    take, value = jax.jit(take), jax.jit(loss.value)
    theirs = value(loss.trained, loss.globals, array(x), array(noise_of(loss, 0)))
    for seed in range(steps):
        state = take(state, array(x), array(noise_of(loss, seed)))
    torch.manual_seed(0)
    found = {"loss": relative(theirs, objective.loss(Batch(x, DATA)).value.item())}
    before = jax_loss(model, guide, DATA)
    for seed in range(steps):
        torch.manual_seed(seed)
        take_step(objective, optimiser, Batch(x, DATA))
    after = jax_loss(model, guide, DATA)
    pairs = zip(*map(jax.tree.leaves, map(parts, (before, after, state))), strict=True)
    moves = [(now - old, hand - old) for old, now, hand in pairs]
    steps = [relative(hand, ours) for ours, hand in moves if np.any(ours)]
    return found | {"steps": max(steps, default=0.0)}


def of_loss(name):
    return of_jax(name, steps=0)


def parts(made):
    return {"trained": made.trained, "globals": made.globals}


def of_numpyro(name):
    """Of the loss of NumPyro at what its guide draws."""
    _, model, guide, x = built(name)
    story, posterior = numpyro_pair(model, guide)
    loss, rows, key = jax_loss(model, guide, DATA), array(x), jax.random.key(3)
    bound = jax.jit(lambda rows: Trace_ELBO().loss(key, {}, story, posterior, rows))
    found = bound(rows) / len(rows)
    seeded = handlers.seed(posterior, jax.random.split(key)[1])
    site = handlers.trace(seeded).get_trace(rows)["z"]
    normal = site["fn"].base_dist
    noise = (site["value"] - normal.loc) / normal.scale
    return {"loss": relative(found, jax.jit(loss.value)(loss.trained, None, rows, noise))}


def of_arms(name):
    """Microseconds of both arms in our measurement."""
    torch.set_default_dtype(torch.float32)
    jax.config.update("jax_enable_x64", False)
    (case,) = speed.cases([name], ["small"], False, "float32")
    limits = {"rounds": 1, "steps": 11, "arms": ["jax", "numpyro"]}
    rows = speed.measure(case, torch.device("cpu"), **limits)
    return {row["arm"]: row["microseconds"] for row in rows}


kinds = {"loss": of_loss, "jax": of_jax, "numpyro": of_numpyro, "arms": of_arms}
asked = map(str.split, sys.argv[1:])
print(json.dumps({f"{kind} {name}": kinds[kind](name) for kind, name in asked}))
