"""Clusters that are born, merge and die, by what the collapsed bound says of held-out codes.

A move is kept if the bound pays ``margin`` nats for each datum that it reassigns, and a nat in
all; one that takes a cluster away, if the bound loses no more than that. Without a margin a cluster
that is not quite Gaussian, as none is, would be cut into ever more pieces: with data enough, any
difference pays.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from priorzoo.guides.nggp import CollapsedCode
from priorzoo.inference.batch import Transform
from priorzoo.inference.nggp.judge import Codes, Judge, Mixture
from priorzoo.inference.sites import evaluating
from priorzoo.models.nggp.mixture import NGGPMixture

FEWEST = 10  # rows of a cluster that may be split


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
            yield judge.put(judge.put(mixture, k, own, side), place, own, 1 - side)


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
        yield judge.put(mixture, place, codes.part(close), codes.mean.new_ones(len(close)))


def merges(judge: Judge, mixture: Mixture, codes: Codes, tries: int = 5) -> Iterator[Mixture]:
    """Two clusters made one, those first whose rows have most of each other's probability."""
    q = judge.assign(mixture, codes)[:, :-1]
    there = mixture.active.nonzero().flatten().tolist()
    scale = judge.kind.variance(mixture.scale)
    apart = {
        (i, j): float(((mixture.loc[i] - mixture.loc[j]).square() / (scale[i] + scale[j])).sum())
        for i in there
        for j in there
        if i < j
    }
    for i, j in sorted(apart, key=lambda pair: apart[pair])[:tries]:
        weight = q[:, i] + q[:, j]
        if weight.sum() > 1:
            yield judge.put(mixture, i, codes, weight).without(j)


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
        improved, before = False, judge.assign(mixture, held)
        for proposal in move(judge, mixture, codes):
            refitted = judge.refit(proposal, codes)
            if judge.accepts(mixture, before, refitted, held):
                mixture, count, improved = refitted, count + 1, True
                break
    return mixture, count


def encode(guide: CollapsedCode, x: Tensor) -> Codes:
    """Codes of rows ``(M, P)`` by the guide's encoder."""
    with torch.no_grad(), evaluating(guide):
        return Codes(*guide.model.kind.posterior(guide.encoder(x)))


def grow_model(
    model: NGGPMixture,
    guide: CollapsedCode,
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
    judge = Judge(model.law, model.breadth, data, margin, model.kind)
    loc, scale = (part[:-1].detach().clone() for part in model.components())
    codes = encode(guide, x)
    mixture, kept = grow(
        judge, Mixture(loc, scale, model.active.clone()), codes, encode(guide, held), rounds
    )
    model.set_components(*mixture)
    model.observe(judge.assign(mixture, codes), data=data)
    return kept


def move_clusters(
    model: NGGPMixture,
    guide: CollapsedCode,
    x: Tensor,
    *,
    seed: int,
    transform: Transform | None = None,
    rows: int = 2_000,
    rounds: int = 3,
    margin: float = 0.1,
) -> dict[str, float]:
    """:func:`grow_model` on fresh rows, as a recipe calls it between two steps.

    Args:
        model, guide: as in :func:`grow_model`.
        x: rows ``(N, P)`` to train on.
        seed: of the choice of rows.
        transform: of batches.
        rows: how many propose, and how many judge; at most half of all for each.
        rounds, margin: as in :func:`grow_model`.

    Returns:
        How often each kind of :data:`MOVES` was kept, and what there is now: ``clusters``,
        ``occupied``, E[K] of those that hold data, and ``log u``, the mean of v.
    """
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    chosen = x[order[: 2 * rows].to(x.device)]
    chosen = chosen if transform is None else transform(chosen)
    proposing, judging = chosen.tensor_split(2)
    kept = grow_model(model, guide, proposing, judging, len(x), rounds, margin)
    with torch.no_grad():
        return kept | {
            "clusters": int(model.active.sum()),
            "occupied": float(model.occupancy(len(x)).occupied.sum()),
            "log u": float(model.law_of_v(len(x)).mean),
        }
