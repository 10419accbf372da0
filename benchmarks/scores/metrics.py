"""How well clusters agree with labels, and how evenly and how surely they are used.

Rows with the label -1, which is unknown, count for nothing that needs labels.

An accuracy is meaningless without its protocol, the number of clusters and the number in use:
more clusters than classes raise ``majority`` and ``best_example`` for nothing.
"""

import warnings

import torch
from torch import Tensor

from priorzoo.inference import occupancy


def contingency(assignments: Tensor, labels: Tensor, clusters: int | None = None) -> Tensor:
    """How many rows of each class each cluster received; rows of unknown label are left out.

    Args:
        assignments, labels: ``(N,)``, integers.
        clusters: K; by default one more than the largest assignment.

    Returns:
        ``(K, C)``, int64, with a column for each label that occurs, in ascending order.

    Raises:
        ValueError: for no rows, unequal lengths, and assignments outside ``range(clusters)``.
    """
    assignments, labels = _pair(assignments, labels)
    low, high = int(assignments.min()), int(assignments.max())
    clusters = high + 1 if clusters is None else clusters
    if low < 0 or high >= clusters:
        raise ValueError(
            f"Expected assignments in [0, {clusters}) but got them in [{low}, {high}]; "
            "pass the number of clusters that the model has."
        )
    assignments, labels = _known(assignments, labels)
    classes, codes = labels.unique(return_inverse=True)
    cells = torch.bincount(assignments * len(classes) + codes, minlength=clusters * len(classes))
    return cells.view(clusters, len(classes))


def majority_accuracy(assignments: Tensor, labels: Tensor) -> float:
    """Each cluster takes its most frequent label."""
    table = contingency(assignments, labels)
    return table.amax(-1).sum().item() / table.sum().item()


def best_example_accuracy(probabilities: Tensor, labels: Tensor) -> float:
    """Each cluster takes the label of the row with the largest ``q(y = k | x)``.

    Makhzani et al., "Adversarial autoencoders", 2015. Of rows that tie, as those do whose
    probability is rounded to one, the first counts. Arguments are ``(N, K)`` and ``(N,)``.
    """
    probabilities, labels = _known(*_pair_of(probabilities, labels))
    assignments = probabilities.argmax(-1)
    taken = labels[probabilities.argmax(0)]
    return (taken[assignments] == labels).double().mean().item()


def hungarian_accuracy(assignments: Tensor, labels: Tensor) -> float:
    """Clusters and classes are matched one to one, as well as can be.

    Rows of clusters without a partner, of which there are some if K exceeds the number of classes,
    count as wrong; if classes exceed K, so do those of a class without a partner.
    """
    from scipy.optimize import linear_sum_assignment

    table = contingency(assignments, labels).numpy()
    return float(table[linear_sum_assignment(table, maximize=True)].sum() / table.sum())


def hungarian_match(assignments: Tensor, labels: Tensor, clusters: int) -> dict[int, int]:
    """The class that each cluster is matched with, one to one, in the order of the classes.

    If clusters exceed classes some clusters are left out, and else some classes may be.
    """
    from scipy.optimize import linear_sum_assignment

    table = contingency(assignments, labels, clusters)
    classes, matched = linear_sum_assignment(table.T.numpy(), maximize=True)
    present = labels[labels >= 0].unique()
    return dict(zip(matched.tolist(), present[classes].tolist(), strict=True))


def hungarian_order(assignments: Tensor, labels: Tensor, clusters: int) -> Tensor:
    """The clusters in the order of the classes they match, for the rows of a confusion matrix.

    With at least as many clusters as classes, each class has the cluster in its place:
    ``contingency(...)[order]`` has its large entries on the diagonal. With fewer, some classes have
    none, and the large entries lie below one another from left to right, in ascending columns.
    Clusters without a partner, or there without a row of its class, follow by their most frequent
    class, and empty ones come last.

    Returns:
        ``(K,)``, a permutation of the clusters.
    """
    table = contingency(assignments, labels, clusters)
    classes = labels[labels >= 0].unique().tolist()
    matched = [
        cluster
        for cluster, label in hungarian_match(assignments, labels, clusters).items()
        if clusters >= len(classes) or table[cluster, classes.index(label)] > 0
    ]
    rank = [(not row.any(), int(row.argmax())) for row in table]
    rest = sorted(set(range(clusters)) - set(matched), key=rank.__getitem__)
    return torch.tensor(matched + rest)


def used_clusters(assignments: Tensor) -> int:
    """How many clusters received a row."""
    return len(_codes("assignments", assignments).unique())


