"""How fast a step is, beside the same mathematics by hand and beside stock Pyro."""

import gc
import importlib.util
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import median, quantiles
from typing import Any

import pyro
import torch
from pyro.infer import SVI, Trace_ELBO, TraceEnum_ELBO
from pyro.optim import PyroOptim
from torch import Tensor, nn
from torch.autograd.profiler_util import FunctionEvent

from priorzoo.benchmarks.data.sets import nearest
from priorzoo.benchmarks.papers import RECIPES
from priorzoo.benchmarks.recipes.building import build_pair, build_training
from priorzoo.benchmarks.recipes.recipe import Part, Recipe, part
from priorzoo.benchmarks.speed.by_hand import HandGMVAE, HandVAE, PythaeVAE
from priorzoo.guides import ClusterThenCode, Code
from priorzoo.inference import ELBO, ConjugateELBO, Stream, draw, enumerates
from priorzoo.inference.saving import versions
from priorzoo.inference.training.execution import Execution
from priorzoo.inference.training.step import Precision
from priorzoo.models import GMVAE, VAE, Bernoulli

Arm = Callable[[int], None]  # takes so many steps
SHAPE = (28, 28)
ROWS = 2_000
SIZES: Mapping[str, Mapping[str, Any]] = {
    "reference": {},
    "small": {"hidden": [64, 64], "batch": 20},
}
SWEEP: Mapping[str, Sequence[int]] = {
    "clusters": (5, 10, 20, 40, 80),
    "batch": (20, 50, 100, 200, 400),
    "code": (8, 16, 32, 64, 128),
}
HAND = "hand-written"
PLAIN = "plain"


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
        recipe = RECIPES[self.recipe]
        model = dict(recipe.model.init_args)
        chosen = {"code": self.code, "clusters": self.clusters}
        model |= {name: size for name, size in chosen.items() if size is not None}
        networks = {}
        if self.hidden is not None:
            for name in ("encoder", "decoder"):
                part = getattr(recipe, name)
                hidden = {"hidden": list(self.hidden)}
                networks[name] = replace(part, init_args={**part.init_args, **hidden})
        changed = replace(recipe.model, init_args=model)
        return replace(
            recipe, model=changed, batch_size=self.batch, precision=self.precision, **networks
        )


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
    """Time the arms by turns, and give a row for each.

    In every round each arm takes so many steps; its ratio is the median over the rounds of its time
    by that of the hand-written yardstick (or of the first arm where there is none) in the same
    round, so that what else the machine does falls on both. Data are gathered and binarised in each
    step.

    Args:
        case: the pair and its sizes.
        device: where.
        rounds, steps: how often, and how many steps at a time.
        arms: names of :func:`build_arms`; all by default.
    """
    recipe = case.settings()
    with Stream(0, device):
        built, first = _built(build_arms(recipe, device), arms, device)
        seconds: dict[str, list[float]] = {name: [] for name in built}
        for _ in range(rounds):
            for name, arm in built.items():
                seconds[name].append(_timed(partial(arm, steps), device) / steps)
        base = HAND if HAND in built else next(iter(built))
        for name, arm in built.items():
            ratios = [a / b for a, b in zip(seconds[name], seconds[base], strict=True)]
            yield {
                "kind": "speed",
                "recipe": case.recipe,
                "hidden": None if case.hidden is None else list(case.hidden),
                "batch": case.batch,
                "code": recipe.model.init_args.get("code"),
                "clusters": recipe.model.init_args.get("clusters"),
                "precision": recipe.precision,
                "arm": name,
                "base": base,
                "microseconds": round(1e6 * median(seconds[name]), 1),
                "steps_per_second": round(1 / median(seconds[name]), 2),
                "ratio": round(median(ratios), 4),
                "ratio_quartiles": [round(q, 4) for q in _quartiles(ratios)],
                "rounds": rounds,
                "steps": steps,
                "seconds_to_begin": round(first[name], 2),
                **cost(arm, device),
                "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
                "threads": torch.get_num_threads(),
                "versions": versions(),
            }
    pyro.clear_param_store()


