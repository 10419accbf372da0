"""Rewrites what inductor does not vectorise well on the CPU, by a pass over its graph.

One element of log1p and expm1 in float32 takes 10 nanoseconds where log takes 0.3 and exp 0.2, on
a processor with AVX-512. Inductor has no vectors for digamma and trigamma, so that all that is
fused with one of them is computed one number at a time. ``priorzoo bench speed-kernels`` times the
kernels of a step.
"""

import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.fx import Graph, Node

if TYPE_CHECKING:
    from torch._inductor.custom_graph_pass import CustomGraphPass

VECTORISED = (torch.float32, torch.float64)


def log1p(x: Tensor) -> Tensor:
    """log(1 + x), accurate to two units in the last place also for small x.

    With u = 1 + x rounded, log u (x / (u - 1)) corrects the rounding; the correction is Kahan's.
    """
    u = x + 1
    corrected = u.log() * (x / (u - 1))
    return torch.where(u == 1, x, torch.where(u == x, u.log(), corrected))  # u = x at infinity


def expm1(x: Tensor) -> Tensor:
    """exp(x) - 1, accurate to two units in the last place also for small x.

    With u = exp x rounded, (u - 1) (x / log u) corrects the rounding; the correction is Kahan's.
    """
    u = x.exp()
    v = u - 1
    extreme = (v == -1) | (v == u)  # at -infinity and at infinity
    return torch.where(u == 1, x, torch.where(extreme, v, v * (x / u.log())))


SHIFT = 8  # by which an argument grows before the asymptotic series


def digamma(x: Tensor) -> Tensor:
    """The derivative of log Gamma, computed in float64 for numbers in float32.

    The series of Abramowitz and Stegun, 6.3.18, at x + 8, after the recurrence 6.3.5, whose
    reciprocals are added as one fraction; below zero the reflection 6.3.7.
    """
    z = x.double()
    y = torch.where(z <= 0, 1 - z, z)
    over, under = torch.ones_like(y), y
    for step in range(1, SHIFT):
        over, under = over * (y + step) + under, under * (y + step)
    w = y + SHIFT
    u = 1 / (w * w)
    last = 1 / 132 - u * 691 / 32_760
    series = u * (1 / 12 - u * (1 / 120 - u * (1 / 252 - u * (1 / 240 - u * last))))
    found = torch.where(y > 1e8, y.log(), w.log() - 0.5 / w - series - over / under)
    below = torch.where(z == 0, z, z - z.round())  # keeps the sign of zero
    reflected = found - math.pi / (math.pi * below).tan()
    whole = (below == 0) & (z < 0)
    reflected = torch.where(whole, torch.full_like(z, math.nan), reflected)
    return torch.where(z <= 0, reflected, found).to(x.dtype)


def trigamma(x: Tensor) -> Tensor:
    """The derivative of :func:`digamma`, likewise, by 6.4.12, 6.4.6 and 6.4.7."""
    z = x.double()
    y = torch.where(z <= 0, 1 - z, z)
    found = torch.zeros_like(y)
    for step in range(SHIFT):
        found = found + 1 / ((y + step) * (y + step))
    w = y + SHIFT
    u = 1 / (w * w)
    series = 1 + 0.5 / w + u * (1 / 6 - u * (1 / 30 - u * (1 / 42 - u * (1 / 30 - u * 5 / 66))))
    found = found + series / w
    sine = (math.pi * (z - z.round())).sin()
    return torch.where(z <= 0, math.pi**2 / (sine * sine) - found, found).to(x.dtype)


FORMS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "aten.log1p.default": log1p,
    "aten.expm1.default": expm1,
}
IN_FLOAT32: Mapping[str, Callable[[Tensor], Tensor]] = {
    "aten.digamma.default": digamma,
    "aten.polygamma.default": trigamma,  # of order 1
}


def rewrite(graph: Graph) -> None:
    """Replace the operations of ``FORMS`` and ``IN_FLOAT32`` in a graph of inductor, in place."""
    for node in list(graph.nodes):
        name, value = str(node.target), node.meta.get("val")
        if node.op != "call_function" or not isinstance(value, Tensor):
            continue
        form = FORMS.get(name) if value.dtype in VECTORISED else None
        if value.dtype == torch.float32 and node.args[0] in (1, node.args[-1]):
            form = IN_FLOAT32.get(name, form)
        if form is not None:
            _replace(graph, node, form)


def _replace(graph: Graph, node: Node, form: Callable[[Tensor], Tensor]) -> None:
    from torch._guards import detect_fake_mode
    from torch._inductor.decomposition import select_decomp_table
    from torch.fx.experimental.proxy_tensor import make_fx

    operand = node.args[-1]
    assert isinstance(operand, Node)
    given = operand.meta["val"]
    if given.dtype != node.meta["val"].dtype:  # whole numbers, which become floats
        return
    copies: dict[Node, Node] = {}
    with graph.inserting_before(node), detect_fake_mode(given) or nullcontext():
        # Inductor accepts no operation at this point that it would have replaced before.
        for part in make_fx(form, select_decomp_table())(given).graph.nodes:
            if part.op == "placeholder":
                copies[part] = operand
            elif part.op == "output":
                node.replace_all_uses_with(copies[part.args[0]])
            else:
                copies[part] = graph.node_copy(part, copies.__getitem__)
    graph.erase_node(node)


@lru_cache
def rewriting() -> "CustomGraphPass":
    """The pass as inductor takes it; code that was compiled with another version is not reused."""
    from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files

    class Rewriting(CustomGraphPass):
        def __call__(self, graph: Graph) -> None:
            rewrite(graph)

        def uuid(self) -> bytes:
            return get_hash_for_files((__file__,))

    return Rewriting()
