"""The estimators are scikit-learn's by its own checks, and do what their documentation says."""

import itertools
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.base import clone
from sklearn.datasets import load_wine, make_blobs
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from priorzoo import Clusterer, DensityEstimator, Embedder
from priorzoo.estimators.scoring import LogLikelihood
from priorzoo.inference import importance_bound
from priorzoo.inference.nggp.predictive import next_row

QUICK = {"max_iter": 1}
BRIEF = {"max_iter": 30}  # enough for what the checks ask of clusters


def with_the_checks(*estimators):
    """A test for each check of each estimator, as a list: of scikit-learn 1.8 they are no list."""
    names, checks = (made := parametrize_with_checks(list(estimators))).args
    return pytest.mark.parametrize(names, list(checks), **made.kwargs)


@with_the_checks(Clusterer(**BRIEF), DensityEstimator(**QUICK), Embedder(**QUICK))
def test_by_the_checks_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.mark.slow
@with_the_checks(Clusterer(), DensityEstimator(), Embedder(), Clusterer("vade"))
def test_by_the_same_checks_as_long_as_they_train_by_themselves(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def wine():
    X, y = load_wine(return_X_y=True)
    return X, y, Clusterer(n_components=3).fit(X)


def test_wine_is_clustered_by_its_cultivar_whatever_the_order_of_its_rows(wine):
    X, y, fitted = wine
    assert adjusted_rand_score(y, fitted.labels_) > 0.8
    assert fitted.n_components_ == 3
    assert (np.diff(np.bincount(fitted.labels_)) <= 0).all()  # the largest first
    for k in range(3):
        mine = X[fitted.labels_ == k].mean(0)
        assert (np.abs(fitted.means_[k] - mine) < 0.6 * X.std(0)).all()
    order = np.random.default_rng(0).permutation(len(X))
    again = Clusterer(n_components=3, max_iter=5)
    first, other = clone(again).fit(X), again.fit(X[order])
    np.testing.assert_array_equal(first.labels_[order], other.labels_)
    np.testing.assert_array_equal(first.predict_proba(X), other.predict_proba(X))


def residuals(X, reconstructed):
    return np.abs(reconstructed - X).mean(0) / X.std(0)


def linearly(X, dimensions):
    """The reconstruction by as many principal components of the scaled columns."""
    scaler, components = StandardScaler(), PCA(dimensions)
    codes = components.fit_transform(scaler.fit_transform(X))
    return scaler.inverse_transform(components.inverse_transform(codes))


def test_codes_densities_and_draws_are_in_the_units_of_the_table(wine):
    X, _, fitted = wine
    back = fitted.inverse_transform(codes := fitted.transform(X))
    ours, linear = residuals(X, back), residuals(X, linearly(X, codes.shape[1]))
    assert ours.mean() < linear.mean() < 0.4
    assert (ours < 1.5 * linear).all()
    gaussian = multivariate_normal(X.mean(0), np.cov(X.T)).logpdf(X).mean()
    assert abs(fitted.score(X) - gaussian) < 10  # the logarithms of 13 scales add up to 2
    scaled = clone(fitted).fit(X * 10)
    assert fitted.score(X) - scaled.score(X * 10) == pytest.approx(13 * np.log(10), abs=0.1)
    rows, clusters = fitted.sample(200)
    assert rows.shape == (200, 13)
    assert (np.abs(rows.mean(0) - X.mean(0)) < 0.5 * X.std(0)).all()
    assert set(clusters) <= {0, 1, 2}


def test_pickles_hold_the_files_of_a_run_and_nothing_to_run(wine):
    X, _, fitted = wine
    state = fitted.__getstate__()
    assert set(state["files"]) == {"config.json", "model.safetensors"}
    assert not any(isinstance(value, torch.nn.Module) for value in state.values())
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))
    assert again.held_out_bound_ == fitted.held_out_bound_


