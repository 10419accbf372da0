"""Recording the predictions of a pair as a graph that takes any number of rows.

Programs take the number of rows as a Python number, so that a graph recorded of one batch holds
for batches of its size alone. Two graphs, recorded of batches of two sizes, tell which numbers in
them stand for the number of rows; these are then computed from the rows.
"""

import operator
from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import cast

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import Argument

from priorzoo.inference.serving.smaller import shrink
from priorzoo.inference.training.state import UntraceableError
from priorzoo.inference.training.tracing import record

SIZES = (1009, 1013)  # of the two batches: primes, which no size of a network is likely to be
DIFFERS = "what it computes depends on the number of rows"


def record_any_size(
    function: Callable[..., Sequence[Tensor]],
    shapes: Sequence[tuple[torch.Size, torch.dtype]],
    device: torch.device,
) -> GraphModule:
    """Record a function of tensors with one value for each row, for any number of rows.

    What depends on no row is computed now. Parameters become constants of the graph.

    Args:
        function: takes and returns tensors ``(B, ...)``.
        shapes: shape and dtype of one row of each tensor that it takes.
        device: of these tensors.

    Raises:
        UntraceableError: for a function that cannot be recorded, draws random numbers, or branches
            on the number of rows.
    """

    def of(size: int) -> GraphModule:
        rows = [torch.empty(size, *shape, dtype=kind, device=device) for shape, kind in shapes]
        return record(function, rows)

    first, second = map(of, SIZES)
    _join(first, second)
    for node in first.graph.nodes:
        if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
            raise UntraceableError(f"it draws random numbers by {node.target}")
    return shrink(first)


def part_of(graph: GraphModule, index: int) -> GraphModule:
    """The graph of one of the outputs alone."""
    copy = Graph()
    (outputs,) = (node.args[0] for node in graph.graph.nodes if node.op == "output")
    values: dict[Node, Node] = {}
    copy.graph_copy(graph.graph, values)
    copy.output(values[cast(Sequence[Node], outputs)[index]])
    copy.eliminate_dead_code()
    return GraphModule(graph, copy)


def plain_function(graph: GraphModule) -> Callable[..., Tensor]:
    """The code of a graph as a function, which finds its constants faster than a module does."""
    constants = SimpleNamespace(**dict(graph.named_buffers()))
    return partial(type(graph).forward, constants)


def _join(first: GraphModule, second: GraphModule) -> None:
    """Replace numbers in which the graphs differ by multiples of the number of rows."""
    graph, nodes = first.graph, list(first.graph.nodes)
    others = list(second.graph.nodes)
    if [(n.op, n.target) for n in nodes] != [(n.op, n.target) for n in others]:
        raise UntraceableError(DIFFERS)
    rows = next(node for node in nodes if node.op == "placeholder")
    last = [node for node in nodes if node.op == "placeholder"][-1]
    with graph.inserting_after(last):
        size = graph.call_function(torch.ops.aten.sym_size.int, (rows, 0))
    for one, other in zip(nodes, others, strict=True):
        if one.op == "get_attr":
            if not _equal(getattr(first, one.target), getattr(second, one.target)):
                raise UntraceableError(DIFFERS)
            continue
        with graph.inserting_before(one):
            one.args = cast(tuple[Argument, ...], _merged(one.args, other.args, size))
            one.kwargs = cast(dict[str, Argument], _merged(one.kwargs, other.kwargs, size))
    graph.eliminate_dead_code()


def _merged(one: object, other: object, size: Node) -> object:
    if isinstance(one, Node):
        return one
    if isinstance(one, dict) and isinstance(other, dict):
        return {key: _merged(value, other[key], size) for key, value in one.items()}
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        if len(one) != len(other):
            raise UntraceableError(DIFFERS)
        return type(one)(_merged(*pair, size) for pair in zip(one, other, strict=True))
    if one == other:
        return one
    if type(one) is not int or type(other) is not int:
        raise UntraceableError(DIFFERS)
    slope, rest = divmod(other - one, SIZES[1] - SIZES[0])
    if rest:
        raise UntraceableError(DIFFERS)
    multiple = size if slope == 1 else size.graph.call_function(operator.mul, (size, slope))
    offset = one - slope * SIZES[0]
    return size.graph.call_function(operator.add, (multiple, offset)) if offset else multiple


def _equal(one: object, other: object) -> bool:
    both = isinstance(one, Tensor) and isinstance(other, Tensor)
    return one is other or (both and torch.equal(cast(Tensor, one), cast(Tensor, other)))
