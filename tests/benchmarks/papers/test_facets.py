"""Scores of several partitions of the same rows."""

from types import SimpleNamespace

import pytest
import torch

from priorzoo.benchmarks.papers.falck2021 import facet_scores
from priorzoo.guides import FacetCode
from priorzoo.inference import cluster_probabilities
from priorzoo.models import MLP, FacetMixture


@pytest.mark.parametrize("told", [True, False])
def test_the_better_facet_is_known_from_labels_alone(told):
    """Each facet is scored, and without labels none is the better one."""
    torch.manual_seed(0)
    model = FacetMixture(MLP(4, 6, (8,)), code=4, clusters=(3, 2))
    guide = FacetCode(MLP(6, 8, (5,)), model)
    run = SimpleNamespace(model=model, guide=guide, device=torch.device("cpu"))
    x, y = torch.rand(40, 6).round(), torch.arange(40) % 3
    found = facet_scores(run, SimpleNamespace(x_test=x, y_test=y if told else None), False)
    used = {f"r_{j}": cluster_probabilities(model, guide, x, f"r_{j}").argmax(1) for j in (1, 2)}
    assert {site: found[site]["used_clusters"] for site in used} == {
        site: len(k.unique()) for site, k in used.items()
    }
    assert ("best" in found) == told
    if told:
        shares = []
        for k in used.values():
            most = [y[k == j].bincount().max().item() for j in k.unique()]
            shares.append(sum(most) / 40)
        assert found["best"] == {"accuracy_majority": pytest.approx(max(shares))}
