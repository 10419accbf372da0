"""Finds sites of a guide whose draws have a biased gradient or none, and says what to do."""

from collections.abc import Iterator
from typing import cast

import pyro.distributions as dist

from priorzoo.inference.sites import Site, is_scored
from priorzoo.inference.supports import WRAPPERS
from priorzoo.models.distributions.estimators import estimated
from priorzoo.models.distributions.mixtures import BIASED, PathwiseMixture
from priorzoo.models.pyro_internals import AnyMessage, Messenger

PATHWISE = "draw it from priorzoo.models.estimated(...) if its components are diagonal Gaussians"


class Unbiased(Messenger):
    """Draws Pyro's mixtures of diagonal Gaussians with unbiased gradients, by :func:`estimated`.

    Pyro's own gradients of the mixture's logits are biased.
    """

    def _pyro_sample(self, msg: AnyMessage) -> None:
        site = cast(Site, msg)
        if isinstance(_unwrapped(site), BIASED):
            site["fn"] = estimated(site["fn"])


def bias(name: str, site: Site) -> Iterator[str]:
    """A description of the problem, if the draw of a site has a biased gradient."""
    fn = _unwrapped(site)
    if isinstance(fn, BIASED) and not isinstance(fn, PathwiseMixture):
        yield f"site {name!r} is a {type(fn).__name__}, whose gradients are biased: {PATHWISE}"


def missing_gradient(name: str, site: Site) -> Iterator[str]:
    """A description of the problem, if the site is not enumerated and has no gradient estimator."""
    fn = _unwrapped(site)
    if site["infer"].get("enumerate") == "parallel" or is_scored(site) or fn.has_rsample:
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


def _unwrapped(site: Site) -> dist.TorchDistribution:
    fn = site["fn"]
    while isinstance(fn, WRAPPERS):
        fn = fn.base_dist
    return fn
