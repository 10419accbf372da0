"""Rows that lie far from each other, to begin clusters from."""

import torch
from torch import Tensor


def k_means_plus_plus(points: Tensor, count: int, centres: Tensor) -> Tensor:
    """Indices ``(count,)`` of points ``(N, D)``, each drawn far from the centres before it.

    With a probability in proportion to the squared distance to the nearest of them: Arthur and
    Vassilvitskii, "k-means++: the advantages of careful seeding", 2007. Where every point coincides
    with a centre, and without any centre, at random. Random numbers are those of the caller.

    Args:
        points: to choose among.
        count: how many to draw.
        centres: ``(M, D)``, those that there are already; M may be 0.
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
    """``(N,)`` squared distances, from the differences: a shorter way loses digits."""
    return (points - centre).square().sum(-1)
