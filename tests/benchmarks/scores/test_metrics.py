import itertools
import math

import pytest
import torch
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from priorzoo.benchmarks.scores import metrics

# Clusters 0, 1, 2 and 4 of 5 are used; by label: (3, 1, 0), (0, 2, 0), (0, 0, 2), -, (0, 1, 1).
MANY = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2, 4, 4])
LABELS = torch.tensor([3, 3, 3, 5, 5, 5, 9, 9, 5, 9])


def one_hot(assignments, clusters):
    return torch.nn.functional.one_hot(assignments, clusters).float()


def draw(clusters, classes, count=60):
    generator = torch.Generator().manual_seed(10 * clusters + classes)
    probabilities = torch.rand(count, clusters, generator=generator).softmax(-1)
    return probabilities, torch.randint(classes, (count,), generator=generator)


def brute_force_hungarian(assignments, labels, clusters, classes):
    """The best over every way of giving clusters distinct labels, or none."""
    names = [*range(classes), *[-1] * clusters]
    return max(
        (torch.tensor(taken)[assignments] == labels).double().mean().item()
        for taken in set(itertools.permutations(names, clusters))
    )


def test_contingency_counts_by_ascending_label():
    expected = [[3, 1, 0], [0, 2, 0], [0, 0, 2], [0, 0, 0], [0, 1, 1]]
    assert metrics.contingency(MANY, LABELS).tolist() == expected
    assert metrics.contingency(MANY, LABELS, 6).tolist() == [*expected, [0, 0, 0]]


def test_majority_by_hand():
    assert metrics.majority_accuracy(MANY, LABELS) == pytest.approx(0.8)  # 3 + 2 + 2 + 1
    assert metrics.majority_accuracy(torch.zeros(10, dtype=torch.int64), LABELS) == 0.4
    assert metrics.majority_accuracy(torch.arange(10), LABELS) == 1  # a cluster a row


def test_best_example_follows_the_surest_row_not_the_majority():
    probabilities = torch.tensor(
        [
            [0.6, 0.3, 0.1],
            [0.7, 0.2, 0.1],
            [0.9, 0.0, 0.1],  # label 1: the surest of cluster 0
            [0.2, 0.8, 0.0],
        ]
    )
    labels = torch.tensor([0, 0, 1, 0])
    assert metrics.best_example_accuracy(probabilities, labels) == 0.5
    assert metrics.majority_accuracy(probabilities.argmax(-1), labels) == 0.75


def test_best_example_does_not_mind_clusters_without_rows():
    """Cluster 2 has a surest row, of label 1, but no row of its own."""
    probabilities = torch.tensor([[0.6, 0.1, 0.3], [0.1, 0.5, 0.4]])
    assert metrics.best_example_accuracy(probabilities, torch.tensor([0, 1])) == 1


def test_hungarian_by_hand():
    assert metrics.hungarian_accuracy(MANY, LABELS) == pytest.approx(0.7)  # cluster 4 has no class
    swapped = torch.tensor([1, 1, 0, 0])
    assert metrics.hungarian_accuracy(swapped, torch.tensor([0, 0, 1, 1])) == 1
    assert metrics.hungarian_accuracy(torch.zeros(4, dtype=torch.int64), torch.arange(4)) == 0.25


@pytest.mark.parametrize(("clusters", "classes"), [(4, 3), (3, 3), (2, 4), (1, 3), (3, 1)])
def test_hungarian_against_brute_force(clusters, classes):
    probabilities, labels = draw(clusters, classes)
    assignments = probabilities.argmax(-1)
    expected = brute_force_hungarian(assignments, labels, clusters, classes)
    assert metrics.hungarian_accuracy(assignments, labels) == pytest.approx(expected)


def test_hungarian_order_puts_partners_on_the_diagonal():
    order = metrics.hungarian_order(MANY, LABELS, 6)
    assert order.tolist() == [0, 1, 2, 4, 3, 5]  # then cluster 4, then the empty ones
    shuffle = torch.tensor([5, 2, 4, 0, 1, 3])
    assert metrics.hungarian_order(shuffle[MANY], LABELS, 6).tolist() == [5, 2, 4, 1, 0, 3]


