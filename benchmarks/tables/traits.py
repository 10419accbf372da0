"""What sets clusters apart: standardised differences of columns, and lifts of categories."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from priorzoo.inference.data.tables.coding import decoded
from priorzoo.inference.data.tables.kinds import Column
from priorzoo.inference.data.tables.schema import Table

WIDE = 50  # columns of counts that are described by their shares of a row's total
LARGE, HUGE = 1e3, 1e15  # between which numbers are written whole
LOGS = ("positive", "count")  # kinds whose logarithms are compared


def figure(value: float, digits: int) -> str:
    """A number with so many digits; from 1,000 on whole, and with commas."""
    if LARGE <= abs(value) < HUGE:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


@dataclass(frozen=True)
class Trait:
    """How a cluster differs from all rows in a column, or in one category of it.

    Args:
        name: of the column.
        category: of a column of categories; empty of numbers.
        here, all: mean of the numbers, or share of the category, in the cluster and in all rows, in
            the units of the table.
        score: the difference in standard deviations of all rows; of words and other wide counts,
            the terms p_k log(p_k / p) of their shares p, times 100.
    """

    name: str
    category: str
    here: float
    all: float
    score: float

    @property
    def text(self) -> str:
        """In words: ``age 63.2 (all rows 50.1)``, ``city Rome in 83 % (all rows 31 %)``."""
        if self.category:
            shares = f"in {100 * self.here:.0f} % (all rows {100 * self.all:.0f} %)"
            return f"{self.name} {self.category} {shares}"
        return f"{self.name} {figure(self.here, 3)} (all rows {figure(self.all, 3)})"


def traits_of(table: Table, q: Tensor) -> list[list[Trait]]:
    """For each cluster its traits, the largest score first, from ``q`` ``(N, K)``."""
    columns = table.schema.data
    if not columns or (len(columns) >= WIDE and all(c.kind == "count" for c in columns)):
        names = _names(table)
        counted = bool(columns)
        by_cluster = _shares(table, q, names) if counted else _pixels(table, q, names)
    else:
        parts = [_of_column(table, q, place, column) for place, column in enumerate(columns)]
        by_cluster = [[trait for part in parts for trait in part[k]] for k in range(q.shape[1])]
    return [sorted(traits, key=lambda trait: -abs(trait.score)) for traits in by_cluster]


def _of_column(table: Table, q: Tensor, place: int, column: Column) -> list[list[Trait]]:
    """For each cluster the traits of one column."""
    known = _observed(table, place)
    x, weights = table.rows[known, place].double(), q[known].double()
    numeric = column.numeric and column.kind == "ordinal"
    if column.categories and not numeric:
        return _of_categories(column, x.long(), weights)
    values = torch.from_numpy(decoded(column, x.numpy()).astype(np.float64))
    compared = values.clamp(min=0).log1p() if column.kind in LOGS else values
    spread = float(compared.std(correction=0)) or 1.0
    total = weights.sum(0).clamp(min=1e-9)
    means, scores = (weights.T @ values) / total, (weights.T @ compared) / total
    return [
        [
            Trait(
                column.name,
                "",
                float(means[k]),
                float(values.mean()),
                float(scores[k] - compared.mean()) / spread,
            )
        ]
        for k in range(q.shape[1])
    ]


def _of_categories(column: Column, codes: Tensor, weights: Tensor) -> list[list[Trait]]:
    """Of two categories only the one that is more frequent in the cluster."""
    chosen = torch.nn.functional.one_hot(codes, len(column.categories)).double()
    every = chosen.mean(0)
    shares = (weights.T @ chosen) / weights.sum(0).clamp(min=1e-9).unsqueeze(1)
    scores = (shares - every) / (every * (1 - every)).clamp(min=1e-9).sqrt()
    two = len(column.categories) == 2
    return [
        [
            Trait(column.name, name, float(shares[k, c]), float(every[c]), float(scores[k, c]))
            for c, name in enumerate(column.categories)
            if scores[k, c] > 0 or not two
        ]
        for k in range(len(shares))
    ]


def _shares(table: Table, q: Tensor, names: Sequence[str]) -> list[list[Trait]]:
    """Of wide counts: shares of a row's total, in the cluster and in all rows, in percent."""
    counts = table.rows.double()
    if table.observed is not None:
        counts = counts * table.observed
    every = counts.sum(0) + 1
    every = every / every.sum()
    own = q.double().T @ counts + every
    own = own / own.sum(1, keepdim=True)
    scores = 100 * torch.xlogy(own, own / every)
    return [_largest(names, 100 * own[k], 100 * every, scores[k]) for k in range(len(own))]


def _pixels(table: Table, q: Tensor, names: Sequence[str]) -> list[list[Trait]]:
    x, weights = table.rows.double(), q.double()
    every, spread = x.mean(0), x.std(0, correction=0).clamp(min=1e-3)
    own = (weights.T @ x) / weights.sum(0).clamp(min=1e-9).unsqueeze(1)
    scores = (own - every) / spread
    return [_largest(names, own[k], every, scores[k]) for k in range(len(own))]


def _largest(names: Sequence[str], own: Tensor, every: Tensor, score: Tensor) -> list[Trait]:
    most = score.abs().argsort(descending=True)[:WIDE].tolist()
    return [Trait(names[i], "", float(own[i]), float(every[i]), float(score[i])) for i in most]


def _names(table: Table) -> list[str]:
    if table.schema.data:
        return [column.name for column in table.schema.data]
    shape = table.schema.shape
    places = [torch.unravel_index(torch.tensor(i), shape) for i in range(table.rows.shape[1])]
    return [f"pixel {', '.join(str(int(part)) for part in place)}" for place in places]


def _observed(table: Table, place: int) -> Tensor:
    if table.observed is None:
        return torch.ones(len(table), dtype=torch.bool)
    return table.observed[:, place]
