"""Rate and memory of the importance bound, eager and compiled: ``priorzoo bench speed-bound``."""

import math
import time
from argparse import Namespace
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import torch

from priorzoo.benchmarks.data.sets import transform_of
from priorzoo.benchmarks.recipes.building import build_pair
from priorzoo.benchmarks.rows.files import tell_row
from priorzoo.benchmarks.rows.peaks import peak_mib
from priorzoo.benchmarks.runs.machine import machine
from priorzoo.benchmarks.speed.arms import draw_data
from priorzoo.benchmarks.speed.by_hand import SHAPE
from priorzoo.benchmarks.speed.measure import Case
from priorzoo.inference import Batch, Stream
from priorzoo.inference.bounds import ImportanceBound

WAYS = {"eager": math.inf, "compiled": 0.0}  # seconds that an evaluation must take to be compiled


def timed(clusters: int, way: str, rows: int, samples: int, rounds: int) -> dict[str, Any]:
    """Processor seconds of each evaluation after the first, values, and the peak of memory in MiB.

    The peak is beside the imports, and includes what compiling takes.
    """
    recipe = Case("gmvae", clusters=clusters).settings()
    with Stream(0), torch.no_grad():
        model, guide = build_pair(recipe, SHAPE)
        x, transform = draw_data(recipe, rows, torch.device("cpu")), transform_of(recipe.binarise)
        batch = Batch(x if transform is None else transform(x))
    before, seconds = peak_mib(), []
    bound = ImportanceBound(model, guide, samples, rows, worth=WAYS[way])
    for _ in range(rounds + 1):
        begun = time.process_time()
        with Stream(1), torch.no_grad():
            values = bound(batch)
        seconds.append(time.process_time() - begun)
    peak = peak_mib()
    memory = None if before is None or peak is None else round(peak - before, 1)
    return {"seconds": seconds[1:], "values": values.tolist(), "peak_mib": memory}


def measure_bound(settings: Namespace) -> None:
    """Time log p(x) of a Gaussian-mixture VAE, eager and compiled, each in its own process.

    usage: priorzoo bench speed-bound [--OPTION VALUE ...]

      --clusters A,B  K [10,50,200]
      --images N      rows [100]
      --samples N     of each row by K; a row has N / K [1000]
      --rounds N      evaluations of each [3]
      --rows FILE     file of rows to append to
    """
    rows, rounds = settings.images, settings.rounds
    for clusters in map(int, settings.clusters):
        samples = max(2, settings.samples // clusters)
        found: dict[str, dict[str, Any]] = {}
        for way in WAYS:
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                each = pool.submit(timed, clusters, way, rows, samples, rounds)
                found[way] = each.result()
        expected = torch.tensor(found["eager"]["values"])
        for way, one in found.items():
            rates = sorted(round(rows * samples / each, 1) for each in one["seconds"])
            apart = (torch.tensor(one["values"]) / expected - 1).abs().max().item()
            row = {"kind": "speed-bound", "recipe": "gmvae", "clusters": clusters, "step": way}
            row |= {"rows": rows, "samples": samples, "draws_per_cpu_second": rates}
            row |= {"difference": float(f"{apart:.1e}"), "peak_mib": one["peak_mib"]}
            row |= {"command": settings.command, **machine(torch.device("cpu"))}
            tell_row(row, settings.rows)
