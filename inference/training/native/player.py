"""Runs a script of calls, for one step or for many."""

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree

from priorzoo.inference.training.multiplying import operator_of
from priorzoo.inference.training.native.memory import layout, spans
from priorzoo.inference.training.native.replacing import STATE, calls_library, loaded
from priorzoo.inference.training.native.script import (
    Native,
    Operation,
    Place,
    Script,
    UnknownCallError,
    View,
)

LONGEST = 256  # arguments of a native call
RANDOM = 2_504  # bytes of the state of torch's generator in calls.cpp
RECORD = {torch.float32: "record_float", torch.float64: "record_double"}
NONE = np.empty((0, 2), dtype=np.int64)


@dataclass
class Part:
    """Calls that follow each other: native ones by their range, or one operation.

    Args:
        first, last: the range.
        random: whether native calls of it draw random numbers.
        function: the operation.
        call: its arguments.
        done: pieces of memory that no later call needs.
    """

    first: int
    last: int
    random: bool = False
    function: Callable[..., object] | None = None
    call: Operation | None = None
    done: tuple[int, ...] = ()


class Player:
    """Runs a :class:`Script` on the inputs to which it is bound.

    Args:
        script: the calls.
        library: the file of ``calls.cpp``, compiled; None to compile it.

    Raises:
        UnknownCallError: for calls of more arguments than can be passed, and for functions or
            operators that are not there.
    """

    def __init__(self, script: Script, library: str | None = None) -> None:
        self.script, self.library = script, library or calls_library()
        self._run = loaded(self.library, "kernel")
        self._read, self._write = (loaded(self.library, f"{n}_state") for n in ("read", "write"))
        self.offsets, size = layout(script)
        self.block = torch.empty(size, dtype=torch.uint8)
        self.random = torch.zeros(RANDOM, dtype=torch.uint8)
        self.bases = {STATE.home: self.random, **script.constants}
        self.inputs: list[Tensor] = []
        self.slots: dict[int, list[tuple[int, int]]] = {}  # arguments, and their offsets in bytes
        self.parts: list[Part] = []
        self._words: list[int] = []
        self._entries: list[tuple[int, int, int]] = []
        self._link()
        self.arguments = np.array([*self._words, *[0] * 7], dtype=np.int64)  # 7 are of `record`
        self.entries = np.array([*self._entries, (0, len(self._words), 7)], dtype=np.int64)
        for home, base in self.bases.items():
            self._point(home, base.data_ptr())
        for home, offset in self.offsets.items():
            self._point(home, self.block.data_ptr() + offset)
        self._kept: dict[View, Tensor] = {}

    @property
    def is_native(self) -> bool:
        """Whether several steps need no Python between them."""
        return len(self.parts) == 1 and self.parts[0].call is None

    def bind(self, inputs: Sequence[Tensor]) -> None:
        """Take these tensors as the inputs from now on."""
        self.inputs = list(inputs)
        for number, tensor in enumerate(inputs):
            self.give(number, tensor)

    def give(self, number: int, tensor: Tensor) -> None:
        """Replace one input by another one of the same shape."""
        known = self.script.inputs[number]
        if tuple(tensor.shape) != known.size:
            raise ValueError(f"Expected an input {known.size} but got {tuple(tensor.shape)}.")
        if tensor.numel() and (tensor.stride() != known.stride or tensor.dtype != known.dtype):
            tensor = torch.empty_strided(known.size, known.stride, dtype=known.dtype).copy_(tensor)
        self.inputs[number] = tensor
        self._point(number, tensor.data_ptr())
        self._kept = {view: kept for view, kept in self._kept.items() if view.place.home != number}

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        """Run one step on inputs; returns copies of the outputs."""
        self.bind(inputs)
        return self.step()

    def step(self) -> list[Tensor]:
        """Run one step on the bound inputs; returns copies of the outputs."""
        made: dict[int, Tensor] = {}
        for part in self.parts:
            if part.call is None:
                self._native(part)
            else:
                self._operate(part, part.call, made)
        return [self._tensor(view, made).clone() for view in self.script.outputs]

    def steps(self, count: int, moves: Mapping[int, int], into: Sequence[Tensor]) -> None:
        """Run native steps without Python between them, and add up what they give.

        Args:
            count: how many.
            moves: bytes by which an input advances after each step, by its number.
            into: the sum of the first output so far, whether each value of the second was true in
                all steps so far, and in how many first ones.
        """
        means, finite = (self._tensor(view, {}) for view in self.script.outputs)
        sums, everywhere, lasted = into
        given: list[Tensor | int] = [means, sums, len(sums), finite, everywhere, lasted]
        given.append(len(finite))
        words = [each.data_ptr() if isinstance(each, Tensor) else each for each in given]
        self.arguments[-len(words) :] = np.array(words, dtype=np.int64)
        function = loaded(self.library, RECORD[sums.dtype])
        self.entries[-1, 0] = ctypes.cast(function, ctypes.c_void_p).value or 0
        table = [(slot, size) for n, size in moves.items() for slot, _ in self.slots.get(n, ())]
        self._native(self.parts[0], 1, np.array(table, dtype=np.int64).reshape(-1, 2), count)

    def _native(
        self, part: Part, more: int = 0, moves: "np.ndarray[Any, Any]" = NONE, count: int = 1
    ) -> None:
        own, words = ctypes.c_void_p(self.random.data_ptr()), ctypes.c_int64
        if part.random:
            state = torch.get_rng_state()
            self._read(ctypes.c_void_p(state.data_ptr()), own)
        addresses = [ctypes.c_void_p(a.ctypes.data) for a in (self.entries, self.arguments, moves)]
        entries, arguments, moved = addresses
        first, last = words(part.first), words(part.last + more)
        steps = words(len(moves)), words(count)
        if self._run(entries, first, last, arguments, moved, *steps):
            said = loaded(self.library, "message")
            said.restype = ctypes.c_char_p
            raise RuntimeError(said().decode(errors="replace"))
        if part.random:
            self._write(own, ctypes.c_void_p(state.data_ptr()))
            torch.set_rng_state(state)

    def _operate(self, part: Part, call: Operation, made: dict[int, Tensor]) -> None:
        def tensor(value: object) -> object:
            return self._tensor(value, made) if isinstance(value, View) else value

        given = _pytree.tree_map(
            tensor, (call.arguments, call.keywords), is_leaf=lambda x: isinstance(x, View)
        )
        assert part.function is not None
        found = _pytree.tree_leaves(part.function(*given[0], **given[1]))
        for home, each in zip(call.made, found, strict=True):
            if home is not None:
                made[home] = each
                self._point(home, each.untyped_storage().data_ptr())
        for home in part.done:
            made.pop(home, None)

    def _tensor(self, view: View, made: Mapping[int, Tensor]) -> Tensor:
        kept = self._kept.get(view)
        if kept is not None:
            return kept
        home, size = view.place.home, view.dtype.itemsize
        found = torch.empty(0, dtype=view.dtype)
        if home == -1:
            return found.new_empty(view.size)
        if home in self.offsets:
            base, offset = self.block, self.offsets[home]
        elif 0 <= home < len(self.inputs):
            base = self.inputs[home]
            offset = base.data_ptr() - base.untyped_storage().data_ptr()
        else:
            base, offset = made[home] if home in made else self.bases[home], 0
        place, left = divmod(offset + view.place.offset, size)
        assert not left
        found.set_(base.untyped_storage(), place, view.size, view.stride)
        if home not in made:
            self._kept[view] = found
        return found

    def _point(self, home: int, address: int) -> None:
        for slot, offset in self.slots.get(home, ()):
            self.arguments[slot] = address + offset

    def _link(self) -> None:
        """Make the table of native calls, and the parts."""
        last: dict[int, list[int]] = {call: [] for call in range(len(self.script.calls))}
        for home, (_, end) in spans(self.script).items():
            last.get(end, []).append(home)
        for number, call in enumerate(self.script.calls):
            if isinstance(call, Operation):
                place, done = len(self._entries), tuple(last[number])
                self.parts.append(Part(place, place, False, _operator(call.name), call, done))
                continue
            if not self.parts or self.parts[-1].call is not None:
                self.parts.append(Part(len(self._entries), len(self._entries)))
            self._add(call)
            part = self.parts[-1]
            part.last, part.random = len(self._entries), part.random or call.random

    def _add(self, call: Native) -> None:
        if len(call.arguments) > LONGEST:
            raise UnknownCallError(f"a kernel takes {len(call.arguments)} arguments")
        function = ctypes.cast(loaded(call.library, call.symbol), ctypes.c_void_p).value or 0
        self._entries.append((function, len(self._words), len(call.arguments)))
        for each in call.arguments:
            if isinstance(each, Place):
                self.slots.setdefault(each.home, []).append((len(self._words), each.offset))
            self._words.append(each if isinstance(each, int) else 0)


def _operator(name: str) -> Callable[..., object]:
    """An operator of torch or of ours, by its name.

    Raises:
        UnknownCallError: if there is none.
    """
    space, packet, overload = name.split(".")
    if space == "priorzoo" and operator_of(packet.removeprefix("product_")) is None:
        raise UnknownCallError(f"{name} is not there")
    try:
        found: Callable[..., object] = getattr(getattr(getattr(torch.ops, space), packet), overload)
    except AttributeError as error:
        raise UnknownCallError(f"{name} is not there") from error
    return found
