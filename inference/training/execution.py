"""Ways to run training steps: eager, compiled, or captured, see :class:`Captured`."""

import time
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from priorzoo.inference.batch import Batch
from priorzoo.inference.data.batches import Batches, Picked
from priorzoo.inference.objectives.contract import Terms
from priorzoo.inference.training.compiled import Compiled
from priorzoo.inference.training.native.player import RECORD
from priorzoo.inference.training.watch import Trouble, Undo, Watch

Execution = Literal["eager", "compiled", "cudagraph", "auto"]
TakeStep = Callable[[Batch], Terms]
SECONDS = 0.05  # of steps without Python between them, in which no other thread runs
KEPT = 8  # orders of earlier passes, by which the rows of a batch are named


def choose(
    step: Execution, device: torch.device, in_memory: bool, shared: bool = False
) -> Execution:
    """Check ``step``, and replace ``auto`` by ``cudagraph`` if possible, otherwise ``compiled``.

    Args:
        step: how to run steps, see :class:`Training`.
        device: device of the networks.
        in_memory: whether the data are rows in memory.
        shared: whether several processes share each batch.

    Raises:
        ValueError: for an unknown name, and for ``cudagraph`` without a GPU or rows in memory.
    """
    if step not in get_args(Execution):
        raise ValueError(
            f"Expected step among {get_args(Execution)} but got {step!r}; choose one of these."
        )
    if step == "auto":
        captured = device.type == "cuda" and in_memory and not shared
        return "cudagraph" if captured else "compiled"
    if step == "cudagraph" and shared:
        raise ValueError(
            "Expected one process for step='cudagraph' but several share each batch, and what they "
            "tell each other cannot be captured; use step='compiled'."
        )
    if step == "cudagraph" and device.type != "cuda":
        raise ValueError(
            f"Expected networks on a CUDA device for step='cudagraph' but they are on {device}; "
            "move them there, or use step='compiled'."
        )
    if step == "cudagraph" and not in_memory:
        raise ValueError(
            "Expected rows in memory for step='cudagraph' but got an iterable of batches; give a "
            "tensor, or use step='compiled'."
        )
    return step


