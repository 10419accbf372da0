"""The state of programs between calls: parameters, buffers and other attributes of modules."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from priorzoo.inference.running import places_of

PLAIN = (bool, int, float, complex, str, bytes, type(None))


class UntraceableError(ValueError):
    """Raised if a program cannot be recorded as a graph of fixed shapes; the message says why."""


class State:
    """The parameters and buffers of a module by name, and the places where modules keep them.

    A tensor that several modules share has one name, its first.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module, self.tensors = module, state_of(module)
        names = {id(tensor): name for name, tensor in self.tensors.items()}
        self.places = [(names[id(tensor)], home, key) for home, key, tensor in places_of(module)]

    @contextmanager
    def replaced_by(self, values: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
        """Replace the modules' tensors by these values inside ``with``.

        Afterwards the dictionary contains the tensors by which a program has replaced a value in
        turn, as in ``self.mean = 0.9 * self.mean + 0.1 * x.mean()``.

        Raises:
            UntraceableError: for a tensor whose shape or dtype changed, and for one that was added,
                removed, or replaced in only one of the modules that share it.
        """
        found: dict[str, Tensor] = {}
        own = [home[key] for _, home, key in self.places]
        for name, home, key in self.places:
            home[key] = values[name]
        try:
            yield found
            self._find_replaced(values, found)
        finally:
            for (_, home, key), tensor in zip(self.places, own, strict=True):
                home[key] = tensor

    def _find_replaced(self, values: Mapping[str, Tensor], found: dict[str, Tensor]) -> None:
        if len(state_of(self.module)) != len(self.tensors):
            raise UntraceableError("its modules create or remove parameters or buffers in a call")
        for name, home, key in self.places:
            value, now = values[name], home.get(key)
            if now is value and name not in found:
                continue
            if now is None or found.get(name, now) is not now:
                raise UntraceableError(f"{name} is removed, or no longer shared, in a call")
            if (now.shape, now.dtype) != (value.shape, value.dtype):
                raise UntraceableError(f"the shape or dtype of {name} changes in a call")
            found[name] = now.detach()

    @torch.no_grad()
    def restore_tensors(self) -> None:
        """Put the graph's own tensors back where a call has replaced them, with the new values."""
        for name, home, key in self.places:
            tensor, now = self.tensors[name], home[key]
            if now is not tensor and now is not None:
                tensor.copy_(now)
                home[key] = tensor


def state_of(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, including buffers that are not persistent."""
    return dict(module.named_parameters()) | dict(module.named_buffers())


@torch.no_grad()
def store(state: Mapping[str, Tensor], names: Sequence[str], values: Sequence[Tensor]) -> None:
    """Copy the values by which a program has replaced parameters and buffers into these.

    Args:
        state: parameters and buffers by name.
        names: of those that were replaced.
        values: as many, and perhaps others after them.
    """
    for name, value in zip(names, values, strict=False):
        state[name].copy_(value)


class Attributes:
    """Tensors and plain values that modules keep as ordinary attributes, also in lists and dicts.

    A recorded graph treats them as constants, so a program that changes them must run eagerly.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.own = [(vars(part), dict(vars(part))) for part in module.modules()]
        self.inside: list[tuple[Any, Any]] = [
            (value, value.copy())
            for _, attributes in self.own
            for value in attributes.values()
            if isinstance(value, list | dict)
        ]
        self.entries = dict(_entries(module))

    def restore(self) -> None:
        """Undo all changes of attributes since the construction."""
        for attributes, before in self.own:
            attributes.clear()
            attributes.update(before)
        for value, before in self.inside:
            if isinstance(value, list):
                value[:] = before
            else:
                value.clear()
                value.update(before)

    def check(self, graph: GraphModule) -> None:
        """Check that the program changes no attribute on which the recorded graph depends.

        A tensor may be replaced if the graph does not read the old one, such as a weight that every
        call computes.

        Raises:
            UntraceableError: for an attribute that the program reads and changes, or a parameter
                that it reads from elsewhere than its modules.
        """
        read = {node.target: getattr(graph, str(node.target)) for node in _constants(graph)}
        constants = {id(tensor) for tensor in read.values()}
        written = {id(read[target]) for target in _written(graph) if target in read}
        if any(tensor.requires_grad for tensor in read.values()):
            raise UntraceableError("it reads a parameter that no module of the pair has")
        after = dict(_entries(self.module))
        for name in self.entries.keys() | after.keys():
            old, new = self.entries.get(name, ...), after.get(name, ...)
            computed = isinstance(old, Tensor) and isinstance(new, Tensor)
            affects_graph = id(old) in (constants if old is not new else written)
            if affects_graph if computed else not _equal(old, new):
                raise UntraceableError(
                    f"the attribute {name} changes in a call; keep a tensor as a buffer, by "
                    "register_buffer, for steps that are compiled"
                )
        if written:
            raise UntraceableError("it writes to a tensor that is no buffer of its modules")


def _entries(module: nn.Module) -> Iterator[tuple[str, object]]:
    for path, part in module.named_modules():
        for key, value in vars(part).items():
            if key in ("_parameters", "_buffers", "_modules") or key.startswith("_pyro"):
                continue
            for place, entry in _flat(value):
                if isinstance(entry, (Tensor, *PLAIN)):
                    yield f"{path}.{key}{place}".lstrip("."), entry


def _flat(value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, (list, tuple, dict)):
        places = value if isinstance(value, dict) else range(len(value))
        yield from ((f"[{place!r}]", value[place]) for place in places)
    else:
        yield "", value


def _equal(old: object, new: object) -> bool:
    return old is new or (type(old) is type(new) and isinstance(old, PLAIN) and old == new)


def _constants(graph: GraphModule) -> Iterator[torch.fx.Node]:
    for node in graph.graph.nodes:
        if node.op == "get_attr" and isinstance(getattr(graph, str(node.target)), Tensor):
            yield node


def _written(graph: GraphModule) -> Iterator[object]:
    """Targets of the constants that an operation of the graph writes to."""
    for node in graph.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if node.op != "call_function" or schema is None or not schema.is_mutable:
            continue
        given = [*node.args, *node.kwargs.values()]
        for argument, kind in zip(given, schema.arguments, strict=False):
            aliased = kind.alias_info is not None and kind.alias_info.is_write
            if aliased and isinstance(argument, torch.fx.Node) and argument.op == "get_attr":
                yield argument.target
