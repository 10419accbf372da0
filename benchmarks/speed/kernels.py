"""Times each kernel of a compiled step beside the bytes that it moves, to find the slow ones."""

import time
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType, SimpleNamespace

import torch
from torch import Tensor

from priorzoo.benchmarks.data.sets import transform_of
from priorzoo.benchmarks.recipes.building import build_pair, build_training
from priorzoo.benchmarks.recipes.recipe import Recipe
from priorzoo.benchmarks.speed.arms import draw_data
from priorzoo.benchmarks.speed.by_hand import SHAPE
from priorzoo.benchmarks.speed.measure import SIZES, cases
from priorzoo.inference import Stream, Training
from priorzoo.inference.training.execution import Recorded

ROWS = 2_000


@dataclass
class Kernel:
    """One call in a step.

    Args:
        name: of the fused loop, or of the operator.
        bytes: of its tensors, read or written.
        seconds: the shortest time of a call.
    """

    name: str
    bytes: int
    seconds: float

    @property
    def line(self) -> str:
        """Microseconds, gigabytes a second and the name."""
        rate = self.bytes / self.seconds / 1e9
        return f"{1e6 * self.seconds:10.1f} us {rate:8.1f} GB/s  {self.name}"


class _Timed:
    """Stands for an operator, or for a namespace of operators, and times its calls."""

    def __init__(self, own: object, name: str, found: list[Kernel], place: Iterator[int]) -> None:
        self.own, self.name, self.found, self.place = own, name, found, place

    def __getattr__(self, name: str) -> "_Timed":
        return _Timed(getattr(self.own, name), f"{self.name}.{name}", self.found, self.place)

    def __call__(self, *given: object, **named: object) -> object:
        assert callable(self.own)
        begun = time.perf_counter()
        result: object = self.own(*given, **named)
        seconds, place = time.perf_counter() - begun, next(self.place)
        tensors = {id(each): each for each in (*given, *named.values()) if isinstance(each, Tensor)}
        size = sum(each.nbytes for each in tensors.values())
        if place == len(self.found):
            self.found.append(Kernel(self.name, size, seconds))
        self.found[place].seconds = min(self.found[place].seconds, seconds)
        return result


class _Places:
    """Counts the calls of a step from 0."""

    def __init__(self) -> None:
        self.count = 0

    def __iter__(self) -> "_Places":
        return self

    def __next__(self) -> int:
        self.count += 1
        return self.count - 1


def kernels_of(training: Training, steps: int) -> list[Kernel]:
    """The kernels of a compiled step on the CPU in their order, each with its shortest time.

    Python makes each call here, so that each can be timed. Generated kernels are those of native
    steps, which draw random numbers and call matrix products by code of their own. Data and
    indices count with all their bytes in the kernel that gathers a batch.

    Args:
        training: one that has taken no step.
        steps: of which each kernel's shortest time is taken.

    Raises:
        ValueError: for steps that are not one compiled graph.
    """
    if isinstance(training.steps, Recorded):
        training.steps.descend.native = False
    before = set(map(id, _modules()))
    training.run(steps=2)
    made = [module for module in _modules() if id(module) not in before]
    if not isinstance(training.steps, Recorded) or training.steps.descend.reason or len(made) != 1:
        raise ValueError(
            f"Expected a step that is one compiled graph but it has {len(made)}; choose a recipe "
            "whose step is compiled, with an optimiser such as Adam."
        )
    found: list[Kernel] = []
    places, (module,) = _Places(), made
    own = dict(vars(module))
    parts = {name: part for name, part in own.items() if name.startswith("cpp_fused")}
    parts |= {"extern_kernels": own["extern_kernels"], "ops": torch.ops}
    timed = {name: _Timed(part, name, found, places) for name, part in parts.items()}
    ops = SimpleNamespace(**vars(torch) | {"ops": timed.pop("ops")})
    try:
        vars(module).update(timed, torch=ops)
        for _ in range(steps):
            places.count = 0
            training.run(steps=1)
    finally:
        vars(module).update(own)
    return found


def _modules() -> list[ModuleType]:
    """The modules that inductor has written in this process."""
    cache = import_module("torch._inductor.codecache").PyCodeCache
    return [module for module in cache.modules if hasattr(module, "extern_kernels")]


def training_of(recipe: Recipe) -> Training:
    """The compiled training of a recipe on synthetic images, without rows of the history."""
    model, guide = build_pair(recipe, SHAPE)
    data = draw_data(recipe, ROWS, torch.device("cpu"))
    chosen = {"transform": transform_of(recipe.binarise), "step": "compiled", "every": 10**9}
    return build_training(recipe, model, guide, data, **chosen)


def measure_kernels(settings: Namespace) -> None:
    """Time each kernel of a compiled step on the CPU, beside the bytes that it moves.

    usage: priorzoo bench speed-kernels [--OPTION VALUE ...]

      --recipes A,B  [vae,gmvae]
      --sizes A,B    of the networks; all if left out
      --steps N      of which each kernel's shortest time is taken [100]
    """
    sizes = list(SIZES) if settings.sizes is None else settings.sizes
    for case in cases(settings.recipes, sizes, False, "float32"):
        with Stream(0):
            training = training_of(case.settings())
        found = kernels_of(training, settings.steps)
        print(f"{case.recipe}, networks {case.hidden or 'of the recipe'}, batch {case.batch}")
        print("\n".join(kernel.line for kernel in found))
        print(f"{1e6 * sum(kernel.seconds for kernel in found):10.1f} us in all", flush=True)
