"""Predictions of a trained pair for data, and samples from its model.

Means of x are those of its likelihood: for counts, :class:`Multinomial`, they add up to its
``draws`` and not to the number of words of the row they belong to.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from pyro import poutine
from torch import Tensor, nn

from priorzoo.inference.batch import Context
from priorzoo.inference.choices import choices_of, fixed_value, shape_for
from priorzoo.inference.data.beside import context_of
from priorzoo.inference.data.portions import portions
from priorzoo.inference.data.stored.rows import StoredRows
from priorzoo.inference.data.tensors import check_count
from priorzoo.inference.objectives.weights import Weights
from priorzoo.inference.pairs import run_pair
from priorzoo.inference.randomness import Stream
from priorzoo.inference.sites import (
    Means,
    evaluating,
    is_enumerated,
    latent_sites,
    log_prob,
    rows_of,
    site_of,
)
from priorzoo.models.contract import CountsData, accepted, check_context
from priorzoo.models.observation import average


def cluster_probabilities(
    model: nn.Module,
    guide: nn.Module,
    x: Tensor | StoredRows,
    site: str = "y",
    batch_size: int = 500,
    *,
    context: Context | None = None,
) -> Tensor:
    """``(N, K)`` cluster probabilities q(site | x), computed with codes at their means.

    If the site depends on other enumerated sites, the probabilities are averaged over these.

    Args:
        x: rows ``(N, P)``.
        site: name of the discrete site.
        batch_size: rows processed at a time.
        context: keyword arguments of the programs beside x, each ``(N, ...)``.

    Raises:
        ValueError: for a site that the guide does not enumerate.
    """

    def read(guide_trace: poutine.Trace, _: poutine.Trace) -> Tensor:
        return probabilities_of(guide_trace, site)

    return _over_batches(model, guide, x, context, batch_size, read)


def probabilities_of(guide_trace: poutine.Trace, site: str) -> Tensor:
    """``(B, K)`` probabilities of an enumerated site in a guide's trace.

    Raises:
        ValueError: for a site that the guide does not enumerate.
    """
    sites = latent_sites(guide_trace)
    if site not in sites or not is_enumerated(sites[site]):
        raise ValueError(
            f"Expected a guide that enumerates {site!r} but it has {list(sites)}; name a site "
            "that it enumerates."
        )
    every = log_prob(sites[site]).exp().unsqueeze(-1)  # of each value, along its dimension
    by_value = every.transpose(sites[site]["infer"]["_enumerate_dim"] - 1, -1)
    probabilities = Weights(guide_trace).expect(by_value, events=1)
    return probabilities.expand(len(site_of(guide_trace, "data")["value"]), -1)


def enumerates(
    model: nn.Module,
    guide: nn.Module,
    x: Tensor | StoredRows,
    site: str = "y",
    *,
    context: Context | None = None,
) -> bool:
    """Whether the guide enumerates a site of this name, so that it has cluster probabilities."""
    first = next(next(portions(model, x, 1, context=context)[1]).split(1))
    with torch.no_grad(), evaluating(model, guide), Stream(0, first.x.device):
        found = latent_sites(run_pair(model, guide, first)[0]).get(site)
    return found is not None and is_enumerated(found)


def codes(
    model: nn.Module,
    guide: nn.Module,
    x: Tensor | StoredRows,
    site: str = "z",
    batch_size: int = 500,
    *,
    context: Context | None = None,
) -> Tensor:
    """``(N, D)`` posterior means of the latent code, averaged over the cluster probabilities."""

    def read(guide_trace: poutine.Trace, _: poutine.Trace) -> Tensor:
        return code_of(guide_trace, site)

    return _over_batches(model, guide, x, context, batch_size, read)


def code_variances(
    model: nn.Module,
    guide: nn.Module,
    x: Tensor | StoredRows,
    site: str = "z",
    batch_size: int = 500,
    *,
    context: Context | None = None,
) -> Tensor:
    """``(N, D)`` posterior variances of the latent code, averaged over the cluster probabilities.

    Raises:
        ValueError: for a site that the guide lacks.
    """

    def read(guide_trace: poutine.Trace, _: poutine.Trace) -> Tensor:
        variance = site_of(guide_trace, site)["fn"].variance
        return Weights(guide_trace).expect(variance, events=1)

    return _over_batches(model, guide, x, context, batch_size, read)


def code_of(guide_trace: poutine.Trace, site: str) -> Tensor:
    """``(B, D)`` values of a site in a guide's trace, averaged over the enumerated sites.

    Raises:
        ValueError: for a site that the guide lacks.
    """
    found = latent_sites(guide_trace)
    if site not in found:
        raise ValueError(
            f"Expected one of the guide's sites {list(found)} but got {site!r}; name one."
        )
    return Weights(guide_trace).expect(found[site]["value"], events=1)


def reconstructions(
    model: nn.Module,
    guide: nn.Module,
    x: Tensor | StoredRows,
    batch_size: int = 500,
    *,
    context: Context | None = None,
) -> Tensor:
    """``(N, P)`` means of x decoded from posterior means of the codes, averaged over clusters.

    A cell with a category gets the most probable one.
    """

    return _over_batches(model, guide, x, context, batch_size, mean_of)


def mean_of(guide_trace: poutine.Trace, model_trace: poutine.Trace) -> Tensor:
    """``(B, P)`` means of x in a model's trace, averaged over the enumerated sites."""
    weights = Weights(guide_trace)
    return average(
        site_of(model_trace, "x")["fn"], lambda value, events: weights.expect(value, 1, events)
    )


