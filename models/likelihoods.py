"""Likelihoods: they map a decoder's output to p(x | z), the last part of a generative model."""

import math
from typing import Literal, get_args

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor, nn
from torch.nn import functional

SCALE_FLOOR = 1e-3
Spread = Literal["fixed", "shared", "network", "bounded"]


class Pixel(dist.Bernoulli):
    """Bernoulli distribution whose log density of a grey value in [0, 1] is the cross-entropy.

    This is not a normalised density of grey values; Dilokthanakul et al., 2016, train on it and
    report their results in it. For binary values it is the Bernoulli distribution.
    """

    support = constraints.unit_interval


class Counts(dist.Multinomial):
    """Multinomial for rows of different totals, such as the word counts of documents.

    ``log_prob`` takes the number of draws from each row; ``total_count`` is used by :meth:`sample`
    only. Unlike in Pyro, the coefficient is computed once, not for every enumerated cluster.
    """

    support = constraints.independent(constraints.nonnegative_integer, 1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log probability in nats of counts ``(..., P)``, in the broadcast batch shape."""
        coefficient = torch.lgamma(value.sum(-1) + 1) - torch.lgamma(value + 1).sum(-1)
        return coefficient + (value * self.logits).sum(-1)

    def marginal(self, observed: Tensor) -> "Counts":
        """The distribution of the observed cells given their total, for values 0 in the others."""
        least = torch.finfo(self.logits.dtype).min / 2  # with -inf, 0 draws would be 0 times inf
        return Counts(self.total_count, logits=self.logits.masked_fill(~observed, least))


class Bernoulli(nn.Module):
    """Binary pixels, or grey ones in [0, 1] with the cross-entropy loss; takes logits ``(..., P)``.

    ``width`` is the number of decoder outputs per dimension of x, in all likelihoods.
    """

    width = 1

    def forward(self, logits: Tensor) -> dist.Independent:
        return Pixel(logits=logits).to_event(1)


class Gaussian(nn.Module):
    """Real data; takes means ``(..., P)``, or means and log scales ``(..., 2 P)``.

    Args:
        scale: standard deviation, or its initial value if it is learnt; above the floor of 0.001.
        spread: ``fixed``; ``shared``, one learnt standard deviation for all values; ``network``,
            ``scale`` times the exponential of the decoder's second half; or ``bounded``, the
            sigmoid of that half scaled to the range from 0.001 to ``scale`` (0.4 in Paquet, Ghaisas
            and Tieleman, 2018).
    """

    def __init__(self, scale: float = 1.0, spread: Spread = "fixed") -> None:
        super().__init__()
        if not scale > SCALE_FLOOR:
            raise ValueError(f"Expected a scale above {SCALE_FLOOR} but got {scale}.")
        if spread not in get_args(Spread):
            raise ValueError(f"Expected spread among {get_args(Spread)} but got {spread!r}.")
        self.scale, self.spread = scale, spread
        self.width = 2 if spread in ("network", "bounded") else 1
        start = torch.tensor(math.log(scale - SCALE_FLOOR))
        self.log_scale: Tensor = nn.Parameter(start) if spread == "shared" else nn.Buffer(start)

    def forward(self, output: Tensor) -> dist.Independent:
        if self.width == 2:
            loc, raw = output.chunk(2, -1)
            log_share = functional.logsigmoid(raw) if self.spread == "bounded" else raw
            scale = (self.log_scale + log_share).exp() + SCALE_FLOOR
        else:
            loc, scale = output, self.log_scale.exp() + SCALE_FLOOR
        return dist.Normal(loc, scale).to_event(1)


class Multinomial(nn.Module):
    """Counts, such as the words of a document; takes logits ``(..., P)``.

    Args:
        draws: total count of a sampled x; log probabilities use the total of each given row.
    """

    width = 1

    def __init__(self, draws: int = 100) -> None:
        super().__init__()
        self.draws = draws

    def forward(self, logits: Tensor) -> Counts:
        return Counts(self.draws, logits=logits)
