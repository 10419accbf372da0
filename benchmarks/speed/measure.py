"""How fast a step is, beside the same mathematics by hand, in stock Pyro and in other libraries."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyro
import torch

from priorzoo.benchmarks.data.sets import nearest
from priorzoo.benchmarks.papers import RECIPES
from priorzoo.benchmarks.recipes.changes import apply
from priorzoo.benchmarks.recipes.recipe import Recipe
from priorzoo.benchmarks.runs.machine import machine
from priorzoo.benchmarks.speed.arms import (
    PEERS,
    Arm,
    Arms,
    build_arms,
    clock_of,
    products_of,
    seconds_of,
)
from priorzoo.benchmarks.speed.by_hand import HAND
from priorzoo.benchmarks.speed.cost import cost
from priorzoo.inference import Stream
from priorzoo.inference.training.step import Precision

QUARTILES = (0.25, 0.5, 0.75)
SIZES: Mapping[str, Mapping[str, Any]] = {
    "reference": {},
    "small": {"hidden": [64, 64], "batch": 20},
}
SWEEP: Mapping[str, Sequence[int]] = {
    "clusters": (10, 30, 100, 300, 1_000),
    "batch": (20, 60, 200, 600, 2_000),
    "code": (8, 32, 64, 180, 512),
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
    quick: bool = False,
) -> Iterator[Case]:
    """Each recipe in each of ``SIZES``; with ``sweep`` also small with one size varied at a time.

    ``clusters`` is K of those with one mixture, where it is not varied; ``quick`` leaves out every
    second size of a sweep.

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
                for value in values[:: 2 if quick else 1]:
                    yield Case(name, **{**fixed, **SIZES["small"], size: value})


def measure(
    case: Case,
    device: torch.device,
    *,
    rounds: int,
    steps: int,
    arms: Sequence[str] | None = None,
    base: str | None = None,
) -> Iterator[dict[str, Any]]:
    """Time the arms alternately, and give a row for each.

    In every round each arm takes so many steps; its ratio is the median over the rounds of its time
    by that of ``base`` in the same round, so that what else the machine does falls on both. Data
    are gathered and binarised in each step. On the CPU all arms run on as many cores as torch has
    threads.

    Args:
        case: the pair and its sizes.
        device: where.
        rounds, steps: how often, and how many steps at a time.
        arms: names of :func:`build_arms`; all by default.
        base: name of the arm whose ratio is 1; by default the hand-written one, or the first where
            there is none.

    Raises:
        ValueError: for no arm of these names, or for a library that is not installed.
    """
    recipe = case.settings()
    sizes = {name: recipe.model.init_args.get(name) for name in ("code", "clusters")}
    with Stream(0, device), cores(torch.get_num_threads(), device):
        known = build_arms(recipe, device, arms)
        chosen = [name for name in known if arms is None or name in arms]
        if not chosen:
            raise ValueError(f"Expected arms among {list(known)} but got {arms}.")
        built, first = _built(known, chosen, device)
        turns = [[seconds_of(arm, steps, device) for arm in built.values()] for _ in range(rounds)]
        seconds = dict(zip(built, np.array(turns).T / steps, strict=True))
        own = HAND if HAND in built else next(iter(built))
        base = base if base in built else own
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
                "clock": clock_of(device),
                "seconds_to_begin": round(first[name], 2),
            }
            row |= products_of(arm)
            yield row | ({} if name in PEERS else cost(arm, device)) | machine(device)
    pyro.clear_param_store()


def _built(
    known: Arms, chosen: Sequence[str], device: torch.device
) -> tuple[dict[str, Arm], dict[str, float]]:
    """The chosen arms, and the seconds that each takes to be built and to take five steps."""
    built, first = {}, {}
    for name in chosen:
        begun = time.perf_counter()
        built[name] = known[name]()
        seconds_of(built[name], 5, device)
        first[name] = time.perf_counter() - begun
    return built, first


@contextmanager
def cores(count: int, device: torch.device) -> Iterator[None]:
    """Run on so many cores of those that the process may use, if the system can restrict it.

    JAX starts as many threads as there are cores, whatever torch's number of threads.
    """
    if device.type != "cpu" or not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(allowed)[-count:])
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
