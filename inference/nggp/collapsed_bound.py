"""The collapsed bound of a mixture for given codes, which decides whether a move is kept."""

from typing import NamedTuple

import torch
from torch import Tensor

from priorzoo.models.nggp.code_families import FAMILIES, CodeFamily
from priorzoo.models.nggp.law import NGGP
from priorzoo.models.nggp.occupancy import Occupancy, expected_log_prior, log_prior


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

    def fit(self, mixture: Mixture, k: int, codes: Codes, weight: Tensor) -> Mixture:
        """The mixture with component k fitted to the codes with weights ``(M,)``."""
        best = self.kind.match(*codes, weight.unsqueeze(-1))
        loc, scale, active = (part.clone() for part in mixture)
        loc[k], scale[k], active[k] = best[0][0], best[1][0], True
        return Mixture(loc, scale, active)

    def fits(self, mixture: Mixture, codes: Codes) -> Tensor:
        """``(M, C + 1)`` expected log densities under the C active components and the base."""
        base = self.kind.base(mixture.loc, mixture.scale, self.breadth)
        used = self._active_and_new(mixture)
        loc, scale = (
            torch.cat([part, last])[used] for part, last in zip(mixture[:2], base, strict=True)
        )
        return self.kind.expected_log(*codes, loc, scale)

    def assign(self, mixture: Mixture, codes: Codes, rounds: int = 8) -> Tensor:
        """``(M, K + 1)`` probabilities q(y) by coordinate ascent on all rows at once.

        q(v) is updated only every fourth round, since that takes as long as all else and changes
        little.
        """
        fits = self.fits(mixture, codes)
        q, v = fits.softmax(-1), torch.zeros(())
        for turn in range(rounds):
            sizes, alone = self._sizes(q)
            if turn % 4 == 0:
                occupied = (sizes.occupied.sum() + alone).clamp(1, self.data)
                v = self.law.law_of_v(float(self.data), occupied).mean
            others = sizes.times((self.data - 1) / self.data)
            q = (fits + log_prior(self.law, others, v)).softmax(-1)
        everywhere = q.new_zeros(len(q), len(mixture.loc) + 1)
        return everywhere.index_copy(1, self._active_and_new(mixture), q)

    def value(self, mixture: Mixture, codes: Codes, q: Tensor | None = None) -> float:
        """The collapsed bound of the codes in nats per datum, up to terms that no move changes."""
        q = (self.assign(mixture, codes) if q is None else q)[:, self._active_and_new(mixture)]
        each = torch.where(q > 0, q * (self.fits(mixture, codes) - q.log()), 0.0).sum(-1).mean()
        sizes, alone = self._sizes(q)
        return float(each + expected_log_prior(self.law, sizes, alone, self.data) / self.data)

    def refit(self, mixture: Mixture, codes: Codes, rounds: int = 5) -> Mixture:
        """Fit the components to the codes by expectation maximisation with :meth:`assign`."""
        for _ in range(rounds):
            q = self.assign(mixture, codes, 2)[:, :-1]
            held = (mixture.active & (q.sum(0) > 1)).nonzero().flatten()
            loc, scale = mixture.loc.clone(), mixture.scale.clone()
            loc[held], scale[held] = self.kind.match(*codes, q[:, held])
            mixture = Mixture(loc, scale, mixture.active)
        return mixture

    def accepts(self, old: Mixture, before: Tensor, new: Mixture, held: Codes) -> bool:
        """Whether to replace the old mixture, which gives ``held`` q(y) ``before``, by the new."""
        after = self.assign(new, held)
        moved = float((after - before).abs().sum(-1).mean()) / 2
        threshold = self.margin * moved + 1 / self.data
        more = int(new.active.sum()) > int(old.active.sum())
        gain = self.value(new, held, after) - self.value(old, held, before)
        return gain > (threshold if more else -threshold)

    def _sizes(self, q: Tensor) -> tuple[Occupancy, Tensor]:
        factor = self.data / len(q)
        return Occupancy.of(q[:, :-1]).sum().times(factor), q[:, -1].sum() * factor

    def _active_and_new(self, mixture: Mixture) -> Tensor:
        """Indices of the active components and of the last, a new cluster."""
        present = torch.cat([mixture.active, torch.ones_like(mixture.active[:1])])
        return present.nonzero().flatten()
