"""From a recorded graph to machine code, and a check of what the code computes."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.fx import GraphModule

from priorzoo.inference.failures import first_line
from priorzoo.inference.randomness import Stream
from priorzoo.inference.training.caching import use_cache
from priorzoo.inference.training.products import choose_products
from priorzoo.inference.training.rewriting import rewriting
from priorzoo.inference.training.state import UntraceableError
from priorzoo.inference.training.step import Precision

Run = Callable[..., Sequence[Tensor]]  # compiled code: tensors in, tensors out
# fallback_random: the same draws as eager code. inplace_buffers: a kernel may overwrite an input
# too early; with two threads, torch 2.15 then lost part of a mixture's gradient without an error.
# min_chunk_size: values of a kernel for each thread; with fewer it has one. All threads wait for
# the last thread, which takes milliseconds where another process has its core.
OPTIONS = {
    "fallback_random": True,
    "inplace_buffers": False,
    "cpp.min_chunk_size": 32_768,
}
TOLERANCE = {"float32": 0.01, "bf16": 0.3}  # fused kernels round to bfloat16 less often


def lower(
    graph: GraphModule,
    inputs: list[Tensor],
    precision: Precision = "float32",
    changing: int | None = None,
) -> Run:
    """Compile a graph to machine code that makes the same draws, and check its outputs.

    Args:
        graph, inputs: the graph and tensors of the shapes that it takes.
        precision: of the products, which says how much outputs may differ.
        changing: number of inputs, from the first, that it may write to; all if None.

    Raises:
        UntraceableError: if inductor cannot compile it, such as without a C++ compiler, or if the
            compiled code and the graph give different outputs for these inputs.
    """
    use_cache()
    options: dict[str, object] = dict(OPTIONS)
    if inputs[0].device.type == "cpu":
        options["post_grad_custom_post_pass"] = rewriting()
    try:
        with torch.no_grad():
            run: Run = torch._inductor.compile(choose_products(graph), [*inputs], options)
            missed = disagreement(graph, run, inputs, changing)
    except Exception as error:  # of any type: the eager step is the fallback
        reason = first_line(error)
        raise UntraceableError(f"inductor reports {reason}") from error
    if missed > TOLERANCE[precision]:
        raise UntraceableError(f"inductor's code gives gradients that are wrong by {missed:.1%}")
    return run


def disagreement(graph: Run, run: Run, inputs: list[Tensor], changing: int | None = None) -> float:
    """The largest relative error of compiled code, compared with the graph.

    Both run on copies of the inputs that they may change. The outputs are compared, and so are the
    changes of the inputs.
    """
    outputs, written = [], []
    for one in (graph, run):
        given = [each.clone() for each in inputs[:changing]]
        rest = [] if changing is None else inputs[changing:]
        with Stream(0, inputs[0].device):
            outputs.append(list(one(*given, *rest)))
        written.append(given)
    changed = [i for i, each in enumerate(written[0]) if not torch.equal(each, inputs[i])]
    errors = [_error(*outputs)]
    if changed:
        expected, found, before = ([each[i] for i in changed] for each in (*written, inputs))
        errors.append(_error(expected, found, before))
    return max(errors)


def _error(
    expected: Sequence[Tensor], found: Sequence[Tensor], before: Sequence[Tensor] | None = None
) -> float:
    """The largest relative error of a tensor, or of its change since ``before``.

    It is the norm of the difference divided by the norm of the tensor, or by a thousandth of the
    largest norm if that is more, so that rounding errors of zero do not count. Changes that are
    small beside the tensor itself have rounding errors too.
    """
    values = [each.double() for each in expected]
    errors = [(a.double() - b).norm() for a, b in zip(found, values, strict=True)]
    olds = [0.0 * each for each in values] if before is None else [b.double() for b in before]
    sizes = torch.stack([(a - b).norm() for a, b in zip(values, olds, strict=True)])
    floors = torch.stack([1e-4 * old.norm() for old in olds])
    scale = torch.maximum(sizes.clamp(min=1e-3 * sizes.max()), floors)
    return (torch.stack(errors) / scale).max().item()
