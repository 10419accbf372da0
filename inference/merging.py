"""Merging mixture components that overlap, into fewer clusters."""

from dataclasses import dataclass

import torch
from torch import Tensor

from priorzoo.inference.data.tensors import as_tensor, check_finite


@dataclass(frozen=True)
class Merged:
    """Clusters that consist of one or more mixture components each.

    Args:
        groups: for each cluster the numbers of its components, in ascending order; clusters are
            ordered by their first component.
        entropies: mean entropy of the cluster probabilities of a row in nats, before the first
            merge and after each.
    """

    groups: tuple[tuple[int, ...], ...]
    entropies: tuple[float, ...]

    def probabilities(self, of_components: Tensor) -> Tensor:
        """``(N, C)`` probabilities of the clusters from those of the components ``(N, K)``.

        Raises:
            ValueError: for another number of components.
        """
        held = sum(len(group) for group in self.groups)
        if of_components.dim() != 2 or of_components.shape[1] != held:
            raise ValueError(
                f"Expected probabilities (N, {held}) but got {tuple(of_components.shape)}; give "
                "those of the components that were merged."
            )
        columns = [of_components[:, list(group)].sum(1) for group in self.groups]
        return torch.stack(columns, 1)


def merge_clusters(probabilities: Tensor, to: int) -> Merged:
    r"""Merge the two clusters that share the most rows, until ``to`` of them are left.

    A mixture with enough components fits clusters that are not Gaussian; components of one such
    cluster overlap. Each merge takes the pair of clusters j, k with the largest decrease of entropy
    per row of the merged cluster,

    .. math:: \frac{\sum_i h(t_{ij}) + h(t_{ik}) - h(t_{ij} + t_{ik})}{\sum_i t_{ij} + t_{ik}},
        \quad h(t) = -t \log t.

    The criterion of Baudry et al., "Combining mixture components for clustering", 2010, but divided
    by the number of rows in the merged cluster; without that, large clusters are merged first. No
    labels are used.

    Args:
        probabilities: ``(N, K)`` cluster probabilities of rows, such as those of
            :func:`cluster_probabilities`, for any model with clusters. Components without rows are
            merged first.
        to: number of clusters that are left, from 1 to K.

    Raises:
        ValueError: for values that are no probabilities, or a number outside 1 to K.
    """
    t = _checked(probabilities)
    if isinstance(to, bool) or not isinstance(to, int) or not 1 <= to <= t.shape[1]:
        raise ValueError(
            f"Expected a number of clusters from 1 to {t.shape[1]} but got {to!r}; components can "
            "be merged, not divided."
        )
    groups: list[tuple[int, ...]] = [(k,) for k in range(t.shape[1])]
    entropies = [_entropy(t).sum().item() / len(t)]
    gains = _gains(t)
    while len(groups) > to:
        first, second = divmod(int(gains.argmax()), len(groups))
        kept = [k for k in range(len(groups)) if k != second]
        t[:, first] += t[:, second]
        t, gains = t[:, kept], gains[kept][:, kept]
        groups[first] = tuple(sorted(groups[first] + groups.pop(second)))
        gains = _updated(gains, t, first)
        entropies.append(_entropy(t).sum().item() / len(t))
    return Merged(tuple(groups), tuple(entropies))


def _checked(probabilities: Tensor) -> Tensor:
    t = as_tensor(probabilities, "probabilities").detach().double().clone()
    if t.dim() != 2 or 0 in t.shape:
        raise ValueError(
            f"Expected probabilities (N, K) of at least one row but got {tuple(t.shape)}; give one "
            "row for each datum."
        )
    check_finite(t, "probabilities")
    if bool((t < 0).any()) or not torch.allclose(t.sum(1), torch.ones(()).to(t), atol=1e-3):
        raise ValueError(
            "Expected probabilities that are not negative and add up to 1 in each row but got sums "
            f"from {t.sum(1).min():g} to {t.sum(1).max():g}; give cluster_probabilities(...)."
        )
    return t


def _entropy(t: Tensor) -> Tensor:
    return -torch.xlogy(t, t)


def _gains(t: Tensor) -> Tensor:
    """``(K, K)`` decreases of entropy per row merged; -inf on and below the diagonal."""
    rows = [_gains_with(t, k) for k in range(t.shape[1])]
    below = torch.ones(len(rows), len(rows), dtype=torch.bool, device=t.device).tril()
    return torch.stack(rows).masked_fill(below, -torch.inf)


def _gains_with(t: Tensor, k: int) -> Tensor:
    one = t[:, [k]]
    decrease = (_entropy(one) + _entropy(t) - _entropy(one + t)).sum(0)
    rows, others = one.sum(), t.sum(0)
    return torch.where((rows > 0) & (others > 0), decrease / (rows + others), torch.inf)


def _updated(gains: Tensor, t: Tensor, k: int) -> Tensor:
    """The gains after cluster k has changed."""
    gains = gains.clone()
    new = _gains_with(t, k)
    gains[k, k + 1 :], gains[:k, k] = new[k + 1 :], new[:k]
    return gains
