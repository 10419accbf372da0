"""Batches without end, on the device, from rows in memory or from an iterable."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from priorzoo.inference.pairs import Labels, Transform

Iterables = Iterable[Tensor | tuple[Tensor, ...] | list[Tensor]]


class Pixels:
    """A transform of bytes 0 to 255 to grey values in [0, 1], or to a Bernoulli draw of them.

    Rows kept as bytes take a quarter of the memory, and are widened a batch at a time.

    Args:
        binarise: whether to draw, anew at every use.
    """

    def __init__(self, binarise: bool = False) -> None:
        self.binarise = binarise

    def __call__(self, x: Tensor) -> Tensor:
        grey = x.to(torch.get_default_dtype()) / 255
        return torch.bernoulli(grey) if self.binarise else grey


class Order:
    """Takes every row once in each pass; rows in memory in a new random order each time.

    Args:
        data: rows ``(N, P)``, or any iterable of batches, taken in its own order.
        labels: ``(N,)`` of discrete sites, with -1 for unknown, for rows in memory.
        batch_size: rows a batch, where ``data`` is a tensor; the last of a pass may be smaller.
        size: number N of data that an iterable of batches stands for, and needs.
        transform: applied to each batch.
        device: of the batches.
    """

    def __init__(
        self,
        data: Tensor | Iterables,
        labels: Labels,
        batch_size: int,
        size: int | None,
        transform: Transform | None,
        device: torch.device,
    ) -> None:
        self.data, self.batch_size = data, batch_size
        self.transform, self.device = transform, device
        self.labels = {name: label.to(device) for name, label in labels.items()}
        self.size, self.epoch = self._extent(size)
        self.order, self.place = torch.empty(0, dtype=torch.int64), 0
        self._rest: Iterator[Any] = iter(())

    def __iter__(self) -> Iterator[tuple[Tensor, Labels]]:
        return self

    def __next__(self) -> tuple[Tensor, Labels]:
        if not isinstance(self.data, Tensor):
            return self._finish(self._read()), {}
        place, rows = self.advance()
        return self.gather(self.order[place : place + rows])

    def advance(self) -> tuple[int, int]:
        """Pass to the next batch of rows in memory: its place in ``order`` and its number."""
        assert isinstance(self.data, Tensor)
        if self.place >= len(self.order):
            self.order, self.place = torch.randperm(len(self.data), device=self.data.device), 0
        place = self.place
        self.place += self.batch_size
        return place, min(self.batch_size, len(self.order) - place)

    def gather(self, index: Tensor) -> tuple[Tensor, Labels]:
        """The rows of an index, transformed, and their labels."""
        assert isinstance(self.data, Tensor)
        labels = {name: label[index] for name, label in self.labels.items()}
        return self._finish(self.data[index]), labels

    def state(self) -> dict[str, Any]:
        """Where the pass stands.

        Raises:
            ValueError: for an iterable, which cannot be taken up in the middle.
        """
        if not isinstance(self.data, Tensor):
            raise ValueError("Expected rows in memory to resume from but got an iterable.")
        return {"order": self.order, "place": self.place}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from where :meth:`state` was taken."""
        self.order, self.place = state["order"].to(self.order.device), state["place"]

    def _finish(self, x: Tensor) -> Tensor:
        x = x.to(self.device, non_blocking=True)
        return x if self.transform is None else self.transform(x)

    def _read(self) -> Tensor:
        for _ in range(2):
            for batch in self._rest:
                return batch if isinstance(batch, Tensor) else batch[0]
            self._rest = iter(self.data)
        raise ValueError(
            "Expected batches in every pass but got none; give a list or a DataLoader, not an "
            "iterator that runs out."
        )

    def _extent(self, size: int | None) -> tuple[int, int]:
        """Number of data, and of steps in one pass over them."""
        if isinstance(self.data, Tensor):
            return len(self.data), math.ceil(len(self.data) / self.batch_size)
        if size is None:
            raise ValueError("Expected the size of the data with iterable batches; give size=N.")
        length = getattr(self.data, "__len__", None)
        return size, length() if length else math.ceil(size / self.batch_size)
