"""Training steps as one CUDA graph."""

import torch
from torch import Tensor

from priorzoo.inference.data.batches import Batches
from priorzoo.inference.training.compiled import Compiled
from priorzoo.inference.training.execution import Recorded
from priorzoo.inference.training.watch import Undo, Watch


class Captured(Recorded):
    """Steps on a GPU as one CUDA graph that is captured once and replayed.

    The graph gathers the rows of a batch, transforms them, computes loss and gradients, clips them,
    runs the optimiser, counts the step for schedules and adds up the terms. The first steps are run
    without capture on a side stream, since libraries and optimisers allocate memory on first use;
    they count as training steps. Batches of another size, such as the last of a pass, are run in
    the same way. Random operations make new draws at each replay, from the :class:`Stream`.

    Args:
        descend, batches: as in :class:`Steps`; the data must be rows in memory on the GPU.
    """

    WARM_UP = 3

    def __init__(
        self, descend: Compiled, batches: Batches, watch: Watch, undo: Undo | None = None
    ) -> None:
        super().__init__(descend, batches, watch, undo)
        self.rows = min(batches.batch_size, batches.rows)
        self.order = torch.empty(batches.rows, dtype=torch.int64, device=batches.device)
        self.start = torch.zeros((), dtype=torch.int64, device=batches.device)
        self.side = torch.cuda.Stream(batches.device)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._latest: Tensor | None = None
        self._taken = 0

    def take(self, limit: int) -> int:
        """Take one step; a captured graph needs no Python within it."""
        self()
        return 1

    def __call__(self) -> None:
        place, rows = self.batches.advance()
        if self._latest is not self.batches.order:
            self._latest = self.batches.order
            self.order.copy_(self.batches.order)
            self.start.fill_(place)
        if rows != self.rows or self._graph is None:
            self._warm_up_or_capture(rows)
        else:
            self.descend.restore_tensors()
            self._graph.replay()
        self._note_order()
        self.count += 1

    def reset(self) -> None:
        self._graph, self._latest, self._taken = None, None, 0

    def _warm_up_or_capture(self, rows: int) -> None:
        if rows == self.rows and self._taken == self.WARM_UP and self._can_be_captured():
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph, stream=self.side):
                self._gather_and_take(rows)
            self._graph.replay()  # a capture only records the operations
            return
        self.side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.side):
            self._gather_and_take(rows)
        torch.cuda.current_stream().wait_stream(self.side)
        self._taken = min(self._taken + (rows == self.rows), self.WARM_UP)

    def _gather_and_take(self, rows: int) -> None:
        index = self.order[self.start + torch.arange(rows, device=self.order.device)]
        self.start += rows
        self._take(self.batches.gather(index))

    def _can_be_captured(self) -> bool:
        return not self.descend.reason
