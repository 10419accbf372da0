"""A move between training steps that gives clusters without rows a new place."""

import torch
from torch import Tensor, nn

from priorzoo.inference.batch import Context, Transform
from priorzoo.inference.data.checks import admit
from priorzoo.inference.data.choosing import chosen_rows
from priorzoo.inference.data.portions import portions
from priorzoo.inference.data.repeats import repeated
from priorzoo.inference.data.tensors import check_count
from priorzoo.inference.objectives.conjugate import bound
from priorzoo.inference.prediction import cluster_probabilities, code_variances, codes
from priorzoo.inference.sites import evaluating
from priorzoo.models.contract import PlacesClusters

BATCH = 500


def reseed_clusters(
    model: nn.Module,
    guide: nn.Module,
    x: Tensor,
    *,
    seed: int,
    transform: Transform | None = None,
    context: Context | None = None,
    done: float = 0.0,
    until: float = 0.5,
    starved: float = 0.1,
    worst: float = 0.1,
    rows: int = 10_000,
) -> dict[str, float]:
    """Place clusters that hold few rows where the rows are whose bound is lowest.

    A cluster is starved if the mean of q(y | x) is below ``starved`` of 1/K. The rows with the
    lowest bound are divided by their most probable cluster. The largest part goes to the cluster
    with the smallest share, the next to the second, and so on: such a cluster becomes a Gaussian
    with the mean of q(z | x) over its part and, in each dimension, the variance of that mixture. It
    can hold rows at once if the guide finds the cluster from the code, such as
    :class:`CodeThenCluster` and :class:`CodesThenCluster`.

    Args:
        model: with clusters that can be placed, see :class:`PlacesClusters`; changed in place.
        guide: with codes ``z`` and an enumerated cluster ``y``.
        x: training rows ``(N, P)``.
        seed: of the choice of rows.
        transform: of batches.
        context: what the programs are told beside the rows, each ``(N, ...)``. A row of weight w
            counts as w rows, see :func:`repeats`.
        done: share of the training that is over, which recipes tell.
        until: share of the training after which nothing is done any more.
        starved: share of 1/K below which a cluster is placed anew.
        worst: share of the rows, those with the lowest bound, where it is placed.
        rows: number of randomly chosen training rows that are looked at.

    Returns:
        ``reseeded``, the number of clusters placed anew, and ``smallest share``, the smallest mean
        of q(y | x) before; nothing after ``until``.

    Raises:
        ValueError: for a model whose clusters cannot be placed.
    """
    if not isinstance(model, PlacesClusters):
        raise ValueError(
            f"Expected a model whose clusters can be placed but {type(model).__name__} has no "
            "place_cluster; add that method, or train without this move."
        )
    if done > until:
        return {}
    check_count(rows, "rows")
    whole = admit(model, x, context=context, transform=transform, dry_run=False)
    some = chosen_rows(whole, rows, seed, transform)
    chosen, told = repeated(some.x, some.context)
    q = cluster_probabilities(model, guide, chosen, context=told)
    share = q.mean(0)
    hungry = [k for k in share.argsort().tolist() if share[k] < starved / model.clusters]
    count = max(len(hungry), round(worst * len(chosen)))
    lowest = row_bounds(model, guide, chosen, context=told).argsort()[:count]
    parts = _parts(lowest, q.argmax(-1)[lowest], len(hungry)) if hungry else []
    z = codes(model, guide, chosen, context=told)
    spread = code_variances(model, guide, chosen, context=told)
    for k, part in zip(hungry, parts, strict=False):
        variance = z[part].var(0, unbiased=False) + spread[part].mean(0)
        model.place_cluster(k, z[part].mean(0), variance)
    return {"reseeded": float(min(len(hungry), len(parts))), "smallest share": float(share.min())}


def row_bounds(
    model: nn.Module, guide: nn.Module, x: Tensor, *, context: Context | None = None
) -> Tensor:
    """``(N,)`` ELBO of each row, from one draw, without KL weights and floors."""
    objective = bound(model, guide)
    _, parts = portions(model, x, BATCH, context=context)
    with torch.no_grad(), evaluating(model, guide):
        batches = (batch for part in parts for batch in part.split(BATCH))
        return torch.cat([objective.held_out(batch)["elbo"] for batch in batches])


def _parts(rows: Tensor, owners: Tensor, count: int) -> list[Tensor]:
    """Rows ``(M,)`` by their owner, the most rows first; halves of these if there are too few."""
    groups = [rows[owners == k] for k in owners.unique()]
    groups.sort(key=len, reverse=True)
    while len(groups) < count and len(groups[0]) > 1:
        groups = [*groups[0].tensor_split(2), *groups[1:]]
        groups.sort(key=len, reverse=True)
    return groups
