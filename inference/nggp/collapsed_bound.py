"""The collapsed bound of a mixture for given codes, which decides whether a move is kept."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from priorzoo.models.nggp.code_families import FAMILIES, CodeFamily
from priorzoo.models.nggp.law import NGGP
from priorzoo.models.nggp.occupancy import Occupancy, expected_log_prior, log_prior

ERRORS = 2.0  # standard errors that a new cluster must gain at least


class Codes(NamedTuple):
    """Posteriors q(z | x) of M rows: ``mean`` and ``spread`` of their family, each ``(M, D)``."""

    mean: Tensor
    spread: Tensor

    def part(self, rows: Tensor) -> "Codes":
        """The posteriors of some rows."""
        return Codes(self.mean[rows], self.spread[rows])


class Mixture(NamedTuple):
    """Components with means ``loc`` and spreads ``scale``, ``(K, ...)``; ``active`` ones exist."""

    loc: Tensor
    scale: Tensor
    active: Tensor

    def without(self, k: int) -> "Mixture":
        """The mixture without component k."""
        active = self.active.clone()
        active[k] = False
        return self._replace(active=active)

    def unused(self) -> int | None:
        """The index of a component that is not active, or None if all are."""
        indices = (~self.active).nonzero().flatten().tolist()
        return indices[0] if indices else None


class Assigned(NamedTuple):
    """Codes with their q(y) under a mixture, and what a move reuses of it; in float64.

    ``statistics`` of the codes, ``(M, F)``; ``fits``, ``(M, K + 1)`` expected log densities under
    the components and the base, -inf where there is no component; ``q``, ``(M, K + 1)``, whose last
    column is a new cluster; ``tally``, the sum of its :class:`Occupancy` over the rows,
    ``(K + 1,)``; ``v``, the mean of q(v).
    """

    mixture: Mixture
    codes: Codes
    statistics: Tensor
    fits: Tensor
    q: Tensor
    tally: Occupancy
    v: Tensor


class Gain(NamedTuple):
    """What a move gains for the same codes.

    ``nats`` per datum; ``error``, the standard error of their mean over the codes; ``moved``, the
    share of codes that change their cluster.
    """

    nats: Tensor
    error: Tensor
    moved: Tensor

    @classmethod
    def of(cls, each: Tensor, prior: Tensor, moved: Tensor, total: int) -> "Gain":
        """From what touched rows gain, ``(R,)`` of ``total``, and what the prior gains."""
        mean, square = each.sum() / total, each.square().sum() / total
        error = ((square - mean.square()).clamp(min=0) / total).sqrt()
        return cls(mean + prior, error, moved)


class CollapsedBound(NamedTuple):
    """The collapsed bound of mixtures, for codes that represent a data set of ``data`` rows.

    ``law`` is the NGGP; ``breadth`` is the width of the base measure; ``margin`` is what a move
    must gain, see :mod:`priorzoo.inference.nggp.growth`; ``kind`` is the family of codes and
    components.
    """

    law: NGGP
    breadth: float
    data: int
    margin: float = 0.1
    kind: CodeFamily = FAMILIES["gaussian"]

    def fit(self, mixture: Mixture, which: Tensor | int, sums: Tensor) -> Mixture:
        """The mixture with these components fitted to their sums of statistics, ``(F,)`` each."""
        loc, scale, active = (part.clone() for part in mixture)
        best = self.kind.fit(sums.reshape(-1, sums.shape[-1]))
        loc[which], scale[which] = (new.to(old) for new, old in zip(best, mixture[:2], strict=True))
        active[which] = True
        return Mixture(loc, scale, active)

    def assigned(self, mixture: Mixture, codes: Codes, rounds: int = 8) -> Assigned:
        """The codes with their q(y) by coordinate ascent on all rows at once."""
        statistics = self.kind.statistics(*codes)
        fits = self._fits(mixture, statistics)
        used = active_and_new(mixture)
        some, v = self.ascend(fits[:, used], rounds, len(fits))
        q = torch.zeros_like(fits).index_copy(1, used, some)
        return Assigned(mixture, codes, statistics, fits, q, Occupancy.of(q).sum(), v)

    def assign(self, mixture: Mixture, codes: Codes, rounds: int = 8) -> Tensor:
        """``(M, K + 1)`` probabilities q(y) by coordinate ascent on all rows at once."""
        return self.assigned(mixture, codes, rounds).q

    def value(self, mixture: Mixture, codes: Codes, q: Tensor | None = None) -> float:
        """The collapsed bound of the codes in nats per datum, up to terms that no move changes."""
        now = self.assigned(mixture, codes)
        if q is not None:
            now = now._replace(q=q.double(), tally=Occupancy.of(q.double()).sum())
        return float(self._value(now))

    def refit(self, mixture: Mixture, codes: Codes, rounds: int = 5) -> Mixture:
        """Fit the components to the codes by expectation maximisation with :meth:`ascend`."""
        statistics = self.kind.statistics(*codes)
        used = active_and_new(mixture)
        for _ in range(rounds):
            q, _ = self.ascend(self._fits(mixture, statistics)[:, used], 2, len(statistics))
            mixture = self.refitted(mixture, used[:-1], q[:, :-1].mT @ statistics)
        return mixture

    def refitted(self, mixture: Mixture, which: Tensor, sums: Tensor) -> Mixture:
        """The mixture with those of its components refitted that have more than one row."""
        held = sums[:, -1] > 1
        return self.fit(mixture, which[held], sums[held])

    def gain(self, old: Assigned, new: Assigned) -> Gain:
        """What the same codes gain by another mixture."""
        rows = len(new.q)
        moved = (new.q - old.q).abs().sum() / 2 / rows
        prior = self.log_prior(new.tally, rows) - self.log_prior(old.tally, rows)
        each = surplus(new.q, new.fits) - surplus(old.q, old.fits)
        return Gain.of(each, prior / self.data, moved, rows)

    def passes(self, old: Mixture, new: Mixture, gain: Gain) -> bool:
        """Whether a gain pays for the new mixture: see :mod:`priorzoo.inference.nggp.growth`."""
        threshold = self.margin * gain.moved + 1 / self.data
        if adds(old, new):
            return bool(gain.nats > torch.maximum(threshold, ERRORS * gain.error))
        return bool(gain.nats > -threshold)

    def ascend(
        self,
        fits: Tensor,
        rounds: int,
        total: int,
        others: Occupancy | None = None,
        v: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """q(y) of rows by coordinate ascent, and the mean of q(v).

        q(v) is updated only every fourth round, since that takes as long as all else and changes
        little.

        Args:
            fits: of the rows under C components and the base, ``(R, C + 1)``.
            rounds: of ascent.
            total: number M of rows that the data set is represented by.
            others: sum of the occupancy of the other rows, whose q(y) stays, ``(C + 1,)``.
            v: the mean of q(v) if it stays.
        """
        q, middle = fits.softmax(-1), v
        for turn in range(rounds):
            tally = Occupancy.of(q).sum()
            tally = tally if others is None else tally.plus(others)
            sizes, alone = self._sizes(tally, total)
            if v is None and turn % 4 == 0:
                occupied = (sizes.occupied.sum() + alone).clamp(1, self.data)
                middle = self.law.law_of_v(float(self.data), occupied).mean
            assert middle is not None
            rest = sizes.times((self.data - 1) / self.data)
            q = (fits + log_prior(self.law, rest, middle)).softmax(-1)
        return q, fits.new_zeros(()) if middle is None else middle

    def log_prior(self, tally: Occupancy, total: int) -> Tensor:
        """E[log p(y)] of all data, from the sum of the occupancy of ``total`` rows."""
        return expected_log_prior(self.law, *self._sizes(tally, total), self.data)

    def fits_of(self, mixture: Mixture, which: Tensor, statistics: Tensor) -> Tensor:
        """``(R, C)`` expected log densities of rows under some components."""
        return statistics @ self.kind.natural(mixture.loc[which], mixture.scale[which]).mT

    def _value(self, now: Assigned) -> Tensor:
        rows = len(now.q)
        fits = surplus(now.q, now.fits).sum() / rows
        return fits + self.log_prior(now.tally, rows) / self.data

    def _fits(self, mixture: Mixture, statistics: Tensor) -> Tensor:
        base = self.kind.natural(*self.kind.base(mixture.loc, mixture.scale, self.breadth))
        fits = statistics.new_full((len(statistics), len(mixture.loc) + 1), -math.inf)
        there = mixture.active.nonzero().flatten()
        fits[:, there] = self.fits_of(mixture, there, statistics)
        fits[:, -1:] = statistics @ base.mT
        return fits

    def _sizes(self, tally: Occupancy, total: int) -> tuple[Occupancy, Tensor]:
        whole = tally.times(self.data / total)
        return Occupancy(*(part[:-1] for part in whole)), whole.mean[-1]


def surplus(q: Tensor, fits: Tensor) -> Tensor:
    """``(R,)``: E[log p(z | y)] + H[q(y)] of rows."""
    return torch.where(q > 0, q * (fits - q.log()), 0.0).sum(-1)


def adds(old: Mixture, new: Mixture) -> bool:
    """Whether the new mixture has more components."""
    return bool(new.active.sum() > old.active.sum())


def active_and_new(mixture: Mixture) -> Tensor:
    """Indices of the active components and of the last, a new cluster."""
    present = torch.cat([mixture.active, torch.ones_like(mixture.active[:1])])
    return present.nonzero().flatten()
