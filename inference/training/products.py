"""Matrix products of a compiled step, by whatever is fastest on this machine for their sizes.

Torch multiplies float32 matrices on the CPU by MKL, which reaches half of the speed of oneDNN on
some processors. Torch contains oneDNN too. Its calls take ten microseconds more, so that it is
slower for small matrices. Both are therefore timed on the sizes of the step. The choice is stored
beside the compiled code, so that the same code is used, and found again, the next time.
"""

import json
import platform
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node

from priorzoo.inference.saving import replace_file

Multiply = Callable[[Tensor, Tensor, Tensor | None], Tensor]
Operands = tuple[Node, Node, Node | None]
ROUNDS, SECONDS = 3, 0.003  # how often, and for how long, each way is timed
GAIN = 0.95  # of the time of torch's own product; oneDNN must take less
LARGEST_BATCH = 64  # of products whose matrices oneDNN multiplies one by one
PRODUCTS = {
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten.bmm.default,
}


def choose_products(graph: GraphModule) -> GraphModule:
    """A copy of a recorded graph in which products are computed by the faster library."""
    copied, places = Graph(), {}
    copied.output(copied.graph_copy(graph.graph, places))
    found = GraphModule(graph, copied)
    multiply = onednn()
    if multiply is None:
        return found
    known = _measured()
    for node in copied.nodes:
        operands = _operands(node)
        if operands is not None and known.prefers_onednn(node, operands, multiply):
            node.target, node.args = multiply, operands
    known.write()
    found.recompile()
    return found


def count_products(graph: GraphModule) -> dict[str, int]:
    """The number of products of a graph that each library computes."""
    nodes = [node for node in graph.graph.nodes if node.op == "call_function"]
    names = [
        "onednn" if node.target is onednn() else "torch" for node in nodes if _is_product(node)
    ]
    return dict(Counter(names))


@lru_cache
def onednn() -> Multiply | None:
    """An operator that multiplies by oneDNN and adds a bias; None where torch lacks oneDNN.

    Inductor does not look into it, and passes transposed matrices as they are, without copies.
    """
    if not torch.backends.mkldnn.is_available():
        return None
    linear = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    if linear is None:
        return None

    def product(a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
        if a.dim() == 2:
            return linear(a, b.t(), bias, "none", [], "")
        pairs = zip(a, b.mT, strict=True)
        return torch.stack([linear(*pair, None, "none", [], "") for pair in pairs])

    def shaped(a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
        return a.new_empty(*a.shape[:-1], b.shape[-1])

    torch.library.define("priorzoo::product", "(Tensor a, Tensor b, Tensor? bias) -> Tensor")
    torch.library.impl("priorzoo::product", "CPU", product)
    torch.library.register_fake("priorzoo::product", shaped)
    return torch.ops.priorzoo.product.default


def _operands(node: Node) -> Operands | None:
    """Two matrices and a bias whose product oneDNN can compute; None if it cannot."""
    if not _is_product(node) or node.meta["val"].device.type != "cpu":
        return None
    if node.meta["val"].dtype not in (torch.float32, torch.bfloat16) or node.kwargs:
        return None
    *first, a, b = node.args
    bias = first[0] if first else None
    vector = bias is None or bias.meta["val"].dim() == 1
    shape = node.meta["val"].shape
    small = len(shape) == 2 or shape[0] <= LARGEST_BATCH
    return (a, b, bias) if vector and small and shape.numel() and a.meta["val"].numel() else None


def _is_product(node: Node) -> bool:
    return node.op == "call_function" and node.target in {*PRODUCTS, onednn()}


class _Measured:
    """Seconds of products on this machine, with this version of torch and as many threads."""

    def __init__(self) -> None:
        from torch._inductor.runtime.runtime_utils import cache_dir

        self.place = Path(cache_dir()) / "priorzoo-products.json"
        self.seconds = _read(self.place)
        self.fresh = False

    def prefers_onednn(self, node: Node, operands: Operands, multiply: Multiply) -> bool:
        """Whether oneDNN is faster for matrices of these shapes and strides."""
        given = [part and part.meta["val"] for part in operands]
        layouts = [part is not None and (tuple(part.shape), part.stride()) for part in given]
        threads = torch.get_num_threads()
        key = json.dumps([_machine(), threads, str(given[0].dtype), layouts])
        if key not in self.seconds:
            own, (a, b, bias) = node.target, map(_filled, given)
            before = () if bias is None else (bias,)
            self.seconds[key] = _times(lambda: own(*before, a, b), lambda: multiply(a, b, bias))
            self.fresh = True
        of_torch, of_onednn = self.seconds[key]
        return of_onednn < GAIN * of_torch

    def write(self) -> None:
        """Add what is new to the file, to which other processes may have added."""
        if not self.fresh:
            return
        with suppress(OSError):  # such as a full disk; the products are then timed again
            self.place.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps(self.seconds | _read(self.place), indent=1)
            replace_file(self.place, lambda part: part.write_text(text))
        self.fresh = False


@lru_cache
def _measured() -> _Measured:
    return _Measured()


def _read(place: Path) -> dict[str, list[float]]:
    try:
        found = json.loads(place.read_text())
    except (OSError, ValueError):  # ValueError: a file that is damaged
        return {}
    return found if isinstance(found, dict) else {}


@lru_cache
def _machine() -> str:
    """What the times depend on: the processor, and the libraries that torch was built with."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.partition(':')[2].strip()}, torch {torch.__version__}"
    return f"{platform.processor() or platform.machine()}, torch {torch.__version__}"


def _filled(like: Tensor | None) -> Tensor | None:
    """A tensor of the same layout with some values, which take no random numbers."""
    if like is None:
        return None
    return torch.empty_strided(like.shape, like.stride(), dtype=like.dtype).fill_(0.5)


def _times(*ways: Callable[[], object]) -> list[float]:
    """The shortest time of each in seconds, all by turns."""
    found = [float("inf")] * len(ways)
    for way in ways * 2:
        way()  # the first calls load code and allocate memory
    for _ in range(ROUNDS):
        for place, way in enumerate(ways):
            last = time.perf_counter() + SECONDS
            while (begun := time.perf_counter()) < last:
                way()
                found[place] = min(found[place], time.perf_counter() - begun)
    return found
