"""k-means++: a choice of points that are far from each other, to initialise clusters."""

import torch
from torch import Tensor


def k_means_plus_plus(points: Tensor, count: int, centres: Tensor) -> Tensor:
    """Choose points ``(N, D)`` one after the other, each far from all centres chosen before.

    The probability of a point is proportional to its squared distance to the nearest centre:
    Arthur and Vassilvitskii, "k-means++: the advantages of careful seeding", 2007. It is uniform if
    there is no centre yet or if every point coincides with a centre. Random numbers are drawn from
    the caller's stream.

    Args:
        points: candidates, ``(N, D)``.
        count: number of points to choose.
        centres: existing centres ``(M, D)``; M may be 0.

    Returns:
        Indices ``(count,)`` of the chosen points.
    """
    chosen: list[Tensor] = []
    gaps = torch.full((len(points),), torch.inf, device=points.device)
    for centre in centres:
        gaps = gaps.minimum(_squares(points, centre))
    for _ in range(count):
        weight = torch.where(gaps.isinf(), 1.0, gaps).clamp(min=1e-12)
        chosen.append(torch.multinomial(weight, 1)[0])
        gaps = gaps.minimum(_squares(points, points[chosen[-1]]))
    return torch.stack(chosen) if chosen else torch.zeros(0, dtype=torch.int64)


def _squares(points: Tensor, centre: Tensor) -> Tensor:
    """``(N,)`` squared distances, from differences, since inner products would lose digits."""
    return (points - centre).square().sum(-1)
