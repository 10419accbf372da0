"""How fast a step is, beside the same mathematics by hand and beside stock Pyro."""

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import accumulate
from typing import Any

import numpy as np
import pyro
import torch
from pyro.infer import SVI, Trace_ELBO, TraceEnum_ELBO
from pyro.optim import PyroOptim
from torch import Tensor, nn
from torch.autograd.profiler_util import FunctionEvent

from priorzoo.benchmarks.data.sets import nearest, transform_of
from priorzoo.benchmarks.papers import RECIPES
from priorzoo.benchmarks.recipes.building import build_pair, build_training
from priorzoo.benchmarks.recipes.changes import apply
from priorzoo.benchmarks.recipes.recipe import BINARY, BOUND, Recipe, part
from priorzoo.benchmarks.runs.run import machine
from priorzoo.benchmarks.speed.by_hand import HAND, SHAPE, by_hand
from priorzoo.guides import Code
from priorzoo.inference import Batch, Stream, draw
from priorzoo.inference.pairs import run_pair
from priorzoo.inference.sites import is_enumerated, latent_sites
from priorzoo.inference.training.execution import Execution
from priorzoo.inference.training.step import Precision
from priorzoo.models import VAE
from priorzoo.models.distributions.exponential import Natural

Arm = Callable[[int], object]  # takes so many steps
Arms = dict[str, Callable[[], Arm]]  # by name, each still to be built
ROWS = 2_000
QUARTILES = (0.25, 0.5, 0.75)
SIZES: Mapping[str, Mapping[str, Any]] = {
    "reference": {},
    "small": {"hidden": [64, 64], "batch": 20},
}
SWEEP: Mapping[str, Sequence[int]] = {
    "clusters": (5, 10, 20, 40, 80),
    "batch": (20, 50, 100, 200, 400),
    "code": (8, 16, 32, 64, 128),
}


@dataclass(frozen=True)
class Case:
    """What is measured: a recipe's pair on synthetic pictures of 28 x 28, drawn from its prior.

    Args:
        recipe: a name of ``RECIPES``.
        hidden: sizes of the hidden layers of encoder and decoder; the recipe's if None.
        batch: rows a step.
        code, clusters: D and K; the recipe's if None.
        precision: of the networks.
    """

    recipe: str
    hidden: Sequence[int] | None = None
    batch: int = 100
    code: int | None = None
    clusters: int | None = None
    precision: Precision = "float32"

    def settings(self) -> Recipe:
        """The recipe with these sizes."""
        changes = {
            "batch_size": self.batch,
            "precision": self.precision,
            "model.code": self.code,
            "model.clusters": self.clusters,
            "encoder.hidden": self.hidden,
            "decoder.hidden": self.hidden,
        }
        return apply(RECIPES[self.recipe], {k: v for k, v in changes.items() if v is not None})


def cases(
    recipes: Sequence[str],
    sizes: Sequence[str],
    sweep: bool,
    precision: Precision,
    clusters: int | None = None,
) -> Iterator[Case]:
    """Each recipe in each of ``SIZES``; with ``sweep`` also small with one size varied at a time.

    ``clusters`` is K of those with one mixture, where it is not varied.

    Raises:
        ValueError: for unknown names.
    """
    for what, names, known in (("recipe", recipes, RECIPES), ("size", sizes, SIZES)):
        for name in names:
            if name not in known:
                raise ValueError(f"Unknown {what} {name!r}; {nearest(name, known)}")
    for name in recipes:
        mixture = isinstance(RECIPES[name].model.init_args.get("clusters"), int)
        fixed: dict[str, Any] = {"precision": precision, "clusters": clusters if mixture else None}
        for size in sizes:
            yield Case(name, **SIZES[size], **fixed)
        for size, values in SWEEP.items() if sweep else ():
            if mixture or size != "clusters":
                for value in values:
                    yield Case(name, **{**fixed, **SIZES["small"], size: value})


