"""What a row's ``x`` is, given its code and what a program is told beside it.

Models sample ``x`` by :func:`sample_x`, and guides run their networks by :func:`encode`. Both pass
on what a network or likelihood takes of :class:`Beside`.
"""

from collections.abc import Callable, Mapping
from typing import cast

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor, nn

from priorzoo.models.contract import Beside, named

Told = Beside | Mapping[str, Tensor]


def sample_x(
    x: Tensor | None, beside: Told, likelihood: nn.Module, decoder: nn.Module, *inputs: Tensor
) -> Tensor:
    """Sample the site ``x`` of a model, inside its data plate.

    Covariates go to the decoder, and an exposure to the likelihood. Missing cells are filled by a
    value in the support before any density is computed, and left out of log p(x | z): neither the
    bound nor its gradient depends on what ``x`` has there, not even on NaN. Without ``x``, whole
    rows are drawn.

    Args:
        x: rows ``(B, P)``, or None to draw them.
        beside: what the model is told beside ``x``.
        likelihood: maps the decoder's output to p(x | z).
        decoder: maps the code, and further ``inputs``, to the likelihood's parameters.
        inputs: arguments of the decoder.

    Raises:
        ValueError: for names that no program of the zoo has, covariates that the decoder does not
            take, or an exposure of a likelihood without rates.
    """
    _check(beside, likelihood, decoder)
    output = decoder(*inputs, **told(decoder, beside))
    fn: TorchDistribution = likelihood(output, **told(likelihood, beside))
    observed = beside.get("observed")
    if x is not None and observed is not None:
        x, fn = filled(x, observed, fn), marginal(fn, observed)
    return pyro.sample("x", fn, obs=x)


def encode(network: nn.Module, x: Tensor, beside: Told, *inputs: Tensor) -> Tensor:
    """The output of a guide's network for rows ``(B, P)``, with 0 in their missing cells.

    A network that takes ``observed`` sees which cells these are, and one that takes ``covariates``
    sees those.
    """
    observed = beside.get("observed")
    rows = x if observed is None else x.masked_fill(~observed, 0)
    return cast(Tensor, network(rows, *inputs, **told(network, beside)))


def told(part: nn.Module, beside: Told) -> dict[str, Tensor]:
    """What a network or likelihood takes of what a program is told beside ``x``, by keyword.

    It takes the names in its attribute ``takes``; without one, those that its ``forward`` names.
    """
    if not beside:
        return {}
    names: frozenset[str] | None = getattr(part, "takes", None)
    names = named(part) if names is None else names
    given = cast(Mapping[str, Tensor], beside)
    return {name: value for name, value in given.items() if names is None or name in names}


def filled(x: Tensor, observed: Tensor, fn: TorchDistribution) -> Tensor:
    """Rows whose missing cells are 0 where that is in the support, otherwise 1."""
    zero = x.new_zeros(x.shape)
    inside = cells(cast(constraints.Constraint, fn.support)).check(zero)
    return torch.where(observed, x, torch.where(inside, zero, 1).to(x.dtype))


def cells(support: constraints.Constraint) -> constraints.Constraint:
    """The constraint of single cells of a row."""
    return cast(constraints.Constraint, getattr(support, "base_constraint", support))


def marginal(fn: TorchDistribution, observed: Tensor) -> TorchDistribution:
    """The distribution of the observed cells alone, whatever the others hold.

    Args:
        fn: distribution of rows, with independent cells or a method ``marginal``.
        observed: ``(B, P)``, False for missing cells.

    Raises:
        ValueError: for another distribution.
    """
    if hasattr(fn, "marginal"):
        return cast(TorchDistribution, fn.marginal(observed))
    if isinstance(fn, dist.Independent) and fn.event_dim == 1:
        return cast(TorchDistribution, fn.base_dist.mask(observed).to_event(1))
    raise ValueError(
        "Expected a likelihood whose cells are independent given the code, for rows with missing "
        f"cells, but got {type(fn).__name__}; give its class a method marginal(observed)."
    )


def average(fn: TorchDistribution, expect: Callable[[Tensor, int], Tensor]) -> Tensor:
    """The mean of each cell ``(B, P)``, averaged over codes; of categories the most probable one.

    Probabilities of categories are averaged before the most probable one is chosen.

    Args:
        fn: distribution of rows.
        expect: averages values over codes, given the number of their dimensions right of the rows.
    """
    if hasattr(fn, "average"):
        return cast(Tensor, fn.average(expect))
    shares = _probabilities(fn)
    if shares is not None:
        return expect(shares, 2).argmax(-1).to(shares.dtype)
    return expect(fn.mean, 1)


def doubt(fn: TorchDistribution, expect: Callable[[Tensor, int], Tensor]) -> Tensor:
    """The standard deviation of each cell ``(B, P)``, its code being uncertain.

    Of categories, the probability that it is not the one that :func:`average` gives.

    Args:
        fn, expect: as in :func:`average`; in float64, since squares of means are subtracted.
    """
    if hasattr(fn, "doubt"):
        return cast(Tensor, fn.doubt(expect))
    shares = _probabilities(fn)
    if shares is not None:
        return 1 - expect(shares, 2).amax(-1)
    mean = fn.mean.double()
    square = expect(fn.variance.double() + mean.square(), 1) - expect(mean, 1).square()
    return square.clamp(min=0).sqrt()


def _probabilities(fn: TorchDistribution) -> Tensor | None:
    """``(..., P, K)`` probabilities of categories; None for another distribution."""
    while isinstance(fn, dist.Independent | dist.MaskedDistribution):
        fn = fn.base_dist
    return fn.probs if getattr(fn, "names_categories", False) else None


def _check(beside: Told, likelihood: nn.Module, decoder: nn.Module) -> None:
    unknown = beside.keys() - Beside.__annotations__.keys()
    if unknown:
        raise ValueError(
            f"Expected {', '.join(Beside.__annotations__)} beside x but got "
            f"{', '.join(sorted(unknown))}; correct the name."
        )
    if "covariates" in beside and not told(decoder, beside).keys() & {"covariates"}:
        raise ValueError(
            f"Expected a decoder that takes covariates but this {type(decoder).__name__} does not; "
            "build it with covariates=C, or leave them out."
        )
    if "exposure" in beside and not told(likelihood, beside).keys() & {"exposure"}:
        raise ValueError(
            f"Expected a likelihood of counts, with rates, beside an exposure but got "
            f"{type(likelihood).__name__}; choose Poisson or NegativeBinomial, or leave it out."
        )
