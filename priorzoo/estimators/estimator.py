"""What the estimators share: fitting, density, draws, and pickling."""

from collections.abc import Mapping
from typing import Any, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from priorzoo.estimators.keeping import State, packed, unpacked
from priorzoo.estimators.rows import (
    checked,
    in_order,
    is_frame,
    repeated,
    schema_of,
)
from priorzoo.estimators.scoring import LogLikelihood
from priorzoo.estimators.training import Choice, Trained, further, train
from priorzoo.estimators.values import in_units, native
from priorzoo.inference import Stream, draw, predictive
from priorzoo.inference.batch import Batch
from priorzoo.inference.data.tables.cells import Frame
from priorzoo.inference.data.tables.refusing import of_new_rows
from priorzoo.inference.data.tables.schema import Schema, Table
from priorzoo.inference.data.tensors import check_count
from priorzoo.inference.pairs import run_pair
from priorzoo.inference.serving.outputs import predicted_sites
from priorzoo.inference.sites import evaluating

SEEDS = 2**31 - 1


def check_whole(name: str, value: object) -> None:
    """Check a setting that is a positive whole number, or None for what suits the table.

    Raises:
        ValueError: for another value.
    """
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if value is not None and not (whole and cast(int, value) >= 1):
        raise ValueError(f"Expected {name} of at least 1 but got {value!r}; give a whole number.")


