"""A list of calls on numbered pieces of memory, which can be written to a file."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


class UnknownCallError(ValueError):
    """Raised for a step that cannot be a list of calls; the message says why."""


@dataclass(frozen=True)
class Place:
    """A position in a piece of memory: its number, and an offset in bytes."""

    home: int
    offset: int = 0


@dataclass(frozen=True)
class View:
    """A tensor in a piece of memory."""

    place: Place
    dtype: torch.dtype
    size: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True)
class Native:
    """A call of a function in a library, whose arguments are addresses and whole numbers."""

    library: str
    symbol: str
    arguments: tuple[Place | int, ...]
    random: bool = False  # whether the first argument is the state of torch's generator


@dataclass(frozen=True)
class Operation:
    """A call of an operator of torch. Each of its tensors ``made`` is a new piece of memory."""

    name: str  # such as aten.sort.default
    arguments: tuple[Any, ...]
    keywords: Mapping[str, Any]
    made: tuple[int | None, ...]


Call = Native | Operation


@dataclass
class Script:
    """The calls of a step, and the pieces of memory on which they work.

    Args:
        inputs: the layouts of its inputs, which are the first pieces of memory.
        rooms: bytes of the pieces that only live during a step, by number.
        constants: the bytes of others, by number.
        calls: in their order.
        outputs: what the step returns.
    """

    inputs: list[View]
    rooms: dict[int, int] = field(default_factory=dict)
    constants: dict[int, Tensor] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    outputs: list[View] = field(default_factory=list)

    @property
    def is_native(self) -> bool:
        """Whether no call needs Python."""
        return all(isinstance(call, Native) for call in self.calls)

    @property
    def libraries(self) -> list[str]:
        """The files of the functions."""
        found = [call.library for call in self.calls if isinstance(call, Native)]
        return list(dict.fromkeys(found))

    def written(self) -> str:
        """All but the constants, as JSON."""
        own = {"inputs": self.inputs, "calls": self.calls, "outputs": self.outputs}
        own["rooms"] = [list(item) for item in self.rooms.items()]
        return json.dumps({name: encoded(part) for name, part in own.items()})

    @classmethod
    def read(cls, text: str, constants: dict[int, Tensor]) -> "Script":
        """The script of a text that :meth:`written` has returned."""
        parts = {name: decoded(part) for name, part in json.loads(text).items()}
        return cls(**{**parts, "rooms": dict(parts["rooms"])}, constants=constants)


SIMPLE = (bool, int, float, str, type(None))
NAMED = {kind.__name__: kind for kind in (Place, View, Native, Operation)}
OTHERS: Mapping[type, tuple[str, Callable[[Any], str], Callable[[str], Any]]] = {
    torch.dtype: ("dtype", lambda x: str(x).removeprefix("torch."), lambda s: getattr(torch, s)),
    torch.layout: ("layout", lambda x: str(x).removeprefix("torch."), lambda s: getattr(torch, s)),
    torch.memory_format: (
        "memory_format",
        lambda x: str(x).removeprefix("torch."),
        lambda s: getattr(torch, s),
    ),
    torch.device: ("device", str, torch.device),
}


def encoded(value: Any) -> Any:
    """A value as what JSON has, of the kinds that calls contain.

    Raises:
        UnknownCallError: for a value of another kind.
    """
    if isinstance(value, SIMPLE):
        return value
    if isinstance(value, list):
        return [encoded(each) for each in value]
    if isinstance(value, tuple):
        return {"tuple": [encoded(each) for each in value]}
    if isinstance(value, dict):
        return {"dict": {key: encoded(each) for key, each in value.items()}}
    if type(value).__name__ in NAMED:
        return {type(value).__name__: [encoded(part) for part in vars(value).values()]}
    for kind, (name, write, _) in OTHERS.items():
        if isinstance(value, kind):
            return {name: write(value)}
    raise UnknownCallError(f"an argument is a {type(value).__name__}")


def decoded(value: Any) -> Any:
    """The value of an :func:`encoded` one."""
    if isinstance(value, list):
        return [decoded(each) for each in value]
    if not isinstance(value, dict):
        return value
    ((name, inner),) = value.items()
    if name == "tuple":
        return tuple(map(decoded, inner))
    if name == "dict":
        return {key: decoded(each) for key, each in inner.items()}
    if name in NAMED:
        return NAMED[name](*map(decoded, inner))
    read = {kind: read for kind, _, read in OTHERS.values()}[name]
    return read(inner)
