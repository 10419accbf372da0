"""log p of rows, the same for a row wherever it stands: all rows share the same random numbers."""

import math
from collections.abc import Callable, Mapping, Sequence

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
Kind = tuple[object, ...]  # names, shapes of a row, type and device of the tensors


class LogLikelihood:
    """The importance-weighted bound on log p(x) of a trained pair, in nats, with 100 draws.

    The bound of one row is recorded as a graph at the first call, which then runs for all rows with
    the same random numbers. Pairs that cannot be recorded are run row by row.

    Args:
        model, guide: a trained pair, which does not change any more.
        seed: of the draws.
    """

    def __init__(self, model: nn.Module, guide: nn.Module, seed: int = 0) -> None:
        self.model, self.guide, self.seed = model, guide, seed
        self._pair: tuple[nn.Module, nn.Module] | None = None
        self._bounds: dict[Kind, Bound | None] = {}

    @torch.no_grad()
    def __call__(self, x: Tensor, told: Mapping[str, Tensor]) -> Tensor:
        """``(N,)``: the bound of each row.

        Args:
            x: rows ``(N, P)``.
            told: what is told beside them, each ``(N, ...)``.

        Raises:
            ValueError: for a pair with global sites.
        """
        with PROGRAM_LOCK:
            if self._pair is None:
                self._pair = next_row(*predictive(self.model, self.guide))
            with evaluating(*self._pair):
                found = self._of_portions(*self._pair, tuple(told), [x, *told.values()])
        return torch.cat(found) - math.log(SAMPLES)

    def _of_portions(
        self, story: nn.Module, encoder: nn.Module, names: tuple[str, ...], given: list[Tensor]
    ) -> list[Tensor]:
        def batch(rows: Sequence[Tensor]) -> Batch:
            return Batch(rows[0], None, {}, dict(zip(names, rows[1:], strict=True)))

        def bound(*rows: Tensor) -> Tensor:
            pair = draw_pair(story, encoder, batch(rows), SAMPLES)
            return pair.log_weights().logsumexp(0)

        kind = (names, *((each.shape[1:], each.dtype, each.device) for each in given))
        try:
            if kind not in self._bounds:
                one = [each[:1] for each in given]
                plate_depth(story, encoder, batch(one))
                self._bounds[kind] = _recorded(bound, nn.ModuleList([story, encoder]), one)
            alike = self._bounds[kind]
            if alike is not None:
                parts = zip(*(each.split(PORTION) for each in given), strict=True)
                return [self._seeded(alike, part) for part in parts]
        except (UntraceableError, RuntimeError, NotImplementedError):
            self._bounds[kind] = None
        rows = zip(*(each.split(1) for each in given), strict=True)
        return [self._seeded(bound, row) for row in rows]

    def _seeded(self, bound: Bound, rows: tuple[Tensor, ...]) -> Tensor:
        with Stream(self.seed, rows[0].device):
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
