"""What the collapsed bound says of a mixture, apart from any network: the judge of its moves."""

from typing import NamedTuple

import torch
from torch import Tensor

from priorzoo.models.nggp.code_families import FAMILIES, CodeFamily
from priorzoo.models.nggp.law import NGGP
from priorzoo.models.nggp.occupancy import Occupancy, expected_log_prior, log_prior


class Codes(NamedTuple):
    """Guesses q(z | x): ``mean`` and ``spread`` in their family, each ``(M, D)``."""

    mean: Tensor
    spread: Tensor

    def part(self, rows: Tensor) -> "Codes":
        """Some of the rows."""
        return Codes(self.mean[rows], self.spread[rows])


class Mixture(NamedTuple):
    """Components of means ``loc`` and spreads ``scale``, ``(K, ...)``, the ``active`` there."""

    loc: Tensor
    scale: Tensor
    active: Tensor

    def without(self, k: int) -> "Mixture":
        """Component k is there no more."""
        active = self.active.clone()
        active[k] = False
        return self._replace(active=active)

    def free(self) -> int | None:
        """A place for one more, if there is one."""
        places = (~self.active).nonzero().flatten().tolist()
        return places[0] if places else None


class Judge(NamedTuple):
    """The prior that judges mixtures of codes that stand for ``data`` data.

    ``breadth`` is that of the base measure; ``margin`` is what a move must gain, see
    :mod:`priorzoo.inference.nggp.growth`; ``kind`` is the family of codes and components.
    """

    law: NGGP
    breadth: float
    data: int
    margin: float = 0.1
    kind: CodeFamily = FAMILIES["gaussian"]

    def put(self, mixture: Mixture, k: int, codes: Codes, weight: Tensor) -> Mixture:
        """Component k made the one that codes fit best under weights ``(M,)``."""
        best = self.kind.match(*codes, weight.unsqueeze(-1))
        loc, scale, active = (part.clone() for part in mixture)
        loc[k], scale[k], active[k] = best[0][0], best[1][0], True
        return Mixture(loc, scale, active)

    def fits(self, mixture: Mixture, codes: Codes) -> Tensor:
        """``(M, C + 1)`` expected log densities under the C components there are, and the base."""
        base = self.kind.base(mixture.loc, mixture.scale, self.breadth)
        there = self._there(mixture)
        loc, scale = (
            torch.cat([part, last])[there] for part, last in zip(mixture[:2], base, strict=True)
        )
        return self.kind.expected_log(*codes, loc, scale)

    def assign(self, mixture: Mixture, codes: Codes, rounds: int = 8) -> Tensor:
        """``(M, K + 1)`` probabilities q(y): coordinate ascent, all rows at once.

        q(v), which costs as much as the rest and moves little, takes its turn every fourth round.
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
        return everywhere.index_copy(1, self._there(mixture), q)

    def bound(self, mixture: Mixture, codes: Codes, q: Tensor | None = None) -> float:
        """The collapsed bound of the codes, in nats per datum, but for what no move changes."""
        q = (self.assign(mixture, codes) if q is None else q)[:, self._there(mixture)]
        each = torch.where(q > 0, q * (self.fits(mixture, codes) - q.log()), 0.0).sum(-1).mean()
        sizes, alone = self._sizes(q)
        return float(each + expected_log_prior(self.law, sizes, alone, self.data) / self.data)

    def refit(self, mixture: Mixture, codes: Codes, rounds: int = 5) -> Mixture:
        """Components fit to the codes they hold, by turns with :meth:`assign`."""
        for _ in range(rounds):
            q = self.assign(mixture, codes, 2)[:, :-1]
            held = (mixture.active & (q.sum(0) > 1)).nonzero().flatten()
            loc, scale = mixture.loc.clone(), mixture.scale.clone()
            loc[held], scale[held] = self.kind.match(*codes, q[:, held])
            mixture = Mixture(loc, scale, mixture.active)
        return mixture

    def accepts(self, old: Mixture, before: Tensor, new: Mixture, held: Codes) -> bool:
        """Whether the move is kept from one mixture, of which held codes have q, to the other."""
        after = self.assign(new, held)
        moved = float((after - before).abs().sum(-1).mean()) / 2
        price = self.margin * moved + 1 / self.data
        more = int(new.active.sum()) > int(old.active.sum())
        gain = self.bound(new, held, after) - self.bound(old, held, before)
        return gain > (price if more else -price)

    def _sizes(self, q: Tensor) -> tuple[Occupancy, Tensor]:
        factor = self.data / len(q)
        return Occupancy.of(q[:, :-1]).sum().times(factor), q[:, -1].sum() * factor

    def _there(self, mixture: Mixture) -> Tensor:
        """Numbers of the components there are, and of a cluster of one's own."""
        present = torch.cat([mixture.active, torch.ones_like(mixture.active[:1])])
        return present.nonzero().flatten()
