"""Native calls in place of operators of torch: matrix products and random numbers in float32."""

import ctypes
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import torch
from torch import Tensor

from priorzoo.inference.training.multiplying import our_product
from priorzoo.inference.training.native.script import Native, Place, UnknownCallError
from priorzoo.inference.training.products import fastest_of

SOURCE = Path(__file__).with_name("calls.cpp")
STATE = Place(-2)  # of torch's generator
FEWEST = 16  # numbers that torch draws from the normal distribution in the way of calls.cpp
UNIFORM = ("aten.rand.default", "aten.rand_like.default")
NORMAL = ("aten.randn.default", "aten.randn_like.default", "aten.normal_functional.default")
PRODUCTS = ("aten.mm.out", "aten.addmm.out", "priorzoo.product_compiled.default")


class Memory(Protocol):
    """What names the memory of tensors."""

    def addresses(self, arguments: Sequence[object]) -> tuple[Place | int, ...]:
        """Arguments as addresses and whole numbers."""

    def room(self, tensor: Tensor) -> None:
        """Note memory that lives during the step."""


def native(
    memory: Memory, name: str, args: Sequence[Any], keywords: Mapping[str, Any], found: object
) -> Native | None:
    """The native call for an operator's call, or None where there is none."""
    if not isinstance(found, Tensor) or found.dtype != torch.float32 or not found.is_contiguous():
        return None
    if name in PRODUCTS:
        *first, a, b = args if name.startswith("aten") else (args[2], args[0], args[1])
        bias = first[0] if first else None
        if keywords.get("alpha", 1) != 1 or keywords.get("beta", 1) != 1:
            return None
        if name.startswith("priorzoo"):
            memory.room(found)
        return _product(memory, a, b, bias, found)
    kind = "uniform" * (name in UNIFORM) or "normal" * (name in NORMAL)
    plain = not any(isinstance(each, (float, torch.Generator)) for each in args)
    if not kind or not plain or keywords.get("generator") is not None:
        return None
    if not found.numel() or (kind == "normal" and found.numel() < FEWEST):
        return None
    memory.room(found)
    arguments = memory.addresses((found, found.numel()))
    return Native(calls_library(), kind, (STATE, *arguments), random=True)


def _product(memory: Memory, a: Tensor, b: Tensor, bias: Tensor | None, c: Tensor) -> Native | None:
    if c.dim() != 2 or not c.numel() or not a.numel():
        return None
    known = {name: _arguments(name, a, b, bias, c) for name in ("compiled", "blas")}
    ways = {name: arguments for name, arguments in known.items() if arguments is not None}
    if not ways:
        return None
    runs = {name: _runner(name, arguments) for name, arguments in ways.items()}
    name = fastest_of((a, b, bias), runs)
    return Native(*_function(name), memory.addresses(ways[name]))


def _function(name: str) -> tuple[str, str]:
    if name == "blas":
        return calls_library(), "blas"
    return str(our_product().__self__.__file__), "kernel"


def _arguments(
    name: str, a: Tensor, b: Tensor, bias: Tensor | None, c: Tensor
) -> list[Tensor | int] | None:
    """What a native product takes, or None where it cannot compute this one."""
    (rows, inner), columns = a.shape, b.shape[1]
    own: list[Tensor | int] = [a, b, 0 if bias is None else bias, c, rows, inner, columns]
    if name == "compiled":
        fits = our_product() is not None and 1 in b.stride()
        fits = fits and (b.stride(1) == 1 or a.stride(1) == 1 or rows >= FEWEST)
        fits = fits and (bias is None or (bias.dim() == 1 and bias.is_contiguous()))
        return [*own, *a.stride(), *b.stride(), int(bias is not None)] if fits else None
    layouts = [_layout(a), _layout(b)]
    if None in layouts or not _blas() or (bias is not None and bias.stride()[-1:] != (1,)):
        return None
    (lead_a, turned_a), (lead_b, turned_b) = (each for each in layouts if each is not None)
    whole = bias is not None and bias.dim() == 2 and bias.shape[0] == rows
    if bias is not None and not whole and bias.dim() != 1:
        return None
    step = bias.stride(0) if bias is not None and whole else 0
    return [*own, lead_a, lead_b, turned_a, turned_b, step]


def _layout(matrix: Tensor) -> tuple[int, int] | None:
    """The distance of rows or columns, and whether columns, not rows, lie together."""
    rows, columns = matrix.shape
    if matrix.stride(1) == 1 and (matrix.stride(0) >= columns or rows == 1):
        return max(matrix.stride(0), columns), 0
    if matrix.stride(0) == 1 and (matrix.stride(1) >= rows or columns == 1):
        return max(matrix.stride(1), rows), 1
    return None


def _runner(name: str, arguments: Sequence[Tensor | int]) -> Callable[[], object]:
    function = loaded(*_function(name))
    given = [each.data_ptr() if isinstance(each, Tensor) else each for each in arguments]
    words = [ctypes.c_int64(each) for each in given]
    return lambda: function(*words)


@lru_cache
def loaded(library: str, symbol: str) -> Any:
    """A function of a library.

    Raises:
        UnknownCallError: if the library has none of this name.
    """
    try:
        found = getattr(ctypes.CDLL(library), symbol)
    except (OSError, AttributeError) as error:
        raise UnknownCallError(f"{symbol} is not found: {error}") from error
    if symbol == "blas":
        ctypes.CDLL(library).set_blas(ctypes.c_void_p(_blas()))
    return found


@lru_cache
def _blas() -> int:
    """The address of the BLAS in torch's library; 0 where it is not found."""
    for library in Path(torch.__file__).with_name("lib").glob("libtorch_cpu.*"):
        try:
            found = ctypes.CDLL(str(library)).sgemm_
        except (OSError, AttributeError):
            continue
        return ctypes.cast(found, ctypes.c_void_p).value or 0
    return 0


@lru_cache
def calls_library() -> str:
    """The file of ``calls.cpp``, compiled for this machine.

    Raises:
        UnknownCallError: if it cannot be compiled.
    """
    from torch._inductor.codecache import CppPythonBindingsCodeCache

    arguments = ["int64_t*", "int64_t", "int64_t", "int64_t*", "int64_t*", "int64_t", "int64_t"]
    try:
        made = CppPythonBindingsCodeCache.load_pybinding(arguments, SOURCE.read_text())
    except Exception as error:  # of any type: without a compiler, or for another processor
        raise UnknownCallError("calls.cpp cannot be compiled") from error
    module = made.__self__
    assert isinstance(module, ModuleType)
    assert module.__file__
    return module.__file__