def _built(
    known: Mapping[str, Callable[[], Arm]], names: Sequence[str] | None, device: torch.device
) -> tuple[dict[str, Arm], dict[str, float]]:
    """The arms that are asked for, and the seconds until each has taken its first five steps."""
    built: dict[str, Arm] = {}
    first: dict[str, float] = {}
    for name, make in known.items():
        if names is None or name in names:
            begun = time.perf_counter()
            built[name] = make()
            _timed(partial(built[name], 5), device)
            first[name] = time.perf_counter() - begun
    if not built:
        raise ValueError(f"Expected arms among {list(known)} but got {names}.")
    return built, first


def _timed(run: Callable[[], None], device: torch.device) -> float:
    """Seconds until the device has done it."""
    begun = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begun


def build_arms(recipe: Recipe, device: torch.device) -> dict[str, Callable[[], Arm]]:
    """What can be measured for a recipe, by name, each still to be built.

    ``hand-written`` and ``hand-written, compiled`` where there is such a yardstick; for a factorial
    mixture ``plain`` and ``plain-compiled``, the VAE of its networks, code and likelihood;
    ``eager``, ``compiled`` and, on a GPU, ``cudagraph``, the ways to run our step; ``pyro``, stock
    SVI with Pyro's own bound and optimiser; ``pythae``, that library's VAE, where it is installed.
    """
    mixture = _is(recipe.objective, ConjugateELBO)
    plain = without_mixture(recipe) if mixture else recipe
    model, _ = build_pair(plain, SHAPE)  # a vague prior on precisions draws codes without bound
    data = draw(model, ROWS, means=False).to(device)

    def by_hand(compiled: bool) -> Arm:
        yardstick = _yardstick(recipe)
        assert yardstick is not None
        return _loop(yardstick.to(device), data, recipe, compiled)

    found: dict[str, Callable[[], Arm]] = {}
    if _yardstick(recipe) is not None:
        found |= {HAND: lambda: by_hand(False), f"{HAND}, compiled": lambda: by_hand(True)}
    if mixture:
        found |= {
            PLAIN: lambda: _ours(plain, data, "eager"),
            f"{PLAIN}-compiled": lambda: _ours(plain, data, "compiled"),
        }
    found |= {
        "eager": lambda: _ours(recipe, data, "eager"),
        "compiled": lambda: _ours(recipe, data, "compiled"),
    }
    if device.type == "cuda":
        found["cudagraph"] = lambda: _ours(recipe, data, "cudagraph")
    found["pyro"] = lambda: _stock(recipe, data)
    if _is(recipe.model, VAE) and importlib.util.find_spec("pythae") is not None:
        sizes = _sizes(recipe)
        found["pythae"] = lambda: _loop(PythaeVAE(*sizes).to(device), data, recipe, False)
    return found


