"""An endless iterator of batches on the device, from rows in memory or from an iterable."""

import math
from collections.abc import Iterator, Sized
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TypedDict, final

import torch
from torch import Tensor, nn

from priorzoo.inference.batch import Batch, Context, Labels, Transform, binarises
from priorzoo.inference.data.pixels import Pixels
from priorzoo.inference.data.stored.passes import StoredPosition
from priorzoo.inference.data.stored.rows import StoredRows
from priorzoo.inference.data.streams import CheckedBatches, Iterables, check_size
from priorzoo.inference.data.tensors import FOREIGN
from priorzoo.inference.failures import first_line
from priorzoo.inference.processes import ALONE, Processes


@final
class Position(TypedDict):
    """The position in a pass over rows in memory: the permutation and the next row."""

    order: Tensor
    place: int


class Batches:
    """Endless passes over the data; each pass over rows in memory has a new random order.

    A batch of an iterable is a tensor of rows, alone or in a sequence of one, or a mapping with the
    rows under ``x`` and context under the names of the programs' keyword arguments. A second tensor
    without a name is refused, since its meaning is unknown. Each batch of an iterable is converted
    and checked, see :class:`CheckedBatches`.

    Args:
        model: its likelihood says which rows it accepts.
        data: rows ``(N, P)``, or any iterable of batches, which keeps its own order.
        labels: labels ``(N,)`` of discrete sites, with -1 for unknown, for rows in memory.
        context: keyword arguments of the programs, each ``(N, ...)``, for rows in memory.
        batch_size: rows in a batch if ``data`` is a tensor; the last of a pass may be smaller.
        size: number N of data in the data set, required for an iterable of batches; of rows in
            memory, the sum of their weights, or their number if None.
        transform: applied to each batch.
        device: device of the batches.
        processes: those that share each batch. All draw and transform it, and keep their own rows.
    """

    def __init__(
        self,
        model: nn.Module,
        data: Tensor | Iterables,
        labels: Labels,
        context: Context,
        batch_size: int,
        size: int | None,
        transform: Transform | None,
        device: torch.device,
        processes: Processes = ALONE,
    ) -> None:
        self.processes = processes
        self.data, self.batch_size = data, batch_size
        self.transform, self.device = transform, device
        self.labels = {name: label.to(device) for name, label in labels.items()}
        self.context = {name: value.to(device) for name, value in context.items()}
        self.rows, self.epoch = self._extent(size)
        self.size = self.rows if size is None else size
        self.order, self.place = torch.empty(0, dtype=torch.int64), 0
        self._rest: Iterator[object] = iter(())
        self._passes = data.passes() if isinstance(data, StoredRows) else None
        self.checked = CheckedBatches(model, transform, device)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if self._passes is not None:
            return self._part(
                self._passes.rows.checked(
                    next(self._passes), lambda batch: self.checked(batch, self.size)
                )
            )
        if not isinstance(self.data, Tensor):
            return self._part(self.checked(self._read(), self.size))
        place, rows = self.advance()
        return self._part(self.gather(self.order[place : place + rows]))

    def advance(self) -> tuple[int, int]:
        """Go to the next batch of rows in memory; returns its start in ``order`` and its size."""
        assert isinstance(self.data, Tensor)
        if self.place >= len(self.order):
            self.processes.level_random_state(self.device)  # so that all have the same order
            self.order, self.place = torch.randperm(len(self.data), device=self.data.device), 0
        place = self.place
        self.place += self.batch_size
        return place, min(self.batch_size, len(self.order) - place)

    def gather(self, index: Tensor) -> Batch:
        """The batch of the rows at an index, transformed, with their labels and context."""
        assert isinstance(self.data, Tensor)
        labels = {name: label[index] for name, label in self.labels.items()}
        context = {name: value[index] for name, value in self.context.items()}
        return self._finish(Batch(self.data[index], self.size, labels, context))

    @property
    def can_pick(self) -> bool:
        """Whether a recorded step can gather and transform the rows itself.

        A transform of one's own is not recorded, since it may depend on more than its rows.
        """
        known = self.transform is None or binarises(self.transform)
        here = isinstance(self.data, Tensor) and self.data.device == self.device
        alone = self.processes.count == 1
        return here and alone and (known or type(self.transform) is Pixels)

    def count_whole(self, limit: int) -> int:
        """How many of the next batches, at most ``limit``, are of one pass and of full size."""
        left = len(self.order) - self.place
        return min(limit, (left if left > 0 else self.rows) // self.batch_size)

    def pick(self, count: int = 1) -> "Picked":
        """The next batch of rows in memory, not gathered yet; the first of ``count`` whole ones."""
        place, rows = self.advance()
        self.place += (count - 1) * self.batch_size
        return Picked(self, self.order[place : place + rows])

    def first(self, rows: int) -> Batch | None:
        """The first rows of the data as a batch; None for an iterable, which may have one pass."""
        if self._passes is not None:
            return self.checked(self._passes.rows.first(rows).batch, self.size)
        if not isinstance(self.data, Tensor):
            return None
        return self.gather(torch.arange(min(rows, len(self.data)), device=self.data.device))

    @property
    def labelled(self) -> list[str]:
        """The sites whose labels are given."""
        return list(self.data.labels if isinstance(self.data, StoredRows) else self.labels)

    @property
    def resumable(self) -> bool:
        """Whether there is a :meth:`state`."""
        return isinstance(self.data, (Tensor, StoredRows))

    @property
    def last(self) -> int:
        """Number of rows in the last batch of a pass, as far as known: 0 if it is like the others.

        An iterable may have a ``batch_size`` and ``drop_last``, as a ``DataLoader`` has.
        """
        each = self.batch_size if isinstance(self.data, Tensor) else self._each()
        return 0 if each is None or self.rows < each else self.rows % each

    def _each(self) -> int | None:
        each = getattr(self.data, "batch_size", None)
        return (
            each if isinstance(each, int) and not getattr(self.data, "drop_last", False) else None
        )

    def state(self) -> Position | StoredPosition:
        """The position in the current pass.

        Raises:
            ValueError: for another iterable than :class:`StoredRows`, which cannot be resumed in
                the middle of a pass.
        """
        if self._passes is not None:
            return self._passes.state()
        if not self.resumable:
            raise ValueError(
                "Expected rows in memory or StoredRows to resume from but got another iterable."
            )
        return {"order": self.order, "place": self.place}

    def restore(self, state: Position | StoredPosition) -> None:
        """Continue from a position that :meth:`state` returned.

        Raises:
            ValueError: for a position in data of another kind.
        """
        if "number" in state and self._passes is not None:
            self._passes.restore(state)
        elif "order" in state and self._passes is None:
            self.order, self.place = state["order"].to(self.order.device), state["place"]
        else:
            raise ValueError(
                f"Expected a position in {type(self.data).__name__} but got one in data of another "
                "kind; resume with the data of the training."
            )

    def _part(self, batch: Batch) -> Batch:
        return batch.part(self.processes.share(len(batch.x)))

    def _finish(self, batch: Batch) -> Batch:
        x = batch.x.to(self.device, non_blocking=True)
        return replace(batch, x=x if self.transform is None else self.transform(x))

    def _read(self) -> object:
        try:
            for _ in range(2):
                for batch in self._rest:
                    return batch
                self._rest = iter(self.data)
        except FOREIGN as error:
            reason = first_line(error)
            raise ValueError(
                f"Expected batches from {type(self.data).__name__} but it failed: {reason}; give "
                "one whose items are rows, or mappings with the rows under x."
            ) from error
        raise ValueError(
            "Expected batches in every pass but got none; give a list or a DataLoader, not an "
            "iterator that can be used only once."
        )

    def _extent(self, size: int | None) -> tuple[int, int]:
        """Number of rows, and number of steps in one pass over them."""
        if isinstance(self.data, Tensor):
            return len(self.data), math.ceil(len(self.data) / self.batch_size)
        size = check_size(size)
        if isinstance(self.data, Sized):
            with suppress(TypeError):  # a loader of an IterableDataset has no length
                return size, max(1, len(self.data))
        return size, math.ceil(size / self.batch_size)


@dataclass(frozen=True, eq=False)
class Picked:
    """A batch of rows in memory by their index, which a recorded step gathers and transforms.

    Args:
        batches: gives rows, labels and context.
        index: places of the rows ``(B,)``.
    """

    batches: Batches
    index: Tensor

    @property
    def tensors(self) -> list[Tensor]:
        """All rows, labels and context, and the index."""
        own = self.batches
        assert isinstance(own.data, Tensor)
        return [own.data, *own.labels.values(), *own.context.values(), self.index]

    @property
    def rows(self) -> int:
        """Number of rows in the batch."""
        return len(self.index)

    @property
    def layout(self) -> tuple[object, ...]:
        """What a recorded step is specific to."""
        return "picked", len(self.index)

    def with_tensors(self, tensors: list[Tensor]) -> Batch:
        """The batch that tensors in the order of :attr:`tensors` make."""
        own, (data, *beside, index) = self.batches, tensors
        labels = {name: beside[i][index] for i, name in enumerate(own.labels)}
        values = beside[len(labels) :]
        context = {name: values[i][index] for i, name in enumerate(own.context)}
        x = data[index]
        return Batch(x if own.transform is None else own.transform(x), own.size, labels, context)

    @property
    def batch(self) -> Batch:
        """The batch, gathered and transformed."""
        return self.batches.gather(self.index)
