"""Clusters that are born, merge and die, by what the collapsed bound says of held-out codes.

A move is kept if the bound pays ``margin`` nats for each datum that it reassigns, and a nat in
all; one that takes a cluster away, if the bound loses no more than that. Without a margin a cluster
that is not quite Gaussian, as none is, would be cut into ever more pieces: with data enough, any
difference pays.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from priorzoo.guides.collapsed import expected_log_normal
from priorzoo.models.collapsed import Occupancy, expected_log_prior, log_prior
from priorzoo.models.distributions import diagonal_normal
from priorzoo.models.nggp_law import NGGP
from priorzoo.models.nggp_mixture import ABSENT

FEWEST = 10  # rows of a cluster that may be split


class Codes(NamedTuple):
    """Gaussians q(z | x): ``mean`` and standard deviation ``spread``, each ``(M, D)``."""

    mean: Tensor
    spread: Tensor

    def part(self, rows: Tensor) -> "Codes":
        """Some of the rows."""
        return Codes(self.mean[rows], self.spread[rows])


class Mixture(NamedTuple):
    """Components ``loc`` and ``scale``, each ``(K, D)``, of which ``active`` ones are there."""

    loc: Tensor
    scale: Tensor
    active: Tensor

    def put(self, k: int, codes: Codes, weight: Tensor) -> "Mixture":
        """Component k made the Gaussian with the moments of codes under weights ``(M,)``."""
        share = (weight / weight.sum()).unsqueeze(-1)
        middle = (share * codes.mean).sum(0)
        second = (codes.mean - middle).square() + codes.spread.square()
        loc, scale, active = (part.clone() for part in self)
        loc[k], scale[k], active[k] = middle, (share * second).sum(0).clamp(min=1e-3).sqrt(), True
        return Mixture(loc, scale, active)

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

    ``breadth`` is the standard deviation of the base measure; for ``margin`` see this file.
    """

    law: NGGP
    breadth: float
    data: int
    margin: float = 0.1

    def fits(self, mixture: Mixture, codes: Codes) -> Tensor:
        """``(M, K + 1)`` expected log densities of codes, of the base measure last."""
        loc = torch.cat([mixture.loc, torch.zeros_like(mixture.loc[:1])])
        scale = torch.cat([mixture.scale, torch.full_like(mixture.scale[:1], self.breadth)])
        found = expected_log_normal(codes.mean, codes.spread, loc, scale)
        return torch.where(self._present(mixture), found, ABSENT)

    def assign(self, mixture: Mixture, codes: Codes, rounds: int = 8) -> Tensor:
        """``(M, K + 1)`` probabilities q(y): coordinate ascent, all rows at once."""
        fits = self.fits(mixture, codes)
        q = torch.where(self._present(mixture), fits, ABSENT).softmax(-1)
        for _ in range(rounds):
            sizes, alone = self._sizes(q)
            v = self.law.law_of_v(
                float(self.data), (sizes.occupied.sum() + alone).clamp(1, self.data)
            )
            others = sizes.times((self.data - 1) / self.data)
            q = (fits + log_prior(self.law, others, v.mean)).softmax(-1)
        return q

    def bound(self, mixture: Mixture, codes: Codes, q: Tensor | None = None) -> float:
        """The collapsed bound of the codes, in nats per datum, but for what no move changes."""
        q = self.assign(mixture, codes) if q is None else q
        each = torch.where(q > 0, q * (self.fits(mixture, codes) - q.log()), 0.0).sum(-1).mean()
        sizes, alone = self._sizes(q)
        return float(each + expected_log_prior(self.law, sizes, alone, self.data) / self.data)

    def refit(self, mixture: Mixture, codes: Codes, rounds: int = 5) -> Mixture:
        """Components moved to the moments of the codes they hold, by turns with :meth:`assign`."""
        for _ in range(rounds):
            q = self.assign(mixture, codes, 2)
            held = q[:, :-1].sum(0)
            for k in (mixture.active & (held > 1)).nonzero().flatten().tolist():
                mixture = mixture.put(k, codes, q[:, k])
        return mixture

    def accepts(self, old: Mixture, new: Mixture, held: Codes) -> bool:
        """Whether the move from one mixture to the other is kept."""
        before, after = self.assign(old, held), self.assign(new, held)
        moved = float((after - before).abs().sum(-1).mean()) / 2
        price = self.margin * moved + 1 / self.data
        more = int(new.active.sum()) > int(old.active.sum())
        gain = self.bound(new, held, after) - self.bound(old, held, before)
        return gain > (price if more else -price)

    def _sizes(self, q: Tensor) -> tuple[Occupancy, Tensor]:
        factor = self.data / len(q)
        return Occupancy.of(q[:, :-1]).sum().times(factor), q[:, -1].sum() * factor

    def _present(self, mixture: Mixture) -> Tensor:
        return torch.cat([mixture.active, torch.ones_like(mixture.active[:1])])


def splits(judge: Judge, mixture: Mixture, codes: Codes) -> Iterator[Mixture]:
    """Each cluster cut in two across its longest axis, the largest first."""
    q = judge.assign(mixture, codes)
    owner = q.argmax(-1)
    for k in q[:, :-1].sum(0).argsort(descending=True).tolist():
        place, rows = mixture.free(), (owner == k).nonzero().flatten()
        if place is None or len(rows) < FEWEST:
            continue
        own = codes.part(rows)
        side = _two_means(own.mean)
        if 1 < side.sum() < len(side) - 1:
            yield mixture.put(k, own, side).put(place, own, 1 - side)


