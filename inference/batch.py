"""A mini-batch: rows, their labels and context, and the size of the data set."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from priorzoo.inference.shares import Share
from priorzoo.models.contract import WEIGHTS

Labels = Mapping[str, Tensor]
Context = Mapping[str, Tensor]
Transform = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows of a mini-batch with their labels and context.

    Args:
        x: rows ``(B, ...)``.
        size: number N of data in the data set, so that each row has weight N/B; B if None.
        labels: labels of discrete sites, each ``(B,)`` with -1 for unknown.
        context: keyword arguments of model and guide, such as an exposure, each ``(B, ...)``. Its
            ``weights``, ``(B,)`` with mean 1 over the data set, are not told to them: they multiply
            each row's part of the bound.
        share: where several processes share a batch, which of its rows these are.
    """

    x: Tensor
    size: int | None = None
    labels: Labels = field(default_factory=dict)
    context: Context = field(default_factory=dict)
    share: Share | None = None

    @property
    def rows(self) -> int:
        """Number of rows in the batch, of all processes that share it."""
        return len(self.x) if self.share is None else self.share.whole

    @property
    def data(self) -> int:
        """N, the number of data in the data set."""
        return len(self.x) if self.size is None else self.size

    def weighted(self, term: Tensor) -> Tensor:
        """Values ``(B, ...)`` of the rows times their weights, if there are any."""
        weights = self.context.get(WEIGHTS)
        if weights is None:
            return term
        return term * weights.reshape(-1, *[1] * (term.dim() - 1)).to(term.dtype)

    def counted(self) -> "Batch":
        """All rows of a data set, with N as the sum of their weights, which then have mean 1.

        N is rounded to a whole number. A row of weight w counts as w rows.
        """
        weights = self.context.get(WEIGHTS)
        if weights is None:
            return self
        data = max(1, round(float(weights.sum())))
        relative = weights * (len(self.x) / data)
        return replace(self, size=data, context={**self.context, WEIGHTS: relative})

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors of rows, labels and context in this order."""
        return [self.x, *self.labels.values(), *self.context.values()]

    @property
    def batch(self) -> "Batch":
        """The batch itself; other batches must be gathered first."""
        return self

    @property
    def layout(self) -> tuple[object, ...]:
        """The shapes and names that a compiled step is specific to."""
        return self.x.shape, tuple(self.labels), tuple(self.context), self.data, self.share

    def with_tensors(self, tensors: list[Tensor]) -> "Batch":
        """A batch of the same names with other tensors, in the order of :attr:`tensors`."""
        x, *rest = tensors
        labels = dict(zip(self.labels, rest, strict=False))
        context = dict(zip(self.context, rest[len(labels) :], strict=True))
        return Batch(x, self.data, labels, context, self.share)

    def part(self, share: Share | None) -> "Batch":
        """The rows that one of several processes has; all without a share."""
        if share is None:
            return self
        own = self.with_tensors([share.own(tensor) for tensor in self.tensors])
        return replace(own, share=share)

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device."""
        return self.with_tensors([tensor.to(device) for tensor in self.tensors])

    def split(self, rows: int) -> Iterator["Batch"]:
        """Divide the batch into batches of at most ``rows`` rows, each with the same N."""
        names = list(zip(*(tensor.split(rows) for tensor in self.tensors), strict=True))
        for parts in names:
            yield self.with_tensors(list(parts))


def binarised(x: Tensor) -> Tensor:
    """Draw 1 with the probability x in [0, 1] and 0 otherwise; new values at every call.

    As a transform it gives dynamic binarisation. It is faster than ``torch.bernoulli``, and draws
    other values of the same distribution under the same seed. Values outside [0, 1] are not
    refused here; the functions that take a transform check them before.
    """
    # In half precision there are too few different random numbers for small probabilities.
    kind = torch.promote_types(x.dtype, torch.float32)
    return (torch.rand_like(x, dtype=kind) < x).to(x.dtype)


def binarises(transform: Transform | None) -> bool:
    """Whether a transform is one of those that draw a binary value with each probability."""
    return transform is binarised or transform is torch.bernoulli


def in_precision(model: nn.Module, batch: Batch, transform: Transform | None = None) -> Batch:
    """Convert floating-point rows and context to the dtype of the model's parameters.

    With a transform that does not binarise the rows are not converted, since the transform decides
    the dtype that the model gets. Programs without parameters, such as functions, get rows
    as they are.
    """
    parameters: Iterable[Tensor] = getattr(model, "parameters", list)()
    weight = next((p for p in parameters if p.is_floating_point()), None)
    own = transform is not None and not binarises(transform)

    def converted(value: Tensor) -> Tensor:
        if weight is None or not value.is_floating_point():
            return value
        return value.to(weight.dtype)

    context = {name: converted(value) for name, value in batch.context.items()}
    return replace(batch, x=batch.x if own else converted(batch.x), context=context)
