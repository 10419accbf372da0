"""Proposed mixtures, tried on the rows and components that they touch.

A proposal changes few components, and these matter to few rows. All other components keep their
fits, and all other rows their q(y), of which only sums enter. Coordinate ascent and expectation
maximisation then still raise the collapsed bound (incremental EM: Neal & Hinton, "A View of the EM
Algorithm that Justifies Incremental, Sparse, and Other Variants", 1998), and all splits together
cost about as much as a few passes over the rows, however many components there are.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from priorzoo.inference.nggp.collapsed_bound import (
    Assigned,
    CollapsedBound,
    Gain,
    Mixture,
    active_and_new,
    surplus,
)
from priorzoo.models.nggp.occupancy import Occupancy

LEAST = 1e-3  # probability of a touched component from which on a row counts
SHIFT = 1e-2  # share of its rows that a component gains or loses to be touched too


class Trial(NamedTuple):
    """A proposed mixture with the part of assigned codes that it touches.

    ``which`` are the touched components that exist, ``(T,)``; ``rows``, ``(R,)``, have a notable
    probability of one of them, or of one that is removed; ``columns``, ``(C + 1,)``, are all
    components of the mixtures before and after, and the last; ``fits`` are those of the rows under
    the proposal, ``(R, C + 1)``; ``others`` is the sum of the other rows' occupancy, ``(C + 1,)``.
    """

    bound: CollapsedBound
    now: Assigned
    mixture: Mixture
    which: Tensor
    rows: Tensor
    columns: Tensor
    fits: Tensor
    others: Occupancy

    @classmethod
    def of(cls, bound: CollapsedBound, now: Assigned, mixture: Mixture, touched: Tensor) -> "Trial":
        """The part of the codes that is touched if these components are, a mask ``(K,)``."""
        gone = now.mixture.active & ~mixture.active
        columns = active_and_new(mixture._replace(active=mixture.active | gone))
        which, removed = touched.nonzero().flatten(), gone.nonzero().flatten()
        fits = bound.fits_of(mixture, which, now.statistics)
        near = (fits > now.fits.amax(-1, keepdim=True) + math.log(LEAST)).any(-1)
        held = now.q[:, (touched | gone).nonzero().flatten()].sum(-1) > LEAST
        rows = (near | held).nonzero().flatten()
        some = now.fits[rows.unsqueeze(-1), columns]
        some[:, torch.searchsorted(columns, which)] = fits[rows]
        some[:, torch.searchsorted(columns, removed)] = -math.inf
        stays = (~torch.isin(columns, removed)).to(fits)
        others = now.tally.without(Occupancy.of(now.q[rows]).sum())
        others = Occupancy(*(part[columns] * stays for part in others))
        return cls(bound, now, mixture, which, rows, columns, some, others)

    @property
    def before(self) -> Tensor:
        """``(R, C + 1)`` probabilities q(y) of the rows before the proposal."""
        return self.now.q[self.rows.unsqueeze(-1), self.columns]

    def assign(self, rounds: int = 8) -> Tensor:
        """``(R, C + 1)`` probabilities q(y) of the rows, by coordinate ascent."""
        return self.bound.ascend(self.fits, rounds, len(self.now.q), self.others, self.now.v)[0]

    def refit(self, rounds: int = 5) -> "Trial":
        """With the touched components fitted to the rows, by expectation maximisation."""
        trial, places = self, torch.searchsorted(self.columns, self.which)
        statistics = self.now.statistics[self.rows]
        for _ in range(rounds):
            sums = trial.assign(2)[:, places].mT @ statistics
            mixture = self.bound.refitted(trial.mixture, self.which, sums)
            fits = trial.fits.clone()
            fits[:, places] = self.bound.fits_of(mixture, self.which, statistics)
            trial = trial._replace(mixture=mixture, fits=fits)
        return trial

    def on(self, codes: Assigned) -> "Trial":
        """The same proposal and touched components, with the part of other codes."""
        touched = torch.zeros_like(self.mixture.active).index_fill(0, self.which, True)
        return Trial.of(self.bound, codes, self.mixture, touched)

    def gain(self, level: Tensor) -> Gain:
        """What the codes gain by the proposal.

        ``level`` is :meth:`CollapsedBound.log_prior` of the codes before.
        """
        now, bound, total = self.now, self.bound, len(self.now.q)
        before, after = self.before, self.assign()
        fits = now.fits[self.rows.unsqueeze(-1), self.columns]
        tally = self.others.plus(Occupancy.of(after).sum())
        prior = (bound.log_prior(tally, total) - level) / bound.data
        moved = (after - before).abs().sum() / 2 / total
        return Gain.of(surplus(after, self.fits) - surplus(before, fits), prior, moved, total)

    def may_pass(self, level: Tensor, idle: Gain) -> bool:
        """Whether the proposal may pay on these codes, which are held out, once all is refitted.

        It is let through a margin below what must be gained, for what the other components add.

        Args:
            level: as in :meth:`gain`.
            idle: what refitting all gains without a move.
        """
        gain = self.gain(level)
        moved = gain.moved + idle.moved
        most = gain.nats + idle.nats + self.bound.margin * moved
        return self.bound.passes(self.now.mixture, self.mixture, Gain(most, gain.error, moved))


def tried(bound: CollapsedBound, now: Assigned, proposal: Mixture) -> Trial:
    """The proposal, with what it touches refitted to the codes.

    It touches what it changes, and components that thereby gain or lose a notable share of rows.
    """
    changed = proposal.active & ~now.mixture.active
    for old, new in zip(now.mixture[:2], proposal[:2], strict=True):
        changed = changed | (proposal.active & (old != new).flatten(1).any(-1))
    first = Trial.of(bound, now, proposal, changed)
    shift = (first.assign(2).sum(0) - first.before.sum(0)).abs()
    shifted = first.columns[shift > SHIFT * now.tally.mean[first.columns]]
    touched = changed.clone()
    touched[shifted[shifted < len(touched)]] = True
    touched = touched & proposal.active
    same = bool((touched == changed).all())
    return (first if same else Trial.of(bound, now, proposal, touched)).refit()
