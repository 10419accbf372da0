"""log p of rows, the same for a row wherever it stands: all rows share the same random numbers."""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from priorzoo.inference import Stream, predictive
from priorzoo.inference.batch import Batch
from priorzoo.inference.nggp.predictive import next_row
from priorzoo.inference.objectives.draws import draw_pair
from priorzoo.inference.pairs import plate_depth
from priorzoo.inference.running import PROGRAM_LOCK
from priorzoo.inference.sites import evaluating
from priorzoo.inference.training.state import State, UntraceableError, state_of
from priorzoo.inference.training.tracing import record

SAMPLES = 100
PORTION = 200  # rows at a time
Bound = Callable[..., Tensor]


@torch.no_grad()
def log_likelihood(
    model: nn.Module, guide: nn.Module, x: Tensor, told: Mapping[str, Tensor], seed: int = 0
) -> Tensor:
    """``(N,)``: the importance-weighted bound on log p(x), in nats, with 100 draws.

    The bound of one row is recorded as a graph, which runs for all rows with the same random
    numbers. Pairs that cannot be recorded are run row by row.

    Args:
        model, guide: a trained pair.
        x: rows ``(N, P)``.
        told: what is told beside them, each ``(N, ...)``.
        seed: of the draws.

    Raises:
        ValueError: for a pair with global sites.
    """
    story, encoder = next_row(*predictive(model, guide))

    def bound(*rows: Tensor) -> Tensor:
        batch = Batch(rows[0], None, {}, dict(zip(told, rows[1:], strict=True)))
        return draw_pair(story, encoder, batch, SAMPLES).log_weights().logsumexp(0)

    given = [x, *told.values()]
    parts = list(zip(*(each.split(PORTION) for each in given), strict=True))
    with PROGRAM_LOCK, evaluating(story, encoder):
        plate_depth(story, encoder, Batch(x[:1], None, {}, {k: v[:1] for k, v in told.items()}))
        try:
            alike = _recorded(bound, nn.ModuleList([story, encoder]), [g[:1] for g in given])
            found = [_seeded(alike, part, seed) for part in parts]
        except (UntraceableError, RuntimeError, NotImplementedError):
            rows = zip(*(each.split(1) for each in given), strict=True)
            found = [_seeded(bound, row, seed) for row in rows]
    return torch.cat(found) - math.log(SAMPLES)


def _seeded(bound: Bound, rows: tuple[Tensor, ...], seed: int) -> Tensor:
    with Stream(seed, rows[0].device):
        return bound(*rows)


def _recorded(bound: Bound, pair: nn.Module, one: list[Tensor]) -> Bound:
    """The bound of one row, as a function of many that share the random numbers."""

    def step(*row: Tensor) -> list[Tensor]:
        return [bound(*row)]

    with State(pair).replaced_by({k: v.detach() for k, v in state_of(pair).items()}):
        graph = record(step, one)

    def of_row(*row: Tensor) -> Tensor:
        return graph(*(each.unsqueeze(0) for each in row))[0].squeeze(0)

    return torch.func.vmap(of_row, randomness="same")
