"""Clusterings of other libraries, whose missing cells are filled by means and modes."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from priorzoo.comparisons.tables import Labels, Rows

if TYPE_CHECKING:
    from pandas import DataFrame

Numbers = NDArray[np.float64]
STARTS = 5
WIDE = 100  # columns from which on covariances are diagonal
SHAPES = ("full", "diag")


class Filled:
    """Rows as numbers of unit variance: means for missing numbers, modes and one-hot for text.

    Args:
        x: training rows, an array or a data frame of pandas.
    """

    def __init__(self, x: Rows) -> None:
        self.mixed = not isinstance(x, np.ndarray)
        texts = _frame(x).select_dtypes(exclude="number") if self.mixed else {}
        self.texts = list(texts)
        self.modes = {name: texts[name].mode().iloc[0] for name in self.texts}
        self.levels = {name: sorted(texts[name].dropna().unique()) for name in self.texts}
        numbers = self._numbers(x)
        self.means = np.nanmean(numbers, 0)
        spread = np.nanstd(numbers, 0)
        self.scales = np.where(spread > 0, spread, 1.0)

    def _numbers(self, x: Rows) -> Numbers:
        found = _frame(x).drop(columns=self.texts).to_numpy(dtype=float) if self.mixed else x
        return np.asarray(found, dtype=np.float64)

    def numbers(self, x: Rows) -> Numbers:
        """``(N, P)``: the columns of numbers, with NaN for missing cells."""
        return (self._numbers(x) - self.means) / self.scales

    def categories(self, x: Rows) -> NDArray[np.object_]:
        """``(N, Q)``: the columns of text, filled by their modes."""
        frame, modes = _frame(x), self.modes
        return np.stack([frame[name].fillna(modes[name]).to_numpy() for name in self.texts], 1)

    def whole(self, x: Rows) -> Numbers:
        """All columns as numbers, without missing cells."""
        parts = [np.nan_to_num(self.numbers(x))]
        if self.texts:
            cells = self.categories(x)
            for place, name in enumerate(self.texts):
                one_hot = cells[:, place, None] == np.array(self.levels[name], dtype=object)
                parts.append(one_hot.astype(np.float64))
        return np.concatenate(parts, 1)


class Mixture(Protocol):
    """A fitted mixture of Gaussians of scikit-learn."""

    weights_: Numbers
    means_: Numbers
    covariances_: Numbers

    def fit_predict(self, X: Numbers) -> Labels: ...


class Rival:
    """A clustering by its name, fit to filled rows.

    Args:
        clusters: K.
        seed: of its starts.
        shape: of covariances, for the mixtures.
    """

    def __init__(self, name: str, clusters: int, seed: int, shape: str = "full") -> None:
        self.name, self.clusters, self.seed, self.shape = name, clusters, seed, shape
        self.fitted: Mixture | None = None

    def fit(self, x: Rows) -> NDArray[np.int64]:
        """Fit, and return the clusters of the rows."""
        self.filled = Filled(x)
        with _quiet():
            labels = FITS[self.name](self, x)
        return np.asarray(labels, dtype=np.int64)

    def score(self, x: Rows) -> float:
        """Mean log density of the observed cells of rows of numbers, in nats, in their units."""
        mixture = self.fitted
        if mixture is None:
            raise ValueError(f"Expected a mixture but {self.name} has no density; fit a mixture.")
        rows, found = self.filled.numbers(x), []
        every = mixture.covariances_
        full = [np.diag(c) if c.ndim == 1 else c for c in every]
        for row in rows:
            seen = ~np.isnan(row)
            parts = [
                np.log(weight)
                + multivariate_normal(
                    mean[seen], cov[np.ix_(seen, seen)], allow_singular=True
                ).logpdf(row[seen])
                for weight, mean, cov in zip(mixture.weights_, mixture.means_, full, strict=True)
                if weight > 0
            ]
            found.append(logsumexp(parts) - np.log(self.filled.scales[seen]).sum())
        return float(np.mean(found))


def _k_means(rival: Rival, x: Rows) -> Labels:
    from sklearn.cluster import KMeans

    rows = rival.filled.whole(x)
    return KMeans(rival.clusters, n_init=STARTS, random_state=rival.seed).fit_predict(rows)


def _mixture(rival: Rival, x: Rows) -> Labels:
    from sklearn.mixture import GaussianMixture

    how: dict[str, Any] = {"covariance_type": rival.shape, "n_init": STARTS, "reg_covar": 1e-4}
    rival.fitted = GaussianMixture(rival.clusters, random_state=rival.seed, **how)
    return rival.fitted.fit_predict(rival.filled.whole(x))


def _bayesian(rival: Rival, x: Rows) -> Labels:
    from sklearn.mixture import BayesianGaussianMixture

    how: dict[str, Any] = {"covariance_type": rival.shape, "n_init": STARTS, "reg_covar": 1e-4}
    rival.fitted = BayesianGaussianMixture(
        n_components=rival.clusters, random_state=rival.seed, max_iter=300, **how
    )
    return rival.fitted.fit_predict(rival.filled.whole(x))


def _k_prototypes(rival: Rival, x: Rows) -> Labels:
    from kmodes.kprototypes import KPrototypes

    numbers = np.nan_to_num(rival.filled.numbers(x))
    rows = np.concatenate([numbers.astype(object), rival.filled.categories(x)], 1)
    places = list(range(numbers.shape[1], rows.shape[1]))
    method = KPrototypes(rival.clusters, n_init=STARTS, random_state=rival.seed)
    return method.fit_predict(rows, categorical=places)


FITS: dict[str, Callable[[Rival, Rows], Labels]] = {
    "mean imputation, GaussianMixture": _mixture,
    "mean imputation, BayesianGaussianMixture": _bayesian,
    "mean imputation, k-means": _k_means,
    "mean imputation, k-prototypes": _k_prototypes,
}


def _frame(x: Rows) -> "DataFrame":
    assert not isinstance(x, np.ndarray)
    return x


@contextmanager
def _quiet() -> Iterator[None]:
    """Without warnings of methods that have not converged, which is theirs to say."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
