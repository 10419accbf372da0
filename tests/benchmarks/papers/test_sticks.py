import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from priorzoo.benchmarks.data.sets import Dataset
from priorzoo.benchmarks.papers.nalisnick2017 import knn_errors
from priorzoo.benchmarks.scores.registry import scores
from priorzoo.benchmarks.scores.run import Run
from priorzoo.guides import Sticks
from priorzoo.models import MLP, StickBreakingVAE


def test_neighbours_are_those_of_scikit_learn():
    known, asked = torch.rand(300, 4), torch.rand(700, 4)
    labels, truth = torch.randint(3, (300,)), torch.randint(3, (700,))
    found = knn_errors(known, labels, asked, truth)
    for k in (3, 5, 10):
        judge = KNeighborsClassifier(k).fit(known, labels)
        assert found[f"knn_error_{k}"] == pytest.approx(1 - judge.score(asked, truth))


def test_what_is_left_over_is_the_last_weight(tmp_path):
    """Sticks that are all one half: 1/2, 1/4, 1/8, and 1/8 left over."""
    model = StickBreakingVAE(MLP(4, 6), code=4)
    guide = Sticks(torch.nn.Linear(6, 6), "logit-normal")
    with torch.no_grad():
        guide.encoder.weight.zero_()
        guide.encoder.bias.zero_()
    x, y = torch.rand(20, 6).round(), torch.arange(20) % 2
    rows = Dataset("mine", x, y, x[:0], None, x, y, (6,), "none")
    run = Run(tmp_path, model, guide, {"settings": {}}, [])
    found = scores(model, run, rows, x)
    assert found["left_over"] == pytest.approx(1 / 8)
    assert found["largest_weight_majority"] == 0.5
    assert not [name for name in found if "accuracy" in name or "clusters" in name]
