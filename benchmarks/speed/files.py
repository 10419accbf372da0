"""Memory and rows a second of a training from files: ``priorzoo bench speed-files``."""

import tempfile
import time
from argparse import Namespace
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch

from priorzoo.benchmarks.rows.files import tell_row
from priorzoo.benchmarks.rows.peaks import peak_mib
from priorzoo.benchmarks.runs.machine import machine
from priorzoo.guides import Code
from priorzoo.inference import Pixels, StoredRows, Stream, Training
from priorzoo.models import MLP, VAE, Bernoulli, Gaussian

Format = Literal["parquet", "bytes"]
GROUP = 100_000  # rows of a row group, and rows that are written at a time
WIDTHS: dict[Format, int] = {"parquet": 20, "bytes": 784}
BATCH, WARM = 500, 20  # rows and steps
LARGEST = 2**31  # bytes of data that are also measured in memory


def written(folder: Path, form: Format, rows: int) -> Path:
    """A file of random rows: floats in columns, or bytes 0 to 255."""
    draw, width = np.random.default_rng(0), WIDTHS[form]
    if form == "bytes":
        path = folder / "rows.npy"
        array = np.lib.format.open_memmap(path, "w+", np.uint8, (rows, width))
        for start in range(0, rows, GROUP):
            part = array[start : start + GROUP]
            part[:] = draw.integers(0, 256, part.shape, np.uint8)
        array.flush()
        return path
    import pyarrow as pa
    import pyarrow.parquet as pq

    path, names = folder / "rows.parquet", [f"c{i}" for i in range(width)]
    schema = pa.schema([(name, pa.float32()) for name in names])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, rows, GROUP):
            values = draw.normal(size=(width, min(GROUP, rows - start))).astype(np.float32)
            writer.write_table(pa.table(dict(zip(names, values, strict=True))))
    return path


def timed(form: Format, path: str, where: str, steps: int) -> dict[str, float]:
    """Rows a second of a training, and its peak memory beside imports and first steps, in MiB.

    Seconds are those of the clock, and those of the processor for all threads, which other work on
    the machine changes less. From ``files``, from ``memory``, or of ``reading`` alone: the batches
    of the files, without the steps.
    """
    width = WIDTHS[form]
    with Stream(0):
        likelihood = Bernoulli() if form == "bytes" else Gaussian()
        model = VAE(MLP(8, width, (64, 64)), likelihood, code=8)
        guide = Code(MLP(width, 16, (64, 64)))
    how: dict[str, Any] = {"transform": Pixels(binarise=True) if form == "bytes" else None}
    some = torch.zeros(BATCH * WARM, width, dtype=torch.uint8 if form == "bytes" else None)
    Training(model, guide, some, batch_size=BATCH, **how).run(WARM)
    if form == "parquet":
        import_module("pyarrow.parquet")  # imports are not counted
    before = peak_mib()
    stored = StoredRows(path, batch_size=BATCH)
    data = _in_memory(stored) if where == "memory" else stored
    training = Training(model, guide, data, batch_size=BATCH, every=steps, **how)
    training.run(WARM)
    begun, spent = time.perf_counter(), time.process_time()
    if where == "reading":
        for _ in range(steps):
            next(training.batches)
    else:
        training.run(steps)
    seconds, spent = time.perf_counter() - begun, time.process_time() - spent
    rows, peak = steps * BATCH, peak_mib()
    more = {} if before is None or peak is None else {"peak_mib": peak - before}
    return {"rows_per_second": rows / seconds, "rows_per_cpu_second": rows / spent, **more}


def _in_memory(stored: StoredRows) -> torch.Tensor:
    """The rows as a tensor, filled piece by piece, so that they are in memory once."""
    first = stored.first(1).batch.x
    rows = first.new_empty(stored.size, *first.shape[1:])
    for part in stored.in_order(GROUP):
        rows[part.numbers[0] : part.numbers[-1] + 1] = part.batch.x
    return rows


def measure_files(settings: Namespace) -> None:
    """Time trainings on files, beside the same rows in memory, each in a process of its own.

    usage: priorzoo bench speed-files [--OPTION VALUE ...]

      --formats A,B  parquet (20 columns) and bytes (784 of a .npy file) [parquet,bytes]
      --sizes A,B    rows [100000,1000000]
      --steps N      of 500 rows [2000]
      --rounds N     in each of which files and memory take turns [3]
      --folder DIR   for the files, which are removed again; the system's if left out
      --rows FILE    file of rows to append to
    """
    for form, size in product(settings.formats, settings.sizes):
        if form not in get_args(Format):
            raise ValueError(f"Expected formats among {get_args(Format)} but got {form!r}.")
        for row in _measured(form, int(size), settings):
            row |= {"command": settings.command, **machine(torch.device("cpu"))}
            tell_row(row, settings.rows)


def _measured(form: Format, size: int, settings: Namespace) -> list[dict[str, Any]]:
    kinds = ["files", "reading"]
    if size * WIDTHS[form] * (1 if form == "bytes" else 4) <= LARGEST:
        kinds.append("memory")
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory(dir=settings.folder) as folder:
        path = written(Path(folder), form, size)
        for _, kind in product(range(settings.rounds), kinds):
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                one = pool.submit(timed, form, str(path), kind, settings.steps)
                found[kind].append(one.result())
    rows: list[dict[str, Any]] = []
    for kind, values in found.items():
        peaks = [value["peak_mib"] for value in values if "peak_mib" in value]
        row: dict[str, Any] = {"kind": "speed-files", "stored": form, "rows": size, "from": kind}
        for name in ("rows_per_second", "rows_per_cpu_second"):
            row[name] = sorted(round(value[name]) for value in values)
        row["peak_mib"] = round(max(peaks), 1) if peaks else None
        rows.append(row | {"steps": settings.steps})
    return rows