def test_pipelines_searches_and_names_of_columns():
    X, _ = make_blobs(60, 3, centers=2, random_state=0)
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    pipe = make_pipeline(StandardScaler(), Clusterer(**QUICK)).set_output(transform="pandas")
    codes = pipe.fit(frame).transform(frame)
    assert list(codes.columns) == [f"clusterer{i}" for i in range(codes.shape[1])]
    search = GridSearchCV(Clusterer(**QUICK), {"n_components": [2, 3]}, cv=2).fit(frame)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert list(search.best_estimator_.feature_names_in_) == ["a", "b", "c"]


def test_tables_of_mixed_columns_with_missing_cells():
    rng = np.random.default_rng(0)
    group = rng.integers(0, 2, 200)
    frame = pd.DataFrame(
        {
            "size": group * 4 + rng.normal(size=200),
            "visits": rng.poisson(2 + 8 * group),
            "city": np.where(rng.random(200) < 0.9, group, 1 - group).astype(str),
            "constant": 7.0,
        }
    )
    frame["city"] = frame["city"].map({"0": "Oslo", "1": "Rome"})
    frame.loc[:40, "size"] = np.nan
    frame.loc[30:60, "city"] = None
    fitted = Clusterer(n_components=2).fit(frame)
    assert adjusted_rand_score(group, fitted.labels_) > 0.7
    assert list(fitted.means_.columns) == list(frame.columns)
    assert set(fitted.means_["city"]) == {"Oslo", "Rome"}
    assert (fitted.means_["constant"] == 7).all()
    drawn, _ = fitted.sample(5)
    assert set(drawn["city"]) <= {"Oslo", "Rome"}
    only = frame.iloc[:1].assign(visits=None, city=None, size=4.0)
    assert np.isfinite(fitted.score_samples(only)).all()


def test_covariates_stand_beside_the_data_and_are_held_at_their_means():
    """What a batch adds to all rows is none of the clusters'."""
    rng = np.random.default_rng(0)
    group, batch = rng.integers(0, 2, (2, 300))
    shifted = 3 * group[:, None] + 6 * batch[:, None] + rng.normal(size=(300, 6))
    frame = pd.DataFrame(shifted, columns=list("abcdef")).assign(batch=batch.astype(str))
    told = Clusterer(n_components=2, likelihood="batch=covariate").fit(frame)
    assert adjusted_rand_score(group, told.labels_) > 0.7
    assert adjusted_rand_score(batch, told.labels_) < 0.1
    low, high = np.sort(told.means_["a"].to_numpy())
    assert high - low == pytest.approx(3, abs=1)
    assert 1 < low < 6  # between the two batches
    assert len(told.inverse_transform(told.transform(frame))) == 300
    rows, _ = pickle.loads(pickle.dumps(told)).sample(200)
    assert 3 < rows["a"].mean() < 6
    with pytest.raises(ValueError, match="'C' in row 0"):
        told.predict(frame.assign(batch="C"))


def test_whole_weights_are_repeated_rows_and_others_count_by_their_size():
    X, _ = make_blobs(40, 2, centers=2, random_state=0)
    w = np.random.default_rng(0).integers(0, 3, 40)
    weighted = Clusterer(n_components=2, max_iter=5).fit(X, sample_weight=w)
    repeated = Clusterer(n_components=2, max_iter=5).fit(X.repeat(w, 0))
    np.testing.assert_array_equal(weighted.predict_proba(X), repeated.predict_proba(X))
    one_sided = np.where(X[:, 1] > 2.5, 0.01, 1.5)
    fitted = DensityEstimator().fit(X, sample_weight=one_sided)
    even = DensityEstimator().fit(X)
    low = X[X[:, 1] < 2.5]
    assert fitted.score(low) > even.score(low)
    for bad in (-np.ones(40), np.zeros(40), np.ones(3)):
        with pytest.raises(ValueError, match="sample_weight"):
            Clusterer(**QUICK).fit(X, sample_weight=bad)


