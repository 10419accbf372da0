"""From compiled code, or from what an earlier process has kept, to the calls of a whole step."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.optim import Optimizer

from priorzoo.inference.batch import Batch
from priorzoo.inference.data.batches import Picked
from priorzoo.inference.objectives.contract import Objective
from priorzoo.inference.randomness import Stream
from priorzoo.inference.training.lowering import disagreement
from priorzoo.inference.training.native.fingerprint import fingerprint, optimiser_settings
from priorzoo.inference.training.native.kept import Kept, keep
from priorzoo.inference.training.native.player import Player
from priorzoo.inference.training.native.recording import record_calls
from priorzoo.inference.training.native.script import UnknownCallError
from priorzoo.inference.training.state import Attributes
from priorzoo.inference.training.step import Precision
from priorzoo.inference.training.tracing import Program
from priorzoo.inference.training.whole import Whole, whole_program

NAMES = ("terms", "carry", "replaced", "learnt", "natural", "replaced_again")
SAME = 1e-3  # relative error of the same computation with other roundings


def key_of(
    objective: Objective,
    optimiser: Optimizer,
    given: Batch | Picked,
    clip: float | None,
    precision: Precision,
) -> str | None:
    """The key of a compiled step, None where it cannot be kept; see :func:`fingerprint`."""
    own = given.batches if isinstance(given, Picked) else given
    names = list(own.labels), list(own.context), own.size
    transform = own.transform if isinstance(own, type(getattr(given, "batches", None))) else None
    layouts = [(tuple(t.shape), t.stride(), t.dtype, t.device) for t in given.tensors]
    about = [type(given), names, transform, layouts, given.rows, clip, precision]
    return fingerprint(objective, optimiser_settings(optimiser), about)


def played(
    run: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor], own: int
) -> Player | None:
    """The calls of a compiled step, None where they cannot be recorded.

    Args:
        run: compiled by inductor.
        inputs: on which it can be tried.
        own: number of inputs, from the first, that it may write to.
    """
    given = [*(each.clone() for each in inputs[:own]), *inputs[own:]]
    try:
        with Stream(0), torch.no_grad():
            player = Player(record_calls(run, given))
            missed = disagreement(run, player, list(inputs), own)
    except (UnknownCallError, RuntimeError, OSError, AssertionError):
        return None
    return player if missed < SAME else None


def keep_step(key: str, whole: Whole, player: Player, products: dict[str, int]) -> None:
    """Keep a step for other processes."""
    names = {name: list(getattr(whole.traced, name)) for name in NAMES}
    plan = repr(whole.updates.plan)
    keep(key, Kept(player.script, player.library, names, plan, products))


def restored(
    kept: Kept,
    objective: Objective,
    optimiser: Optimizer,
    given: Batch | Picked,
    batch: Batch,
    clip: float | None,
    precision: Precision,
) -> tuple[Whole, Player] | None:
    """A step that was kept, if it computes what the programs compute now, without compilation."""
    program = Program(objective, batch, precision)
    for name in NAMES:
        getattr(program.traced, name)[:] = kept.names[name]
    second = program.natural_step if kept.names["natural"] else None
    attributes = Attributes(objective)
    try:
        whole = whole_program(
            objective, optimiser, replace(program.traced, second=second), given, clip
        )
        if repr(whole.updates.plan) != kept.plan:
            return None
        player = Player(kept.script, kept.library)
        inputs = whole.trial(given)
        own = len(inputs) - len(given.tensors) if isinstance(given, Picked) else None
        with torch.no_grad():
            missed = disagreement(whole.graph, player, inputs, own)
    except Exception:  # of any type: the step is then compiled, which gives the reason
        return None
    finally:
        attributes.restore()
    same = all(getattr(program.traced, name) == kept.names[name] for name in NAMES)
    return (whole, player) if same and missed < SAME else None
