"""Passes that make a graph of predictions smaller without changing a value."""

from collections.abc import Callable, Mapping
from typing import cast

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import Argument, map_arg

SAME = {"expand", "view", "_unsafe_view", "reshape", "detach", "alias", "lift_fresh"}
Known = dict[Node, object]


def shrink(graph: GraphModule) -> GraphModule:
    """Compute what depends on no row, and drop operations that change nothing."""
    _drop_identities(graph.graph)
    known: Known = {}
    narrow: dict[Node, Tensor] = {}
    with torch.no_grad():
        for node in list(graph.graph.nodes):
            if node.op == "get_attr":
                known[node] = getattr(graph, str(node.target)).detach()
            elif node.op == "call_function":
                _fold(node, known, narrow)
    for node, tensor in narrow.items():
        _narrow_uses(graph, node, tensor, narrow)
    for node, value in known.items():
        outside = [user for user in node.users if user not in known]
        if outside and isinstance(value, Tensor):
            _replace(graph, node, value, outside)
    graph.graph.eliminate_dead_code()
    return GraphModule(graph, graph.graph)


def _drop_identities(graph: Graph) -> None:
    for node in graph.nodes:
        packet = getattr(getattr(node.target, "overloadpacket", None), "__name__", "")
        if node.op != "call_function" or not node.args or not isinstance(node.args[0], Node):
            continue
        before, after = _shape(node.args[0]), _shape(node)
        zero = node.target == torch.ops.aten.add.Tensor and node.args[1] == 0
        if before is not None and before == after and (packet in SAME or zero):
            node.replace_all_uses_with(node.args[0])
    graph.eliminate_dead_code()


def _fold(node: Node, known: Known, narrow: dict[Node, Tensor]) -> None:
    """Compute a node of constants, or one that repeats a constant for each row.

    The latter is kept in ``narrow`` as it is for one row, in as many dimensions as the node has.
    """
    tensors = [part for part in node.all_input_nodes if "val" in part.meta]
    if all(part in known for part in node.all_input_nodes):
        known[node] = _computed(node, known)
        return
    values = {part: narrow.get(part, known.get(part)) for part in tensors}
    shape = _shape(node)
    if shape is None or not all(isinstance(value, Tensor) for value in values.values()):
        return
    if node.target == torch.ops.aten.expand.default:
        first = cast(Tensor, values[cast(Node, node.args[0])])
        narrow[node] = first.reshape(*[1] * (len(shape) - first.dim()), *first.shape)
    elif _pointwise(node) and tensors == node.all_input_nodes:
        narrow[node] = cast(Tensor, _computed(node, values))


def _computed(node: Node, values: Mapping[Node, object]) -> object:
    read = cast(Callable[[Node], Argument], values.__getitem__)
    args, kwargs = map_arg((node.args, node.kwargs), read)
    return cast(Callable[..., object], node.target)(*args, **kwargs)


def _narrow_uses(
    graph: GraphModule, node: Node, tensor: Tensor, narrow: dict[Node, Tensor]
) -> None:
    """Let operations that repeat their inputs anyway take the constant for one row."""
    able = []
    for user in node.users:
        others = [
            narrow[part].shape if part in narrow else _shape(part)
            for part in user.all_input_nodes
            if "val" in part.meta
        ]
        if user in narrow or not _pointwise(user) or None in others:
            continue
        if torch.broadcast_shapes(*cast(list[torch.Size], others)) == _shape(user):
            able.append(user)
    if able:
        _replace(graph, node, tensor, able)


def _replace(graph: GraphModule, node: Node, value: Tensor, users: list[Node]) -> None:
    name = f"constant_{node.name}"
    graph.register_buffer(name, value.clone(memory_format=torch.contiguous_format))
    with graph.graph.inserting_before(node):
        kept = graph.graph.get_attr(name)
    kept.meta["val"] = value
    for user in users:
        user.replace_input_with(node, kept)


def _pointwise(node: Node) -> bool:
    return torch.Tag.pointwise in getattr(node.target, "tags", ())


def _shape(node: Node) -> torch.Size | None:
    value = node.meta.get("val")
    return value.shape if isinstance(value, Tensor) else None
