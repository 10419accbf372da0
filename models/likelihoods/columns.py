"""The likelihood of a table: one likelihood for each column, over one decoder."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor, nn

from priorzoo.models.inlets import Feature
from priorzoo.models.joining import side_by_side
from priorzoo.models.observation import average, cells, doubt, marginal, told


class Layout(NamedTuple):
    """Which columns of x belong to which part.

    Args:
        sizes: number of columns of each part.
        order: ``(P,)`` columns of the first part, then those of the second, and so on; None if that
            is their order in x.
        back: ``(P,)`` place of each column in that order; None likewise.
    """

    sizes: list[int]
    order: Tensor | None
    back: Tensor | None

    def split(self, value: Tensor) -> Sequence[Tensor]:
        """The columns of each part, from ``(..., P)``."""
        ordered = value if self.order is None else value.index_select(-1, self.order)
        return ordered.split(self.sizes, -1)

    def join(self, pieces: Sequence[Tensor]) -> Tensor:
        """``(..., P)`` from the columns of each part."""
        whole = side_by_side(pieces)
        return whole if self.back is None else whole.index_select(-1, self.back)


class OfColumns(constraints.Constraint):
    """Values whose columns are each in the support of their part; ``check`` is for each cell."""

    def __init__(self, parts: Sequence[TorchDistribution], layout: Layout) -> None:
        self.layout = layout
        found = (cast(constraints.Constraint, part.support) for part in parts)
        self.constraints = [cells(each) for each in found]
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        pieces = zip(self.constraints, self.layout.split(value), strict=True)
        return self.layout.join([each.check(piece) for each, piece in pieces])

    def of(self, column: int) -> constraints.Constraint:
        """The constraint of one column."""
        place = column if self.layout.back is None else int(self.layout.back[column])
        ends = itertools.accumulate(self.layout.sizes)
        return next(each for each, end in zip(self.constraints, ends, strict=True) if place < end)


class Cells(dist.TorchDistribution):
    """Independent distributions of blocks of columns, as one distribution of rows ``(..., P)``.

    Args:
        parts: distributions of the columns of each part.
        layout: which columns these are.
    """

    arg_constraints: dict[str, Any] = {}

    def __init__(self, parts: Sequence[TorchDistribution], layout: Layout) -> None:
        self.parts, self.layout = list(parts), layout
        batch = torch.broadcast_shapes(*(part.batch_shape for part in parts))
        event = torch.Size([sum(layout.sizes)])
        super().__init__(batch, event, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(OfColumns(self.parts, self.layout), 1)

    @property
    def mean(self) -> Tensor:
        return self.layout.join([part.mean for part in self.parts])

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> "Cells":
        return Cells([part.expand(torch.Size(batch_shape)) for part in self.parts], self.layout)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        shape = torch.Size(sample_shape)
        return self.layout.join([part.sample(shape) for part in self.parts])

    def log_prob(self, value: Tensor) -> Tensor:
        pieces = zip(self.parts, self.layout.split(value), strict=True)
        return torch.as_tensor(sum(part.log_prob(piece) for part, piece in pieces))

    def marginal(self, observed: Tensor) -> "Cells":
        """The distribution of the observed cells."""
        pieces = zip(self.parts, self.layout.split(observed), strict=True)
        return Cells([marginal(part, piece) for part, piece in pieces], self.layout)

    def average(self, expect: Callable[[Tensor, int], Tensor]) -> Tensor:
        """The average of the parts, see :func:`average`."""
        return self.layout.join([average(part, expect) for part in self.parts])

    def doubt(self, expect: Callable[[Tensor, int], Tensor]) -> Tensor:
        """The uncertainty of the parts, see :func:`doubt`."""
        return self.layout.join([doubt(part, expect) for part in self.parts])


class Columns(nn.Module):
    """A table whose columns have different likelihoods, over one decoder.

    The decoder's output has the parameters of each likelihood's columns in turn, ``outputs`` in
    all. An exposure goes to the likelihoods that take it.

    Args:
        likelihoods: the likelihoods; each is one for all of its columns.
        columns: for each column of x, the place of its likelihood in the list; None for one
            likelihood a column, in the order of the columns.

    Raises:
        ValueError: for columns of likelihoods that are not there, a likelihood without columns, or
            one that was built for another number of columns.
    """

    def __init__(
        self, likelihoods: Sequence[nn.Module], columns: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        self.parts = nn.ModuleList(likelihoods)
        count = len(self.parts)
        self.columns = list(range(count) if columns is None else columns)
        if not count or set(self.columns) != set(range(count)):
            raise ValueError(
                f"Expected columns that name each of {count} likelihoods by its place, from 0, but "
                f"got {self.columns}; give the place of its likelihood for each column."
            )
        self.counts = [self.columns.count(place) for place in range(count)]
        for part, size in zip(self.parts, self.counts, strict=True):
            rows = getattr(part, "rows", None)
            if rows not in (None, size):
                raise ValueError(
                    f"Expected {type(part).__name__} of {size} columns but it was built with "
                    f"rows={rows}; build it with rows={size}."
                )
        order = torch.tensor(self.columns).argsort(stable=True)
        self.order = nn.Buffer(order, persistent=False)
        self.back = nn.Buffer(order.argsort(), persistent=False)
        self.sorted = self.columns == sorted(self.columns)

    @property
    def likelihoods(self) -> list[nn.Module]:
        """The likelihoods in the order of the argument."""
        return list(self.parts)

    @property
    def layout(self) -> Layout:
        """Which columns of x belong to which likelihood."""
        order, back = (None, None) if self.sorted else (self.order, self.back)
        return Layout(self.counts, order, back)

    @property
    def sizes(self) -> list[int]:
        """Number of decoder outputs of each likelihood."""
        pairs = zip(self.parts, self.counts, strict=True)
        return [cast(int, part.width) * count for part, count in pairs]

    @property
    def outputs(self) -> int:
        """Number of decoder outputs."""
        return sum(self.sizes)

    @property
    def takes(self) -> frozenset[str]:
        """What the likelihoods take beside the decoder's output."""
        exposure = torch.ones(())
        return frozenset(n for part in self.parts for n in told(part, {"exposure": exposure}))

    @property
    def features(self) -> list[Feature]:
        """What an encoder should read of each column, for its argument ``features``."""
        each = [cast(Feature, getattr(part, "feature", "number")) for part in self.parts]
        return [each[place] for place in self.columns]

    def forward(self, output: Tensor, *, exposure: Tensor | None = None) -> Cells:
        beside = {} if exposure is None else {"exposure": exposure}
        pieces = zip(self.parts, output.split(self.sizes, -1), strict=True)
        return Cells([part(piece, **told(part, beside)) for part, piece in pieces], self.layout)
