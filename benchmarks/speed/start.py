"""How long a recipe takes to its first step, cold and warm: ``priorzoo bench speed-start``."""

import os
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from typing import Any

import torch

from priorzoo.benchmarks.papers import RECIPES
from priorzoo.benchmarks.rows.files import tell_row
from priorzoo.benchmarks.rows.peaks import in_mib
from priorzoo.benchmarks.runs.machine import machine
from priorzoo.benchmarks.speed.kernels import training_of

IMPORTS = "import torch, pyro"
OPTIMISER = f"{IMPORTS}; torch.optim.Adam([torch.zeros(1)])"  # torch then imports its compiler
STEP = "import sys; from priorzoo.benchmarks.speed.start import first_step; first_step(sys.argv[1])"


def first_step(recipe: str) -> None:
    """Build a recipe's training on synthetic images, and take one compiled step."""
    training_of(RECIPES[recipe]).run(steps=1)


def timed(code: str, recipe: str, folder: str) -> tuple[float, float, float]:
    """Seconds of the clock, seconds of the processor and peak MiB of a process.

    Those of the processor include all processes that it starts, such as compilers.

    Args:
        code: of Python.
        recipe: its argument.
        folder: where compiled code is kept.

    Raises:
        RuntimeError: if it fails.
    """
    begun = time.perf_counter()
    named = dict.fromkeys(("PRIORZOO_CACHE", "TORCHINDUCTOR_CACHE_DIR"), folder)
    process = subprocess.Popen([sys.executable, "-c", code, recipe], env={**os.environ, **named})
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"Expected a process that ends well but got {process.returncode}.")
    seconds = time.perf_counter() - begun
    return seconds, usage.ru_utime + usage.ru_stime, in_mib(usage.ru_maxrss)


def measure_start(settings: Namespace) -> None:
    """Time a process to its first compiled step: without kept code, with it, and torch alone.

    usage: priorzoo bench speed-start [--OPTION VALUE ...]

      --recipes A,B  [vae,gmvae]
      --rounds N     processes that find code that is kept [3]
      --rows FILE    file of rows to append to
    """
    for recipe in settings.recipes:
        with tempfile.TemporaryDirectory() as folder:
            first = [timed(STEP, recipe, folder)]
            later = [timed(STEP, recipe, folder) for _ in range(settings.rounds)]
            imports = [timed(IMPORTS, recipe, folder) for _ in range(settings.rounds)]
            optimiser = [timed(OPTIMISER, recipe, folder) for _ in range(settings.rounds)]
        starts = {"first": first, "later": later, "torch and pyro": imports}
        starts["torch, pyro and an optimiser"] = optimiser
        for start, found in starts.items():
            clock, processor, peaks = zip(*found, strict=True)
            row: dict[str, Any] = {"kind": "speed-start", "recipe": recipe, "start": start}
            row |= {"clock_seconds": _rounded(clock), "cpu_seconds": _rounded(processor)}
            row |= {"peak_mib": round(max(peaks), 1), "command": settings.command}
            row |= machine(torch.device("cpu"))
            tell_row(row, settings.rows)


def _rounded(values: tuple[float, ...]) -> list[float]:
    """To hundredths, the smallest first."""
    return sorted(round(value, 2) for value in values)
