"""The share that one of several processes has of a batch, and what the processes add up.

A step of R processes is the step that one process takes with the whole batch: each runs the
programs on its own rows, with random numbers that are drawn for the whole batch by all of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Gradient = Tensor | None


@dataclass(frozen=True)
class Share:
    """The rows of a batch that a process has.

    A process for which the batch has no row runs the programs on one that is not its own, with
    weight 0.

    Args:
        start, count: the first row, and their number.
        whole: rows of the whole batch.
        group: name of the process group.
    """

    start: int
    count: int
    whole: int
    group: str

    @classmethod
    def of(cls, whole: int, rank: int, processes: int, group: str) -> "Share":
        """The share of a process in a batch of ``whole`` rows; shares differ by at most one row."""
        start, stop = (whole * place // processes for place in (rank, rank + 1))
        return cls(start, stop - start, whole, group)

    @property
    def rows(self) -> int:
        """Rows on which the process runs the programs, at least one."""
        return max(self.count, 1)

    @property
    def weight(self) -> float:
        """Of a mean over the process's rows in that over the whole batch."""
        return self.count / self.whole

    def own(self, values: Tensor, dim: int = 0) -> Tensor:
        """The process's rows of those of the whole batch."""
        return values.narrow(dim, min(self.start, self.whole - self.rows), self.rows)

    def every(self, values: Tensor, dim: int = 0) -> Tensor:
        """The rows of all processes, each of which has its own in ``values``; differentiable."""
        rest = self.whole - self.start - self.count
        shape = list(values.shape)
        parts = [values.narrow(dim, 0, self.count)]
        for place, rows in ((0, self.start), (2, rest)):
            shape[dim] = rows
            parts.insert(place, values.new_zeros(shape))
        return self.total(torch.cat(parts, dim))

    def total(self, values: Tensor) -> Tensor:
        """The sum over all processes; its gradient is the sum of their gradients."""
        return _Total.apply(values, self.group)

    def mean(self, value: Tensor) -> Tensor:
        """The mean over the whole batch, from those over each process's rows; differentiable."""
        return self.total(value * self.weight)

    def carried(self, carry: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the whole batch carries, from what each process's rows do.

        Values of rows, whose first dimension is a multiple of their number, are put together, and
        real numbers are averaged.
        """
        return {name: self._carried(value) for name, value in carry.items()}

    def _carried(self, value: Tensor) -> Tensor:
        if value.dim():
            rows = value.reshape(-1, self.rows, *value.shape[1:])
            return self.every(rows, 1).flatten(0, 1)
        return self.mean(value) if value.is_floating_point() else value

    def summed(
        self, gradients: Sequence[Gradient], means: Mapping[str, Tensor]
    ) -> tuple[list[Gradient], dict[str, Tensor]]:
        """Gradients and terms of the whole batch, in one message for each dtype.

        Args:
            gradients: of the process's loss times its weight.
            means: of the terms over the process's rows.
        """
        there = [gradient for gradient in gradients if gradient is not None]
        added = iter(self._added([*there, *(mean * self.weight for mean in means.values())]))
        whole = [None if gradient is None else next(added) for gradient in gradients]
        return whole, dict(zip(means, added, strict=True))

    def _added(self, values: Sequence[Tensor]) -> list[Tensor]:
        found: dict[int, Tensor] = {}
        for kind in dict.fromkeys(value.dtype for value in values):
            places = [place for place, value in enumerate(values) if value.dtype == kind]
            alike = [values[place] for place in places]
            message = self.total(torch.cat([value.reshape(-1) for value in alike]))
            parts = message.split([value.numel() for value in alike])
            shaped = (part.view_as(value) for part, value in zip(parts, alike, strict=True))
            found |= dict(zip(places, shaped, strict=True))
        return [found[place] for place in range(len(values))]


class _Total(torch.autograd.Function):
    """A sum over processes that graphs can record, unlike those of ``torch.distributed.nn``."""

    @staticmethod
    def forward(ctx: "_Context", values: Tensor, group: str) -> Tensor:
        ctx.group = group
        return _add(values, group)

    @staticmethod
    def backward(ctx: "_Context", gradient: Tensor) -> tuple[Tensor, None]:
        return _add(gradient, ctx.group), None


class _Context(torch.autograd.function.FunctionCtx):
    group: str


def _add(values: Tensor, group: str) -> Tensor:
    collectives = torch.ops._c10d_functional
    return collectives.wait_tensor(collectives.all_reduce(values.contiguous(), "sum", group))
