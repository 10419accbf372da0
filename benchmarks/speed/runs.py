"""Whole trainings against the clock, in one go: ``priorzoo bench speed-runs``.

On a GPU it takes at most ten minutes. Each row says how many steps were taken in which time; where
the full length did not fit into its share of the time, ``extrapolated_seconds`` is for all of it.
"""

from argparse import Namespace
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch

from priorzoo.benchmarks.data.sets import transform_of
from priorzoo.benchmarks.papers import RECIPES
from priorzoo.benchmarks.recipes.building import build_objective, build_pair
from priorzoo.benchmarks.rows.files import RESULTS, tell_row
from priorzoo.benchmarks.runs.machine import machine, pick_device
from priorzoo.benchmarks.speed import measure
from priorzoo.benchmarks.speed.arms import ROWS, Arm, draw_data, seconds_of, train_arm
from priorzoo.benchmarks.speed.by_hand import SHAPE
from priorzoo.inference import Replicas, Stream
from priorzoo.inference.training.execution import Execution

Row = dict[str, Any]
Measured = tuple[Row, int, Arm]  # names, full length, and what takes steps
# Recipe, steps of its full schedule, changes. The first is 1,000 epochs of the reference.
LONG: tuple[tuple[str, int, Mapping[str, Any]], ...] = (
    ("gmvae", 500_000, {}),
    ("gmvae", 500_000, {"precision": "bf16"}),
    ("factorial", 320_000, {}),
)
REPLICAS = (1, 6)
PORTION = 500  # steps between two looks at the clock


def long_runs(device: torch.device) -> Iterator[Measured]:
    """Each of ``LONG``, compiled, then one and several trainings of the small GMVAE at once."""
    step: Execution = "cudagraph" if device.type == "cuda" else "compiled"
    for name, steps, changes in LONG:
        recipe = replace(RECIPES[name], **changes)
        with Stream(0, device):
            arm = train_arm(recipe, draw_data(recipe, 50_000, device), step)
        yield {"recipe": name, **changes, "arm": step, "replicas": 1}, steps, arm
    recipe = measure.Case("gmvae", **measure.SIZES["small"]).settings()
    rows, transform = recipe.batch_size, transform_of(recipe.binarise)
    for count in REPLICAS:
        with Stream(0, device):
            data = draw_data(recipe, ROWS, device)
            pairs = [build_pair(recipe, SHAPE) for _ in range(count)]
        losses = [build_objective(recipe, *pair).to(device) for pair in pairs]
        together = Replicas(losses, data, batch_size=rows, transform=transform, step="compiled")
        yield {"recipe": "gmvae, small", "arm": "compiled", "replicas": count}, 10_000, together.run


def timed(measured: Measured, share: float, device: torch.device) -> Row:
    """The row of as many steps as fit into a share of the time, in seconds."""
    names, full, arm = measured
    arm(10)  # which compiles it
    taken, seconds = 0, 0.0
    while taken < full and seconds < share:
        seconds += seconds_of(arm, PORTION, device)
        taken += PORTION
    found = {"steps": taken, "seconds": round(seconds, 2), "full_steps": full}
    found["extrapolated_seconds"] = round(seconds * full / taken, 1)
    return {"kind": "speed-run"} | names | found | machine(device)


def measure_runs(settings: Namespace) -> None:
    """Time whole trainings, and append the rows to a file.

    usage: priorzoo bench speed-runs [--OPTION VALUE ...]

      --rows FILE    file of rows to append to; the project's own if left out
      --device NAME  auto, cpu, cuda or mps [auto]
      --minutes M    for all, compilation aside [5]
    """
    device = pick_device(settings.device)
    share = 60 * settings.minutes / (len(LONG) + len(REPLICAS))
    for measured in long_runs(device):
        row = timed(measured, share, device) | {"command": settings.command}
        tell_row(row, settings.rows or RESULTS / "speed.jsonl")
