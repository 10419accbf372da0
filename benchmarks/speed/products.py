"""The matrix products of a step alone, by what is fastest here: the limit of its time."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

LIMIT = "matrix products"  # the name of the arm
aten = torch.ops.aten
PRODUCTS = [aten.mm, aten.addmm, aten.bmm, aten.baddbmm]
PRODUCTS += [aten.convolution, aten.convolution_backward]
TRIALS = 7  # of each way to compute a product
Run = Callable[[], object]


class Recorder(TorchDispatchMode):
    """Records the matrix products and convolutions that are computed under it."""

    def __init__(self) -> None:
        TorchDispatchMode.__init__(self)
        self.found: list[Run] = []

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        if func.overloadpacket in PRODUCTS:
            given = [like(one) if isinstance(one, Tensor) else one for one in args]
            self.found.append(fastest(ways(func, given)))
        return func(*args, **(kwargs or {}))


def like(tensor: Tensor) -> Tensor:
    """Normal numbers in the memory layout of a tensor."""
    made = torch.empty_strided(
        tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device
    )
    return made.normal_()


def ways(func: Callable[..., object], given: list[Any]) -> list[Run]:
    """Ways to compute a product: torch's own and, for one of matrices on a CPU, oneDNN's."""
    found: list[Run] = [lambda: func(*given)]
    matrices = [one for one in given if isinstance(one, Tensor) and one.dim() == 2]
    if len(matrices) >= 2 and not matrices[-1].is_cuda and matrices[-1].dtype != torch.float64:
        left, right = matrices[-2].contiguous(), matrices[-1].t().contiguous()
        linear = torch.ops.mkldnn._linear_pointwise
        found.append(lambda: linear(left, right, None, "none", [], ""))
    return found


def fastest(found: list[Run]) -> Run:
    """The way whose fastest of several trials took the least time."""

    def seconds(run: Run) -> float:
        begun = time.perf_counter()
        run()
        return time.perf_counter() - begun

    if len(found) == 1:
        return found[0]
    return min(found, key=lambda run: min(seconds(run) for _ in range(TRIALS)))


def products_arm(step: Callable[[int], object], device: torch.device) -> Callable[[int], object]:
    """What computes the products of so many steps on numbers of its own.

    On a GPU it is one CUDA graph, so that it does not wait for the program.

    Args:
        step: takes so many steps of a training, eagerly.
        device: where.
    """
    step(1)
    recorder = Recorder()
    with recorder:
        step(1)

    def take(steps: int) -> None:
        for _ in range(steps):
            for run in recorder.found:
                run()

    if device.type != "cuda":
        return take
    take(1)
    torch.cuda.synchronize(device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        take(1)

    def replay(steps: int) -> None:
        for _ in range(steps):
            graph.replay()

    return replay
