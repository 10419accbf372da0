"""Importance weights of draws, with the enumerated sites summed out."""

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

from priorzoo.inference.batch import Batch
from priorzoo.inference.sites import (
    PARTICLES,
    Site,
    is_enumerated,
    is_local,
    log_prob,
    plates_of,
)
from priorzoo.models.pyro_internals import scale_and_mask

Part = tuple[Tensor, frozenset[str]]  # a log factor, and its plates except data and particles


def log_weights(
    of_model: Mapping[str, Site], of_guide: Mapping[str, Site], batch: Batch, particles: int
) -> Tensor:
    """``(S, B)`` log importance weights of sites of model and guide, see :meth:`Draws.log_weights`.

    Args:
        of_guide: sites with auxiliary sites summed out, see :func:`marginal_sites`.

    Raises:
        ValueError: for global sites, and for plates that hold a subsample only.
    """
    _check(of_model, of_guide)
    parts = [(_scaled(site, log_prob(site), batch), _own(site)) for site in of_model.values()]
    for name, site in of_guide.items():
        if not is_enumerated(site):
            parts.append((-_scaled(site, log_prob(site), batch), _own(site)))
        elif "marginal" in site:  # q(site | auxiliary) / q(site)
            parts.append((_conditional(site) - log_prob(site), _own(site)))
        elif name not in of_model:
            parts.append((log_prob(site), _own(site)))
        else:
            parts += _uncounted(site, batch)
    dims = {s["infer"]["_enumerate_dim"]: _own(s) for s in of_guide.values() if is_enumerated(s)}
    plates = {
        n: d for s in [*of_model.values(), *of_guide.values()] for n, d in plates_of(s).items()
    }
    return _eliminate(parts, dims, plates).reshape(particles, len(batch.x))


def _eliminate(
    parts: Iterable[Part], dims: Mapping[int, frozenset[str]], plates: Mapping[str, int]
) -> Tensor:
    """The log of the sum over enumerated sites of the product of all factors.

    Plates other than data and particles are eliminated from the innermost outwards: first by the
    sum over the values of the sites in a plate, and then by the product over its members.
    """
    joint: dict[frozenset[str], Tensor] = {}
    for factor, own in parts:
        joint[own] = joint[own] + factor if own in joint else factor
    while True:
        inner = max(joint, key=len)
        weight = joint.pop(inner)
        for dim in [d for d, own in dims.items() if own == inner and weight.dim() >= -d]:
            weight = weight.logsumexp(dim, keepdim=True)
        if not inner:
            return weight
        left = [own for d, own in dims.items() if weight.dim() >= -d and weight.shape[d] > 1]
        outer = frozenset[str]().union(*left)
        if outer == inner:
            raise ValueError(
                f"Expected enumerated sites whose plates lie within each other but a site in "
                f"{sorted(inner)} depends on sites in some of them only, so that the sum over their"
                " values is a sum over all combinations; use the ELBO."
            )
        weight = weight.sum([plates[name] for name in inner - outer], keepdim=True)
        joint[outer] = joint[outer] + weight if outer in joint else weight


def _own(site: Site) -> frozenset[str]:
    """The plates around a site other than those of data and particles."""
    return frozenset(plates_of(site)) - {"data", PARTICLES}


def _conditional(site: Site) -> Tensor:
    """The log probability of a site given the auxiliary sites."""
    return log_prob({key: value for key, value in site.items() if key != "marginal"})


def _uncounted(site: Site, batch: Batch) -> Iterator[Part]:
    """What a scale or mask takes from log q of a summed-out site: each value keeps its weight."""
    log_q = log_prob(site)
    counted = _scaled(site, log_q, batch)
    if counted is not log_q:
        yield torch.where(log_q == -torch.inf, log_q, log_q - counted), _own(site)


def _scaled(site: Site, score: Tensor, batch: Batch) -> Tensor:
    """A log probability with its mask, and its scale except for that of the data."""
    scale, of_data = site["scale"], batch.data / len(batch.x)
    if isinstance(scale, float | int) and scale == of_data:
        return scale_and_mask(score, mask=site["mask"])
    return scale_and_mask(score, scale / of_data, site["mask"])


def _check(of_model: Mapping[str, Site], of_guide: Mapping[str, Site]) -> None:
    sites = [*of_model.items(), *of_guide.items()]
    shared = sorted({name for name, site in sites if not is_local(site)})
    if shared:
        raise ValueError(
            f"Expected a pair whose sites are all local but {shared} belong to the whole "
            "data set, so that there is no bound for each row; use the terms of evaluate."
        )
    for name, site in sites:
        for frame in site["cond_indep_stack"]:
            if frame.name != "data" and frame.full_size not in (None, frame.size):
                raise ValueError(
                    f"Expected all {frame.full_size} members of plate {frame.name!r} around site "
                    f"{name!r} but got a subsample of {frame.size}, whose importance weights give "
                    "no bound; use the ELBO."
                )
