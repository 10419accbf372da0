"""The share of a category's samples that a classifier gives to its class."""

import pytest
import torch
from torch import nn

from priorzoo.benchmarks.scores.judge import judged, sample_scores


class First(nn.Module):
    """Takes the largest of the pixels as the class."""

    def forward(self, x):
        return 100 * x


def of(*classes):
    return torch.eye(3)[torch.tensor(classes)]


def test_the_share_is_counted_by_hand():
    """Categories 0 and 1 have the classes 2 and 0; category 2 has no rows and does not count."""
    q = torch.eye(3)[torch.tensor([0, 0, 0, 1, 1, 1])]
    labels = torch.tensor([2, 2, 0, 0, 0, -1])
    samples = torch.stack([of(2, 2, 2, 1), of(1, 1, 1, 0), of(0, 0, 0, 0)])
    found = sample_scores(First(), samples, q, labels)
    assert found["sample_share"] == pytest.approx((3 / 4 + 1 / 4) / 2)
    assert found["sample_purity"] == pytest.approx((3 / 4 + 3 / 4) / 2)
    assert found["sample_classes"] == 2


def test_labels_need_not_begin_at_zero():
    q, labels = torch.eye(3)[torch.tensor([0, 1])], torch.tensor([1, 2])
    found = sample_scores(First(), torch.stack([of(1, 1), of(2, 0), of(0, 0)]), q, labels)
    assert found["sample_share"] == pytest.approx(0.75)


def test_other_categories_are_refused_and_probabilities_have_the_shape_of_rows():
    with pytest.raises(ValueError, match="3 categories but got 2"):
        sample_scores(First(), torch.rand(2, 4, 3), torch.eye(3), torch.arange(3))
    assert judged(First(), torch.rand(2, 4, 3)).shape == (2, 4, 3)
