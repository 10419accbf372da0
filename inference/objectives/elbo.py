"""The evidence lower bound (ELBO) with discrete sites summed out, as named terms per datum."""

from collections.abc import Mapping
from dataclasses import dataclass

import pyro
import torch
from pyro import poutine
from torch import Tensor, nn

from priorzoo.inference.batch import Batch, Labels, in_precision
from priorzoo.inference.objectives.contract import Loss, Objective, Terms
from priorzoo.inference.objectives.schedules import Linear
from priorzoo.inference.pairs import run_pair
from priorzoo.inference.running import TURNS
from priorzoo.inference.sites import (
    Site,
    is_enumerated,
    is_local,
    is_scored,
    latent_sites,
    log_prob,
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


@dataclass(frozen=True)
class Draws:
    """The traces of guide and model on the same draws of the latent sites.

    Args:
        model: the model that was run.
        guide_trace, model_trace: traces of guide and model.
        weights: probabilities of the enumerated sites.
        particles: number S of draws.
        batch: the batch on which both were run.
    """

    model: nn.Module
    guide_trace: poutine.Trace
    model_trace: poutine.Trace
    weights: "Weights"
    particles: int
    batch: Batch

    @property
    def labels(self) -> Labels:
        """Labels to which discrete sites were set."""
        return self.batch.labels

    def log_weights(self) -> Tensor:
        r"""``(S, B)`` log importance weights with the enumerated sites summed out, in nats.

        :math:`\log \sum_y p(x, y, z_s) / q(z_s \mid x, y)`, differentiable, for local sites only.

        Raises:
            ValueError: for a pair with global sites.
        """
        of_model, of_guide = dict(sample_sites(self.model_trace)), latent_sites(self.guide_trace)
        sites = [*of_model.items(), *of_guide.items()]
        shared = sorted({name for name, site in sites if not is_local(site)})
        if shared:
            raise ValueError(
                f"Expected a pair whose sites are all local but {shared} belong to the whole "
                "data set, so that there is no bound for each row; use the terms of evaluate."
            )
        x = self.batch.x
        weight = torch.zeros(self.particles, len(x), dtype=x.dtype, device=x.device)
        for site in of_model.values():
            weight = weight + _masked(site)
        for site in of_guide.values():
            if not is_enumerated(site):
                weight = weight - _masked(site)
        for site in filter(is_enumerated, of_guide.values()):
            weight = weight.logsumexp(site["infer"]["_enumerate_dim"], keepdim=True)
        return weight.reshape(self.particles, len(x))


def draw_pair(model: nn.Module, guide: nn.Module, batch: Batch, particles: int = 1) -> Draws:
    """Run the guide and then the model on its draws, with S particles.

    Use it to write your own objective: see :meth:`Draws.log_weights`.
    """
    with TURNS, pyro.validation_enabled(False):  # validation would synchronise with the device
        guide_trace, model_trace = run_pair(model, guide, batch, particles=particles)
    return Draws(model, guide_trace, model_trace, Weights(guide_trace), particles, batch)


class Penalty(nn.Module):
    """Base class of quantities per datum whose mean is added to the loss.

    ``forward`` maps :class:`Draws` to the quantity, ``(B,)``.

    Args:
        weight: weight of the quantity in the loss, a number or a schedule.
    """

    def __init__(self, weight: float | Linear = 1.0) -> None:
        super().__init__()
        self.weight = weight


class ELBO(Objective):
    r"""The bound :math:`E_q[\log p(x, \cdot) - \log q(\cdot \mid x)]` of a model and its guide.

    Sites that the guide enumerates are summed out exactly. Each term is summed only over the sites
    it depends on, so that with I independent factors the number of values is the sum and not the
    product of their K_i. All other sites are drawn, with the gradient estimator that
    :func:`estimated` chose, by default reparameterisation; score-function gradients of several
    particles use the mean cost of the other particles as baseline. Values and gradients equal those
    of Pyro's ``TraceEnum_ELBO`` on the same draws, but shapes are static and there is no host
    synchronisation.

    A call with rows ``(B, P)`` and the number N of data gives the loss, in nats per datum, and the
    terms:

    - ``reconstruction``: the expected log-likelihood of ``x``; ``log p(s)`` for other observed s;
    - ``kl[s]`` for every latent site s: the expectation of log q(s) - log p(s);
    - each penalty under its name, not part of the bound;
    - ``elbo``: reconstruction minus KLs, unweighted; ``objective``: the negative loss.

    The term of a local site is ``(B,)``; that of a global site is a scalar, divided by N. For a row
    with a known label the bound is a bound of log p(x, label).

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
        with TURNS, pyro.validation_enabled(False):
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
                loss = loss + self._weighted(name[3:-1], term.mean())
            elif name != "elbo":
                loss = loss - term.mean()
        for name, penalty in self.penalties.items():
            assert isinstance(penalty, Penalty)
            terms[name] = penalty(draws)
            loss = loss + self._current(penalty.weight) * terms[name].mean()
        return Loss(loss, terms | {"objective": -loss})

    def terms_of(self, draws: Draws) -> Terms:
        """The terms of given draws, and their sum, ``elbo``."""
        of_guide, weights = latent_sites(draws.guide_trace), draws.weights
        data = draws.batch.data
        share = len(draws.batch.x) / data

        def expected(score: Tensor, site: Site) -> Tensor:
            score = scale_and_mask(score, site["scale"], site["mask"])
            score = weights.reinforce(score, is_local(site))
            if is_local(site):
                return weights.expect(score, draws.particles) * share
            if is_enumerated(site):
                score = weights.expect(score)
            return score.sum() / (draws.particles * data)

        terms: Terms = {}
        for name, site in sample_sites(draws.model_trace):
            if site["is_observed"]:
                label = "reconstruction" if name == "x" else f"log p({name})"
                terms[label] = expected(log_prob(site), site)
            else:
                divergence = self.divergence(name, site, of_guide.pop(name))
                terms[f"kl[{name}]"] = expected(divergence, site)
        for name, site in of_guide.items():
            terms[f"kl[{name}]"] = expected(log_prob(site), site)
        bound = sum(-t if name.startswith("kl[") else t for name, t in terms.items())
        return terms | {"elbo": torch.as_tensor(bound)}

    def divergence(self, name: str, model_site: Site, guide_site: Site) -> Tensor:
        """log q - log p of a site at its draw, or their KL in closed form if that was chosen."""
        if name in self.kl and self.kl[name].analytic and not is_enumerated(guide_site):
            try:
                return closed_kl(guide_site["fn"], model_site["fn"])
            except NotImplementedError:
                pass
        log_q = log_prob(guide_site)
        if is_scored(guide_site) and not guide_site["fn"].has_rsample:
            log_q = log_q.detach()  # the expectation of its own gradient is zero
        return log_q - log_prob(model_site)

    def _weighted(self, name: str, divergence: Tensor) -> Tensor:
        policy = self.kl.get(name)
        if policy is None:
            return divergence
        if policy.floor > 0:
            divergence = divergence.clamp(min=policy.floor)
        return self._current(policy.weight) * divergence

    def _current(self, weight: float | Linear) -> float | Tensor:
        return weight(self.clock) if isinstance(weight, Linear) else weight


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


class Weights:
    """Takes expectations over the enumerated sites, and adds score-function gradients.

    Args:
        guide_trace: gives the probabilities of the enumerated sites, and the scores of the draws
            that are not fully reparameterised.
    """

    def __init__(self, guide_trace: poutine.Trace) -> None:
        self.log_q = {
            site["infer"]["_enumerate_dim"]: log_prob(site)
            for _, site in sample_sites(guide_trace)
            if is_enumerated(site)
        }
        self.scores: dict[bool, list[Tensor]] = {True: [], False: []}  # True: of local sites
        self.particles = 1
        for site in latent_sites(guide_trace).values():
            if is_scored(site):
                score = site["fn"].score_parts(site["value"]).score_function
                if isinstance(score, Tensor):
                    self.scores[is_local(site)].append(score)
                    sizes = {frame.name: frame.size for frame in site["cond_indep_stack"]}
                    self.particles = sizes.get("particles", 1)

    def reinforce(self, cost: Tensor, local: bool) -> Tensor:
        """The same cost, with the score-function gradient (minus a baseline) added to its gradient.

        The cost is multiplied by exp(score - score), where one of the two scores has no gradient
        (Foerster et al., "DiCE", 2018). With several particles, the baseline is the mean cost of
        the other particles.
        """
        scores = self.scores[False] + (self.scores[True] if local else [])
        if not scores or not torch.is_grad_enabled():
            return cost
        if self.particles > 1 and (cost.dim() < 2 or cost.shape[-2] != self.particles):
            return cost  # the same for all particles: it does not depend on the draws
        one = torch.as_tensor(sum(score - score.detach() for score in scores)).exp()
        if self.particles == 1:
            return cost * one
        fixed = cost.detach()
        others = (fixed.sum(-2, keepdim=True) - fixed) / (self.particles - 1)
        return cost * one - others * (one - 1)

    def expect(self, score: Tensor, particles: int = 1, events: int = 0) -> Tensor:
        """Average ``(K_I, ..., K_1, [S,] B, ...)`` to ``(B, ...)``, with 0 times log 0 as 0.

        Args:
            score: values to average, with ``events`` dimensions to the right of the plates.
            particles: S; if it is above 1, particles are averaged too.
        """
        parents: set[int] = set()
        found = self._enumerated_dims(score, events)
        while found > parents:
            parents = found
            found = found.union(*(self._enumerated_dims(self.log_q[dim]) for dim in parents))
        if parents:
            log_weight = torch.as_tensor(sum(self.log_q[dim] for dim in sorted(parents)))
            weight = log_weight.exp().reshape(*log_weight.shape, *[1] * events)
            summed = [dim - events for dim in sorted(parents)]
            finite = torch.where(weight == 0, 0.0, score)  # a NaN weight stays a NaN
            score = (weight * finite).sum(summed, keepdim=True)
        if particles > 1 and score.dim() > 1:
            score = score.mean(-2 - events)
        return score.reshape(score.shape[-1 - events :])

    def _enumerated_dims(self, score: Tensor, events: int = 0) -> set[int]:
        """The enumerated dimensions along which ``score`` varies."""
        plates = score.shape[: score.dim() - events]
        return {dim for dim in self.log_q if len(plates) >= -dim and plates[dim] > 1}


def _masked(site: Site) -> Tensor:
    return scale_and_mask(log_prob(site), mask=site["mask"])
