"""Records the calls of code that torch's compiler has generated, while it runs once."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode

from priorzoo.inference.training.native.replacing import native
from priorzoo.inference.training.native.script import (
    Call,
    Native,
    Operation,
    Place,
    Script,
    UnknownCallError,
    View,
)

KERNEL = "cpp_fused"  # how the names of generated kernels begin
FROZEN = ("aten._local_scalar_dense", "aten.item", "aten.equal", "aten.nonzero")


class Recorder(TorchDispatchMode):
    """Keeps all memory that a run uses, so that an address belongs to one piece.

    Args:
        inputs: what the run is given.
    """

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        TorchDispatchMode.__init__(self)
        self.homes: dict[int, tuple[int, Tensor]] = {}  # by address, with a tensor in it
        self.count = len(inputs)
        for number, tensor in enumerate(inputs):
            if (
                tensor.numel()
                and self.homes.setdefault(_begin(tensor), (number, tensor))[0] != number
            ):
                raise UnknownCallError("two of its inputs share memory")
        self.begins = [
            tensor.data_ptr() - _begin(tensor) if tensor.numel() else 0 for tensor in inputs
        ]
        views = [
            View(Place(i), each.dtype, tuple(each.shape), each.stride())
            for i, each in enumerate(inputs)
        ]
        self.script = Script(views)

    def add(self, tensor: Tensor) -> int:
        """A new piece of memory, that of a tensor."""
        number, self.count = self.count, self.count + 1
        self.homes[_begin(tensor)] = number, tensor
        return number

    def room(self, tensor: Tensor) -> None:
        """Note memory that lives during the step."""
        if tensor.numel():
            self.script.rooms[self.add(tensor)] = tensor.untyped_storage().nbytes()

    def place(self, tensor: Tensor) -> Place | int:
        """Where a tensor begins; the address 0 for one without elements."""
        if not tensor.numel():
            return 0
        begin = _begin(tensor)
        if begin not in self.homes:
            number = self.add(tensor)
            self.script.constants[number] = _bytes(tensor)
        number = self.homes[begin][0]
        before = self.begins[number] if number < len(self.begins) else 0
        return Place(number, tensor.data_ptr() - begin - before)

    def view(self, value: object) -> object:
        """A tensor as a place and layout; any other value as it is."""
        if not isinstance(value, Tensor):
            return value
        place = self.place(value)
        where = Place(-1) if isinstance(place, int) else place
        return View(where, value.dtype, tuple(value.shape), value.stride())

    def kernel(self, function: Callable[..., object], *arguments: object) -> object:
        """Record a call of a generated kernel, and call it."""
        module = getattr(function, "__self__", None)
        if not isinstance(module, ModuleType) or not module.__file__:
            raise UnknownCallError("a kernel is in no library")
        self.script.calls.append(Native(module.__file__, "kernel", self.addresses(arguments)))
        return function(*arguments)

    def addresses(self, arguments: Sequence[object]) -> tuple[Place | int, ...]:
        """Arguments as addresses and whole numbers."""
        found: list[Place | int] = []
        for each in arguments:
            if isinstance(each, Tensor):
                found.append(self.place(each))
            elif isinstance(each, int):
                found.append(int(each))
            else:
                raise UnknownCallError(f"a kernel takes a {type(each).__name__}")
        return tuple(found)

    def __torch_dispatch__(
        self,
        func: Any,
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name, keywords = str(func), dict(kwargs or {})
        if name.startswith(FROZEN):
            raise UnknownCallError(f"{name} reads the value of a tensor")
        found = func(*args, **keywords)
        if func.is_view:
            return found
        call: Call | None = native(self, name, args, keywords, found)
        if call is None:
            arguments, named = _pytree.tree_map(self.view, (tuple(args), keywords))
            call = Operation(name, arguments, named, self._made(found))
        self.script.calls.append(call)
        return found

    def _made(self, found: object) -> tuple[int | None, ...]:
        """The pieces of memory of an operation's results, None for those of its arguments."""
        made: list[int | None] = []
        for each in _pytree.tree_leaves(found):
            if not isinstance(each, Tensor):
                raise UnknownCallError(f"an operation returns a {type(each).__name__}")
            known = not each.numel() or _begin(each) in self.homes
            made.append(None if known else self.add(each))
        return tuple(made)


def _begin(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _bytes(tensor: Tensor) -> Tensor:
    whole = torch.empty(0, dtype=torch.uint8)
    return whole.set_(tensor.untyped_storage()).clone()


def record_calls(run: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor]) -> Script:
    """The calls of code of torch's compiler on the CPU, which runs once on these inputs.

    Raises:
        UnknownCallError: for code whose calls depend on values, or that is not understood.
    """
    recorder = Recorder(inputs)
    with _watched(recorder), recorder:
        outputs = run(*inputs)
    for tensor in outputs:
        found = recorder.view(tensor)
        assert isinstance(found, View)
        if found.place.home in recorder.script.constants or found.place.home < 0:
            raise UnknownCallError("an output is constant")
        recorder.script.outputs.append(found)
    return recorder.script


@contextmanager
def _watched(recorder: Recorder) -> Iterator[None]:
    """Let the kernels of generated modules, and their requests for memory, be recorded."""
    cache = import_module("torch._inductor.codecache").PyCodeCache
    modules = [module for module in cache.modules if hasattr(module, "empty_strided_cpu")]
    owns = [dict(vars(module)) for module in modules]

    def kernel(function: Callable[..., object]) -> Callable[..., object]:
        return lambda *arguments: recorder.kernel(function, *arguments)

    def empty(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def made(*layout: object) -> Tensor:
            tensor = make(*layout)
            recorder.room(tensor)
            return tensor

        return made

    try:
        for module, own in zip(modules, owns, strict=True):
            kernels = {name: kernel(f) for name, f in own.items() if name.startswith(KERNEL)}
            vars(module).update(kernels, empty_strided_cpu=empty(own["empty_strided_cpu"]))
        yield
    finally:
        for module, own in zip(modules, owns, strict=True):
            vars(module).update(own)