@pytest.mark.parametrize(
    ("used", "clusters", "classes"),
    [
        *[(6, 6, 3), (3, 3, 3), (1, 1, 1), (2, 3, 3), (3, 9, 5)],
        *[(2, 2, 4), (1, 1, 3), (2, 3, 5), (1, 4, 6), (3, 4, 5), (5, 6, 9)],  # fewer than classes
    ],
)
@pytest.mark.parametrize("seed", range(4))
def test_hungarian_order_is_a_permutation_that_attains_the_accuracy(used, clusters, classes, seed):
    """The best sum over places on the diagonal, or with few clusters over ascending columns."""
    generator = torch.Generator().manual_seed(seed)
    names = torch.randperm(clusters, generator=generator)[:used]
    assignments = names[torch.randint(used, (60,), generator=generator)]
    labels = torch.randint(classes, (60,), generator=generator)
    labels[:classes] = torch.arange(classes)
    order = metrics.hungarian_order(assignments, labels, clusters)
    assert sorted(order.tolist()) == list(range(clusters))
    table = metrics.contingency(assignments, labels, clusters)[order]
    expected = metrics.hungarian_accuracy(assignments, labels)
    if clusters >= classes:
        best = table.diagonal().sum().item()
    else:
        held = table[table.any(1)]
        assert not table[len(held) :].any()  # empty clusters are the last
        columns = itertools.combinations(range(classes), len(held))
        best = max(held[range(len(held)), chosen].sum().item() for chosen in columns)
    assert best / 60 == pytest.approx(expected)


def test_hungarian_order_with_few_clusters_by_hand():
    """Of five classes, cluster 3 holds 5 and cluster 1 holds 9; clusters 0 and 2 are empty."""
    labels = torch.tensor([5, 5, 9, 9, 9, 1, 3, 2])
    order = metrics.hungarian_order(torch.tensor([3, 3, 1, 1, 1, 3, 1, 1]), labels, 4)
    assert order.tolist() == [3, 1, 0, 2]


def test_used_clusters_leaves_out_the_empty():
    assert metrics.used_clusters(MANY) == 4


@pytest.mark.parametrize(("clusters", "expected"), [(5, 0.2), (6, 0.2), (7, 0), (8, 0)])
def test_tail_is_the_less_populated_half(clusters, expected):
    """Of 5 clusters the counts are 0, 2, 2, 2, 4; each cluster more is one more empty one."""
    assert metrics.tail_occupancy(MANY, clusters) == expected


def test_tail_of_a_uniform_assignment_is_half_and_of_one_cluster_nothing():
    assert metrics.tail_occupancy(torch.arange(12) % 4, 4) == 0.5
    assert metrics.tail_occupancy(torch.zeros(3, dtype=torch.int64), 1) == 0


def test_entropy_by_hand():
    assert metrics.mean_entropy(one_hot(MANY, 5)) == 0  # 0 log 0 = 0
    assert metrics.mean_entropy(torch.full((3, 10), 0.1)) == pytest.approx(math.log(10))
    rows = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
    assert metrics.mean_entropy(rows) == pytest.approx(math.log(2) / 2)
    expected = torch.distributions.Categorical(probs=(p := draw(7, 2)[0])).entropy().mean()
    assert metrics.mean_entropy(p) == pytest.approx(expected.item(), rel=1e-5)


def effective_clusters(probabilities):
    """exp of the KL divergence from the mean to the rows, averaged: their mutual information."""
    p = probabilities.double()
    return (p * (p / p.mean(0)).log()).nan_to_num(0).sum(-1).mean().exp().item()


@pytest.mark.parametrize(("clusters", "classes"), [(12, 3), (3, 3), (2, 9), (1, 4), (5, 1)])
def test_score_gathers_the_figures(clusters, classes):
    probabilities, labels = draw(clusters, classes)
    y = probabilities.argmax(-1)
    assert metrics.score(probabilities, labels) == pytest.approx(
        {
            "clusters": clusters,
            "used_clusters": len(set(y.tolist())),
            "effective_clusters": effective_clusters(probabilities),
            "entropy": metrics.mean_entropy(probabilities),
            "tail_occupancy": metrics.tail_occupancy(y, clusters),
            "accuracy_majority": metrics.majority_accuracy(y, labels),
            "accuracy_best_example": metrics.best_example_accuracy(probabilities, labels),
            "accuracy_hungarian": metrics.hungarian_accuracy(y, labels),
            "nmi": normalized_mutual_info_score(labels.numpy(), y.numpy()),
            "ari": adjusted_rand_score(labels.numpy(), y.numpy()),
        }
    )


def test_score_without_labels_leaves_out_what_needs_them():
    figures = metrics.score(one_hot(MANY, 6))
    assert figures == {
        "clusters": 6,
        "used_clusters": 4,
        "effective_clusters": pytest.approx(effective_clusters(one_hot(MANY, 6))),
        "entropy": 0,
        "tail_occupancy": pytest.approx(0.2),
    }
    assert all(type(figure) is float for figure in figures.values())


def test_perfect_clusters_score_one_whatever_their_names():
    figures = metrics.score(one_hot(torch.arange(30) % 3, 3), 100 - torch.arange(30) % 3)
    for key in ("majority", "best_example", "hungarian"):
        assert figures[f"accuracy_{key}"] == 1
    assert figures["nmi"] == figures["ari"] == pytest.approx(1)