def measure(
    case: Case, device: torch.device, *, rounds: int, steps: int, arms: Sequence[str] | None = None
) -> Iterator[dict[str, Any]]:
    """Time the arms alternately, and give a row for each.

    In every round each arm takes so many steps; its ratio is the median over the rounds of its time
    by that of the hand-written yardstick (or of the first arm where there is none) in the same
    round, so that what else the machine does falls on both. Data are gathered and binarised in each
    step.

    Args:
        case: the pair and its sizes.
        device: where.
        rounds, steps: how often, and how many steps at a time.
        arms: names of :func:`build_arms`; all by default.

    Raises:
        ValueError: for no arm of these names.
    """
    recipe = case.settings()
    sizes = {name: recipe.model.init_args.get(name) for name in ("code", "clusters")}
    built: dict[str, Arm] = {}
    first: dict[str, float] = {}
    with Stream(0, device):
        known = build_arms(recipe, device)
        for name in known if arms is None else [name for name in known if name in arms]:
            begun = time.perf_counter()
            built[name] = known[name]()
            seconds_of(built[name], 5, device)
            first[name] = time.perf_counter() - begun
        if not built:
            raise ValueError(f"Expected arms among {list(known)} but got {arms}.")
        turns = [[seconds_of(arm, steps, device) for arm in built.values()] for _ in range(rounds)]
        seconds = dict(zip(built, np.array(turns).T / steps, strict=True))
        base = HAND if HAND in built else next(iter(built))
        for name, arm in built.items():
            low, ratio, high = np.quantile(seconds[name] / seconds[base], QUARTILES).tolist()
            typical = float(np.median(seconds[name]))
            row = {"kind": "speed"} | asdict(case) | sizes | {"arm": name, "base": base}
            row |= {
                "microseconds": round(1e6 * typical, 1),
                "steps_per_second": round(1 / typical, 2),
                "ratio": round(ratio, 4),
                "ratio_quartiles": [round(low, 4), round(high, 4)],
                "rounds": rounds,
                "steps": steps,
                "seconds_to_begin": round(first[name], 2),
            }
            yield row | cost(arm, device) | machine(device)
    pyro.clear_param_store()


def seconds_of(arm: Arm, steps: int, device: torch.device) -> float:
    """Seconds until the device has done so many steps."""
    begun = time.perf_counter()
    arm(steps)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begun


def build_arms(recipe: Recipe, device: torch.device) -> Arms:
    """What can be measured for a recipe, by name, each still to be built.

    ``hand-written`` and ``hand-written, compiled`` where there is such a yardstick; for a guide
    with natural parameters ``plain`` and ``plain-compiled``, the VAE of its networks, code and
    likelihood; ``eager``, ``compiled`` and, on a GPU, ``cudagraph``, the ways to run our step;
    ``pyro``, stock SVI with Pyro's own bound and optimiser; ``pythae``, that library's VAE, where
    it is installed.
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
    return found | {"pyro": partial(_stock, recipe, data)}


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


def cost(arm: Arm, device: torch.device) -> dict[str, Any]:
    """Operations of one step, and the most memory that its tensors take beside those that stay.

    On a GPU, the number of kernels. On the CPU that of aten's operations that no other calls, among
    which the fused loops of a compiled step do not count.
    """
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    gc.collect()
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        seconds_of(arm, 1, device)
    events = profile.events() or []
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        seconds_of(arm, 1, device)
        kernels = sum(e.device_type.name == "CUDA" and "Mem" not in e.name for e in events)
        peak = torch.cuda.max_memory_allocated(device) - before
        return {"kernels": kernels, "peak_mib": round(peak / 2**20, 2)}
    outer = sum(e.name.startswith("aten::") and not _within_aten(e) for e in events)
    return {"operations": outer, "peak_mib": round(_peak(profile) / 2**20, 2)}


def draw_data(recipe: Recipe, rows: int, device: torch.device) -> Tensor:
    """Synthetic pictures ``(rows, 784)``: pixels of draws from the recipe's model."""
    return draw(build_pair(recipe, SHAPE)[0], rows, means=False).to(device)


def train_arm(recipe: Recipe, data: Tensor, step: Execution) -> Arm:
    """Steps of the recipe's own training, all of a call in one row of its history."""
    model, guide = (part.to(data.device) for part in build_pair(recipe, SHAPE))
    chosen = {"transform": transform_of(recipe.binarise), "step": step, "every": 10**9}
    return build_training(recipe, model, guide, data, **chosen).run


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


def _within_aten(event: FunctionEvent) -> bool:
    parent = event.cpu_parent
    return parent is not None and (parent.name.startswith("aten::") or _within_aten(parent))


def _peak(profile: torch.profiler.profile) -> int:
    """The highest sum of what was allocated and freed, in the order of time."""
    assert profile.profiler is not None
    assert profile.profiler.kineto_results is not None
    events = sorted(profile.profiler.kineto_results.events(), key=lambda e: e.start_ns())
    # The stubs of torch lack nbytes.
    taken = (e.nbytes() for e in events if e.name() == "[memory]")  # type: ignore[attr-defined]
    return max(accumulate(taken, initial=0))
