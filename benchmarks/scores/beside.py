"""k-means, as a baseline beside other clusters, also with as many as a run uses."""

from typing import Any

import numpy as np
import torch

from priorzoo.benchmarks.data.sets import Dataset
from priorzoo.benchmarks.scores import metrics
from priorzoo.benchmarks.scores.run import Run

Rows = np.ndarray[Any, np.dtype[Any]]
KEPT = ("nmi", "ari", "accuracy_majority")


def k_means(x: Rows, asked: Rows, clusters: int, seed: int, starts: int = 5) -> Rows:
    """Clusters of rows by Lloyd's algorithm.

    Args:
        x: rows ``(N, P)`` to learn from.
        asked: rows ``(M, P)`` to cluster.
        clusters: K.
        seed: of the starts; one that scikit-learn does not take counts modulo 2^32.
        starts: of which the one with the smallest squared distances counts.

    Returns:
        ``(M, K)``, 1 for the cluster of a row and 0 for the others.
    """
    from sklearn.cluster import KMeans

    made = KMeans(clusters, n_init=starts, random_state=seed % 2**32).fit(x)
    return np.eye(clusters)[made.predict(asked)]


def k_means_of_words(x: Rows, asked: Rows, clusters: int, seed: int, starts: int = 5) -> Rows:
    """Clusters of documents by k-means of counts that are weighted as TF-IDF.

    Args:
        x: counts ``(N, P)`` to learn from.
        asked: counts ``(M, P)`` of the documents to cluster.
        clusters, seed, starts: as in :func:`k_means`, whose result this has.
    """
    from sklearn.feature_extraction.text import TfidfTransformer

    weights = TfidfTransformer(sublinear_tf=True).fit(x)
    known, wanted = (weights.transform(part).toarray() for part in (x, asked))
    return k_means(known, wanted, clusters, seed, starts)


def used_by(run: Run) -> int:
    """How many clusters the test rows of a run use."""
    return int(run.result["metrics"]["used_clusters"])


def words_as_clustered(run: Run, dataset: Dataset) -> dict[str, float]:
    """Scores of :func:`k_means_of_words` with as many clusters as the test rows of a run use.

    It learns from the rows to train on and from those held out, under the seed of the run.

    Returns:
        NMI, ARI and majority accuracy as ``tf_idf_k_means_nmi`` and so on; nothing without labels.
    """
    if dataset.y_test is None:
        return {}
    x = torch.cat([dataset.x_train, dataset.x_valid]).numpy()
    found = k_means_of_words(x, dataset.x_test.numpy(), used_by(run), run.seed)
    scores = metrics.score(torch.from_numpy(found), dataset.y_test)
    return {f"tf_idf_k_means_{name}": scores[name] for name in KEPT}
