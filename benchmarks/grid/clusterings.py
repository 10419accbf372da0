"""Clusterings without a probabilistic program, scored as the models are."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.optim.lr_scheduler import OneCycleLR

from priorzoo.benchmarks.data import sets as data
from priorzoo.benchmarks.runs.machine import machine
from priorzoo.benchmarks.scores import beside, metrics
from priorzoo.guides import Code
from priorzoo.inference import Autoencoder, Stream, codes, fit
from priorzoo.models import MLP, VAE, Bernoulli

Array = np.ndarray[Any, np.dtype[np.float32]]
Assign = Callable[["Clustering", Array, Array, int], Array]  # probabilities of the second array


@dataclass(frozen=True)
class Clustering:
    """A clustering of the rows of a data set.

    Args:
        data: name of a data set, or path of an ``.npz`` file.
        clusters: K.
        components: of the principal components that are clustered.
        n_init: starts, of which the best by its own objective counts.
        rows: training rows to learn from, the first; all if there are fewer.
        epochs: of the autoencoder's training.
    """

    data: str = "mnist"
    clusters: int = 10
    components: int = 50
    n_init: int = 5
    rows: int = 60_000
    epochs: float = 10.0


def k_means(settings: Clustering, x: Array, asked: Array, seed: int) -> Array:
    """Lloyd's algorithm on principal components."""
    return _nearest(settings, *_principal(settings, x, asked, seed), seed)


def mixture(settings: Clustering, x: Array, asked: Array, seed: int) -> Array:
    """A Gaussian mixture with full covariances, by expectation maximisation."""
    from sklearn.mixture import GaussianMixture

    x, asked = _principal(settings, x, asked, seed)
    made = GaussianMixture(settings.clusters, reg_covar=1e-3, random_state=seed).fit(x)
    return np.asarray(made.predict_proba(asked))


def bayesian_mixture(settings: Clustering, x: Array, asked: Array, seed: int) -> Array:
    """A variational mixture with diagonal covariances and a Dirichlet-process prior."""
    from sklearn.mixture import BayesianGaussianMixture

    x, asked = _principal(settings, x, asked, seed)
    made = BayesianGaussianMixture(
        n_components=settings.clusters, covariance_type="diag", max_iter=200, random_state=seed
    ).fit(x)
    return np.asarray(made.predict_proba(asked))


def autoencoder(settings: Clustering, x: Array, asked: Array, seed: int) -> Array:
    """k-means on the ten-dimensional codes of an autoencoder with VaDE's networks."""
    return _nearest(settings, *_codes(settings, x, asked, seed, batch_size=100), seed)


def n2d(settings: Clustering, x: Array, asked: Array, seed: int) -> Array:
    """A Gaussian mixture in ten dimensions that UMAP makes of the codes of an autoencoder.

    McConville et al., "N2D: (Not Too) Deep Clustering via Clustering the Local Manifold of an
    Autoencoded Embedding", 2021, with UMAP and mixture as in the authors' script. Unlike there, the
    autoencoder is trained for tens of epochs and not 1,000, with one cycle of the step size and the
    likelihood of grey pixels in place of squared errors, and the rows asked for are not learned
    from: UMAP places them afterwards.
    """
    from sklearn.mixture import GaussianMixture
    from umap import UMAP

    steps = max(1, int(settings.epochs * math.ceil(len(x) / 256)))
    cycle = partial(OneCycleLR, max_lr=2e-3, total_steps=steps + 1)
    how = {"schedule": cycle, "schedule_unit": "step", "precision": "bf16"}
    known, wanted = _codes(settings, x, asked, seed, batch_size=256, **how)
    plane = UMAP(n_components=10, n_neighbors=20, min_dist=0.0, random_state=seed, n_jobs=1)
    made = GaussianMixture(settings.clusters, random_state=seed).fit(plane.fit_transform(known))
    return np.asarray(made.predict_proba(plane.transform(wanted)))


def tf_idf(settings: Clustering, x: Array, asked: Array, seed: int) -> Array:
    """k-means of word counts, weighted by how few documents hold the word."""
    return beside.k_means_of_words(x, asked, settings.clusters, seed, settings.n_init)


def topics(settings: Clustering, x: Array, asked: Array, seed: int) -> Array:
    """Latent Dirichlet allocation of word counts, a topic a cluster."""
    from sklearn.decomposition import LatentDirichletAllocation

    # OpenBLAS now and then flags finite numbers as invalid (numpy's issue 24067), of which the
    # millions of small products in here meet some; the scores refuse a real NaN.
    with np.errstate(invalid="ignore"):
        made = LatentDirichletAllocation(settings.clusters, max_iter=30, random_state=seed).fit(x)
        return np.asarray(made.transform(asked))


CLUSTERINGS: Mapping[str, Assign] = {
    "k-means": k_means,
    "pca-mixture": mixture,
    "bayesian-mixture": bayesian_mixture,
    "autoencoder-k-means": autoencoder,
    "n2d": n2d,
    "tf-idf-k-means": tf_idf,
    "lda": topics,
}
NEEDS: Mapping[str, str] = {"n2d": "umap"}  # modules beyond those of the extra benchmarks


def run(name: str, settings: Clustering, seed: int, root: str | None = None) -> dict[str, Any]:
    """Cluster the training rows, and score the test rows; labels serve for the scores alone."""
    dataset = data.load(settings.data, root, seed=seed)
    begun = time.perf_counter()
    x = dataset.values(dataset.train[: settings.rows]).numpy()
    found = torch.from_numpy(CLUSTERINGS[name](settings, x, dataset.x_test.numpy(), seed))
    seconds = round(time.perf_counter() - begun, 1)
    what = {"recipe": name, "settings": asdict(settings), "shape": list(dataset.shape)}
    scores = metrics.score(found / found.sum(-1, keepdim=True), dataset.y_test)
    result = {"steps": 0, "seconds": seconds, "terms": {}, "metrics": scores}
    return {**what, "seed": seed, **machine(torch.device("cpu")), **result}


def _codes(
    settings: Clustering, x: Array, asked: Array, seed: int, **how: Any
) -> tuple[Array, Array]:
    """Codes of both sets of rows by an autoencoder that learns from the first."""
    hidden, size = [500, 500, 2000], x.shape[1]
    with Stream(seed):
        model = VAE(MLP(10, size, hidden[::-1]), Bernoulli(), 10)
        guide = Code(MLP(size, 20, hidden))
    rows, others = torch.from_numpy(x), torch.from_numpy(asked)
    how |= {"objective": Autoencoder(model, guide), "epochs": settings.epochs, "seed": seed}
    fit(model, guide, rows, **how)
    return codes(model, guide, rows).numpy(), codes(model, guide, others).numpy()


def _principal(settings: Clustering, x: Array, asked: Array, seed: int) -> tuple[Array, Array]:
    from sklearn.decomposition import PCA

    wanted = min(settings.components, x.shape[1], len(x))
    made = PCA(wanted, random_state=seed).fit(x)
    return made.transform(x), made.transform(asked)


def _nearest(settings: Clustering, x: Array, asked: Array, seed: int) -> Array:
    return beside.k_means(x, asked, settings.clusters, seed, settings.n_init)
