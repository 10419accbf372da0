"""Likelihoods of real and of positive data."""

import math
from typing import Literal, get_args

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn import functional

SCALE_FLOOR = 1e-3
Spread = Literal["fixed", "shared", "column", "network", "bounded"]


class Spreading(nn.Module):
    """Location and scale of each value, from the decoder's output; a base class.

    Args:
        scale: the scale of all values, or its initial value if it is learnt; above the floor of
            0.001.
        spread: ``fixed``; ``shared``, one learnt scale for all values; ``column``, a learnt one for
            each column; ``network``, ``scale`` times the exponential of the decoder's second half;
            or ``bounded``, the sigmoid of that half scaled to the range from 0.001 to ``scale``
            (0.4 in Paquet, Ghaisas and Tieleman, 2018).
        rows: P, the number of values in a row; needed for ``column`` only.
    """

    def __init__(
        self, scale: float = 1.0, spread: Spread = "fixed", rows: int | None = None
    ) -> None:
        super().__init__()
        if not scale > SCALE_FLOOR:
            raise ValueError(f"Expected a scale above {SCALE_FLOOR} but got {scale}.")
        if spread not in get_args(Spread):
            raise ValueError(f"Expected spread among {get_args(Spread)} but got {spread!r}.")
        self.scale, self.spread, self.rows = scale, spread, rows
        self.width = 2 if spread in ("network", "bounded") else 1
        start = torch.full(column_shape(spread, rows), math.log(scale - SCALE_FLOOR))
        learnt = spread in ("shared", "column")
        self.log_scale: Tensor = nn.Parameter(start) if learnt else nn.Buffer(start)

    def located(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """Locations and scales from outputs ``(..., P)``, or ``(..., 2 P)`` with log scales."""
        if self.width == 2:
            loc, raw = output.chunk(2, -1)
            log_share = functional.logsigmoid(raw) if self.spread == "bounded" else raw
            return loc, (self.log_scale + log_share).exp() + SCALE_FLOOR
        return output, self.log_scale.exp() + SCALE_FLOOR


def column_shape(spread: str, rows: int | None) -> tuple[int, ...]:
    """The shape of a learnt parameter: one, or one for each of P columns.

    Raises:
        ValueError: for one for each column without P.
    """
    if spread != "column":
        return ()
    if rows is None:
        raise ValueError(
            "Expected rows=P, the number of columns, with spread='column' but got none; give it."
        )
    return (rows,)


class Gaussian(Spreading):
    """Real data; takes means ``(..., P)``, or means and log scales ``(..., 2 P)``.

    Args:
        scale, spread, rows: of the standard deviation, see :class:`Spreading`.
    """

    def forward(self, output: Tensor) -> dist.Independent:
        return dist.Normal(*self.located(output)).to_event(1)


class StudentT(Spreading):
    """Real data with outliers; takes locations ``(..., P)``, or also log scales ``(..., 2 P)``.

    Args:
        df: degrees of freedom, above 1, so that there is a mean; the lower, the heavier the tails.
        scale, spread, rows: of the scale, see :class:`Spreading`.
    """

    def __init__(
        self,
        df: float = 4.0,
        scale: float = 1.0,
        spread: Spread = "fixed",
        rows: int | None = None,
    ) -> None:
        super().__init__(scale, spread, rows)
        if not df > 1:
            raise ValueError(f"Expected df above 1, so that there is a mean, but got {df}.")
        self.df = df

    def forward(self, output: Tensor) -> dist.Independent:
        loc, scale = self.located(output)
        return dist.StudentT(self.df, loc, scale).to_event(1)


class LogNormal(Spreading):
    """Positive data whose log is Gaussian; takes its means, see :class:`Gaussian`.

    Args:
        scale, spread, rows: of the standard deviation of log x, see :class:`Spreading`.
    """

    feature = "log"

    def forward(self, output: Tensor) -> dist.Independent:
        return dist.LogNormal(*self.located(output)).to_event(1)