class Steps:
    """Each call takes one step, and adds its terms to sums on the device.

    Args:
        descend: takes one gradient step on a batch, and returns the batch means of the terms.
        batches: the batches to use.
        watch: finds steps with NaN or infinity.
        undo: undoes these, if they are to be skipped.
    """

    def __init__(
        self, descend: TakeStep, batches: Batches, watch: Watch, undo: Undo | None = None
    ) -> None:
        self.descend, self.batches, self.watch, self.undo = descend, batches, watch, undo
        self.names: list[str] = []
        self.sums, self.count = torch.empty(0), 0
        self._orders: list[tuple[int, Tensor]] = []  # of passes, each with its first step

    def __call__(self) -> None:
        self._take(next(self.batches))
        self._note_order()
        self.count += 1

    def take(self, limit: int) -> int:
        """Take at least one step and at most ``limit``; returns how many."""
        self()
        return 1

    def means(self, skipped: int = 0) -> dict[str, float]:
        """Means of the terms since the last call, with one host synchronisation.

        There are none if all steps since then were skipped.

        Raises:
            ValueError: if a batch on a GPU since then was not accepted.
        """
        refused = self.batches.checked.refused[None].to(self.sums)
        taken = max(self.count - skipped, 1)
        *means, wrong = torch.cat([self.sums / taken, refused]).tolist()
        if wrong:
            raise ValueError(
                f"Expected batches that the likelihood accepts but one of the last {self.count} "
                "had NaN, infinity or values outside its support; check what the iterable gives, "
                "or give batches on the CPU, of which the first wrong value is named."
            )
        none_left = self.count == skipped
        self.sums.zero_()
        self.watch.clear()
        self.count, self._orders = 0, [(0, order) for _, order in self._orders[-1:]]
        return {} if none_left else dict(zip(self.names, means, strict=True))

    def trouble(self) -> Trouble | None:
        """The first step since the last :meth:`means` that was not finite."""
        return self.watch.trouble()

    def rows_of(self, after: int, place: int) -> list[int]:
        """The rows of a batch since the last row of the history; none if they are not known.

        Args:
            after: number of steps since then before that of the batch.
            place: number of batches of the same pass before it.
        """
        found = [order for begun, order in self._orders if begun <= after]
        rows = self.batches.batch_size
        return found[-1][place * rows : (place + 1) * rows].tolist() if found else []

    def state(self) -> dict[str, Any]:
        """The sums since the last :meth:`means`, and what the watch found."""
        own = {"names": self.names, "sums": self.sums, "count": self.count}
        orders = [[begun, order] for begun, order in self._orders]
        return own | {"watch": self.watch.state(), "orders": orders}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a :meth:`state`."""
        self.reset()
        self.names, self.count = state["names"], state["count"]
        self.sums = state["sums"].to(self.batches.device, copy=True)
        device = self.batches.order.device
        self._orders = [(begun, order.to(device)) for begun, order in state.get("orders", ())]
        if "watch" in state:
            self.watch.restore(state["watch"], self.batches.device)

    def reset(self) -> None:
        """Drop the captured graph, if any, after a :meth:`Training.restore`."""

    def _take(self, given: Batch | Picked) -> None:
        if self.undo is None:
            self._add(*self._descend(given))
            return
        self.undo.keep()
        self.undo.unless(self._add(*self._descend(given)))

    def _descend(self, given: Batch | Picked) -> tuple[list[str], Tensor, Tensor]:
        """Take a step; returns the terms' names and means, and what of the step was finite."""
        terms = self.descend(given.batch)
        names, means = list(terms), torch.stack(list(terms.values()))
        return names, means, self.watch.take(names, means)

    def _add(self, names: list[str], found: Tensor, finite: Tensor) -> Tensor:
        """Add up terms; returns whether the step was finite, on the device."""
        if not self.names:
            self.names, self.sums = names, torch.zeros_like(found)
        if self.undo is not None:
            finite = finite.all()
            found = torch.where(finite, found, torch.zeros_like(found))
        self.sums += found
        return finite

    def _note_order(self) -> None:
        order = self.batches.order
        if len(order) and not (self._orders and self._orders[-1][1] is order):
            self._orders = [*self._orders[-KEPT:], (self.count, order)]


class Recorded(Steps):
    """Steps of a :class:`Compiled`, which gathers and transforms rows in memory if it can.

    Args:
        descend, batches, watch, undo: as in :class:`Steps`.
    """

    def __init__(
        self, descend: Compiled, batches: Batches, watch: Watch, undo: Undo | None = None
    ) -> None:
        super().__init__(descend, batches, watch, undo)
        self.descend: Compiled = descend
        self.seconds = SECONDS  # of the last step
        self.device = batches.device.type

    @property
    def picks(self) -> bool:
        """Whether rows are gathered within the compiled step."""
        return self.device == "cpu" and self.batches.can_pick

    def __call__(self) -> None:
        self._take(self.batches.pick() if self.picks else next(self.batches))
        self._note_order()
        self.count += 1

    def take(self, limit: int) -> int:
        """Take steps without Python between them, if they can be, for up to ``SECONDS``."""
        begun = time.perf_counter()
        count = self._ahead(min(limit, 1 + int(SECONDS / self.seconds)))
        if count < 2:
            self()
            count = 1
        else:
            first = self.batches.pick(count)
            self._note_order()
            self.descend.repeat(first, count, self.sums)
            self.count += count
        self.seconds = (time.perf_counter() - begun) / count
        return count

    def _ahead(self, limit: int) -> int:
        """The number of steps that can be taken at once."""
        count = self.batches.count_whole(limit) if limit > 1 and self.names and self.picks else 1
        layout = "picked", self.batches.batch_size
        ready = count > 1 and self.undo is None and self.sums.dtype in RECORD
        return count if ready and self.descend.can_repeat(layout) else 1

    def _descend(self, given: Batch | Picked) -> tuple[list[str], Tensor, Tensor]:
        means, finite = self.descend.step(given)
        return self.descend.names, means, finite