class Estimator(BaseEstimator):
    """Base class of the estimators: a recipe for the user's table, trained and kept.

    Attributes:
        model_, guide_: the trained pair, as :func:`priorzoo.fit` and :func:`priorzoo.save` take it.
        schema_: the columns, with their likelihoods and scaling.
        n_iter_: steps that were trained.
        held_out_bound_: bound on log p(x) of the held-out tenth of the rows (of the training rows,
            if there are less than 200), in nats a row, in the units of the table. Of two models the
            one with the higher bound is better.
        n_features_in_, feature_names_in_: as in scikit-learn.
    """

    model: str
    likelihood: str | Mapping[str, str]
    guide: str
    random_state: object
    n_init: int
    max_iter: int | None
    device: str
    schema_: Schema

    def fit(self, X: object, y: object = None, sample_weight: object = None) -> Self:
        """Train on rows.

        Args:
            X: ``(N, P)`` numbers, with NaN for missing cells, or a data frame, whose
                columns may also be text.
            y: labels of which some are -1, for unknown, name the first clusters; without an unknown
                one they are ignored.
            sample_weight: ``(N,)``: a row of weight w counts as w rows.

        Raises:
            ValueError: in one line, for rows or settings that cannot be used.
        """
        frame = checked(self, X, reset=True)
        self._drop_fitted()
        labels = self._known(y, frame.rows)
        kept, weights = repeated(sample_weight, frame.rows)
        order = in_order(frame.take(kept), None if labels is None else labels[kept])
        kept = kept[order]
        rows = frame.take(kept)
        self.schema_ = schema_of(rows, self.likelihood, alike=not is_frame(X))
        self._columns = native(X, rows, self.schema_)
        table = self.schema_.encode(rows)
        told = None if labels is None else torch.from_numpy(labels[kept])
        w = None if weights is None else torch.from_numpy(weights[order]).float()
        self._keep(train(table, self._choice(), told, w))
        self._finish(frame, table)
        return self

    def partial_fit(self, X: object, y: object = None, sample_weight: object = None) -> Self:
        """Go on training, on more rows, whose columns and scaling are those of the first call.

        Args:
            X, y, sample_weight: as in :meth:`fit`, which the first call is.
        """
        if not hasattr(self, "model_"):
            return self.fit(X, y, sample_weight)
        frame = checked(self, X, reset=False)
        kept, weights = repeated(sample_weight, frame.rows)
        table = self._encoded(frame.take(kept))
        w = None if weights is None else torch.from_numpy(weights).float()
        found = Trained(self.model_, self.guide_, self.n_iter_, self.held_out_bound_)
        self._keep(further(found, table, self._choice(), w))
        self._finish(frame, table)
        return self

    def score_samples(self, X: object) -> NDArray[np.float32]:
        """``(N,)``: log p of rows, in nats, in the units of X, of the observed cells.

        It is an importance-weighted bound with 100 draws, the same for a row wherever it stands.
        """
        table = self._table(X)
        nats = self._log_likelihood(table.rows, table.context)
        units = self.schema_.log_scale(table.observed, len(table))
        return (nats.double().cpu() - units).float().numpy()

    def score(self, X: object, y: object = None) -> float:
        """Mean of :meth:`score_samples`, by which a search compares settings; higher is better."""
        return float(self.score_samples(X).mean(dtype=np.float64))

    def _draw(self, rows: int) -> Tensor:
        check_is_fitted(self)
        check_count(rows, "n_samples")
        story, _ = predictive(self.model_, self.guide_)
        with Stream(self._seed()):
            return draw(story, rows, means=False, context=self._held(rows))

    def _held(self, rows: int) -> dict[str, Tensor]:
        """Covariates of draws and of means of clusters: the means of the training rows'."""
        told = torch.from_numpy(self._covariates).expand(rows, -1)
        return {"covariates": told} if told.shape[1] else {}

    def _table(self, X: object) -> Table:
        check_is_fitted(self)
        return self._encoded(checked(self, X, reset=False))

    def _encoded(self, frame: Frame) -> Table:
        try:
            return self.schema_.encode(frame)
        except ValueError as error:
            raise ValueError(of_new_rows(str(error), "fit again with likelihood")) from error

    def _values(self, rows: Tensor) -> Any:
        """Rows in the units and in the form of the table that was fitted."""
        return in_units(rows, self.schema_, self._columns)

    def _choice(self) -> Choice:
        for name in ("model", "guide"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(
                    f"Expected {name} as text but got {getattr(self, name)!r}; give a name of "
                    f"priorzoo list {name}s."
                )
        for name in ("n_init", "max_iter", "n_components"):
            check_whole(name, getattr(self, name, None))
        return Choice(
            self.model,
            self._clusters_wanted(),
            self._code_wanted(),
            self.guide,
            self._seed(),
            self.n_init,
            self.max_iter,
            self.device,
        )

    def _seed(self) -> int:
        return int(check_random_state(self.random_state).randint(SEEDS))

    def _clusters_wanted(self) -> int | None:
        return None

    def _code_wanted(self) -> int | None:
        return None

    def _known(self, y: object, rows: int) -> NDArray[np.int64] | None:
        return None

    def _keep(self, found: Trained) -> None:
        self.model_, self.guide_ = found.model, found.guide
        self.n_iter_, self.held_out_bound_ = found.steps, found.bound
        self._log_likelihood = LogLikelihood(found.model, found.guide)

    def _finish(self, frame: Frame, table: Table) -> None:
        """Set the attributes that depend on the training rows."""
        self._sites = self._find_sites(table)
        told = table.covariates
        means = torch.zeros(1, 0) if told is None else told.mean(0, keepdim=True)
        self._covariates = means.numpy()

    def _find_sites(self, table: Table) -> tuple[list[str], list[str]]:
        one = table.take(torch.arange(1))
        with torch.no_grad(), evaluating(self.model_, self.guide_), Stream(0):
            found = run_pair(self.model_, self.guide_, Batch(one.rows, None, {}, one.context))
        return predicted_sites(found[0])

    def _drop_fitted(self) -> None:
        for name in ("model_", "guide_", "classes_"):
            self.__dict__.pop(name, None)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "model_")

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def __getstate__(self) -> State:
        return packed(cast(State, super().__getstate__()))

    def __setstate__(self, state: State) -> None:
        super().__setstate__(unpacked(state))
