"""Steps by hand in JAX, in the form that is fastest there: jit, and a scan over ten steps."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeVar

import jax
import optax
from jax import Array, lax, random
from jax import numpy as jnp
from torch import Tensor, nn
from torch.optim import Optimizer

from priorzoo.benchmarks.recipes.building import make
from priorzoo.benchmarks.recipes.recipe import Recipe
from priorzoo.benchmarks.speed.jax_losses import Globals, JaxLoss, Trained, jax_loss
from priorzoo.benchmarks.speed.jax_networks import array

SCANNED = 10  # steps in one call
State = TypeVar("State")
Arm = Callable[[int], object]


class Learnt(NamedTuple):
    """What a step by hand changes; ``passed`` counts steps of the natural parameters."""

    trained: Trained
    adam: optax.OptState
    globals: Globals | None
    passed: Array


def arm_of(
    model: nn.Module, guide: nn.Module, data: Tensor, recipe: Recipe
) -> Callable[[], Arm] | None:
    """What builds the steps of a pair by hand, or None where its loss is not written.

    Args:
        model, guide: give the sizes and the first weights.
        data: rows ``(N, P)``.
        recipe: its optimiser, batch size and binarisation.
    """
    loss = jax_loss(model, guide, len(data))
    if loss is None:
        return None
    parameters = [*model.parameters(), *guide.parameters()]
    start, take = hand_step(loss, make(recipe.optimiser, Optimizer, parameters))
    noise = tuple(size or recipe.batch_size for size in loss.noise)

    def step(state: Learnt, x: Array, key: Array) -> Learnt:
        return take(state, x, random.normal(key, noise, jnp.float32))

    return partial(scanned, step, start, data, recipe, double=loss.globals is not None)


def hand_step(
    loss: JaxLoss, optimiser: Optimizer
) -> tuple[Learnt, Callable[[Learnt, Array, Array], Learnt]]:
    """The first state, and a step on rows ``(B, P)`` and noise.

    Adam trains the networks. Natural parameters then move towards their optimum, as by
    :class:`RobbinsMonro`.

    Args:
        loss: what to minimise.
        optimiser: Adam, perhaps with :class:`RobbinsMonro`, whose settings are taken.
    """
    adam, *_, natural = optimiser.param_groups * 2  # of Adam alone, the two are the same
    updates = optax.adam(adam["lr"], *adam["betas"], adam["eps"])

    def take(state: Learnt, x: Array, noise: Array) -> Learnt:
        gradients = jax.grad(loss.value)(state.trained, state.globals, x, noise)
        changes, moments = updates.update(gradients, state.adam)
        trained = optax.apply_updates(state.trained, changes)
        if state.globals is None or loss.optimum is None:
            return Learnt(trained, moments, None, state.passed)
        optimum = loss.optimum(trained, state.globals, x)
        share = natural["lr"] * (1 + state.passed / natural["delay"]) ** -natural["forgetting"]
        moved = jax.tree.map(lambda old, new: old + share * (new - old), state.globals, optimum)
        return Learnt(trained, moments, moved, state.passed + 1)

    like = jax.tree.leaves(loss.trained)[0]
    start = Learnt(
        loss.trained, updates.init(loss.trained), loss.globals, jnp.zeros_like(like, shape=())
    )
    return start, take


def new_key(data: Tensor) -> Array:
    """A random key, of the generator that is fastest where the data are."""
    return random.key(0, impl="rbg" if data.is_cuda else "threefry2x32")


def scanned(
    step: Callable[[State, Array, Array], State],
    start: State,
    data: Tensor,
    recipe: Recipe,
    double: bool = False,
) -> Arm:
    """Steps on batches that are gathered and binarised in each, ten in one call.

    Both functions are compiled here.

    Args:
        step: of a state, rows ``(B, P)`` and a random key.
        start: the first state.
        data, recipe: as in :func:`arm_of`.
        double: whether there are numbers in float64.
    """
    place = jax.devices("gpu" if data.is_cuda else "cpu")[0]
    rows, count = jax.device_put(array(data), place), recipe.batch_size

    def one(rows: Array, carry: tuple[State, Array], _: None) -> tuple[tuple[State, Array], None]:
        state, key = carry
        key, of_batch, of_pixels, of_noise = random.split(key, 4)
        x = rows[random.randint(of_batch, (count,), 0, len(rows), jnp.int32)]
        if recipe.binarise == "dynamic":
            x = (random.uniform(of_pixels, x.shape, jnp.float32) < x).astype(jnp.float32)
        return (step(state, x, of_noise), key), None

    def many(rows: Array, carry: tuple[State, Array], steps: int) -> tuple[State, Array]:
        return lax.scan(partial(one, rows), carry, length=steps)[0]

    with jax.enable_x64(double), jax.default_device(place):
        carry = jax.device_put((start, new_key(data)), place)
        runs = {
            steps: jax.jit(partial(many, steps=steps), donate_argnums=1)
            .lower(rows, carry)
            .compile()
            for steps in (SCANNED, 1)
        }
    held = [carry]

    def run(steps: int) -> None:
        with jax.enable_x64(double):
            for length in [SCANNED] * (steps // SCANNED) + [1] * (steps % SCANNED):
                held[0] = runs[length](rows, held[0])
            jax.block_until_ready(held[0])

    return run