def without_mixture(recipe: Recipe) -> Recipe:
    """The VAE with a standard normal prior of the same networks, code, likelihood and step size."""
    chosen = recipe.optimiser.init_args
    adam = {name: chosen[name] for name in ("lr", "fused") if name in chosen}
    return replace(
        recipe,
        model=part(VAE, code=recipe.model.init_args["code"]),
        guide=part(Code),
        objective=part(ELBO),
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
        _timed(partial(arm, 1), device)
    events = profile.events() or []
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        _timed(partial(arm, 1), device)
        kernels = sum(e.device_type.name == "CUDA" and "Mem" not in e.name for e in events)
        peak = torch.cuda.max_memory_allocated(device) - before
        return {"kernels": kernels, "peak_mib": round(peak / 2**20, 2)}
    outer = sum(e.name.startswith("aten::") and not _within_aten(e) for e in events)
    return {"operations": outer, "peak_mib": round(_peak(profile) / 2**20, 2)}


def _ours(recipe: Recipe, data: Tensor, step: Execution) -> Arm:
    model, guide = build_pair(recipe, SHAPE)
    training = build_training(
        recipe,
        model.to(data.device),
        guide.to(data.device),
        data,
        transform=_transform(recipe),
        step=step,
        every=10**9,
    )

    def run(steps: int) -> None:
        training.run(steps=steps)

    return run


def _loop(program: nn.Module, data: Tensor, recipe: Recipe, compiled: bool) -> Arm:
    optimiser = torch.optim.Adam(program.parameters(), lr=1e-3, fused=True)
    run: Callable[[Tensor], Tensor] = torch.compile(program) if compiled else program
    transform = _transform(recipe) or (lambda x: x)
    half = recipe.precision == "bf16"

    def step() -> None:
        index = torch.randint(len(data), (recipe.batch_size,), device=data.device)
        x = transform(data[index])
        optimiser.zero_grad()
        with torch.autocast(data.device.type, torch.bfloat16, enabled=half):
            loss = run(x)
        loss.backward()
        optimiser.step()

    return _repeated(step)


def _stock(recipe: Recipe, data: Tensor) -> Arm:
    model, guide = build_pair(recipe, SHAPE)
    model.to(data.device)
    guide.to(data.device)
    discrete = any(enumerates(model, guide, data[:2], site) for site in ("y", "r_1"))
    bound = TraceEnum_ELBO if discrete else Trace_ELBO
    transform = _transform(recipe) or (lambda x: x)
    pyro.clear_param_store()

    def registered(name: str, program: nn.Module) -> Callable[[Tensor], object]:
        def run(x: Tensor) -> object:
            pyro.module(name, program)
            return program(x, len(data))

        return run

    svi = SVI(
        registered("model", model),
        registered("guide", guide),
        PyroOptim(torch.optim.Adam, {"lr": 1e-3}),
        bound(max_plate_nesting=1),
    )

    def step() -> None:
        index = torch.randint(len(data), (recipe.batch_size,), device=data.device)
        svi.step(transform(data[index]))

    return _repeated(step)


def _repeated(step: Callable[[], None]) -> Arm:
    def run(steps: int) -> None:
        for _ in range(steps):
            step()

    return run


def _transform(recipe: Recipe) -> Callable[[Tensor], Tensor] | None:
    return torch.bernoulli if recipe.binarise == "dynamic" else None


def _is(chosen: Part, kind: type) -> bool:
    return chosen.class_path == part(kind).class_path


def _sizes(recipe: Recipe) -> tuple[int, int, Sequence[int]]:
    pixels = SHAPE[0] * SHAPE[1]
    return pixels, recipe.model.init_args["code"], recipe.encoder.init_args["hidden"]


def _yardstick(recipe: Recipe) -> nn.Module | None:
    """The hand-written loss of the recipe's pair, where it has one."""
    if recipe.encoder != recipe.decoder or not _is(recipe.likelihood, Bernoulli):
        return None
    pixels, code, hidden = _sizes(recipe)
    if _is(recipe.model, VAE) and _is(recipe.guide, Code):
        return HandVAE(pixels, code, hidden)
    if _is(recipe.model, GMVAE) and _is(recipe.guide, ClusterThenCode):
        return HandGMVAE(pixels, code, recipe.model.init_args["clusters"], hidden)
    return None


def _within_aten(event: FunctionEvent) -> bool:
    parent = event.cpu_parent
    while parent is not None:
        if parent.name.startswith("aten::"):
            return True
        parent = parent.cpu_parent
    return False


def _peak(profile: torch.profiler.profile) -> int:
    """The highest sum of what was allocated and freed, in the order of time."""
    held = peak = 0
    assert profile.profiler is not None
    assert profile.profiler.kineto_results is not None
    for event in sorted(profile.profiler.kineto_results.events(), key=lambda e: e.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()  # type: ignore[attr-defined]  # not in torch's stubs
            peak = max(peak, held)
    return peak


def _quartiles(values: Sequence[float]) -> tuple[float, float]:
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = quantiles(values, n=4, method="inclusive")
    return low, high
