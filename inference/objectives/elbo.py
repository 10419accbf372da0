"""The evidence lower bound (ELBO) with discrete sites summed out, as named terms per datum."""

from collections.abc import Mapping
from dataclasses import dataclass

import pyro
import torch
from torch import Tensor, nn

from priorzoo.inference.batch import Batch, in_precision
from priorzoo.inference.objectives.contract import Loss, Objective, Terms
from priorzoo.inference.objectives.draws import Draws, draw_pair
from priorzoo.inference.objectives.penalties import Penalty
from priorzoo.inference.objectives.schedules import Linear
from priorzoo.inference.objectives.weights import Weights
from priorzoo.inference.pairs import run_pair
from priorzoo.inference.running import PROGRAM_LOCK
from priorzoo.inference.sites import (
    Site,
    is_enumerated,
    log_prob,
    plates_of,
    sample_sites,
)
from priorzoo.models.distributions.divergences import closed_kl
from priorzoo.models.pyro_internals import scale_and_mask


@dataclass(frozen=True)
class KL:
    """How one site's KL divergence enters the loss.

    Args:
        weight: beta, a number or a schedule.
        floor: minimum of the batch mean in the loss, in nats per datum; below it the gradient is
            zero (minimum information constraint, or free bits). 0 for none.
        analytic: whether to use the closed form given the site's parents, if torch has one, instead
            of the estimate at the draw.
    """

    weight: float | Linear = 1.0
    floor: float = 0.0
    analytic: bool = False

    def __post_init__(self) -> None:
        if self.floor < 0:
            raise ValueError(f"Expected a floor of 0 nats or more but got {self.floor}.")


class ELBO(Objective):
    r"""The bound :math:`E_q[\log p(x, \cdot) - \log q(\cdot \mid x)]` of a model and its guide.

    Sites that the guide enumerates are summed out exactly. Each term is summed only over the sites
    it depends on, so that with I independent factors the number of values is the sum of their K_i,
    not the product. All other sites are drawn, with the gradient estimator that
    :func:`estimated` chose, by default reparameterisation; score-function gradients of several
    particles use the mean cost of the other particles as baseline, see :class:`Weights`. Values and
    gradients equal those of Pyro's ``TraceEnum_ELBO`` on the same draws, but shapes are static and
    the host does not wait for the device.

    A call with rows ``(B, P)`` and the number N of data gives the loss, in nats per datum, and the
    terms:

    - ``reconstruction``: the expected log-likelihood of ``x``; ``log p(s)`` for other observed s;
    - ``kl[s]`` for every latent site s: the expectation of log q(s) - log p(s); for a factor or an
      observed site of the guide, that of log q(s);
    - each penalty under its name, not part of the bound;
    - ``elbo``: reconstruction minus KLs, unweighted; ``objective``: the negative loss.

    Auxiliary sites of the guide, which the model does not have, must be enumerated; they are summed
    out of the densities of the others. The term of a local site is ``(B,)``, summed over plates
    other than ``data``; that of a global site is a scalar, divided by N. For a row with a known
    label, ``elbo`` is a bound of log p(x, label).

    Args:
        model, guide: programs that :func:`check_pair` accepts.
        kl: how the KL of a site enters the loss; the KL of other sites has weight 1.
        particles: number S of draws.
        penalties: penalties to add to the loss, by name.
    """

    def __init__(
        self,
        model: nn.Module,
        guide: nn.Module,
        kl: Mapping[str, KL] | None = None,
        particles: int = 1,
        penalties: Mapping[str, Penalty] | None = None,
    ) -> None:
        super().__init__(model, guide)
        if particles < 1:
            raise ValueError(f"Expected at least one particle but got particles={particles}.")
        self.kl = dict(kl or {})
        self.particles = particles
        self.penalties = nn.ModuleDict(dict(penalties or {}))

    def loss(self, batch: Batch) -> Loss:
        with pyro.validation_enabled(False):
            return self.loss_of(self.draw(batch))

    def terms(self, x: Tensor, size: int | None = None) -> Terms:
        """The named terms and their sum, ``elbo``, without weights, floors and penalties."""
        batch = in_precision(self.model, Batch(x, size))
        with PROGRAM_LOCK, pyro.validation_enabled(False):
            return self.terms_of(self.draw(batch))

    def held_out(self, batch: Batch) -> Terms:
        """Terms of rows that are not in the training set."""
        with pyro.validation_enabled(False):
            return self.terms_of(self.draw(batch))

    def concluded(self, means: Terms, rows: int) -> Terms:
        """The terms of all ``rows``, from means of those of :meth:`held_out` over all rows."""
        return means

    def check(self, sites: Mapping[str, Site]) -> None:
        unknown = [name for name in self.kl if name not in sites]
        if unknown:
            raise ValueError(
                f"Expected KL policies for sites among {list(sites)} but got {unknown}."
            )

    def draw(self, batch: Batch) -> Draws:
        """Run guide and model; :meth:`loss` is computed from these draws."""
        return draw_pair(self.model, self.guide, batch, self.particles)

    def loss_of(self, draws: Draws) -> Loss:
        """The loss of given draws, with all weights, floors and penalties."""
        terms = self.terms_of(draws)
        self.check({name[3:-1]: {} for name in terms if name.startswith("kl[")})
        loss = torch.zeros((), device=draws.batch.x.device)
        for name, term in terms.items():
            if name.startswith("kl["):
                loss = loss + self._weighted(name[3:-1], term.mean(), draws.batch)
            elif name != "elbo":
                loss = loss - term.mean()
        for name, penalty in self.penalties.items():
            assert isinstance(penalty, Penalty)
            terms[name] = draws.batch.weighted(penalty(draws))
            loss = loss + self._current(penalty.weight) * terms[name].mean()
        return Loss(loss, terms | {"objective": -loss})

    def terms_of(self, draws: Draws) -> Terms:
        """The terms of given draws, and their sum, ``elbo``."""
        of_model, of_guide = dict(sample_sites(draws.model_trace)), draws.guide_sites()
        sites = of_model | of_guide
        before = {n: _sampled_before(n, of_model) | _sampled_before(n, of_guide) for n in sites}
        guide_only = {n: s for n, s in of_guide.items() if s["is_observed"] or n not in of_model}

        def expected(name: str, score: Tensor, site: Site) -> Tensor:
            score = scale_and_mask(score, site["scale"], site["mask"])
            return draws.weights.term(score, site, before[name], draws.batch)

        terms: Terms = {}
        for name, site in of_model.items():
            if site["is_observed"]:
                label = "reconstruction" if name in ("x", "x_observed") else f"log p({name})"
                terms[label] = expected(name, log_prob(site), site)
            elif _comparable(site, of_guide[name], draws.weights):
                divergence = self.divergence(name, site, of_guide[name])
                terms[f"kl[{name}]"] = expected(name, divergence, site)
            else:
                log_q = expected(name, _log_q(of_guide[name]), of_guide[name])
                terms[f"kl[{name}]"] = log_q - expected(name, log_prob(site), site)
        for name, site in guide_only.items():
            if not is_enumerated(site):
                terms[f"kl[{name}]"] = expected(name, _log_q(site), site)
        bound = sum(-t if name.startswith("kl[") else t for name, t in terms.items())
        return terms | {"elbo": torch.as_tensor(bound)}

    def divergence(self, name: str, model_site: Site, guide_site: Site) -> Tensor:
        """log q - log p of a site at its draw, or their KL in closed form if that was chosen."""
        if name in self.kl and self.kl[name].analytic:
            closed = closed_form(model_site, guide_site)
            if closed is not None:
                return closed
        return _log_q(guide_site) - log_prob(model_site)

    def _weighted(self, name: str, divergence: Tensor, batch: Batch) -> Tensor:
        policy = self.kl.get(name)
        if policy is None:
            return divergence
        if policy.floor > 0:
            divergence = divergence if batch.share is None else batch.share.mean(divergence)
            divergence = divergence.clamp(min=policy.floor)
        return self._current(policy.weight) * divergence

    def _current(self, weight: float | Linear) -> float | Tensor:
        return weight(self.clock) if isinstance(weight, Linear) else weight


