"""Codes of rows, and rows of codes: what the estimators with ``transform`` share."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags, check_array
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from priorzoo.estimators.estimator import Estimator
from priorzoo.inference import Stream, codes, draw
from priorzoo.inference.data.tables.cells import Frame
from priorzoo.inference.data.tables.schema import Table


class Encoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Estimator):
    """An estimator that transforms rows into the posterior means of their codes, and back."""

    def transform(self, X: object) -> NDArray[np.float32]:
        """``(N, D)``: posterior means of the codes."""
        table = self._table(X)  # refuses an estimator that is not fitted
        return codes_of(self.model_, self.guide_, table, self._sites[1])

    def inverse_transform(self, X: object) -> Any:
        """Rows, in the units of the table, whose codes are ``X``, ``(N, D)``."""
        check_is_fitted(self)
        z = check_array(X, dtype=np.float32)
        told = self._held(len(z))
        return self._values(decoded(self.model_, z, self._sites[1], self._n_features_out, told))

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []  # codes are float32, as the networks are
        return tags

    def _finish(self, frame: Frame, table: Table) -> None:
        super()._finish(frame, table)
        one = table.take(torch.arange(1))
        found = codes_of(self.model_, self.guide_, one, self._sites[1])
        self._n_features_out = found.shape[1]


def codes_of(
    model: nn.Module, guide: nn.Module, table: Table, sites: Sequence[str]
) -> NDArray[np.float32]:
    """``(N, D)``: the means of all codes of rows, side by side."""
    told = table.context
    found = [codes(model, guide, table.rows, site, context=told).cpu() for site in sites]
    return torch.cat(found, 1).numpy()


def decoded(
    model: nn.Module,
    rows: NDArray[np.float32],
    sites: Sequence[str],
    size: int,
    context: dict[str, Tensor],
) -> Tensor:
    """Means of x for codes ``(N, D)``; what else the decoder reads is drawn from the prior.

    Args:
        model: the model.
        rows: the codes.
        sites: whose they are, side by side and of one size.
        size: D.
        context: what the model is told beside x, each ``(N, ...)``.

    Raises:
        ValueError: for another number of columns.
    """
    if rows.shape[1] != size:
        raise ValueError(
            f"Expected codes (N, {size}) but got {rows.shape}; give those of transform."
        )
    parts = torch.from_numpy(rows).chunk(len(sites), -1)
    with Stream(0):
        given = dict(zip(sites, parts, strict=True))
        return draw(model, len(rows), given=given, context=context).cpu()
