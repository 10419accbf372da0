"""Densities and codes of tables and matrices, as scikit-learn's estimators give them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import ClassNamePrefixFeaturesOutMixin, DensityMixin, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from priorzoo.estimators.codes import codes_of, decoded
from priorzoo.estimators.estimator import Estimator
from priorzoo.inference.data.tables.cells import Frame
from priorzoo.inference.data.tables.schema import Table


class DensityEstimator(DensityMixin, Estimator):
    """The density of rows by any model of the zoo, by default a variational autoencoder.

    Args:
        model, likelihood, guide, random_state, n_init, max_iter, device: as in
            :class:`Clusterer`.
    """

    def __init__(
        self,
        model: str = "vae",
        *,
        likelihood: str | Mapping[str, str] = "auto",
        guide: str = "auto",
        random_state: object = 0,
        n_init: int = 1,
        max_iter: int | None = None,
        device: str = "auto",
    ) -> None:
        self.model = model
        self.likelihood = likelihood
        self.guide = guide
        self.random_state = random_state
        self.n_init = n_init
        self.max_iter = max_iter
        self.device = device

    score = Estimator.score  # DensityMixin has one that returns nothing

    def sample(self, n_samples: int = 1) -> Any:
        """Rows drawn from the model, in the units of the table."""
        return self._values(self._draw(n_samples))


class Embedder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Estimator):
    """Codes of rows by any model of the zoo, by default a variational autoencoder.

    Args:
        model, likelihood, guide, random_state, n_init, max_iter, device: as in
            :class:`Clusterer`.
        n_components: size of the code; None for one that suits the number of columns.
    """

    def __init__(
        self,
        model: str = "vae",
        n_components: int | None = None,
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

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []  # codes are float32, as the networks are
        return tags

    def transform(self, X: object) -> NDArray[np.float32]:
        """``(N, D)``: posterior means of the codes."""
        return codes_of(self.model_, self.guide_, self._table(X), self._sites[1])

    def inverse_transform(self, X: object) -> Any:
        """Rows, in the units of the table, whose codes are ``X``, ``(N, D)``."""
        check_is_fitted(self)
        return self._values(decoded(self.model_, X, self._sites[1], self._n_features_out))

    def _code_wanted(self) -> int | None:
        return self.n_components

    def _finish(self, frame: Frame, table: Table) -> None:
        super()._finish(frame, table)
        one = table.take(torch.arange(1))
        found = codes_of(self.model_, self.guide_, one, self._sites[1])
        self._n_features_out = found.shape[1]
