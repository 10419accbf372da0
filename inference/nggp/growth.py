"""Moves that create, split, merge and remove clusters, accepted by the collapsed bound.

The bound is computed on held-out codes. A move that adds a cluster is kept if the bound of all data
rises by more than ``margin`` nats for each datum that changes its cluster, plus one nat. A move
that removes a cluster is kept if the bound falls by less than that. Without a margin, clusters
would be split without end: no real cluster is exactly Gaussian, and with enough data any better fit
raises the bound.

A move that adds a cluster must gain as much on the codes that it was fitted to, and two standard
errors on those held out. Otherwise a few held-out codes would decide: of many proposals for small
clusters, some fit these codes better by chance.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from priorzoo.guides.nggp import CollapsedCode
from priorzoo.inference.batch import Batch, Context, Transform
from priorzoo.inference.data.checks import admit
from priorzoo.inference.data.choosing import chosen_rows
from priorzoo.inference.data.repeats import repeated
from priorzoo.inference.data.tensors import check_count
from priorzoo.inference.nggp.collapsed_bound import (
    Assigned,
    Codes,
    CollapsedBound,
    Gain,
    Mixture,
    adds,
)
from priorzoo.inference.nggp.trials import tried
from priorzoo.inference.sites import evaluating
from priorzoo.models.nggp.mixture import NGGPMixture
from priorzoo.models.observation import encode

Proposals = Iterator[Mixture]
MIN_ROWS = 10  # a cluster with fewer rows is not split


def splits(bound: CollapsedBound, now: Assigned) -> Proposals:
    """Split each cluster in two across its longest axis, the largest cluster first."""
    owner = now.q.argmax(-1)
    for k in now.tally.mean[:-1].argsort(descending=True).tolist():
        new, rows = now.mixture.unused(), (owner == k).nonzero().flatten()
        if new is None or len(rows) < MIN_ROWS:
            continue
        side = _two_means(now.codes.mean[rows])
        if 1 < side.sum() < len(side) - 1:
            sums = torch.stack([side, 1 - side]).double() @ now.statistics[rows]
            yield bound.fit(now.mixture, torch.tensor([k, new]), sums)


def _two_means(z: Tensor, rounds: int = 10) -> Tensor:
    """Two-means of the rows, initialised by the sides of their longest axis: ``(M,)``, 0 or 1."""
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


def births(bound: CollapsedBound, now: Assigned, tries: int = 3) -> Proposals:
    """Add a cluster around rows with a low log density under every component.

    It is fitted to the nearest rows, a share of about 1 / (2 K) of all.
    """
    fits, z = now.fits[:, :-1].amax(-1), now.codes.mean
    near = max(MIN_ROWS, len(fits) // (2 * int(now.mixture.active.sum()) + 2))
    for row in fits.argsort()[: max(1, len(fits) // 20)][
        torch.linspace(0, max(0, len(fits) // 20 - 1), tries).long()
    ].tolist():
        new = now.mixture.unused()
        if new is None:
            return
        close = (z - z[row]).square().sum(-1).argsort()[:near]
        yield bound.fit(now.mixture, new, now.statistics[close].sum(0))


def merges(bound: CollapsedBound, now: Assigned, tries: int = 5) -> Proposals:
    """Merge two clusters, those first whose distance is smallest relative to their variances."""
    active = now.mixture.active.nonzero().flatten()
    loc, variance = now.mixture.loc[active], bound.kind.variance(now.mixture.scale[active])
    apart = (loc.unsqueeze(1) - loc).square() / (variance.unsqueeze(1) + variance)
    pairs = torch.triu_indices(len(loc), len(loc), 1)
    for i, j in active[pairs[:, apart.sum(-1)[*pairs].argsort()[:tries]]].T.tolist():
        weight = now.q[:, i] + now.q[:, j]
        if weight.sum() > 1:
            yield bound.fit(now.mixture, i, weight @ now.statistics).without(j)


def deaths(bound: CollapsedBound, now: Assigned, tries: int = 5) -> Proposals:
    """Remove a cluster, the smallest first; its rows go to the others."""
    active = now.mixture.active.nonzero().flatten()
    if len(active) > 1:
        for k in active[now.tally.mean[active].argsort()][:tries].tolist():
            yield now.mixture.without(k)


Move = Callable[[CollapsedBound, Assigned], Proposals]
MOVES: dict[str, Move] = {"deaths": deaths, "merges": merges, "births": births, "splits": splits}


def grow(
    bound: CollapsedBound, mixture: Mixture, codes: Codes, held: Codes, rounds: int = 3
) -> tuple[Mixture, dict[str, int]]:
    """Propose every kind of move from ``codes``; keep moves that raise the bound of ``held``.

    Returns:
        The mixture, and how many moves of each kind in :data:`MOVES` were kept.
    """
    kept = dict.fromkeys(MOVES, 0)
    with torch.no_grad():
        mixture = bound.refit(mixture, codes, 2)
        stand = Standing.of(bound, bound.assigned(mixture, codes), bound.assigned(mixture, held))
        for _ in range(rounds):
            before = sum(kept.values())
            for name, move in MOVES.items():
                stand, count = _climb(bound, move, stand)
                kept[name] += count
            if sum(kept.values()) == before:
                break
    return stand.now.mixture, kept


class Standing(NamedTuple):
    """A mixture with the codes that propose and those that decide.

    ``level`` is E[log p(y)] of the latter; ``idle`` is what their bound gains when all components
    are refitted without a move.
    """

    now: Assigned
    held: Assigned
    level: Tensor
    idle: Gain

    @classmethod
    def of(cls, bound: CollapsedBound, now: Assigned, held: Assigned) -> "Standing":
        """With what refitting would do."""
        after = bound.assigned(bound.refit(now.mixture, now.codes), held.codes)
        return cls(now, held, bound.log_prior(held.tally, len(held.q)), bound.gain(held, after))

    def after(self, bound: CollapsedBound, proposal: Mixture) -> "Standing | None":
        """With the proposal if it is accepted, else None.

        It is judged with all components refitted, but only if it may pass by what it gains where it
        touches, and by what refitting gains without it.
        """
        now, held, level, idle = self
        if not tried(bound, now, proposal).on(held).may_pass(level, idle):
            return None
        mixture = bound.refit(proposal, now.codes)
        after = bound.assigned(mixture, held.codes)
        if not bound.passes(held.mixture, mixture, bound.gain(held, after)):
            return None
        own = bound.assigned(mixture, now.codes)
        fitted = bound.gain(now, own)._replace(error=torch.zeros_like(level))
        if adds(held.mixture, mixture) and not bound.passes(held.mixture, mixture, fitted):
            return None
        return Standing.of(bound, own, after)


def _climb(bound: CollapsedBound, move: Move, stand: Standing) -> tuple[Standing, int]:
    """Accept one proposal after the other until none is accepted."""
    count, improved = 0, True
    while improved:
        improved = False
        for proposal in move(bound, stand.now):
            if found := stand.after(bound, proposal):
                stand, count, improved = found, count + 1, True
                break
    return stand, count


def posteriors(guide: CollapsedCode, batch: Batch) -> Codes:
    """q(z | x) of rows ``(M, P)`` by the guide's encoder, given what it takes beside them."""
    with torch.no_grad(), evaluating(guide):
        return Codes(*guide.model.kind.posterior(encode(guide.encoder, batch.x, batch.context)))


