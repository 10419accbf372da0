"""What a trained pair says of data, and what it dreams up.

Means of x are those of its likelihood: for counts, :class:`Multinomial`, they add up to its
``draws`` and not to the number of words of the row they belong to.
"""

from collections.abc import Callable
from typing import Any

import torch
from pyro import poutine
from torch import Tensor, nn

from priorzoo.inference.objectives.elbo import Weights
from priorzoo.inference.pairs import (
    Means,
    evaluating,
    is_enumerated,
    latent_sites,
    run_pair,
    site_of,
)
from priorzoo.inference.randomness import Stream


def cluster_probabilities(
    model: nn.Module, guide: nn.Module, x: Tensor, site: str = "y", batch_size: int = 500
) -> Tensor:
    """``(N, K)`` probabilities q(site | x) in closed form, codes at their means.

    Args:
        x: rows ``(N, P)``.
        site: name of the discrete site.
    """

    def read(drawn: poutine.Trace, _: poutine.Trace) -> Tensor:
        found = latent_sites(drawn).get(site)
        if found is None or not is_enumerated(found):
            raise ValueError(
                f"Expected a guide that enumerates {site!r} but it has {list(latent_sites(drawn))}."
            )
        probabilities: Tensor = found["fn"].probs
        return probabilities.expand(len(site_of(drawn, "data")["value"]), -1)

    return _over_batches(model, guide, x, batch_size, read)


def enumerates(model: nn.Module, guide: nn.Module, x: Tensor, site: str = "y") -> bool:
    """Whether the guide has a discrete site of that name, so that it has cluster probabilities."""
    with torch.no_grad(), evaluating(model, guide), Stream(0, x.device):
        found = latent_sites(run_pair(model, guide, x[:1])[0]).get(site)
    return found is not None and is_enumerated(found)


def codes(
    model: nn.Module, guide: nn.Module, x: Tensor, site: str = "z", batch_size: int = 500
) -> Tensor:
    """``(N, D)`` posterior means of the code, clusters averaged by their probabilities."""

    def read(drawn: poutine.Trace, _: poutine.Trace) -> Tensor:
        found = latent_sites(drawn)
        if site not in found:
            raise ValueError(f"Expected one of the guide's sites {list(found)} but got {site!r}.")
        return Weights(drawn).expect(found[site]["value"], events=1)

    return _over_batches(model, guide, x, batch_size, read)


def reconstructions(model: nn.Module, guide: nn.Module, x: Tensor, batch_size: int = 500) -> Tensor:
    """``(N, P)`` means of x decoded from the posterior means of the codes, averaged likewise."""

    def read(drawn: poutine.Trace, told: poutine.Trace) -> Tensor:
        return Weights(drawn).expect(site_of(told, "x")["fn"].mean, events=1)

    return _over_batches(model, guide, x, batch_size, read)


def draw(
    model: nn.Module,
    size: int,
    *,
    given: dict[str, int | Tensor] | None = None,
    means: bool = True,
) -> Tensor:
    """``(size, P)`` rows from the prior.

    Args:
        given: values at which sites are held, such as ``{"y": 3}`` for the fourth cluster.
        means: the likelihood's means, which make the better pictures, in place of draws from it.

    Raises:
        ValueError: for a site the model lacks, or a cluster it has not.
    """
    with torch.no_grad(), evaluating(model):
        sites = latent_sites(poutine.trace(model).get_trace(size=1)) if given else {}
        sites.pop("x", None)
        values = {name: _value(sites, name, v, size) for name, v in (given or {}).items()}
        trace = poutine.trace(poutine.condition(model, data=values)).get_trace(size=size)
    site = site_of(trace, "x")
    drawn: Tensor = site["fn"].mean if means else site["value"]
    return drawn


def _value(sites: dict[str, Any], name: str, value: int | Tensor, size: int) -> Tensor:
    if name not in sites:
        raise ValueError(f"Expected one of the sites {list(sites)} but got {name!r}.")
    template, fn = sites[name]["value"], sites[name]["fn"]
    shape = (size, *template.shape[1:])
    held = torch.as_tensor(value, dtype=template.dtype, device=template.device).expand(shape)
    if fn.has_enumerate_support and not fn.support.check(held).all():
        last = len(fn.enumerate_support(expand=False)) - 1
        raise ValueError(f"Expected {name} from 0 to {last} but got {value}.")
    return held


def _over_batches(
    model: nn.Module,
    guide: nn.Module,
    x: Tensor,
    batch_size: int,
    read: Callable[[poutine.Trace, poutine.Trace], Tensor],
) -> Tensor:
    with torch.no_grad(), evaluating(model, guide):
        return torch.cat(
            [read(*run_pair(model, guide, rows, means=True)) for rows in x.split(batch_size)]
        )


def component_means(model: nn.Module, site: str = "y") -> Tensor:
    """``(K, P)`` means of x decoded from the mean code of each cluster.

    Raises:
        ValueError: for a site that the model lacks, or that is not discrete.
    """
    with torch.no_grad(), evaluating(model):
        sites = latent_sites(poutine.trace(model).get_trace(size=1))
        known = [name for name in sites if sites[name]["fn"].has_enumerate_support and name != "x"]
        if site not in known:
            raise ValueError(f"Expected one of the discrete sites {known} but got {site!r}.")
        fn = sites[site]["fn"]
        every = fn.enumerate_support(expand=False).reshape(-1)
        trace = poutine.trace(Means()(poutine.condition(model, data={site: every}))).get_trace(
            size=len(every)
        )
    decoded: Tensor = site_of(trace, "x")["fn"].mean
    return decoded