def test_a_few_labels_name_the_first_clusters():
    X, y = make_blobs(150, 2, centers=3, random_state=3, cluster_std=0.8)
    names = np.array(["red", "green", "blue"], dtype=object)[y]
    some = names.copy()
    some[15:] = "-1"
    fitted = Clusterer(n_components=3).fit(X, some)
    assert list(fitted.classes_) == ["blue", "green", "red"]
    assert (fitted.classes_[fitted.predict(X)] == names).mean() > 0.9
    unlabelled = Clusterer(**QUICK).fit(X, y)  # as in a search, whose y is for its scores
    assert not hasattr(unlabelled, "classes_")
    with pytest.raises(ValueError, match="at most 2 classes"):
        Clusterer(n_components=2).fit(X, some)


def test_partial_fit_goes_on():
    X, _ = make_blobs(120, 2, centers=2, random_state=0)
    fitted = Clusterer(n_components=2, max_iter=5).partial_fit(X[:60])
    steps, before = fitted.n_iter_, fitted.score(X[60:])
    for _ in range(5):
        fitted.partial_fit(X[60:])
    assert fitted.n_iter_ == steps + 25
    assert fitted.score(X[60:]) > before
    with pytest.raises(ValueError, match="features"):
        fitted.partial_fit(X[:, :1])


@pytest.mark.parametrize("name", ["gmvae", "nggp", "nggp-dirichlet", "factorial"])
def test_densities_add_up_to_one_and_do_not_depend_on_other_rows(zoo, name):
    model, guide = zoo[name].pair()
    if hasattr(model, "counted"):
        model.observe(torch.rand(200, 4).softmax(-1), 1.0, 200)
    every = torch.tensor(list(itertools.product([0.0, 1.0], repeat=6)))
    scored = LogLikelihood(model, guide)
    found = scored(every, {})
    alone = torch.cat([scored(row, {}) for row in every[:3].split(1)])
    torch.testing.assert_close(found[:3], alone)
    if name != "factorial":
        total = importance_bound(*next_row(model, guide), every, 5_000).exp().sum().detach()
        assert float(total) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"model": "gmvea"}, "gmvae"),
        ({"n_components": 0}, "n_components of at least 1"),
        ({"likelihood": "gausian"}, "Expected likelihood 'auto'"),
        ({"likelihood": "poisson"}, "whole numbers"),
        ({"model": "vae"}, "model with clusters"),
        ({"device": "tpu"}, "among auto, cpu, cuda and mps"),
        ({"guide": "Sticks"}, "guide"),
        ({"max_iter": 0}, "max_iter of at least 1"),
        ({"max_iter": 1.5}, "max_iter of at least 1 but got 1.5"),
        ({"n_init": "a"}, "n_init of at least 1 but got 'a'"),
        ({"n_components": True}, "n_components of at least 1 but got True"),
        ({"likelihood": None}, "likelihood as text or as a mapping"),
        ({"guide": None}, "guide as text"),
        ({"model": int}, "model as text"),
    ],
)
def test_bad_settings_are_refused_in_a_line(settings, said):
    X, _ = make_blobs(30, 2, random_state=0)
    with pytest.raises(ValueError, match=said) as caught:
        Clusterer(**{**QUICK, **settings}).fit(X)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("X", "y", "said"),
    [
        (pd.DataFrame({"a": [1.5] * 29 + ["x"]}), None, "say in likelihood a=categorical"),
        (pd.DataFrame([[1.0, 2.0]] * 30, columns=["a", "a"]), None, "different names in X"),
        (np.full((30, 1), 1e300), None, "finite numbers in column 'x0'"),
        (np.random.default_rng(0).normal(size=(30, 2)), [None] * 10 + ["a"] * 20, "-1 for an unkn"),
        (np.random.default_rng(0).normal(size=(30, 2)), [np.nan] * 30, "got nan in row 0 of y"),
    ],
)
def test_bad_rows_are_refused_in_a_line(X, y, said):
    with pytest.raises(ValueError, match=said) as caught:
        Clusterer(**QUICK).fit(X, y)
    assert "\n" not in str(caught.value)
