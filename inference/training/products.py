"""Matrix products of a compiled step, by whatever is fastest on this machine for their sizes.

Torch multiplies float32 matrices on the CPU by MKL, which reaches less than half of the speed of
oneDNN on some processors. Torch contains oneDNN too, but it is called from Python, which the other
products of a step need not be. Our own code, ``product.cpp``, needs no preparation, and is compiled
once on a machine with AVX2 or AVX-512. All are timed on the sizes of the step. The choice is stored
beside the compiled code, so that the same code is used, and found again, the next time.
"""

import hashlib
import importlib
import json
import platform
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.fx import Graph, GraphModule, Node

from priorzoo.inference.saving import replace_file
from priorzoo.inference.training.multiplying import SOURCE, fill, ways

Operands = tuple[Node, Node, Node | None]
ROUNDS, SECONDS = 3, 0.003  # how often, and for how long, each way is timed
GAIN = 0.95  # of the time of torch's own product; another way must take less
PYTHON = 1e-4  # seconds that the first call from Python adds to a step of native calls, roughly
NATIVE = "native "  # how the keys of products that are called without Python begin
LARGEST_BATCH = 64  # of products whose matrices are multiplied one by one
PRODUCTS = {
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten.bmm.default,
}


def choose_products(graph: GraphModule) -> GraphModule:
    """A copy of a recorded graph in which products are computed in the fastest way."""
    copied = Graph()
    places: dict[Node, Node] = {}
    copied.output(copied.graph_copy(graph.graph, places))
    known = _measured()
    for node in copied.nodes:
        operands = _operands(node)
        name = None if operands is None else known.fastest(node, operands)
        if operands is not None and name is not None:
            node.target, node.args = ways()[name], operands
    known.write()
    return GraphModule(graph, copied)


def count_products(graph: GraphModule) -> dict[str, int]:
    """The number of products of a graph that are computed in each way, by its name."""
    names = {way: name for name, way in ways().items()} | dict.fromkeys(PRODUCTS, "torch")
    targets = [node.target for node in graph.graph.nodes if node.op == "call_function"]
    return dict(Counter(names[target] for target in targets if target in names))


def _operands(node: Node) -> Operands | None:
    """Two matrices and a bias whose product can be computed in other ways; None if it cannot."""
    if node.op != "call_function" or node.target not in PRODUCTS or node.kwargs:
        return None
    parts = [part for part in node.args if isinstance(part, Node)]
    if len(parts) < len(node.args):
        return None
    *first, a, b = parts
    found, left, bias = _value(node), _value(a), _value(first[0]) if first else None
    fits = found.device.type == "cpu" and found.dtype in (torch.float32, torch.bfloat16)
    vector = bias is None or (bias.dim() == 1 and bias.stride(0) == 1)
    small = found.dim() == 2 or len(found) <= LARGEST_BATCH
    filled = found.numel() > 0 and left.numel() > 0
    return (a, b, first[0] if first else None) if fits and vector and small and filled else None


def _value(node: Node) -> Tensor:
    value = node.meta["val"]
    assert isinstance(value, Tensor)
    return value


class _Measured:
    """Seconds of products on this machine, with this version of torch and as many threads."""

    def __init__(self) -> None:
        runtime = importlib.import_module("torch._inductor.runtime.runtime_utils")
        self.place = Path(runtime.cache_dir()) / "priorzoo-products.json"
        self.seconds = _read(self.place)
        self.fresh = False

    def fastest(self, node: Node, operands: Operands) -> str | None:
        """The fastest way for matrices of these shapes and strides; None for torch's own."""
        *pair, last = operands
        a, b = (_value(part) for part in pair if part is not None)
        bias = None if last is None else _value(last)
        key = _key(a, b, bias)
        if key not in self.seconds:
            filled = _filled(a), _filled(b), None if bias is None else _filled(bias)
            self.seconds[key] = _times(_timed(node, *filled))
            self.fresh = True
        found = dict(self.seconds[key])
        if "onednn" in found and a.dim() == 2 and a.dtype == torch.float32:
            found["onednn"] += PYTHON
        name = min(found, key=found.__getitem__)
        return name if name in ways() and found[name] < GAIN * found["torch"] else None

    def best(self, key: str, ways: Mapping[str, Callable[[], object]]) -> str:
        """The fastest of these ways, which are timed if that is not known."""
        found = self.seconds.get(key, {})
        if not all(name in found for name in ways):
            self.seconds[key] = found = _times(ways)
            self.fresh = True
            self.write()
        return min(ways, key=found.__getitem__)

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


def _key(a: Tensor, b: Tensor, bias: Tensor | None) -> str:
    """What the times of a product depend on."""
    layouts = [part is not None and (tuple(part.shape), part.stride()) for part in (a, b, bias)]
    return json.dumps([_machine(), _source(), torch.get_num_threads(), str(a.dtype), layouts])


def fastest_of(
    operands: tuple[Tensor, Tensor, Tensor | None], ways: Mapping[str, Callable[[], object]]
) -> str:
    """The fastest of several native ways to compute a product, which is stored like the others."""
    return _measured().best(NATIVE + _key(*operands), ways)


def _read(place: Path) -> dict[str, dict[str, float]]:
    try:
        found = json.loads(place.read_text())
    except (OSError, ValueError):  # ValueError: a file that is damaged
        return {}
    items = found.items() if isinstance(found, dict) else ()
    return {
        key: times
        for key, times in items
        if isinstance(times, dict) and ("torch" in times or key.startswith(NATIVE))
    }


@lru_cache
def _machine() -> str:
    """What the times depend on: the processor, and the libraries that torch was built with."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.partition(':')[2].strip()}, torch {torch.__version__}"
    return f"{platform.processor() or platform.machine()}, torch {torch.__version__}"


@lru_cache
def _source() -> str:
    """A digest of our own code."""
    return hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]


def _timed(
    node: Node, a: Tensor, b: Tensor, bias: Tensor | None
) -> dict[str, Callable[[], object]]:
    """All ways to compute a product, in memory that is used again if a step of native calls does.

    New memory of a large product takes longer than the product.
    """
    assert isinstance(node.target, OpOverload)
    before, out = () if bias is None else (bias,), a.new_empty(*a.shape[:-1], b.shape[-1])
    own = node.target.overloadpacket.out
    found: dict[str, Callable[[], object]] = {"torch": partial(own, *before, a, b, out=out)}
    for name, way in ways().items():
        if name == "compiled" and a.dim() == 2 and a.dtype == torch.float32:
            found[name] = partial(fill, out, a, b, bias)
        elif name != "compiled" or a.dtype == torch.float32:
            found[name] = partial(way, a, b, bias)
    return found


def _filled(like: Tensor) -> Tensor:
    """A tensor of the same layout with some values, which take no random numbers."""
    return torch.empty_strided(like.shape, like.stride(), dtype=like.dtype).fill_(0.5)


def _times(ways: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """The shortest time of each way in seconds, all by turns."""
    found = dict.fromkeys(ways, float("inf"))
    for way in [*ways.values()] * 2:
        way()  # the first calls load code and allocate memory
    for _ in range(ROUNDS):
        for name, way in ways.items():
            last = time.perf_counter() + SECONDS
            while (begun := time.perf_counter()) < last:
                way()
                found[name] = min(found[name], time.perf_counter() - begun)
    return found