def closed_form(model_site: Site, guide_site: Site) -> Tensor | None:
    """KL of q and p of a site given its parents, if torch has it; None for a summed-out mixture."""
    if is_enumerated(guide_site) or "marginal" in guide_site:
        return None
    try:
        return closed_kl(guide_site["fn"], model_site["fn"])
    except NotImplementedError:
        return None


class Autoencoder(ELBO):
    """The reconstruction term only, with codes at their means, to pretrain the networks.

    The other terms are reported but not minimised; penalties are not used.
    """

    def loss(self, batch: Batch) -> Loss:
        with pyro.validation_enabled(False):
            traces = run_pair(self.model, self.guide, batch, means=True)
            terms = self.terms_of(Draws(self.model, *traces, Weights(traces[0]), 1, batch))
        loss = -terms["reconstruction"].mean()
        return Loss(loss, terms | {"objective": -loss})


def _log_q(site: Site) -> Tensor:
    """Log density of a site of the guide, with the gradient that the ELBO needs."""
    log_q = log_prob(site)
    if site["fn"].has_rsample or is_enumerated(site) or site["is_observed"]:
        return log_q
    return log_q.detach()  # the expectation of the gradient of log q itself is zero


def _comparable(model_site: Site, guide_site: Site, weights: Weights) -> bool:
    """Whether log q and log p of a site are in the same plates, with the same scale and mask."""
    p, q = model_site["scale"], guide_site["scale"]
    scaled = p is q or (isinstance(p, float | int) and isinstance(q, float | int) and p == q)
    plates = plates_of(model_site) == plates_of(guide_site)
    unplated = weights.unplated_sizes(model_site) == weights.unplated_sizes(guide_site)
    return scaled and plates and unplated and model_site["mask"] is guide_site["mask"]


def _sampled_before(name: str, sites: Mapping[str, Site]) -> set[str]:
    names = list(sites)
    return set(names[: names.index(name)]) if name in sites else set()