def test_one_row():
    figures = metrics.score(torch.tensor([[0.25, 0.75]]), torch.tensor([4]))
    assert figures["used_clusters"] == figures["accuracy_majority"] == 1
    assert figures["accuracy_best_example"] == figures["accuracy_hungarian"] == 1
    assert figures["tail_occupancy"] == 0


def test_a_class_a_row_warns_of_nothing():
    """scikit-learn takes many classes for a regression problem, and says so."""
    assert metrics.score(torch.full((40, 2), 0.5), torch.arange(40))["accuracy_majority"] == 1 / 40


def test_gradients_and_half_precision_are_no_hindrance():
    probabilities = draw(4, 2)[0].bfloat16().requires_grad_()
    assert metrics.score(probabilities, torch.zeros(60, dtype=torch.uint8))["nmi"] == 0


EMPTY = torch.zeros(0, dtype=torch.int64)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.majority_accuracy(MANY, LABELS[:9]), "got 9 labels and 10 rows"),
        (lambda: metrics.hungarian_accuracy(MANY[:9], LABELS), "got 10 labels and 9 rows"),
        (lambda: metrics.hungarian_order(MANY[:9], LABELS, 5), "got 10 labels and 9 rows"),
        (lambda: metrics.best_example_accuracy(one_hot(MANY, 5), LABELS[:9]), "got 9 labels"),
        (lambda: metrics.score(one_hot(MANY, 5), LABELS[:9]), "got 9 labels"),
        (lambda: metrics.majority_accuracy(EMPTY, EMPTY), "at least one row but got none"),
        (lambda: metrics.used_clusters(EMPTY), "at least one row but got none"),
        (lambda: metrics.tail_occupancy(EMPTY, 3), "at least one row but got none"),
        (lambda: metrics.score(torch.zeros(0, 3)), r"at least one row but got shape \(0, 3\)"),
        (lambda: metrics.mean_entropy(torch.ones(3)), r"probabilities \(N, K\) .* shape \(3,\)"),
        (lambda: metrics.mean_entropy(torch.tensor([[3.0, -2.0]])), r"\[-2, 3\].*softmax"),
        (lambda: metrics.mean_entropy(torch.ones(2, 3)), r"over 3 clusters .* sums in \[3, 3\]"),
        (lambda: metrics.mean_entropy(torch.tensor([[math.nan, 1.0]])), "sum to one"),
        (lambda: metrics.tail_occupancy(MANY, 4), r"in \[0, 4\) but got them in \[0, 4\]"),
        (lambda: metrics.majority_accuracy(MANY - 1, LABELS), r"got them in \[-1, 3\]"),
        (lambda: metrics.majority_accuracy(one_hot(MANY, 5), LABELS), "take the argmax"),
        (lambda: metrics.majority_accuracy(MANY, LABELS.float()), "labels to be integers"),
    ],
)
def test_what_cannot_be_scored_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(("clusters", "classes"), [(4, 3), (3, 3), (2, 4), (1, 3), (5, 1)])
def test_rows_of_unknown_label_count_for_nothing_that_needs_labels(clusters, classes):
    """The metrics of the other rows alone, and those without labels of all rows."""
    q, labels = draw(clusters, classes)
    labels[::3] = -1
    known = labels >= 0
    found, alone = metrics.score(q, labels), metrics.score(q[known], labels[known])
    unlabelled = metrics.score(q)
    for name, value in found.items():
        assert value == pytest.approx((unlabelled if name in unlabelled else alone)[name]), name
    assert found.keys() == alone.keys()
    if classes <= clusters:
        assert metrics.accuracy(q, labels) == metrics.accuracy(q[known], labels[known])
    k, kept = q.argmax(-1), labels[known]
    assert torch.equal(
        metrics.contingency(k, labels, clusters), metrics.contingency(k[known], kept, clusters)
    )
    match, order = metrics.hungarian_match, metrics.hungarian_order
    assert match(k, labels, clusters) == match(k[known], kept, clusters)
    assert torch.equal(order(k, labels, clusters), order(k[known], kept, clusters))


def test_without_a_known_label_there_is_no_metric_of_labels():
    q, labels = draw(3, 3)
    none = torch.full_like(labels, -1)
    assert metrics.score(q, none) == metrics.score(q)
    assert metrics.accuracy(q, none) == {}
    with pytest.raises(ValueError, match="at least one known label but got -1 alone"):
        metrics.majority_accuracy(q.argmax(-1), none)


def test_accuracy_is_that_of_classes_that_the_clusters_can_have():
    q = one_hot(torch.tensor([0, 1, 2, 2]), 3)
    assert metrics.accuracy(q, torch.tensor([0, 1, 1, -1])) == {"accuracy": pytest.approx(2 / 3)}
    with pytest.raises(ValueError, match="labels from 0 to 2, as the clusters were taught"):
        metrics.accuracy(q, torch.tensor([1, 2, 3, 3]))
