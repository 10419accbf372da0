"""Cluster occupancy, and the warnings that it is worth."""

import math

import pytest
import torch

from priorzoo.inference import degeneracy, occupancy


def test_the_effective_number_is_that_of_equal_clusters_told_apart():
    """Certain rows over m of K clusters, as many each: m; the same q(y | x) for all rows: 1."""
    for m in (1, 2, 5):
        rows = torch.eye(5)[torch.arange(100) % m]
        found = occupancy(rows)
        assert found["effective_clusters"] == pytest.approx(m)
        assert found["used_clusters"] == m
        assert found["entropy"] == 0
    flat = occupancy(torch.full((7, 5), 0.2))
    assert flat["effective_clusters"] == pytest.approx(1)
    assert flat["entropy"] == pytest.approx(math.log(5))


def test_the_effective_number_is_by_hand_that_of_unequal_and_unsure_rows():
    p = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], dtype=torch.float64)
    mean = [sum(column) / 3 for column in p.T.tolist()]
    whole = -sum(m * math.log(m) for m in mean)
    own = -sum(v * math.log(v) for row in p.tolist() for v in row) / 3
    assert occupancy(p)["effective_clusters"] == pytest.approx(math.exp(whole - own))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (torch.full((9, 4), 0.25), "effective number is 1.00 of 4"),
        (torch.eye(4)[torch.zeros(9, dtype=torch.int64)], "effective number is 1.00 of 4"),
        (torch.eye(5)[torch.arange(9) % 2], "half of the clusters are empty, 2 of 5"),
    ],
)
def test_degenerate_clusters_are_told_of(rows, message):
    assert message in degeneracy(rows)


@pytest.mark.parametrize("rows", [torch.eye(4)[torch.arange(9) % 2], torch.ones(9, 1)])
def test_healthy_clusters_are_not(rows):
    assert degeneracy(rows) is None
