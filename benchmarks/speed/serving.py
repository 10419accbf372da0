"""Latency of predictions of one row, by the programs and by a recorded graph; exported files."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from torch import Tensor, nn

from priorzoo.benchmarks.data.sets import load
from priorzoo.benchmarks.papers import RECIPES
from priorzoo.benchmarks.recipes.building import build_pair
from priorzoo.benchmarks.rows.files import Row
from priorzoo.inference import Stream, cluster_probabilities, codes, export, reconstructions, serve
from priorzoo.inference.saving import versions

WARM = 20  # calls before the first that counts
OUTPUTS: dict[str, Callable[[nn.Module, nn.Module, Tensor], Tensor]] = {
    "probabilities": cluster_probabilities,
    "codes": codes,
    "reconstruction": reconstructions,
}


def measure(name: str, calls: int) -> Iterator[Row]:
    """Rows of a recipe's untrained pair, one for each output.

    Latencies are median and 99th percentile in milliseconds; the difference is the largest between
    the outputs of the ONNX file and of the programs for 100 rows.
    """
    import onnxruntime

    data = load("digits")
    with Stream(0):
        model, guide = build_pair(RECIPES[name], data.shape)
    predictor, one, many = serve(model, guide), data.x_test[:1], data.x_test[:100]
    with TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        names = export(model, guide, file)
        size = file.stat().st_size
        found = onnxruntime.InferenceSession(file).run(None, {"x": many.numpy()})
    exported = dict(zip(names, found, strict=True))
    for output, program in OUTPUTS.items():
        expected = program(model, guide, many).numpy()

        def by_programs(program: Callable[..., Tensor] = program) -> object:
            return program(model, guide, one)

        def by_graph(output: str = output) -> object:
            return predictor.output(output, one)

        yield {
            "measure": "serving",
            "recipe": name,
            "output": output,
            "programs": _latency(by_programs, calls),
            "graph": _latency(by_graph, calls),
            "onnx_kib": size / 1024,
            "difference": float(np.abs(exported[output] - expected).max()),
            "versions": versions(),
        }


def _latency(call: Callable[[], object], calls: int) -> list[float]:
    times = []
    for _ in range(WARM + calls):
        begun = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - begun))
    return [float(np.quantile(times[WARM:], share)) for share in (0.5, 0.99)]
