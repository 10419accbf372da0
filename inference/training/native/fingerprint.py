"""A key of everything that the code of a compiled step depends on.

Two steps with one key compute the same. What cannot be described, such as a program that was typed
into a notebook, has no key, and its code is not kept for another process.
"""

import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from priorzoo.inference.objectives.schedules import Clock
from priorzoo.inference.training.native.script import UnknownCallError
from priorzoo.inference.training.native.sources import check_source, digest, process
from priorzoo.inference.training.state import PLAIN

NAMED = (torch.dtype, torch.device, torch.layout, torch.memory_format, torch.Size, np.generic)
VERSIONED = ("torch", "pyro", "numpy", "builtins", "functools", "collections", "abc", "typing")
MODULE = ("_parameters", "_buffers", "_modules")
LENGTHS = ("_epoch", "_total")  # of a clock, whose steps read them as a tensor
RATES = ("params", "lr", "initial_lr")  # of a group of an optimiser: numbers that a step is given


def fingerprint(*values: object) -> str | None:
    """A key of values, of the programs in them, and of this process; None if there is none."""
    found = hashlib.sha256()
    try:
        for part in (*process(), *Describer().described(list(values))):
            found.update(repr(part).encode())
    except UnknownCallError:
        return None
    return found.hexdigest()[:40]


def optimiser_settings(optimiser: torch.optim.Optimizer) -> list[object]:
    """The class and settings of an optimiser, without rates, and the parameters of each group."""
    groups = [
        (group["params"], {k: v for k, v in group.items() if k not in RATES})
        for group in optimiser.param_groups
    ]
    parts = [type(part) for part in getattr(optimiser, "parts", ())]
    return [type(optimiser), parts, groups]


class Describer:
    """Writes down values as simple parts, each object once."""

    def __init__(self) -> None:
        self.seen: dict[int, int] = {}
        self.kept: list[object] = []  # so that no identity is used twice

    def described(self, value: Any) -> Iterator[object]:
        """The parts of a value.

        Raises:
            UnknownCallError: for a value of another kind.
        """
        if isinstance(value, PLAIN):
            yield type(value).__name__, value
            return
        if isinstance(value, NAMED):
            yield type(value).__name__, str(value)
            return
        if id(value) in self.seen:
            yield "again", self.seen[id(value)]
            return
        self.seen[id(value)] = len(self.seen)
        self.kept.append(value)
        for kinds, describe in self.kinds:
            if isinstance(value, kinds):
                yield type(value).__name__
                yield from describe(self, value)
                return
        yield from self._object(value)

    def _tensor(self, value: Tensor) -> Iterator[object]:
        yield tuple(value.shape), value.stride(), str(value.dtype), value.requires_grad
        yield str(value.device)
        if not isinstance(value, (nn.Parameter, nn.Buffer)) and value.device.type == "cpu":
            yield digest(value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)

    def _state(self, value: Tensor | None) -> Iterator[object]:
        """A tensor whose values are inputs of a step."""
        if value is None or id(value) in self.seen:
            yield None if value is None else self.seen[id(value)]
            return
        self.seen[id(value)] = len(self.seen)
        self.kept.append(value)
        yield type(value).__name__, tuple(value.shape), value.stride(), str(value.dtype)
        yield value.requires_grad, str(value.device)

    def _module(self, value: nn.Module) -> Iterator[object]:
        yield from self._class(type(value))
        for home in (value._parameters, value._buffers):
            for name, tensor in home.items():
                yield name
                yield from self._state(tensor)
        skipped = MODULE + LENGTHS * isinstance(value, Clock)
        own = {name: part for name, part in vars(value).items() if name not in skipped}
        yield from self.described(own)
        yield from self.described(value._modules)

    def _items(self, value: Mapping[object, object]) -> Iterator[object]:
        for key, part in value.items():
            yield from self.described(key)
            yield from self.described(part)

    def _list(self, value: list[object]) -> Iterator[object]:
        yield len(value)
        for part in value:
            yield from self.described(part)

    def _set(self, value: set[object]) -> Iterator[object]:
        yield sorted(repr(list(Describer().described(part))) for part in value)

    def _function(self, value: FunctionType) -> Iterator[object]:
        yield check_source(value.__module__, value.__qualname__)
        yield value.__module__, value.__qualname__
        yield from _code(value.__code__)
        yield from self.described([value.__defaults__, value.__kwdefaults__])
        yield from self._globals(value)
        for cell in value.__closure__ or ():
            yield from self.described(cell.cell_contents)

    def _globals(self, value: FunctionType) -> Iterator[object]:
        """Numbers and words among the global names of a function, which its user may change."""
        for name in value.__code__.co_names:
            found = value.__globals__.get(name, ...)
            if isinstance(found, PLAIN):
                yield name, found

    def _class(self, value: type) -> Iterator[object]:
        for kind in value.__mro__:
            yield kind.__module__, kind.__qualname__
            top = kind.__module__.partition(".")[0]
            if top in VERSIONED or id(kind) in self.seen:
                continue
            yield check_source(kind.__module__, kind.__qualname__)
            self.seen[id(kind)] = len(self.seen)
            self.kept.append(kind)
            for name, part in vars(kind).items():
                function = getattr(part, "__func__", getattr(part, "fget", part))
                if isinstance(function, FunctionType):
                    yield name
                    yield from _code(function.__code__)
                    yield from self._globals(function)
                elif isinstance(function, (*PLAIN, tuple, list, dict)) and name[:2] != "__":
                    yield name
                    yield from self.described(function)

    def _method(self, value: MethodType) -> Iterator[object]:
        yield from self.described(value.__func__)
        yield from self.described(value.__self__)

    def _partial(self, value: "functools.partial[object]") -> Iterator[object]:
        yield from self.described([value.func, value.args, value.keywords])

    def _builtin(self, value: Any) -> Iterator[object]:
        yield str(value.__module__), value.__qualname__

    def _operator(self, value: object) -> Iterator[object]:
        yield str(value)

    def _array(self, value: Any) -> Iterator[object]:
        yield value.shape, str(value.dtype), digest(np.ascontiguousarray(value).data)

    def _object(self, value: object) -> Iterator[object]:
        if not hasattr(value, "__dict__") or isinstance(value, ModuleType):
            raise UnknownCallError(f"a {type(value).__name__} is not described")
        yield from self._class(type(value))
        yield from self.described(vars(value))

    kinds: tuple[tuple[Any, Callable[..., Iterator[object]]], ...] = (
        (Tensor, _tensor),
        (nn.Module, _module),
        (Enum, _operator),
        (type, _class),
        (FunctionType, _function),
        (MethodType, _method),
        (functools.partial, _partial),
        (BuiltinFunctionType, _builtin),
        (torch._ops.OpOverload, _operator),
        (torch._ops.OpOverloadPacket, _operator),
        (np.ndarray, _array),
        (Mapping, _items),
        ((list, tuple), _list),
        ((set, frozenset), _set),
    )


def _code(code: CodeType) -> Iterator[object]:
    yield code.co_code, code.co_names, code.co_varnames, code.co_freevars
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from _code(each)
        else:
            yield repr(sorted(map(repr, each)) if isinstance(each, frozenset) else each)
