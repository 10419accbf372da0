"""Diagnosis of degenerate clusterings: how many clusters are in use, and how evenly."""

import torch
from torch import Tensor


def occupancy(probabilities: Tensor) -> dict[str, float]:
    """Measure how many clusters are in use, and how evenly.

    Args:
        probabilities: ``q(y | x)``, ``(N, K)``.

    Returns:
        ``clusters``: K; ``used_clusters``: number of clusters that are the most probable one of
        some row; ``effective_clusters``: exponential of the mutual information of row and cluster,
        which is the entropy of the mean of q(y | x) minus the mean entropy of q(y | x): 1 if q does
        not depend on the row, K if it separates K equal clusters; ``entropy``: mean entropy of
        q(y | x), in nats.
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
    """A warning about degenerate clusters that suggests a remedy, or None.

    Args:
        probabilities: ``q(y | x)``, ``(N, K)``.

    Returns:
        One line if more than half of the clusters are empty or if fewer than 1.1 of several
        clusters are in effective use; None otherwise.
    """
    found = occupancy(probabilities)
    clusters, used = found["clusters"], found["used_clusters"]
    remedy = "give the KL of y a floor, anneal its weight, or start again."
    if clusters > 1 and found["effective_clusters"] < 1.1:
        return (
            f"The clusters have degenerated: their effective number is "
            f"{found['effective_clusters']:.2f} of {clusters:.0f}, and q(y | x) hardly depends on "
            f"x; {remedy}"
        )
    if used < clusters / 2:
        return (
            f"More than half of the clusters are empty, {used:.0f} of {clusters:.0f} hold a row; "
            f"use fewer clusters, {remedy}"
        )
    return None
