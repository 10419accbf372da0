"""Likelihoods of categories, which are integers from 0 in columns of x."""

from collections.abc import Sequence

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn import functional

GAP_FLOOR = 1e-3


class Codes(dist.Categorical):
    """Categorical distribution whose values are numbers of the logits' dtype.

    ``mean`` is the most probable category, since the mean of codes means nothing.
    """

    has_enumerate_support = False
    names_categories = True  # so that probabilities are averaged, and not codes

    @property
    def mean(self) -> Tensor:
        return self.logits.argmax(-1).to(self.logits.dtype)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        drawn: Tensor = torch.distributions.Categorical.sample(self, torch.Size(sample_shape))
        return drawn.to(self.logits.dtype)


class Categorical(nn.Module):
    """Categories without an order; takes logits ``(..., P K)``, K for each column in turn.

    Args:
        categories: K, the same for all columns.
    """

    def __init__(self, categories: int) -> None:
        super().__init__()
        check_categories(categories)
        self.categories = self.width = self.feature = categories

    def forward(self, output: Tensor) -> dist.Independent:
        return dist.Independent(Codes(logits=output.unflatten(-1, (-1, self.categories))), 1)


class Ordinal(nn.Module):
    r"""Categories in an order, by a cumulative logit; takes locations ``(..., P)``.

    .. math:: p(x \le k) = \mathrm{sigmoid}(c_k - \eta), \quad c_0 < c_1 < \dots < c_{K-2}

    McCullagh, "Regression Models for Ordinal Data", 1980. The cut points c are learnt; at first
    all categories are equally probable at the location 0.

    Args:
        categories: K, the same for all columns.
        rows: P, the number of columns, each with cut points of its own; None for the same ones.
    """

    width = 1

    def __init__(self, categories: int, rows: int | None = None) -> None:
        super().__init__()
        check_categories(categories)
        self.categories = self.feature = categories
        self.rows = rows
        shares = torch.arange(1, categories) / categories
        cuts = shares.logit()
        gaps = cuts.diff().sub(GAP_FLOOR).expm1().log()  # the inverse of softplus
        self.first = nn.Parameter(cuts[:1].repeat(rows or 1, 1))
        self.raw_gaps = nn.Parameter(gaps.repeat(rows or 1, 1)) if categories > 2 else None

    def forward(self, output: Tensor) -> dist.Independent:
        cuts: Tensor = self.first
        between = None
        if self.raw_gaps is not None:
            gaps = functional.softplus(self.raw_gaps) + GAP_FLOOR
            cuts = torch.cat([cuts, cuts + gaps.cumsum(-1)], -1)
            between = torch.log(-torch.expm1(-gaps))
        above = cuts - output.unsqueeze(-1)
        upper, lower = functional.logsigmoid(above), functional.logsigmoid(-above)
        # log(sigmoid(a) - sigmoid(b)) = logsigmoid(a) + logsigmoid(-b) + log(1 - exp(b - a))
        inner = [] if between is None else [upper[..., 1:] + lower[..., :-1] + between]
        logits = torch.cat([upper[..., :1], *inner, lower[..., -1:]], -1)
        return dist.Independent(Codes(logits=logits), 1)


def check_categories(categories: int) -> None:
    """Check a number of categories.

    Raises:
        ValueError: for less than two.
    """
    if categories < 2:
        raise ValueError(f"Expected at least 2 categories but got {categories}.")
