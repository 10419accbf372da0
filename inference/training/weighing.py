"""The importance weights of a batch as one compiled graph."""

import pyro
import torch
from torch import Tensor, nn

from priorzoo.inference.batch import Batch
from priorzoo.inference.bounds import Weigh, log_sums
from priorzoo.inference.running import PROGRAM_LOCK
from priorzoo.inference.training.lowering import lower
from priorzoo.inference.training.state import State, UntraceableError
from priorzoo.inference.training.tracing import record


def compile_weights(model: nn.Module, guide: nn.Module, batch: Batch, samples: int) -> Weigh:
    """What gives :func:`log_sums` of batches of this layout, with the same draws.

    Programs that cannot be traced or compiled are run as they are.
    """

    def eager(given: Batch) -> Tensor:
        return log_sums(model, guide, given, samples)

    state = State(nn.ModuleList((model, guide)))

    def weigh(*inputs: Tensor) -> tuple[Tensor, ...]:
        values = dict(zip(state.tensors, inputs, strict=False))
        with state.replaced_by(values) as replaced, pyro.validation_enabled(False):
            found = log_sums(model, guide, batch.with_tensors([*inputs[len(values) :]]), samples)
        if replaced:
            raise UntraceableError("its modules change buffers in a call")
        return (found,)

    inputs = [tensor.detach() for tensor in state.tensors.values()]
    try:
        with PROGRAM_LOCK, torch.no_grad():
            run = lower(record(weigh, [*inputs, *batch.tensors]), [*inputs, *batch.tensors])
    except UntraceableError:
        return eager

    def compiled(given: Batch) -> Tensor:
        with PROGRAM_LOCK, torch.no_grad():
            (found,) = run(*inputs, *given.tensors)
        return found

    return compiled
