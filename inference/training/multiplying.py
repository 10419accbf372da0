"""Ways to multiply matrices on the CPU beside torch's own: oneDNN, and code of ours."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Multiply = Callable[[Tensor, Tensor, Tensor | None], Tensor]
SOURCE = Path(__file__).with_name("product.cpp")
ARGUMENTS = ["float*"] * 4 + ["int64_t"] * 8
FEW = 16  # rows of a, below which the code reads both matrices along k


@lru_cache
def ways() -> Mapping[str, Multiply]:
    """Operators that multiply matrices and add a bias, beside torch's own, by name.

    Inductor does not look into them, and passes transposed matrices as they are, without copies.
    """
    found = {name: operator_of(name) for name in ("onednn", "compiled")}
    return {name: way for name, way in found.items() if way is not None}


@lru_cache
def operator_of(name: str) -> Multiply | None:
    """One of :func:`ways`; None where it does not work."""
    way = _onednn() if name == "onednn" else _compiled()
    return None if way is None else _operator(name, way)


def _operator(name: str, way: Multiply) -> Multiply:
    def product(a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
        if a.dim() == 2:
            return way(a, b, bias)
        return torch.stack([way(*pair, None) for pair in zip(a, b, strict=True)])

    def shaped(a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
        return a.new_empty(*a.shape[:-1], b.shape[-1])

    full = f"priorzoo::product_{name}"
    torch.library.define(full, "(Tensor a, Tensor b, Tensor? bias) -> Tensor")
    torch.library.impl(full, "CPU", product)
    torch.library.register_fake(full, shaped)
    made: Multiply = getattr(torch.ops.priorzoo, f"product_{name}").default
    return made


def _onednn() -> Multiply | None:
    """By oneDNN; None where torch lacks it."""
    linear = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    if not torch.backends.mkldnn.is_available() or linear is None:
        return None
    return lambda a, b, bias: linear(a, b.t(), bias, "none", [], "")


@lru_cache
def our_product() -> Any:
    """The function of ``product.cpp``; None where it cannot be compiled."""
    from torch._inductor.codecache import CppPythonBindingsCodeCache

    try:
        return CppPythonBindingsCodeCache.load_pybinding(ARGUMENTS, SOURCE.read_text())
    except Exception:  # of any type: without a compiler, or for another processor
        return None


@lru_cache
def _compiled() -> Multiply | None:
    """By our own code for float32; None where it cannot be compiled."""
    if our_product() is None:
        return None
    return lambda a, b, bias: fill(a.new_empty(len(a), b.shape[1]), a, b, bias)


def fill(found: Tensor, a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    """Write a product by our own code."""
    (rows, inner), columns = a.shape, b.shape[1]
    if 1 not in b.stride():
        b = b.contiguous()
    if b.stride(1) != 1 and a.stride(1) != 1 and rows < FEW:
        a = a.contiguous()
    sizes, biased = (rows, inner, columns), bias is not None
    our_product()(a, b, bias if biased else a, found, *sizes, *a.stride(), *b.stride(), biased)
    return found