def draw(
    model: nn.Module,
    size: int,
    *,
    given: Mapping[str, int | Tensor] | None = None,
    means: bool = True,
    context: Context | None = None,
) -> Tensor:
    """Draw ``(size, P)`` rows from the prior.

    Args:
        given: fixed values of sites, such as ``{"y": 3}`` for the fourth cluster. A one-hot site
            takes the number of its cluster too, or such numbers ``(size,)``.
        means: whether to return the likelihood's means, which look better as pictures, instead of
            draws from it.
        context: keyword arguments of the model beside x, each ``(size, ...)``.

    Raises:
        ValueError: for a site that the model lacks, or a cluster that it does not have.
    """
    check_count(size, "size")
    beside = context_of(model, context, size)
    check_context(beside, size, model)
    keywords = accepted(model, beside)
    with torch.no_grad(), evaluating(model):
        sites = {}
        if given:
            one = {name: value[:1] for name, value in keywords.items()}
            sites = latent_sites(poutine.trace(model).get_trace(size=1, **one))
            sites.pop("x", None)
        values = {name: fixed_value(sites, name, v, size) for name, v in (given or {}).items()}
        conditioned = poutine.condition(model, data=values)
        trace = poutine.trace(conditioned).get_trace(size=size, **keywords)
    site = site_of(trace, "x")
    return rows_of(site, site["fn"].mean if means else site["value"])


def _over_batches(
    model: nn.Module,
    guide: nn.Module,
    x: Tensor | StoredRows,
    context: Context | None,
    rows: int,
    read: Callable[[poutine.Trace, poutine.Trace], Tensor],
) -> Tensor:
    check_count(rows, "batch_size")
    _, parts = portions(model, x, rows, context=context)
    with torch.no_grad(), evaluating(model, guide):
        data = trained_on(model)
        batches = (replace(each, size=data) for part in parts for each in part.split(rows))
        return torch.cat([read(*run_pair(model, guide, each, means=True)) for each in batches])


def trained_on(model: nn.Module) -> int | None:
    """The number of data that a model's clusters were counted on; None if it counts none.

    The prior of one datum's cluster then depends on how many others there are, and not on the rows
    that are predicted together with it.
    """
    return (int(model.counted) or None) if isinstance(model, CountsData) else None


def component_means(model: nn.Module, site: str = "y", *, context: Context | None = None) -> Tensor:
    """``(K, P)`` means of x decoded from the mean code of each cluster.

    Args:
        site: name of the discrete site.
        context: what the model is told beside x, one row, ``(1, ...)``, for all clusters.

    Raises:
        ValueError: for a site that the model lacks, or that is not discrete.
    """
    beside = context_of(model, context, 1)
    check_context(beside, 1, model)
    told = accepted(model, beside)
    with torch.no_grad(), evaluating(model):
        sites = latent_sites(poutine.trace(model).get_trace(size=1, **told))
        known = [name for name in sites if sites[name]["fn"].has_enumerate_support and name != "x"]
        if site not in known:
            raise ValueError(
                f"Expected one of the discrete sites {known} but got {site!r}; name one."
            )
        shape = shape_for(sites[site], 1)
        means = []
        for value in choices_of(sites[site]["fn"]):
            fixed = poutine.condition(model, data={site: value.expand(shape)})
            found = site_of(poutine.trace(Means()(fixed)).get_trace(size=1, **told), "x")
            means.append(rows_of(found, found["fn"].mean))
    return torch.cat(means)
