"""Whole trainings against the clock, in one go: ``priorzoo bench speed-runs``.

On a GPU it takes at most ten minutes. Each row says how many steps were taken in which time; where
the full length did not fit into its share of the time, ``extrapolated_seconds`` is for all of it.
"""

import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from priorzoo.benchmarks.data.sets import transform_of
from priorzoo.benchmarks.papers import RECIPES
from priorzoo.benchmarks.recipes.building import build_objective, build_pair, build_training
from priorzoo.benchmarks.rows.files import RESULTS, append_row
from priorzoo.benchmarks.runs.run import machine, pick_device
from priorzoo.benchmarks.speed.by_hand import SHAPE
from priorzoo.benchmarks.speed.measure import ROWS, SIZES, Case
from priorzoo.inference import Replicas, Stream, draw
from priorzoo.inference.training.execution import Execution

Row = dict[str, Any]
Measured = tuple[Row, int, Callable[[int], object]]  # names, full length, and what takes steps
# Recipe, steps of its full schedule, changes. The first is 1,000 epochs of the reference.
LONG: tuple[tuple[str, int, Mapping[str, Any]], ...] = (
    ("gmvae", 500_000, {}),
    ("gmvae", 500_000, {"precision": "bf16"}),
    ("factorial", 320_000, {}),
)
REPLICAS = (1, 6)
PORTION = 500  # steps between two looks at the clock


def long_runs(device: torch.device) -> Iterator[Measured]:
    """Each of ``LONG``, compiled."""
    step: Execution = "cudagraph" if device.type == "cuda" else "compiled"
    for name, steps, changes in LONG:
        recipe = replace(RECIPES[name], **changes)
        with Stream(0, device):
            model, guide = (part.to(device) for part in build_pair(recipe, SHAPE))
            data = draw(model, 50_000, means=False)
        transform = transform_of(recipe.binarise)
        training = build_training(
            recipe, model, guide, data, transform=transform, step=step, every=PORTION
        )
        training.run(steps=10)
        yield {"recipe": name, **changes, "arm": step, "replicas": 1}, steps, training.run


def replicas(device: torch.device) -> Iterator[Measured]:
    """One and several trainings of the small GMVAE at once."""
    recipe = Case("gmvae", **SIZES["small"]).settings()
    rows, transform = recipe.batch_size, transform_of(recipe.binarise)
    for count in REPLICAS:
        with Stream(0, device):
            pairs = [build_pair(recipe, SHAPE) for _ in range(count)]
            data = draw(pairs[0][0], ROWS, means=False).to(device)
        losses = [build_objective(recipe, *pair).to(device) for pair in pairs]
        together = Replicas(losses, data, batch_size=rows, transform=transform, step="compiled")
        together.run(5)
        yield {"recipe": "gmvae, small", "arm": "compiled", "replicas": count}, 10_000, together.run


def timed(measured: Measured, share: float) -> Row:
    """The row of as many steps as fit into a share of the time, in seconds."""
    names, full, run = measured
    taken, begun = 0, time.perf_counter()
    while taken < full and time.perf_counter() - begun < share:
        run(PORTION)  # which ends with a synchronisation, for its row of the history
        taken += PORTION
    seconds = time.perf_counter() - begun
    found = {"steps": taken, "seconds": round(seconds, 2), "full_steps": full}
    found["extrapolated_seconds"] = round(seconds * full / taken, 1)
    return {"kind": "speed-run"} | names | found


def main(words: Sequence[str]) -> None:
    """Time everything, and append the rows to a file."""
    parser = ArgumentParser("priorzoo bench speed-runs", description="Time whole trainings.")
    parser.add_argument("--rows", type=Path, default=RESULTS / "speed.jsonl")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--minutes", type=float, default=5.0, help="for all, compilation aside")
    settings = parser.parse_args(words)
    device = pick_device(settings.device)
    share = 60 * settings.minutes / (len(LONG) + len(REPLICAS))
    command = f"priorzoo bench speed-runs --minutes {settings.minutes:g}"
    for kind in (long_runs, replicas):
        for measured in kind(device):
            row = timed(measured, share) | machine(device) | {"command": command}
            append_row(row, settings.rows)
            print(row, flush=True)
