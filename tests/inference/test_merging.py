"""Merging of components, beside a search over all pairs and clusters that are known."""

import itertools
import math

import pytest
import torch
from sklearn.datasets import make_moons
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture

from priorzoo.inference import Merged, merge_clusters

Group = tuple[int, ...]


def _entropy(t: list[list[float]], groups: list[Group]) -> float:
    sums = [sum(row[k] for k in group) for row in t for group in groups]
    return -sum(p * math.log(p) for p in sums if p > 0)


def _merged(groups: list[Group], pair: tuple[Group, Group]) -> list[Group]:
    return [group for group in groups if group not in pair] + [tuple(sorted(pair[0] + pair[1]))]


def _best(t: list[list[float]], groups: list[Group]) -> list[Group]:
    """The groups after the best merge by the definition: entropies of whole partitions."""
    gains = {}
    for pair in itertools.combinations(groups, 2):
        rows = sum(row[k] for row in t for group in pair for k in group)
        gains[pair] = (_entropy(t, groups) - _entropy(t, _merged(groups, pair))) / rows
    return _merged(groups, max(gains, key=gains.__getitem__))


@pytest.mark.parametrize("seed", range(5))
def test_each_merge_is_the_best_of_all_pairs(seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        t = torch.distributions.Dirichlet(torch.full((7,), 0.3).double()).sample((40,))
    groups = [(k,) for k in range(7)]
    for to in range(7, 0, -1):
        assert sorted(merge_clusters(t, to).groups) == sorted(groups)
        groups = _best(t.tolist(), groups) if to > 1 else groups


def test_two_crescents_are_found_from_many_components():
    x, y = make_moons(600, noise=0.06, random_state=0)
    mixture = GaussianMixture(8, n_init=5, random_state=0).fit(x)
    t = torch.as_tensor(mixture.predict_proba(x))
    merged = merge_clusters(t, 2)
    clusters = merged.probabilities(t).argmax(1)
    assert adjusted_rand_score(y, clusters.numpy()) > 0.9
    assert adjusted_rand_score(y, GaussianMixture(2, random_state=0).fit_predict(x)) < 0.7
    assert merged.entropies == tuple(sorted(merged.entropies, reverse=True))


def test_components_without_rows_go_first():
    t = torch.tensor([[0.9, 0.0, 0.1, 0.0], [0.2, 0.0, 0.8, 0.0]])
    merged = merge_clusters(t, 2)
    assert bool((merged.probabilities(t).sum(0) > 0).all())
    assert sorted(merge_clusters(t, 4).groups) == [(0,), (1,), (2,), (3,)]


def test_the_input_is_left_as_it_is():
    t = torch.eye(3).repeat(2, 1)
    merge_clusters(t, 1)
    assert torch.equal(t, torch.eye(3).repeat(2, 1))


@pytest.mark.parametrize(
    ("t", "to", "message"),
    [
        (torch.ones(4), 1, "probabilities"),
        (torch.ones(0, 3), 1, "at least one row"),
        (torch.ones(4, 3), 1, "add up to 1"),
        (torch.tensor([[1.5, -0.5]]), 1, "not negative"),
        (torch.tensor([[math.nan, 1.0]]), 1, "finite"),
        (torch.eye(3), 4, "from 1 to 3"),
        (torch.eye(3), 0, "from 1 to 3"),
        (torch.eye(3), 1.5, "from 1 to 3"),
    ],
)
def test_what_cannot_be_merged_is_refused(t, to, message):
    with pytest.raises(ValueError, match=message):
        merge_clusters(t, to)


def test_other_components_are_refused():
    with pytest.raises(ValueError, match=r"\(N, 3\)"):
        Merged(((0, 2), (1,)), (1.0, 0.5)).probabilities(torch.ones(2, 4))
