"""Whether a clustering still deserves its name: how many clusters are in use, and how evenly."""

import torch
from torch import Tensor


def occupancy(probabilities: Tensor) -> dict[str, float]:
    """What share of the data the clusters hold.

    Args:
        probabilities: ``q(y | x)``, ``(N, K)``.

    Returns:
        ``clusters``: K; ``used_clusters``: those that are some row's most probable;
        ``effective_clusters``: the exponential of the entropy of the mean of q(y | x) less that of
        q(y | x) itself, that is, of the mutual information of row and cluster: 1 if q says nothing
        of the row, K if it tells K equal clusters apart; ``entropy``: mean of that of q(y | x), in
        nats.
    """
    p = probabilities.detach().double()
    own = torch.special.entr(p).sum(-1).mean()
    information = torch.special.entr(p.mean(0)).sum() - own
    return {
        "clusters": float(p.shape[-1]),
        "used_clusters": float(len(p.argmax(-1).unique())),
        "effective_clusters": information.clamp(min=0).exp().item(),
        "entropy": own.item(),
    }


def degeneracy(probabilities: Tensor) -> str | None:
    """What is wrong with clusters that are mostly empty or tell nothing apart, and what may help.

    Args:
        probabilities: ``q(y | x)``, ``(N, K)``.

    Returns:
        One line when more than half of the clusters are empty, or when their effective number falls
        to one; None when all is well.
    """
    found = occupancy(probabilities)
    clusters, used = found["clusters"], found["used_clusters"]
    remedy = "give the KL of y a floor, anneal its weight, or start again."
    if clusters > 1 and found["effective_clusters"] < 1.1:
        return (
            f"The clusters have degenerated: their effective number is "
            f"{found['effective_clusters']:.2f} of {clusters:.0f}, and q(y | x) says next to "
            f"nothing of x; {remedy}"
        )
    if used < clusters / 2:
        return (
            f"More than half of the clusters are empty, {used:.0f} of {clusters:.0f} hold a row; "
            f"ask for fewer, {remedy}"
        )
    return None
