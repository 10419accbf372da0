"""Clustering of tables and matrices by any mixture of the zoo, as scikit-learn's estimators do."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import ClusterMixin
from torch import Tensor

from priorzoo.estimators.codes import Encoder
from priorzoo.estimators.rows import partly_known
from priorzoo.inference import cluster_probabilities, component_means
from priorzoo.inference.data.tables.cells import Frame
from priorzoo.inference.data.tables.schema import Table


class Clusterer(ClusterMixin, Encoder):
    """Clusters rows by the mixture component of their code in a variational autoencoder.

    Columns may be numbers, counts, categories, ordered levels and text; cells may be missing. The
    clusters are numbered by their size, the largest first; those without a row are left out. The
    result depends on the rows and ``random_state``, not on the order of the rows.

    >>> from sklearn.datasets import load_wine
    >>> clusters = Clusterer(n_components=3).fit_predict(load_wine().data)  # doctest: +SKIP

    Args:
        model: a name of ``priorzoo fit``: ``gmvae``, ``vade``, ``nggp``, ``vampprior``, ``m2``, ...
        n_components: number of clusters, K; the most that there may be, of ``nggp``.
        likelihood: ``auto``; one likelihood for all columns, such as ``gaussian``, ``student-t``,
            ``negative-binomial`` or ``bernoulli``; or what columns are,
            ``age=student-t,city=categorical``, as text or mapping. For an array, ``auto`` chooses
            one for all columns; for a data frame, one for each.
        guide: a name of ``priorzoo list guides``; ``auto`` for one that suits the model.
        random_state: seed of all random numbers.
        n_init: number of starts, of which the one with the best bound goes on.
        max_iter: steps of the training; None for four times as many as rows, 60 to 2,000 (one a row
            from 10,000 rows on).
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Attributes:
        labels_: ``(N,)``: the cluster of each training row.
        n_components_: number of clusters that hold a training row.
        means_: ``(n_components_, P)``: mean of x in each cluster, in the units of X, and a data
            frame if X was one.
        classes_: names of the first clusters, if fit was given some labels.
    """

    def __init__(
        self,
        model: str = "gmvae",
        n_components: int = 10,
        *,
        likelihood: str | Mapping[str, str] = "auto",
        guide: str = "auto",
        random_state: object = 0,
        n_init: int = 1,
        max_iter: int | None = None,
        device: str = "auto",
    ) -> None:
        self.model = model
        self.n_components = n_components
        self.likelihood = likelihood
        self.guide = guide
        self.random_state = random_state
        self.n_init = n_init
        self.max_iter = max_iter
        self.device = device

    def predict_proba(self, X: object) -> NDArray[np.float32]:
        """``(N, n_components_)``: probability of each cluster; each row is in one of them."""
        return self._probabilities(self._table(X))

    def predict(self, X: object) -> NDArray[np.int64]:
        """``(N,)``: the most probable cluster of each row."""
        return self.predict_proba(X).argmax(1)

    def sample(self, n_samples: int = 1) -> tuple[Any, NDArray[np.int64]]:
        """Rows drawn from the model, in the units of the table, and their clusters."""
        rows = self._draw(n_samples)
        beside: dict[str, Any] = {**self._held(n_samples)}
        table = Table(self.schema_, rows, **beside)
        return self._values(rows), self._probabilities(table).argmax(1)

    def _clusters_wanted(self) -> int | None:
        if self.n_components is None:
            raise ValueError("Expected n_components of at least 1 but got None; give a number.")
        return int(self.n_components)

    def _known(self, y: object, rows: int) -> NDArray[np.int64] | None:
        found = partly_known(y, rows)
        if found is None:
            return None
        classes, labels = found
        if len(classes) > self.n_components:
            raise ValueError(
                f"Expected at most {self.n_components} classes in y, one for each cluster, but got "
                f"{len(classes)}; raise n_components."
            )
        self.classes_ = classes
        return labels

    def _finish(self, frame: Frame, table: Table) -> None:
        super()._finish(frame, table)
        if not self._sites[0]:
            raise ValueError(
                f"Expected a model with clusters but {self.model!r} has none; choose gmvae, vade, "
                "nggp, vampprior or m2, or use DensityEstimator or Embedder."
            )
        sizes = np.bincount(self._all_probabilities(table).argmax(1).numpy())
        named = len(getattr(self, "classes_", ()))
        order = np.argsort(-sizes[named:], kind="stable") + named
        used = [k for k in order if sizes[k] > 0]
        self._used = np.array([*range(named), *used])
        self.n_components_ = len(self._used)
        self.labels_ = self._probabilities(self.schema_.encode(frame)).argmax(1)
        every = component_means(self.model_, self._site, context=self._held(1)).cpu()
        self.means_ = self._values(every[torch.from_numpy(self._used)])

    @property
    def _site(self) -> str:
        return "y" if "y" in self._sites[0] else self._sites[0][0]

    def _all_probabilities(self, table: Table) -> Tensor:
        told = table.context
        x, site = table.rows, self._site
        return cluster_probabilities(self.model_, self.guide_, x, site, context=told).cpu()

    def _probabilities(self, table: Table) -> NDArray[np.float32]:
        q = self._all_probabilities(table).double().numpy()[:, self._used]
        total = q.sum(1, keepdims=True)
        even = np.full_like(q, 1 / q.shape[1])
        found = np.divide(q, total, out=even, where=total > 0)
        return found.astype(np.float32)