def tail_occupancy(assignments: Tensor, clusters: int) -> float:
    """The share of rows held by the ``floor(K / 2)`` clusters that hold fewest."""
    counts = contingency(assignments, assignments, clusters).sum(-1)
    return counts.sort().values[: clusters // 2].sum().item() / len(assignments)


def mean_entropy(probabilities: Tensor) -> float:
    """The mean over rows ``(N, K)`` of the entropy of ``q(y | x)``, in nats; at most log K."""
    return torch.special.entr(_simplex(probabilities)).sum(-1).mean().item()


def score(probabilities: Tensor, labels: Tensor | None = None) -> dict[str, float]:
    """All metrics of a clustering, each row assigned to its most probable cluster.

    - ``clusters``: K; ``used_clusters``: how many have a row; ``effective_clusters``: the
      exponential of the mutual information of row and cluster, K if q tells K equal clusters apart;
    - ``entropy``: mean of that of q(y | x), in nats; ``tail_occupancy``: the share of rows in the
      half of the clusters that hold fewest;
    - ``accuracy_majority``, ``accuracy_best_example`` and ``accuracy_hungarian``: the share of rows
      of the class that their cluster stands for, by three rules, each a function of this file;
    - ``nmi`` and ``ari``: normalised mutual information of clusters and classes, and the adjusted
      Rand index, as in scikit-learn.

    Args:
        probabilities: ``q(y | x)``, ``(N, K)``.
        labels: ``(N,)``, integers, -1 for unknown; without a known one the accuracies, ``nmi`` and
            ``ari`` are left out.

    Returns:
        clusters: number of clusters
        used_clusters: clusters that hold at least one row
        effective_clusters: 1 if q(y given x) says nothing of x, K if it separates K equal clusters
        active_clusters: components of the mixture that exist; of a nonparametric mixture alone
        entropy: mean entropy of q(y given x), nats; 0 if each row has one certain cluster
        tail_occupancy: share of the rows in the less used half of the clusters
        accuracy: share of the rows whose cluster is their label; of training with labels alone
        accuracy_majority: each cluster takes its most frequent label
        accuracy_best_example: each cluster takes the label of its most certain row
        accuracy_hungarian: clusters and classes matched one to one
        nmi: normalised mutual information of clusters and labels
        ari: adjusted Rand index of clusters and labels; 0 is chance
    """
    probabilities = _simplex(probabilities)
    assignments, clusters = probabilities.argmax(-1), probabilities.shape[-1]
    found = {
        "clusters": float(clusters),
        "used_clusters": float(used_clusters(assignments)),
        "effective_clusters": occupancy(probabilities)["effective_clusters"],
        "entropy": mean_entropy(probabilities),
        "tail_occupancy": tail_occupancy(assignments, clusters),
    }
    if labels is None or not (_pair(assignments, labels)[1] >= 0).any():
        return found
    probabilities, labels = _known(*_pair_of(probabilities, labels))
    assignments = probabilities.argmax(-1)
    return found | {
        "accuracy_majority": majority_accuracy(assignments, labels),
        "accuracy_best_example": best_example_accuracy(probabilities, labels),
        "accuracy_hungarian": hungarian_accuracy(assignments, labels),
        **_agreement(assignments, labels),
    }


def accuracy(probabilities: Tensor, labels: Tensor) -> dict[str, float]:
    """``accuracy``: the share of rows whose most probable cluster is their class.

    For clusters that learnt their names from labels. Nothing without a known label.

    Args:
        probabilities: ``q(y | x)``, ``(N, K)``.
        labels: ``(N,)``, integers, -1 for unknown.

    Raises:
        ValueError: for labels of K or more.
    """
    q, labels = _pair_of(probabilities, labels)
    if not (labels >= 0).any():
        return {}
    if labels.max() >= q.shape[-1]:
        raise ValueError(
            f"Expected labels from 0 to {q.shape[-1] - 1}, as the clusters were taught, or -1 for "
            f"unknown, but got {int(labels.max())}; number the classes as in the training."
        )
    q, labels = _known(q, labels)
    return {"accuracy": (q.argmax(-1) == labels).double().mean().item()}


def _agreement(assignments: Tensor, labels: Tensor) -> dict[str, float]:
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    y, k = labels.cpu().numpy(), assignments.numpy()
    with warnings.catch_warnings():  # many classes with few rows are no regression problem
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
        nmi, ari = normalized_mutual_info_score(y, k), adjusted_rand_score(y, k)
    return {"nmi": float(nmi), "ari": float(ari)}


def _known(rows: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The rows with a known label, and these labels."""
    known = labels >= 0
    if not known.any():
        raise ValueError(
            "Expected at least one known label but got -1 alone; score without labels."
        )
    return rows[known], labels[known]


def _pair_of(probabilities: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    probabilities = _simplex(probabilities)
    return probabilities, _pair(probabilities.argmax(-1), labels)[1]


def _pair(assignments: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    assignments, labels = _codes("assignments", assignments), _codes("labels", labels)
    if len(assignments) != len(labels):
        raise ValueError(
            f"Expected as many labels as rows but got {len(labels)} labels "
            f"and {len(assignments)} rows; score both over one part of the data."
        )
    return assignments, labels


def _codes(what: str, codes: Tensor) -> Tensor:
    if codes.ndim != 1 or codes.is_floating_point() or codes.is_complex():
        raise ValueError(
            f"Expected {what} to be integers (N,) but got {codes.dtype} of shape "
            f"{tuple(codes.shape)}; take the argmax of probabilities first."
        )
    if len(codes) == 0:
        raise ValueError(f"Expected {what} of at least one row but got none.")
    return codes.detach().cpu().long()


def _simplex(probabilities: Tensor) -> Tensor:
    if probabilities.ndim != 2 or probabilities.numel() == 0:
        raise ValueError(
            "Expected probabilities (N, K) of at least one row "
            f"but got shape {tuple(probabilities.shape)}."
        )
    p = probabilities.detach().cpu().double()
    if not ((p >= 0).all() and ((p.sum(-1) - 1).abs() < 1e-2).all()):
        raise ValueError(
            f"Expected probabilities that sum to one over {p.shape[-1]} clusters but got values in "
            f"[{p.min():g}, {p.max():g}] and sums in [{p.sum(-1).min():g}, {p.sum(-1).max():g}]; "
            "take the softmax of logits first."
        )
    return p
