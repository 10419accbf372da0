"""Weights, labels and calls of unusual form."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import make_blobs
from sklearn.exceptions import NotFittedError

from priorzoo.estimators import Clusterer, DensityEstimator, Embedder
from priorzoo.inference.data.repeats import MOST, repeats

X = make_blobs(40, 2, centers=2, random_state=0)[0]


def quick():
    return Clusterer(n_components=2, max_iter=2)


@pytest.fixture(scope="module")
def fitted():
    return quick().fit(X)


@pytest.mark.parametrize("scale", [1e-6, 1 / 4, 1.0, 1e4, 1e9])
def test_weights_of_any_size_give_shares_of_the_rows(scale):
    kind = torch.randint(4, (400,), generator=torch.Generator().manual_seed(0))
    shares = torch.tensor([1.0, 0.0, 1.0, 2.0])[kind] * scale
    found = repeats(shares)
    assert 250 <= len(found) <= MOST
    expected = shares / shares.sum() * len(found)
    assert (
        found.bincount(minlength=400) - expected
    ).abs().max() < 1.01  # the nearest whole numbers


def test_weights_that_add_up_to_one_and_those_of_a_survey_train_alike(fitted):
    for weight in (1 / len(X), 50_000.0):
        found = quick().fit(X, sample_weight=np.full(len(X), weight))
        assert found.held_out_bound_ == pytest.approx(fitted.held_out_bound_, abs=0.05)
    again = quick().fit(X, sample_weight=1.0)
    assert again.held_out_bound_ == fitted.held_out_bound_


@pytest.mark.parametrize("weight", [1e300, 1e-300])
def test_weights_that_float32_cannot_train_with_are_refused(weight):
    with pytest.raises(ValueError, match=r"in row 0; divide all of them by their mean"):
        quick().fit(X, sample_weight=np.full(len(X), weight))


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA, pd.NaT])
def test_missing_labels_are_refused(missing):
    y = np.array(["a", "-1"] * 20, dtype=object)
    y[3] = missing
    with pytest.raises(ValueError, match=r"Expected -1 for an unknown label but got .* in row 3"):
        quick().fit(X, y)


@pytest.mark.parametrize("size", [None, 0, -1, 1.5, "2"])
def test_numbers_of_draws_that_are_none_are_refused(size, fitted):
    with pytest.raises(ValueError, match="Expected a positive n_samples but got"):
        fitted.sample(size)


@pytest.mark.parametrize("kind", [Clusterer, Embedder, DensityEstimator])
def test_every_method_says_that_fit_comes_first(kind):
    calls = {"predict", "predict_proba", "transform", "score_samples", "score", "inverse_transform"}
    for name in sorted(calls & set(dir(kind))):
        with pytest.raises(NotFittedError):
            getattr(kind(), name)(X)
    if kind is not Embedder:
        with pytest.raises(NotFittedError):
            kind().sample()


def test_rows_to_go_on_with_are_refused_as_rows_to_predict():
    frame = pd.DataFrame({"a": X[:, 0], "n": np.arange(40) % 7})
    clusterer = quick().fit(frame)
    bad = frame.assign(n=-1)
    for call in (clusterer.partial_fit, clusterer.predict):
        with pytest.raises(ValueError, match="or fit again with likelihood n=student-t"):
            call(bad)
