"""Whole trainings against the clock, in one go: ``priorzoo bench speed-runs``.

On a GPU it takes at most ten minutes. Each row says how many steps were taken in which time; where
the full length did not fit into its share of the time, ``extrapolated_seconds`` is for all of it.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from priorzoo.benchmarks.papers import RECIPES
from priorzoo.benchmarks.recipes.building import build_objective, build_pair, build_training
from priorzoo.benchmarks.recipes.recipe import Recipe
from priorzoo.benchmarks.rows.files import RESULTS, append_row
from priorzoo.benchmarks.runs.run import pick_device
from priorzoo.benchmarks.speed import measure as speed
from priorzoo.inference import Replicas, Stream, Training, draw
from priorzoo.inference.saving import versions
from priorzoo.inference.training.execution import Execution

Row = dict[str, Any]
# Recipe, steps of its full schedule, changes. The first is 1,000 epochs of the reference.
LONG: tuple[tuple[str, int, Mapping[str, Any]], ...] = (
    ("gmvae", 500_000, {}),
    ("gmvae", 500_000, {"precision": "bf16"}),
    ("factorial", 320_000, {}),
)
REPLICAS = (1, 6)
PORTION = 500  # steps between two looks at the clock


def long_runs(device: torch.device, share: float, step: Execution) -> Iterator[Row]:
    """Each of ``LONG``, for as much of its length as fits into its share of the time."""
    for name, steps, changes in LONG:
        recipe = replace(RECIPES[name], **changes)
        training = _training(recipe, device, step)
        training.run(steps=10)
        yield _measured(
            training.run,
            {"recipe": name, **changes, "arm": step, "replicas": 1},
            steps,
            share,
            device,
        )


def replicas(device: torch.device, share: float) -> Iterator[Row]:
    """One and several trainings of the small GMVAE at once."""
    recipe = speed.Case("gmvae", **speed.SIZES["small"]).settings()
    for count in REPLICAS:
        with Stream(0, device):
            pairs = [build_pair(recipe, speed.SHAPE) for _ in range(count)]
            data = draw(pairs[0][0], speed.ROWS, means=False).to(device)
        objectives = [build_objective(recipe, *pair).to(device) for pair in pairs]
        together = Replicas(
            objectives,
            data,
            batch_size=recipe.batch_size,
            transform=torch.bernoulli,
            step="compiled",
        )
        together.run(5)
        yield _measured(
            together.run,
            {"recipe": "gmvae, small", "arm": "compiled", "replicas": count},
            10_000,
            share,
            device,
        )


def _training(recipe: Recipe, device: torch.device, step: Execution) -> Training:
    with Stream(0, device):
        model, guide = build_pair(recipe, speed.SHAPE)
        data = draw(model, 50_000, means=False).to(device)
    return build_training(
        recipe,
        model.to(device),
        guide.to(device),
        data,
        transform=torch.bernoulli if recipe.binarise == "dynamic" else None,
        step=step,
        every=PORTION,
    )


def _measured(
    run: Callable[[int], object], row: Row, steps: int, share: float, device: torch.device
) -> Row:
    taken, begun = 0, time.perf_counter()
    while taken < steps and time.perf_counter() - begun < share:
        run(PORTION)  # which ends with a synchronisation, for its row of the history
        taken += PORTION
    seconds = time.perf_counter() - begun
    return {
        "kind": "speed-run",
        **row,
        "steps": taken,
        "seconds": round(seconds, 2),
        "full_steps": steps,
        "extrapolated_seconds": round(seconds * steps / taken, 1),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }


def main(words: Sequence[str]) -> None:
    """Time everything, and append the rows to a file."""
    parser = argparse.ArgumentParser(
        prog="priorzoo bench speed-runs", description="Time whole trainings."
    )
    parser.add_argument("--rows", type=Path, default=RESULTS / "speed.jsonl")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--minutes", type=float, default=5.0, help="for all, compilation aside")
    settings = parser.parse_args(words)
    device = pick_device(settings.device)
    share = 60 * settings.minutes / (len(LONG) + len(REPLICAS))
    step: Execution = "cudagraph" if device.type == "cuda" else "compiled"
    for rows in (long_runs(device, share, step), replicas(device, share)):
        for row in rows:
            row["command"] = f"priorzoo bench speed-runs --minutes {settings.minutes:g}"
            append_row(row, settings.rows)
            print(row, flush=True)
