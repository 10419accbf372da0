"""Baselines beside a run, on documents whose topics are known."""

from pathlib import Path

import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.metrics import adjusted_rand_score
from sklearn.pipeline import make_pipeline
from torch import nn

from priorzoo.benchmarks.data.sets import Dataset
from priorzoo.benchmarks.scores.beside import words_as_clustered
from priorzoo.benchmarks.scores.run import Run


def documents(count):
    y = torch.arange(count) % 3
    rates = 0.3 + 4 * nn.functional.one_hot(torch.arange(12) % 3).T
    return torch.poisson(rates[y], generator=torch.Generator().manual_seed(count)), y


@pytest.mark.parametrize("used", [2, 3])
def test_k_means_has_as_many_clusters_as_the_run_uses(used):
    (x, y), (held, _), (x_test, y_test) = documents(60), documents(30), documents(45)
    dataset = Dataset("words", x, y, held, None, x_test, y_test, (12,), "none")
    run = Run(Path(), nn.Identity(), nn.Identity(), {"seed": 1, "settings": {}}, [])
    run.result["metrics"] = {"used_clusters": float(used)}
    scores = words_as_clustered(run, dataset)
    known = make_pipeline(TfidfTransformer(sublinear_tf=True), KMeans(used, n_init=5))
    found = known.fit(torch.cat([x, held]).numpy()).predict(x_test.numpy())
    expected = adjusted_rand_score(y_test.numpy(), found)
    assert scores["tf_idf_k_means_ari"] == pytest.approx(expected, abs=0.1)
    assert (scores["tf_idf_k_means_accuracy_majority"] == 1) == (used == 3)
    unknown = Dataset("words", x, None, held, None, x_test, None, (12,), "none")
    assert words_as_clustered(run, unknown) == {}
