"""What a network reads of a row: its cells, which of them are observed, and covariates."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from priorzoo.models.joining import side_by_side
from priorzoo.models.words import TfIdf, Weighting

Feature = Literal["number", "log"] | int


class Inlet(nn.Module):
    """The input of a network's first layer: the features, then the mask, then the covariates.

    It has no parameters. The mask is 1 for observed cells and 0 for missing ones.

    Centred, it subtracts from each feature its mean given the covariates, ``[1, c] @ centre``, and
    a feature of a missing cell is 0. The covariates are then used for these means alone, so that
    the code of a row has nothing of what its covariates do to all rows alike. ``centre`` is 0 until
    :func:`priorzoo.inference.centre_features` sets it.

    Args:
        inputs: number P of cells.
        covariates: number C of covariates; 0 if the network does not take them.
        masked: whether the network takes the mask.
        features: what is read of each cell: ``number``, the number itself; ``log``, log(1 + x), of
            counts and other positive numbers; or K, the number of categories of a cell with one of
            the integers 0 to K - 1, which becomes K numbers, 1 for its category and 0 for the
            others, all 0 if it is missing. None for the numbers of all cells.
        weighting: of rows that count words, how they are read: ``none``, as they are; ``tf-idf``
            or ``log-tf-idf``, see :class:`TfIdf`.
        dropout: probability with which a feature is set to 0 during training; the mask and the
            covariates are not.
        centred: whether features are centred.

    Raises:
        ValueError: for features that are not one for each cell, or none of these, or that stand
            beside a weighting of words.
    """

    def __init__(
        self,
        inputs: int,
        covariates: int = 0,
        masked: bool = False,
        features: Sequence[Feature] | None = None,
        weighting: Weighting = "none",
        dropout: float = 0.0,
        centred: bool = False,
    ) -> None:
        super().__init__()
        self.inputs, self.covariates, self.masked = inputs, covariates, masked
        self.weighting, self.dropout, self.centred = weighting, dropout, centred
        self.words = self._weigh(features)
        self.features = None if features is None else list(features)
        names = {"covariates": covariates > 0, "observed": masked or centred}
        self.takes = frozenset(name for name, taken in names.items() if taken)
        self.needs = frozenset(["covariates"] if covariates else [])
        self.cells = inputs if features is None else self._read(list(features))
        self.width = self.cells + inputs * masked + (0 if centred else covariates)
        if centred:
            self.centre = nn.Buffer(torch.zeros(1 + covariates, self.cells))

    def _weigh(self, features: Sequence[Feature] | None) -> TfIdf | None:
        """What weighs the words, if the rows count words."""
        known = get_args(Weighting)
        if self.weighting not in known:
            raise ValueError(f"Expected weighting among {known} but got {self.weighting!r}.")
        if self.weighting == "none":
            return None
        if features is not None:
            raise ValueError(
                f"Expected rows of word counts for weighting={self.weighting!r} but got columns of "
                "several kinds; leave the weighting out."
            )
        return TfIdf(self.inputs, self.weighting == "log-tf-idf")

    def _read(self, features: list[Feature]) -> int:
        """Keep which cells are which; returns the number of features."""
        known = [f in ("number", "log") or (isinstance(f, int) and f > 1) for f in features]
        if len(features) != self.inputs or not all(known):
            raise ValueError(
                f"Expected one feature for each of {self.inputs} cells, 'number', 'log' or the "
                f"number of categories, but got {features}."
            )
        of = [place for place, f in enumerate(features) if isinstance(f, int)]
        self.categories = [int(features[place]) for place in of]
        self.of_categories = nn.Buffer(torch.tensor(of, dtype=torch.int64), persistent=False)
        rest = [place for place, f in enumerate(features) if not isinstance(f, int)]
        self.of_numbers = nn.Buffer(torch.tensor(rest, dtype=torch.int64), persistent=False)
        logs = torch.tensor([features[place] == "log" for place in rest], dtype=torch.bool)
        self.logs = nn.Buffer(logs, persistent=False)
        wide = max(self.categories, default=0)
        every = torch.arange(wide)
        kept = every < torch.tensor(self.categories, dtype=torch.int64).unsqueeze(-1)
        self.kept = nn.Buffer(kept.flatten().nonzero().flatten(), persistent=False)
        self.every = nn.Buffer(every, persistent=False)
        return len(rest) + sum(self.categories)

    def read(self, x: Tensor, observed: Tensor | None = None) -> Tensor:
        """``(..., cells)`` features of cells ``(..., P)``: numbers first, then categories."""
        if self.words is not None:
            return self.words(x)
        if self.features is None:
            return x
        numbers = x[..., self.of_numbers]
        numbers = torch.where(self.logs, numbers.clamp(min=0).log1p(), numbers)
        if not self.categories:
            return numbers
        chosen = x[..., self.of_categories].unsqueeze(-1) == self.every
        if observed is not None:
            chosen = chosen & observed[..., self.of_categories].unsqueeze(-1)
        return torch.cat([numbers, chosen.flatten(-2)[..., self.kept].to(x.dtype)], -1)

    def seen(self, observed: Tensor) -> Tensor:
        """``(..., cells)``: which features are of observed cells ``(..., P)``."""
        if self.features is None:
            return observed
        numbers = observed[..., self.of_numbers]
        if not self.categories:
            return numbers
        wide = (
            observed[..., self.of_categories]
            .unsqueeze(-1)
            .expand(*observed.shape[:-1], len(self.categories), len(self.every))
        )
        return torch.cat([numbers, wide.flatten(-2)[..., self.kept]], -1)

    def forward(
        self, x: Tensor, observed: Tensor | None = None, covariates: Tensor | None = None
    ) -> Tensor:
        """``(..., width)`` of cells ``(..., P)``; without a mask, all cells are observed.

        Raises:
            ValueError: without covariates, or with another number of them.
        """
        if self.covariates:
            self._check(covariates)
        features = self.read(x, observed)
        if self.centred:
            features = self._centred(features, observed, covariates)
        parts = [functional.dropout(features, self.dropout, self.training)]
        if self.masked:
            parts.append(torch.ones_like(x) if observed is None else observed.to(x.dtype))
        if covariates is not None and self.covariates and not self.centred:
            parts.append(covariates.to(x.dtype))
        return parts[0] if len(parts) == 1 else side_by_side(parts)

    def _centred(
        self, features: Tensor, observed: Tensor | None, covariates: Tensor | None
    ) -> Tensor:
        centre = self.centre[0]
        if covariates is not None and self.covariates:
            centre = centre + covariates.to(centre.dtype) @ self.centre[1:]
        centred = features - centre.to(features.dtype)
        return centred if observed is None else centred * self.seen(observed)

    def _check(self, covariates: Tensor | None) -> None:
        if covariates is not None and covariates.shape[1:] == (self.covariates,):
            return
        sides = [] if covariates is None else ["N", *map(str, covariates.shape[1:])]
        found = f"({', '.join(sides)})" if sides else "none"
        raise ValueError(
            f"Expected covariates (N, {self.covariates}) but got {found}; give "
            "context={'covariates': values}."
        )