def grow_model(
    model: NGGPMixture,
    guide: CollapsedCode,
    x: Tensor,
    held: Tensor,
    data: int,
    rounds: int = 3,
    margin: float = 0.1,
    *,
    context: Context | None = None,
    held_context: Context | None = None,
) -> dict[str, int]:
    """Create, split, merge and remove clusters of an :class:`NGGPMixture` between training steps.

    Args:
        model, guide: an :class:`NGGPMixture` and its guide; the model is changed in place.
        x: rows ``(M, P)`` from which moves are proposed; a few thousand are enough.
        held: other rows ``(M, P)``, on which the bound decides whether a move is kept.
        data: number N of data that the model is trained on.
        rounds: maximal number of times that all kinds of moves are tried.
        margin: nats that a move must gain for each datum whose cluster changes, see this module.
        context, held_context: what the programs are told beside both, each ``(M, ...)``. A row of
            weight w counts as w rows, see :func:`repeats`.

    Returns:
        How many moves of each kind in :data:`MOVES` were kept.

    Raises:
        ValueError: for rows that the likelihood does not accept.
    """
    proposing, deciding = (
        _repeated(admit(model, rows, context=beside, on_device=True))
        for rows, beside in ((x, context), (held, held_context))
    )
    bound = CollapsedBound(model.law, model.breadth, data, margin, model.kind)
    loc, scale = (part[:-1].detach().clone() for part in model.components())
    codes, held_codes = posteriors(guide, proposing), posteriors(guide, deciding)
    now = Mixture(loc, scale, model.active.clone())
    mixture, kept = grow(bound, now, codes, held_codes, rounds)
    model.set_components(*mixture)
    model.observe(bound.assign(mixture, codes), data=data)
    return kept


def _repeated(batch: Batch) -> Batch:
    x, context = repeated(batch.x, batch.context)
    return replace(batch, x=x, context=context)


def move_clusters(
    model: NGGPMixture,
    guide: CollapsedCode,
    x: Tensor,
    *,
    seed: int,
    transform: Transform | None = None,
    context: Context | None = None,
    rows: int = 2_000,
    rounds: int = 3,
    margin: float = 0.1,
) -> dict[str, float]:
    """:func:`grow_model` on randomly chosen training rows; recipes call it between two steps.

    Args:
        model, guide: as in :func:`grow_model`.
        x: training rows ``(N, P)``.
        seed: seed of the choice of rows.
        transform: transform of batches.
        context: what the programs are told beside the rows, each ``(N, ...)``; ``weights`` as in
            :func:`grow_model`.
        rows: number of rows that propose moves, and number of other rows that decide about them;
            each at most half of all rows.
        rounds, margin: as in :func:`grow_model`.

    Returns:
        How many moves of each kind in :data:`MOVES` were kept, and the new state: ``clusters``,
        their number; ``occupied``, the expected number of those with data; ``log u``, the mean
        of v.
    """
    check_count(rows, "rows")
    whole = admit(model, x, context=context, transform=transform, dry_run=False)
    count = len(whole.x)
    check_rows(count)
    chosen = chosen_rows(whole, 2 * rows, seed, transform)
    proposing, held = chosen.x.tensor_split(2)
    halves = {name: value.tensor_split(2) for name, value in chosen.context.items()}
    told: dict[str, Context] = {
        "context": {name: half[0] for name, half in halves.items()},
        "held_context": {name: half[1] for name, half in halves.items()},
    }
    kept = grow_model(model, guide, proposing, held, count, rounds, margin, **told)
    with torch.no_grad():
        return kept | {
            "clusters": int(model.active.sum()),
            "occupied": float(model.occupancy(count).occupied.sum()),
            "log u": float(model.law_of_v(count).mean),
        }


def check_rows(count: int) -> None:
    """Check that moves can be proposed by some training rows and decided by others.

    Raises:
        ValueError: for less than two rows.
    """
    if count < 2:
        raise ValueError(
            "Expected at least two rows, one to propose moves and one to decide about them, but "
            f"got {count}; train on more, or without moves."
        )
