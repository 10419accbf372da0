"""Components of VaDE that are merged, against the steps by hand."""

from dataclasses import replace

import pytest
import torch

from priorzoo.benchmarks.data.sets import load
from priorzoo.benchmarks.papers import RECIPES
from priorzoo.benchmarks.papers.jiang2017 import merged_scores
from priorzoo.benchmarks.recipes.recipe import part
from priorzoo.benchmarks.runs import run as runs
from priorzoo.benchmarks.scores.metrics import hungarian_accuracy
from priorzoo.inference import cluster_probabilities, merge_clusters
from priorzoo.models import GMVAE, MLP

SMALL = replace(
    RECIPES["vade-merged"],
    **dict.fromkeys(("encoder", "decoder"), part(MLP, hidden=[8])),
    data="digits",
    stages=RECIPES["vade-merged"].stages[1:],
    batch_size=100,
    epochs=1,
    train=300,
)


@pytest.mark.parametrize("clusters", [12, 10])
def test_components_are_merged_to_as_many_clusters_as_classes(clusters, tmp_path):
    model = part(GMVAE, code=3, clusters=clusters, covariance="full", learn_weights=True)
    run, dataset = runs.train("vade-merged", replace(SMALL, model=model), tmp_path / "run")
    found = merged_scores(run, dataset, quick=True)
    if clusters == 10:
        assert found == {}
        return
    known, asked = (
        cluster_probabilities(run.model, run.guide, x)
        for x in (dataset.values(dataset.train), dataset.x_test)
    )
    groups = merge_clusters(known, 10).groups
    assert len(groups) == 10
    of = {k: place for place, group in enumerate(groups) for k in group}
    sums = torch.zeros(len(asked), 10, dtype=torch.float64)
    for k in range(clusters):
        sums[:, of[k]] += asked[:, k].double()
    assert found["clusters"] == 10
    assert found["accuracy_hungarian"] == hungarian_accuracy(sums.argmax(1), dataset.y_test)


def test_labels_change_nothing_but_the_scores(tmp_path):
    model = part(GMVAE, code=3, clusters=12, covariance="full", learn_weights=True)
    run, dataset = runs.train("vade-merged", replace(SMALL, model=model), tmp_path / "run")
    few = replace(load("digits", train=300), y_train=None)
    assert merged_scores(run, few, quick=True) == merged_scores(run, dataset, quick=True)
    assert merged_scores(run, replace(few, y_test=None), quick=True) == {}
