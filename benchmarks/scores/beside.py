"""Baselines with as many clusters as a run uses, for its row."""

from typing import Any

import numpy as np
import torch

from priorzoo.benchmarks.data.sets import Dataset
from priorzoo.benchmarks.scores import metrics
from priorzoo.benchmarks.scores.run import Run

Rows = np.ndarray[Any, np.dtype[np.float32]]
KEPT = ("nmi", "ari", "accuracy_majority")


def k_means_of_words(x: Rows, asked: Rows, clusters: int, seed: int, starts: int = 5) -> Rows:
    """Clusters of documents by k-means of counts that are weighted as TF-IDF.

    Args:
        x: counts ``(N, P)`` to learn from.
        asked: counts ``(M, P)`` of the documents to cluster.
        clusters, seed, starts: of k-means.

    Returns:
        ``(M, K)``, 1 for the cluster of a document and 0 for the others.
    """
    from sklearn.cluster import KMeans
    from sklearn.feature_extraction.text import TfidfTransformer

    weights = TfidfTransformer(sublinear_tf=True).fit(x)
    known, wanted = (weights.transform(part).toarray() for part in (x, asked))
    made = KMeans(clusters, n_init=starts, random_state=seed).fit(known)
    return np.eye(clusters, dtype=np.float32)[made.predict(wanted)]


def words_as_clustered(run: Run, dataset: Dataset) -> dict[str, float]:
    """Scores of :func:`k_means_of_words` with as many clusters as the test rows of a run use.

    It learns from the rows to train on and from those held out, under the seed of the run.

    Returns:
        NMI, ARI and majority accuracy as ``tf_idf_k_means_nmi`` and so on; nothing without labels.
    """
    if dataset.y_test is None:
        return {}
    x = torch.cat([dataset.x_train, dataset.x_valid]).numpy()
    used, seed = int(run.result["metrics"]["used_clusters"]), run.seed % 2**32
    found = torch.from_numpy(k_means_of_words(x, dataset.x_test.numpy(), used, seed))
    scores = metrics.score(found.double(), dataset.y_test)
    return {f"tf_idf_k_means_{name}": scores[name] for name in KEPT}
