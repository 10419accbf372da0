"""What can be timed for a recipe: ways to run our step, the same by hand, and other libraries."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from importlib import import_module
from importlib.util import find_spec

import pyro
import torch
from pyro.infer import SVI, Trace_ELBO, TraceEnum_ELBO
from pyro.optim import PyroOptim
from torch import Tensor, nn

from priorzoo.benchmarks.data.sets import transform_of
from priorzoo.benchmarks.recipes.building import build_pair, build_training
from priorzoo.benchmarks.recipes.recipe import BINARY, BOUND, Recipe, part
from priorzoo.benchmarks.speed.by_hand import HAND, SHAPE, by_hand
from priorzoo.benchmarks.speed.products import LIMIT, products_arm
from priorzoo.guides import Code
from priorzoo.inference import Batch, Training, draw
from priorzoo.inference.pairs import run_pair
from priorzoo.inference.sites import is_enumerated, latent_sites
from priorzoo.inference.training.execution import Execution, Recorded
from priorzoo.models import VAE
from priorzoo.models.distributions.exponential import Natural

Arm = Callable[[int], object]  # takes so many steps
Arms = dict[str, Callable[[], Arm]]  # by name, each still to be built
ROWS = 2_000
PEERS = {"jax": ("jax", "optax"), "numpyro": ("jax", "numpyro")}  # with what they need


def clock_of(device: torch.device) -> str:
    """By which clock steps are timed: the process's own, on one thread of a CPU.

    Other work on the machine then counts less.
    """
    return "processor" if device.type == "cpu" and torch.get_num_threads() == 1 else "wall"


def seconds_of(arm: Arm, steps: int, device: torch.device) -> float:
    """Seconds until the device has done so many steps, by :func:`clock_of`."""
    now = time.process_time if clock_of(device) == "processor" else time.perf_counter
    begun = now()
    arm(steps)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return now() - begun


def build_arms(recipe: Recipe, device: torch.device, wanted: Sequence[str] | None = None) -> Arms:
    """What can be measured for a recipe, by name, each still to be built.

    ``hand-written`` and ``hand-written, compiled`` where there is such a yardstick; for a guide
    with natural parameters ``plain`` and ``plain-compiled``, the VAE of its networks, code and
    likelihood; ``eager``, ``compiled`` and, on a GPU, ``cudagraph``, the ways to run our step;
    ``pyro``, stock SVI with Pyro's own bound and optimiser; ``pythae``, that library's VAE, and
    ``jax`` and ``numpyro``, where they are installed; ``matrix products``, those of the step alone.

    Raises:
        ValueError: for a wanted arm whose library is not installed.
    """
    model, guide = build_pair(recipe, SHAPE)
    mixture = any(isinstance(parameter, Natural) for parameter in guide.parameters())
    plain = without_mixture(recipe) if mixture else recipe
    data = draw_data(plain, ROWS, device)  # a vague prior on precisions draws unbounded codes
    alike = recipe.encoder == recipe.decoder and recipe.likelihood == BINARY
    losses = by_hand(model, guide, recipe.encoder.init_args["hidden"]) if alike else {}
    found: Arms = {name: partial(_loop, make, data, recipe) for name, make in losses.items()}
    if HAND in losses:
        found[f"{HAND}, compiled"] = partial(_loop, losses[HAND], data, recipe, compiled=True)
    if mixture:
        found["plain"] = partial(train_arm, plain, data, "eager")
        found["plain-compiled"] = partial(train_arm, plain, data, "compiled")
    ways: tuple[Execution, ...] = ("eager", "compiled", "cudagraph")
    for step in ways if device.type == "cuda" else ways[:2]:
        found[step] = partial(train_arm, recipe, data, step)
    found["pyro"] = partial(_stock, recipe, data)
    found |= _peers(recipe, model, guide, data, wanted)
    return found | {LIMIT: lambda: products_arm(train_arm(recipe, data, "eager"), device)}


def _peers(
    recipe: Recipe, model: nn.Module, guide: nn.Module, data: Tensor, wanted: Sequence[str] | None
) -> Arms:
    """The arms of other libraries, for pairs with binary pixels that are written in them."""
    found: Arms = {}
    for name, libraries in PEERS.items():
        missing = [library for library in libraries if find_spec(library) is None]
        if missing and wanted is not None and name in wanted:
            raise ValueError(
                f"Expected {missing[0]} for the arm {name} but it is not installed; run "
                "pip install 'priorzoo[peers]'."
            )
        if missing or (wanted is not None and name not in wanted):
            continue
        if recipe.precision == "float32" and recipe.likelihood == BINARY:
            module = import_module(f"priorzoo.benchmarks.speed.in_{name}")
            build = module.arm_of(model, guide, data, recipe)
            found |= {} if build is None else {name: build}
    return found


def without_mixture(recipe: Recipe) -> Recipe:
    """The VAE with a standard normal prior of the same networks, code, likelihood and step size."""
    chosen = recipe.optimiser.init_args
    adam = {name: chosen[name] for name in ("lr", "fused") if name in chosen}
    return replace(
        recipe,
        model=part(VAE, code=recipe.model.init_args["code"]),
        guide=part(Code),
        objective=BOUND,
        optimiser=part(torch.optim.Adam, **adam),
        kl={},
        penalties={},
        stages=(),
    )


def draw_data(recipe: Recipe, rows: int, device: torch.device) -> Tensor:
    """Synthetic pictures ``(rows, 784)``: pixels of draws from the recipe's model."""
    return draw(build_pair(recipe, SHAPE)[0], rows, means=False).to(device)


