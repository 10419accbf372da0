"""The bound under a standard normal prior of the code, to pretrain the networks of any model."""

from dataclasses import replace
from typing import cast

import pyro.distributions as dist
import torch
from pyro import poutine
from torch.distributions import constraints

from priorzoo.inference.objectives.contract import Terms
from priorzoo.inference.objectives.draws import Draws
from priorzoo.inference.objectives.elbo import ELBO
from priorzoo.inference.sites import Site, latent_sites, site_of
from priorzoo.models.pyro_internals import AnyMessage

SITE = "z"
HINT = "pretrain it by Autoencoder, or not at all."
KEPT = ("reconstruction", f"kl[{SITE}]")


class StandardPrior(ELBO):
    r"""The bound of a VAE with the same networks, whose code has the prior N(0, I).

    .. math:: E_q \log p(x \mid z) - \mathrm{KL}[q(z \mid x) \| \mathcal N(0, I)]

    It pretrains decoder and encoder before a structured prior of ``z`` is learnt, such as a mixture
    whose components are found among the codes. Unlike the codes of :class:`Autoencoder`, those of
    this bound have a scale, and a noise that the decoder tolerates. The prior's own parameters get
    no gradient, and terms of other latent sites are left out. Policies and penalties work as in
    :class:`ELBO`.

    Raises:
        ValueError: for a model without a site ``z`` of real numbers, and a guide that has no
            density of it.
    """

    def terms_of(self, draws: Draws) -> Terms:
        site = _code(draws)
        trace = poutine.Trace()
        trace.nodes.update(draws.model_trace.nodes)
        trace.nodes[SITE] = cast(AnyMessage, {**site, "fn": _standard(site)})
        found = super().terms_of(replace(draws, model_trace=trace))
        terms = {name: found[name] for name in KEPT}
        return terms | {"elbo": terms[KEPT[0]] - terms[KEPT[1]]}


def _code(draws: Draws) -> Site:
    """The model's site of the code."""
    if SITE not in draws.model_trace.nodes:
        has = ", ".join(latent_sites(draws.model_trace))
        raise ValueError(f"Expected a model with a code at site {SITE!r} but it has {has}; {HINT}")
    if isinstance(site_of(draws.guide_trace, SITE)["fn"], dist.Delta):
        raise ValueError(
            f"Expected a density of the code at site {SITE!r} but the guide gives a point, whose "
            f"divergence from a normal prior is infinite; {HINT}"
        )
    return site_of(draws.model_trace, SITE)


def _standard(site: Site) -> dist.Independent:
    """N(0, I) in the shape of a site's value."""
    fn, value = site["fn"], site["value"]
    if getattr(fn.support, "base_constraint", None) != constraints.real:
        raise ValueError(
            f"Expected codes of real numbers for a normal prior but got the support {fn.support}; "
            f"{HINT}"
        )
    normal = dist.Normal(torch.zeros_like(value), torch.ones_like(value), validate_args=False)
    return normal.to_event(fn.event_dim)
