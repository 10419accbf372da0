"""A mini-batch: rows, the number of data that they stand for, and what is known beside them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

Labels = Mapping[str, Tensor]
Context = Mapping[str, Tensor]
Transform = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows of a mini-batch and what is known beside them.

    Args:
        x: rows ``(B, ...)``.
        size: number N of data that the rows stand for, each with weight N/B; None for B.
        labels: of discrete sites, each ``(B,)`` with -1 for unknown.
        context: what model and guide are told by keyword, such as an exposure, each ``(B, ...)``.
    """

    x: Tensor
    size: int | None = None
    labels: Labels = field(default_factory=dict)
    context: Context = field(default_factory=dict)

    @property
    def data(self) -> int:
        """N, the number of data that the rows stand for."""
        return len(self.x) if self.size is None else self.size

    @property
    def tensors(self) -> list[Tensor]:
        """Rows, labels and context, one after the other."""
        return [self.x, *self.labels.values(), *self.context.values()]

    @property
    def layout(self) -> tuple[object, ...]:
        """What a compiled step is made for: shapes and names."""
        return self.x.shape, tuple(self.labels), tuple(self.context), self.data

    def holding(self, tensors: list[Tensor]) -> "Batch":
        """The same names around other tensors, in the order of :attr:`tensors`."""
        x, *rest = tensors
        labels = dict(zip(self.labels, rest, strict=False))
        context = dict(zip(self.context, rest[len(labels) :], strict=True))
        return Batch(x, self.data, labels, context)

    def to(self, device: torch.device) -> "Batch":
        """On a device."""
        return self.holding([tensor.to(device) for tensor in self.tensors])

    def split(self, rows: int) -> Iterator["Batch"]:
        """Batches of at most so many rows, which together stand for the same data."""
        names = list(zip(*(tensor.split(rows) for tensor in self.tensors), strict=True))
        for parts in names:
            yield self.holding(list(parts))


def in_precision(model: nn.Module, batch: Batch, transform: Transform | None = None) -> Batch:
    """Rows and context in the precision of the model's parameters, where they are real numbers.

    With a transform of one's own (``torch.bernoulli`` apart) the rows stay as they are: what it
    makes of them is what the model sees.
    """
    numbers = [p for p in model.parameters() if p.is_floating_point()]
    own = transform is not None and transform is not torch.bernoulli

    def converted(value: Tensor) -> Tensor:
        return value.to(numbers[0].dtype) if numbers and value.is_floating_point() else value

    context = {name: converted(value) for name, value in batch.context.items()}
    return replace(batch, x=batch.x if own else converted(batch.x), context=context)