def train_arm(recipe: Recipe, data: Tensor, step: Execution) -> Arm:
    """Steps of the recipe's own training, all of a call in one row of its history."""
    model, guide = (part.to(data.device) for part in build_pair(recipe, SHAPE))
    chosen = {"transform": transform_of(recipe.binarise), "step": step, "every": 10**9}
    return build_training(recipe, model, guide, data, **chosen).run


def products_of(arm: Arm) -> dict[str, str]:
    """How many matrix products of a compiled step are computed in which way, for its row."""
    training = getattr(arm, "__self__", None)
    if not isinstance(training, Training) or not isinstance(training.steps, Recorded):
        return {}
    counts = training.steps.descend.products
    return {"products": ", ".join(f"{count} {name}" for name, count in counts.items()) or "none"}


def _loop(
    make: Callable[[], nn.Module], data: Tensor, recipe: Recipe, compiled: bool = False
) -> Arm:
    program = make().to(data.device)
    optimiser = torch.optim.Adam(program.parameters(), lr=1e-3, fused=True)
    run: Callable[[Tensor], Tensor] = torch.compile(program) if compiled else program

    def step(x: Tensor) -> None:
        optimiser.zero_grad()
        with torch.autocast(data.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
            loss = run(x)
        loss.backward()
        optimiser.step()

    return _repeated(step, data, recipe)


def _stock(recipe: Recipe, data: Tensor) -> Arm:
    model, guide = (part.to(data.device) for part in build_pair(recipe, SHAPE))
    with torch.no_grad():
        drawn, _ = run_pair(model, guide, Batch(data[:2]))
    enumerated = any(is_enumerated(site) for site in latent_sites(drawn).values())
    bound = (TraceEnum_ELBO if enumerated else Trace_ELBO)(max_plate_nesting=1)
    pyro.clear_param_store()

    def registered(name: str, program: nn.Module) -> Callable[[Tensor], object]:
        return lambda x: pyro.module(name, program)(x, len(data))

    adam = PyroOptim(torch.optim.Adam, {"lr": 1e-3})
    svi = SVI(registered("model", model), registered("guide", guide), adam, bound)
    return _repeated(svi.step, data, recipe)


def _repeated(step: Callable[[Tensor], object], data: Tensor, recipe: Recipe) -> Arm:
    """Steps on batches that are gathered and binarised in each."""
    transform = transform_of(recipe.binarise)

    def run(steps: int) -> None:
        for _ in range(steps):
            x = data[torch.randint(len(data), (recipe.batch_size,), device=data.device)]
            step(x if transform is None else transform(x))

    return run
