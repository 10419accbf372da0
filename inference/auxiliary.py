r"""Auxiliary sites of a guide: variables that the model does not have.

A guide :math:`q(c \mid x)\, q(z \mid x, c)` of a model without c has the density
:math:`q(z \mid x) = \sum_c q(c \mid x)\, q(z \mid x, c)`, and the bound needs that sum. Pyro's
ELBOs add the entropy of c instead, which does not give a bound. If c is drawn, a bound needs a
reverse term :math:`r(c \mid x, z)`, which the model has if it samples c itself (Ranganath et al.,
"Hierarchical Variational Models", 2016).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import biject_to

from priorzoo.inference.sites import (
    PARTICLES,
    Site,
    is_auxiliary,
    is_enumerated,
    latent_sites,
    log_prob,
    plates_of,
    sample_sites,
    shape_of,
)


@dataclass
class _Mixture:
    """Enumerated auxiliary sites that depend on each other, and the sites that depend on them."""

    auxiliary: dict[int, str] = field(default_factory=dict)  # by dimension
    dependent: list[str] = field(default_factory=list)


def marginal_sites(guide_trace: poutine.Trace, model_trace: poutine.Trace) -> dict[str, Site]:
    """The guide's sites; those that depend on a summed-out site have a ``marginal`` log density.

    The enumerated auxiliary sites themselves are included.

    Raises:
        ValueError: for auxiliary sites that can neither be summed out nor have a reverse term.
    """
    of_guide, of_model = dict(sample_sites(guide_trace)), latent_sites(model_trace)
    extra = {name: s for name, s in latent_sites(guide_trace).items() if name not in of_model}
    _check_drawn(of_guide, of_model, extra)
    for mixture in _mixtures(of_guide, extra):
        of_guide |= _marginals(mixture, of_guide)
    return of_guide


def unmatched(of_model: Mapping[str, Site], of_guide: Mapping[str, Site]) -> list[str]:
    """Descriptions of the sites that only the model or only the guide has."""
    latent = [name for name, site in of_model.items() if not site["is_observed"]]
    drawn = {name: site for name, site in of_guide.items() if not site["is_observed"]}
    missing = [name for name in latent if name not in drawn]
    extra = [n for n, site in drawn.items() if n not in latent and not is_auxiliary(site)]
    problems = []
    if missing:
        masked = [name for name in missing if name.endswith("_unobserved")]
        hint = f" (of an obs_mask: sample {masked} in the guide, or use poutine.mask)"
        problems.append(f"the guide lacks the latent sites {missing}{hint if masked else ''}")
    if extra:
        observed = [name for name in extra if name in of_model]
        hint = f" (it observes {observed})" if observed else ""
        problems.append(f"the model lacks the guide's sites {extra}{hint}")
    return problems


def _check_drawn(
    of_guide: Mapping[str, Site], of_model: Mapping[str, Site], extra: Mapping[str, Site]
) -> None:
    """Refuse a drawn auxiliary site, unless later sites transform all its coordinates.

    Pyro's automatic guides draw an auxiliary vector, and transform it to the model's sites:
    ``Delta`` sites with the log Jacobian as log density. Both have as many coordinates.
    """
    own = {f"{name}_{end}": name for name in of_model for end in ("unconstrained", "aux")}
    left: dict[str, int] = {}
    for name, site in of_guide.items():
        if name in extra and not is_enumerated(site):
            left[name] = _coordinates(site, site["fn"].event_shape)
        elif name in of_model and isinstance(site["fn"], dist.Delta):
            for made_of in [n for n in left if own.get(n, name) == name and left[n]][:1]:
                left[made_of] -= _coordinates(site, _unconstrained(of_model[name]))
    pending = [name for name, count in left.items() if count]
    if pending:
        raise ValueError(
            f"Expected a reverse term of the guide's auxiliary site {pending[0]!r} but the model "
            f"does not sample it; let the model sample it from r({pending[0]} | x, latents), or "
            "enumerate it, so that it is summed out."
        )


def _coordinates(site: Site, event: torch.Size) -> int:
    """The number of coordinates of a site with events of this shape, without particles."""
    frames = [frame for frame in site["cond_indep_stack"] if frame.name != PARTICLES]
    return event.numel() * math.prod(frame.size for frame in frames if frame.dim is not None)


def _unconstrained(site: Site) -> torch.Size:
    """The shape of one value of a site as real numbers; empty for a discrete site."""
    fn = site["fn"]
    if fn.support.is_discrete:
        return torch.Size([0])
    return biject_to(fn.support).inverse_shape(fn.event_shape)


def _mixtures(of_guide: Mapping[str, Site], extra: Mapping[str, Site]) -> list[_Mixture]:
    """Groups of auxiliary sites and the sites that depend on them, without a site in common."""
    dims = {s["infer"]["_enumerate_dim"]: n for n, s in extra.items() if is_enumerated(s)}
    mixtures: list[_Mixture] = []
    for name, site in of_guide.items():
        shape = shape_of(site)
        along = {d for d in dims if len(shape) >= -d and shape[d] > 1}
        if not along or (site["is_observed"] and name not in extra):
            continue  # an observed site or factor needs no marginal density: its term is averaged
        joined = _Mixture({d: dims[d] for d in along}, [] if name in extra else [name])
        for other in [m for m in mixtures if m.auxiliary.keys() & along]:
            mixtures.remove(other)
            joined = _Mixture(
                other.auxiliary | joined.auxiliary, [*other.dependent, *joined.dependent]
            )
        mixtures.append(joined)
    return mixtures


def _marginals(mixture: _Mixture, sites: Mapping[str, Site]) -> dict[str, Site]:
    """The dependent sites with their marginal log densities, each given those before it.

    The joint density of the first j of them, summed over the auxiliary sites, is divided by that of
    the first j - 1.
    """
    _check_mixture(mixture, sites)
    dims = sorted(mixture.auxiliary)
    joint = torch.as_tensor(sum(log_prob(sites[name]) for name in mixture.auxiliary.values()))
    before, found = torch.zeros((), device=joint.device), {}
    for name in mixture.dependent:
        site = sites[name]
        if is_enumerated(site):
            joint = joint + log_prob(site)
            density = joint.logsumexp(dims, keepdim=True)
        else:
            density = _at_its_draws(site, joint, dims)
        found[name] = site | {"marginal": density - before}
        before = density
    return found


def _at_its_draws(site: Site, joint: Tensor, dims: Sequence[int]) -> Tensor:
    """Log density of a mixture at the draw of each component, which is along ``dims``.

    The draws are moved to dimensions of their own on the left, so that every component's density is
    evaluated at every draw, and moved back after the sum over components.
    """
    fn, value = site["fn"], site["value"]
    count = max(joint.dim(), len(fn.batch_shape), value.dim() - fn.event_dim)
    places = [-count - 1 - i for i in range(len(dims))]
    draws = value.reshape((1,) * (count + len(dims) + fn.event_dim - value.dim()) + value.shape)
    for dim, place in zip(dims, places, strict=True):
        draws = draws.transpose(dim - fn.event_dim, place - fn.event_dim)
    density = (joint + log_prob(site | {"value": draws})).logsumexp(list(dims), keepdim=True)
    for dim, place in zip(dims, places, strict=True):
        density = density.transpose(dim, place)
    return density.reshape(density.shape[len(dims) :])


def _check_mixture(mixture: _Mixture, sites: Mapping[str, Site]) -> None:
    names, dependent = list(mixture.auxiliary.values()), mixture.dependent
    drawn = [name for name in dependent if not is_enumerated(sites[name])]
    if drawn and drawn != dependent[-1:]:
        raise ValueError(
            f"Expected one drawn site, the last, that depends on the auxiliary sites {names} but "
            f"{dependent} do, and their joint density cannot be summed; draw them as one site, or "
            f"let the model sample {names} from a reverse term r."
        )
    for name in dependent:
        if plates_of(sites[name]) != plates_of(sites[names[0]]):
            raise ValueError(
                f"Expected site {name!r} in the plates of the auxiliary sites {names}, "
                f"{list(plates_of(sites[names[0]]))}, but it is in {list(plates_of(sites[name]))}, "
                "whose members cannot be summed out one by one; sample both in the same plates."
            )