def _two_means(z: Tensor, rounds: int = 10) -> Tensor:
    """``(M,)``, 0 or 1: two clusters of the rows, from either side of the longest axis."""
    centred = z - z.mean(0)
    axis = torch.linalg.svd(centred, full_matrices=False).Vh[0]
    side = (centred @ axis > 0).to(z)
    for _ in range(rounds):
        if not 0 < side.sum() < len(side):
            break
        one = (side.unsqueeze(-1) * z).sum(0) / side.sum()
        other = ((1 - side).unsqueeze(-1) * z).sum(0) / (1 - side).sum()
        side = ((z - one).square().sum(-1) < (z - other).square().sum(-1)).to(z)
    return side


def births(judge: Judge, mixture: Mixture, codes: Codes, tries: int = 3) -> Iterator[Mixture]:
    """A new cluster around each of the rows that the mixture explains worst.

    Its moments are those of the rows nearest to it, one in 2 K of all.
    """
    fits = judge.fits(mixture, codes)[:, :-1].amax(-1)
    near = max(FEWEST, len(fits) // (2 * int(mixture.active.sum()) + 2))
    for row in fits.argsort()[: max(1, len(fits) // 20)][
        torch.linspace(0, max(0, len(fits) // 20 - 1), tries).long()
    ].tolist():
        place = mixture.free()
        if place is None:
            return
        close = (codes.mean - codes.mean[row]).square().sum(-1).argsort()[:near]
        yield mixture.put(place, codes.part(close), torch.ones(len(close)).to(codes.mean))


def merges(judge: Judge, mixture: Mixture, codes: Codes, tries: int = 5) -> Iterator[Mixture]:
    """Two clusters made one, those first whose rows have most of each other's probability."""
    q = judge.assign(mixture, codes)[:, :-1]
    there = mixture.active.nonzero().flatten().tolist()
    scale = mixture.scale.square()
    apart = {
        (i, j): float(((mixture.loc[i] - mixture.loc[j]).square() / (scale[i] + scale[j])).sum())
        for i in there
        for j in there
        if i < j
    }
    for i, j in sorted(apart, key=lambda pair: apart[pair])[:tries]:
        weight = q[:, i] + q[:, j]
        if weight.sum() > 1:
            yield mixture.put(i, codes, weight).without(j)


def deaths(judge: Judge, mixture: Mixture, codes: Codes, tries: int = 5) -> Iterator[Mixture]:
    """A cluster gone, its rows left to the others, the smallest first."""
    q = judge.assign(mixture, codes)
    there = mixture.active.nonzero().flatten()
    if len(there) > 1:
        for k in there[q[:, there].sum(0).argsort()][:tries].tolist():
            yield mixture.without(k)


Move = Callable[[Judge, Mixture, Codes], Iterator[Mixture]]
MOVES: dict[str, Move] = {"deaths": deaths, "merges": merges, "births": births, "splits": splits}


def grow(
    judge: Judge, mixture: Mixture, codes: Codes, held: Codes, rounds: int = 3
) -> tuple[Mixture, dict[str, int]]:
    """Propose every move from codes, and keep those that held-out codes accept.

    Returns:
        The mixture, and how often each kind of :data:`MOVES` was kept.
    """
    kept = dict.fromkeys(MOVES, 0)
    with torch.no_grad():
        mixture = judge.refit(mixture, codes, 2)
        for _ in range(rounds):
            before = sum(kept.values())
            for name, move in MOVES.items():
                mixture, count = _climb(judge, move, mixture, codes, held)
                kept[name] += count
            if sum(kept.values()) == before:
                break
    return mixture, kept


def _climb(
    judge: Judge, move: Move, mixture: Mixture, codes: Codes, held: Codes
) -> tuple[Mixture, int]:
    """Keep the first proposal that is accepted, and go on from there until none is."""
    count, improved = 0, True
    while improved:
        improved = False
        for proposal in move(judge, mixture, codes):
            refitted = judge.refit(proposal, codes)
            if judge.accepts(mixture, refitted, held):
                mixture, count, improved = refitted, count + 1, True
                break
    return mixture, count


def encode(guide: Any, x: Tensor) -> Codes:
    """Codes of rows ``(M, P)`` by the guide's encoder."""
    with torch.no_grad():
        q = diagonal_normal(guide.encoder(x))
    return Codes(q.mean, q.stddev)


def grow_model(
    model: Any,
    guide: nn.Module,
    x: Tensor,
    held: Tensor,
    data: int,
    rounds: int = 3,
    margin: float = 0.1,
) -> dict[str, int]:
    """Let the clusters of an :class:`NGGPMixture` grow where they are, between two steps.

    Args:
        model, guide: an :class:`NGGPMixture` and its guide, changed in place.
        x, held: rows that propose and rows that judge, ``(M, P)`` each; a few thousand will do.
        data: number N of data that the model is trained on.
        rounds: how often all moves are tried.
        margin: see this file.

    Returns:
        How often each kind of :data:`MOVES` was kept.
    """
    judge = Judge(model.law, model.breadth, data, margin)
    loc, scale = (part[:-1].detach().clone() for part in model.components())
    codes = encode(guide, x)
    mixture, kept = grow(
        judge, Mixture(loc, scale, model.active.clone()), codes, encode(guide, held), rounds
    )
    model.place(*mixture)
    model.observe(judge.assign(mixture, codes))
    return kept
