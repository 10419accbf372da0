"""Likelihoods of counts: of words in a document, and of events at a rate."""

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor, nn
from torch.nn import functional

from priorzoo.models.likelihoods.continuous import column_shape

STEEP = 15.0  # log rate above which the rate grows linearly in the output
DISPERSION_FLOOR = 1e-4  # below it a negative binomial is a Poisson, and float32 sees no difference
Dispersion = Literal["shared", "column", "network"]


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


class Multinomial(nn.Module):
    """Counts, such as the words of a document; takes logits ``(..., P)``.

    Args:
        draws: total count of a sampled x; log probabilities use the total of each given row.
    """

    width = 1
    feature = "log"

    def __init__(self, draws: int = 100) -> None:
        super().__init__()
        self.draws = draws

    def forward(self, logits: Tensor) -> Counts:
        return Counts(self.draws, logits=logits)


class Events(dist.TorchDistribution):
    """Base class of distributions of single counts, with log densities computed in float64.

    The terms of these densities cancel: at a count of 10,000 they are 80,000 nats.

    Args:
        parameters: log mean, and further ones, of shapes that broadcast.
    """

    arg_constraints: dict[str, Any] = {}
    support = constraints.nonnegative_integer

    def __init__(self, *parameters: Tensor) -> None:
        self.parameters = parameters
        shape = torch.broadcast_shapes(*(each.shape for each in parameters))
        super().__init__(shape, validate_args=False)

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> "Events":
        return type(self)(*(each.expand(torch.Size(batch_shape)) for each in self.parameters))

    @property
    def mean(self) -> Tensor:
        return self.parameters[0].exp().expand(self.batch_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        found = self.log_mass(value.double(), *(each.double() for each in self.parameters))
        return found.to(self.parameters[0].dtype)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        with torch.no_grad():
            drawn = self.draw(*(each.double().expand(shape) for each in self.parameters))
        return drawn.to(self.parameters[0].dtype)

    def log_mass(self, value: Tensor, *parameters: Tensor) -> Tensor:
        """Log probabilities of counts."""
        raise NotImplementedError

    def draw(self, *parameters: Tensor) -> Tensor:
        """One count for each element of the parameters."""
        raise NotImplementedError


class PoissonEvents(Events):
    """Poisson distribution of a log rate."""

    @property
    def variance(self) -> Tensor:
        return self.mean

    def log_mass(self, value: Tensor, *parameters: Tensor) -> Tensor:
        (log_rate,) = parameters
        return value * log_rate - log_rate.exp() - torch.lgamma(value + 1)

    def draw(self, *parameters: Tensor) -> Tensor:
        return torch.poisson(parameters[0].exp())


class DispersedEvents(Events):
    r"""Negative binomial distribution of mean m and inverse dispersion r, by their logs.

    .. math:: p(x) = \frac{\Gamma(x + r)}{\Gamma(r)\, x!}
        \left(\frac{r}{r + m}\right)^r \left(\frac{m}{r + m}\right)^x,
        \quad \mathrm{Var}\, x = m + m^2 / r
    """

    @property
    def variance(self) -> Tensor:
        mean = self.parameters[0].exp()
        return (mean + mean * (self.parameters[0] - self.parameters[1]).exp()).expand(
            self.batch_shape
        )

    def log_mass(self, value: Tensor, *parameters: Tensor) -> Tensor:
        log_mean, log_r = parameters
        r, odds = log_r.exp(), log_mean - log_r
        ways = torch.lgamma(value + r) - torch.lgamma(r) - torch.lgamma(value + 1)
        return ways - r * functional.softplus(odds) - value * functional.softplus(-odds)

    def draw(self, *parameters: Tensor) -> Tensor:
        log_mean, log_r = parameters
        share = torch.distributions.Gamma(log_r.exp(), torch.ones_like(log_r)).sample()
        return torch.poisson(share * (log_mean - log_r).exp())


class InflatedEvents(DispersedEvents):
    """0 with the probability of a logit, otherwise negative binomial."""

    @property
    def mean(self) -> Tensor:
        log_mean, _, logit = self.parameters
        return (log_mean.exp() * torch.sigmoid(-logit)).expand(self.batch_shape)

    @property
    def variance(self) -> Tensor:
        drawn = torch.sigmoid(-self.parameters[-1])
        return drawn * (super().variance + (1 - drawn) * self.parameters[0].exp().square())

    def log_mass(self, value: Tensor, *parameters: Tensor) -> Tensor:
        *inner, logit = parameters
        drawn = functional.logsigmoid(-logit) + super().log_mass(value, *inner)
        zero = torch.logaddexp(functional.logsigmoid(logit), drawn)
        return torch.where(value == 0, zero, drawn)

    def draw(self, *parameters: Tensor) -> Tensor:
        *inner, logit = parameters
        return super().draw(*inner) * torch.bernoulli(torch.sigmoid(-logit))


def tempered(output: Tensor) -> Tensor:
    """A log rate: the output itself up to 15, above it the log of a rate that grows linearly.

    The rate and its derivative are continuous, and finite for any output.
    """
    return output.clamp(max=STEEP) + torch.log1p((output - STEEP).clamp(min=0))


def _log_mean(output: Tensor, exposure: Tensor | None) -> Tensor:
    log_mean = tempered(output)
    return log_mean if exposure is None else log_mean + exposure.log().unsqueeze(-1)


class Poisson(nn.Module):
    """Counts at a rate; takes log rates ``(..., P)``, see :func:`tempered`.

    An ``exposure`` ``(B,)`` multiplies all rates of a row.
    """

    width = 1
    feature = "log"

    def forward(self, output: Tensor, *, exposure: Tensor | None = None) -> dist.Independent:
        return dist.Independent(PoissonEvents(_log_mean(output, exposure)), 1)


class NegativeBinomial(nn.Module):
    """Counts that vary more than a Poisson's; takes log means ``(..., P)``.

    The variance is m + d m^2 for a mean m and the dispersion d, which has a floor of 0.0001. An
    ``exposure`` ``(B,)`` multiplies all means of a row.

    Args:
        dispersion: d, or its initial value.
        spread: ``shared``, one learnt dispersion; ``column``, one for each column; or ``network``,
            ``dispersion`` times the exponential of the decoder's second half.
        rows: P, the number of values in a row; needed for ``column`` only.
    """

    feature = "log"

    def __init__(
        self, dispersion: float = 1.0, spread: Dispersion = "shared", rows: int | None = None
    ) -> None:
        super().__init__()
        if not dispersion > DISPERSION_FLOOR:
            raise ValueError(
                f"Expected a dispersion above {DISPERSION_FLOOR} but got {dispersion}; choose "
                "Poisson for none."
            )
        if spread not in get_args(Dispersion):
            raise ValueError(f"Expected spread among {get_args(Dispersion)} but got {spread!r}.")
        self.dispersion, self.spread, self.rows = dispersion, spread, rows
        self.width = 2 if spread == "network" else 1
        start = torch.full(column_shape(spread, rows), math.log(dispersion))
        learnt = spread != "network"
        self.log_dispersion: Tensor = nn.Parameter(start) if learnt else nn.Buffer(start)

    def forward(self, output: Tensor, *, exposure: Tensor | None = None) -> dist.Independent:
        return dist.Independent(DispersedEvents(*self.means(output, exposure)), 1)

    def means(self, output: Tensor, exposure: Tensor | None) -> tuple[Tensor, Tensor]:
        """Log means and log inverse dispersions, from ``width`` outputs for each value."""
        raw = self.log_dispersion
        if self.spread == "network":
            output, own = output.chunk(2, -1)
            raw = raw + own
        floor = torch.full_like(raw, math.log(DISPERSION_FLOOR))
        return _log_mean(output, exposure), -torch.logaddexp(tempered(raw), floor)


class ZeroInflatedNegativeBinomial(NegativeBinomial):
    """Counts with more zeros; takes log means ``(..., P)``, then logits of the further zeros.

    Outputs ``(..., 2 P)``, or ``(..., 3 P)`` with log dispersions in between. The exposure
    multiplies the means only.

    Args:
        dispersion, spread, rows: as in :class:`NegativeBinomial`.
    """

    def __init__(
        self, dispersion: float = 1.0, spread: Dispersion = "shared", rows: int | None = None
    ) -> None:
        super().__init__(dispersion, spread, rows)
        self.width += 1

    def forward(self, output: Tensor, *, exposure: Tensor | None = None) -> dist.Independent:
        values = output.shape[-1] // self.width
        inner, logits = output.split([output.shape[-1] - values, values], -1)
        return dist.Independent(InflatedEvents(*self.means(inner, exposure), logits), 1)
