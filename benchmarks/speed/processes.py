"""What a step takes that processes share, and what they tell each other: ``speed-processes``."""

import time
from argparse import Namespace
from typing import Any

import torch

from priorzoo.benchmarks.papers import RECIPES
from priorzoo.benchmarks.recipes.building import build_pair, build_training
from priorzoo.benchmarks.rows.files import tell_row
from priorzoo.benchmarks.runs.machine import machine, pick_device
from priorzoo.inference import Stream
from priorzoo.inference.processes import Processes, joined
from priorzoo.inference.training.execution import Execution

SHAPE, ROWS = (28, 28), 5_000  # of the synthetic images
WARM_UP, MESSAGES = 10, 20


def timed(
    recipe: str, step: Execution, steps: int, processes: Processes, where: torch.device
) -> dict[str, Any]:
    """The row of a training: microseconds of a step, and of the message within it."""
    chosen = RECIPES[recipe]
    with Stream(0):
        model, guide = build_pair(chosen, SHAPE)
        x = torch.bernoulli(torch.full((ROWS, *SHAPE), 0.3))
    how: dict[str, Any] = {"processes": processes, "step": step, "every": 10**9}
    training = build_training(chosen, model.to(where), guide.to(where), x.to(where), **how)
    training.run(WARM_UP)
    parameters = sum(p.numel() for p in training.objective.parameters() if p.requires_grad)
    begun = time.perf_counter()
    training.run(steps)
    each = (time.perf_counter() - begun) / steps
    found = {"recipe": recipe, "batch": chosen.batch_size, "step": step, "steps": steps}
    found |= {"processes": processes.count, "parameters": parameters}
    found |= {"message_bytes": 4 * parameters, "message_microseconds": 0.0}
    share = processes.share(chosen.batch_size)
    if share is not None:
        message = torch.zeros(parameters, device=where)
        begun = time.perf_counter()
        for _ in range(MESSAGES):
            message = share.total(message)
        message.sum().item()  # a GPU may not have finished
        found["message_microseconds"] = round(1e6 * (time.perf_counter() - begun) / MESSAGES, 1)
    return {"kind": "speed-processes", **found, "microseconds": round(1e6 * each, 1)}


def measure_processes(settings: Namespace) -> None:
    """Time the steps that processes share on synthetic images, and what they tell each other.

    usage: torchrun --nproc-per-node R -m priorzoo bench speed-processes [--OPTION VALUE ...]

      --recipe NAME          [gmvae]
      --step eager|compiled  how a step is run [eager]
      --steps N              that are timed [100]
      --device NAME          auto, cpu, cuda or mps [auto]
      --rows FILE            file of rows to append to
    """
    if settings.recipe not in RECIPES:
        raise ValueError(f"Expected a recipe but got {settings.recipe!r}; see priorzoo list.")
    where = pick_device(settings.device)
    with joined() as processes:
        row = timed(settings.recipe, settings.step, int(settings.steps), processes, where)
    if processes.is_first:
        row |= {"command": settings.command, **machine(where)}
        tell_row(row, settings.rows)
