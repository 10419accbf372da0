"""Finds sites of a guide whose draws have a biased gradient or none, and says what to do."""

from collections.abc import Iterator
from typing import cast

import pyro.distributions as dist

from priorzoo.inference.sites import Site, is_marked, is_scored
from priorzoo.inference.supports import WRAPPERS
from priorzoo.models.distributions.estimators import estimated
from priorzoo.models.distributions.mixtures import BIASED, PathwiseMixture
from priorzoo.models.pyro_internals import AnyMessage, Messenger

UNLISTED = "unlisted"  # in place of "parallel"
PATHWISE = "draw it from priorzoo.models.estimated(...) if its components are diagonal Gaussians"


class Unbiased(Messenger):
    """Changes how sites of a guide are drawn or masked where their gradients would be biased.

    Pyro's mixtures of diagonal Gaussians, whose own gradients of the logits are biased, are drawn
    by :func:`estimated`. The mask of a distribution that is summed out or scored becomes that of
    its site: the draw has its probability also where its density does not count.
    """

    def _pyro_sample(self, msg: AnyMessage) -> None:
        site = cast(Site, msg)
        fn = site["fn"]
        if is_marked(site) and not _is_listed(fn):
            site["infer"] = {**site["infer"], "enumerate": UNLISTED}  # an error here gets 8 lines
        weighed = is_marked(site) or needs_score(fn) or not getattr(fn, "has_rsample", True)
        if isinstance(fn, dist.MaskedDistribution) and weighed and not site["is_observed"]:
            site["fn"], mask = fn.base_dist, fn._mask
            site["mask"] = mask if site["mask"] is None else site["mask"] & mask
        if isinstance(_unwrapped(site), BIASED):
            site["fn"] = estimated(site["fn"])


def _is_listed(fn: dist.TorchDistribution) -> bool:
    try:
        fn.enumerate_support(expand=False)
    except NotImplementedError:
        return False
    return True


def unlisted(name: str, site: Site) -> Iterator[str]:
    """A description of the problem, if the values of a site to enumerate cannot be listed."""
    if site["infer"].get("enumerate") == UNLISTED:
        fn = site["fn"]
        yield (
            f"the values of site {name!r}, a {type(_unwrapped(site)).__name__} with events "
            f"{tuple(fn.event_shape)}, cannot be enumerated: sample each element of an event as a "
            'site of its own, or draw it from priorzoo.models.estimated(..., "score")'
        )


def bias(name: str, site: Site) -> Iterator[str]:
    """A description of the problem, if the draw of a site has a biased gradient."""
    for fn in _within(site["fn"]):
        if isinstance(fn, BIASED) and not isinstance(fn, PathwiseMixture):
            yield f"site {name!r} is a {type(fn).__name__}, whose gradients are biased: {PATHWISE}"
    if needs_score(site["fn"]) and not is_scored(site):
        yield (
            f"site {name!r} is a {type(site['fn']).__name__} of draws that need their score, which "
            "it does not pass on: give the whole distribution to priorzoo.models.estimated"
        )


def missing_gradient(name: str, site: Site) -> Iterator[str]:
    """A description of the problem, if the site is not enumerated and has no gradient estimator."""
    fn = _unwrapped(site)
    enumerated = site["infer"].get("enumerate") in ("parallel", UNLISTED)
    if enumerated or is_scored(site) or fn.has_rsample:
        return
    if hasattr(fn, "component_distribution"):
        yield (
            f"site {name!r} is a {type(fn).__name__}, whose draws have no gradient: sample its "
            f"component as a site that the guide enumerates, or {PATHWISE}"
        )
    else:
        marked = 'mark it infer={"enumerate": "parallel"}, or ' if fn.has_enumerate_support else ""
        yield (
            f"the guide neither enumerates nor reparameterises site {name!r}: {marked}draw it from "
            'priorzoo.models.estimated(..., "score")'
        )


def _within(fn: object) -> Iterator[object]:
    """The distribution and those that its draws are made of."""
    while fn is not None:
        yield fn
        fn = getattr(fn, "base_dist", None)


def needs_score(fn: object) -> bool:
    """Whether the distribution, or one that its draws are made of, is scored."""
    return any(getattr(part, "scored", False) for part in _within(fn))


def _unwrapped(site: Site) -> dist.TorchDistribution:
    fn = site["fn"]
    while isinstance(fn, WRAPPERS):
        fn = fn.base_dist
    return fn
