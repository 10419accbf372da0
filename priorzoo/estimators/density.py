"""Densities and codes of tables and matrices, as scikit-learn's estimators give them."""

from collections.abc import Mapping
from typing import Any

from sklearn.base import DensityMixin

from priorzoo.estimators.codes import Encoder
from priorzoo.estimators.estimator import Estimator


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


class Embedder(Encoder):
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

    def _code_wanted(self) -> int | None:
        return self.n_components
