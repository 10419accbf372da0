"""The evidence lower bound with discrete sites summed out, as named terms per datum."""

from collections.abc import Mapping
from dataclasses import dataclass

import pyro
import torch
from pyro import poutine
from torch import Tensor, nn
from torch.distributions import kl_divergence

from priorzoo.inference.batch import Batch, Labels, in_precision
from priorzoo.inference.objectives.contract import Loss, Objective, Terms
from priorzoo.inference.objectives.schedules import Linear
from priorzoo.inference.pairs import run_pair
from priorzoo.inference.sites import (
    Site,
    is_enumerated,
    is_local,
    is_scored,
    latent_sites,
    log_prob,
    sample_sites,
)
from priorzoo.models.pyro_internals import scale_and_mask


@dataclass(frozen=True)
class KL:
    """How one site's KL divergence enters the loss.

    Args:
        weight: beta, a number or a schedule.
        floor: nats per datum below which the batch mean counts as this floor, with gradient zero
            (minimum information constraint, or free bits); 0 for none.
        analytic: the closed form given the site's parents, where torch knows one, in place of the
            estimate at the draw.
    """

    weight: float | Linear = 1.0
    floor: float = 0.0
    analytic: bool = False

    def __post_init__(self) -> None:
        if self.floor < 0:
            raise ValueError(f"Expected a floor of 0 nats or more but got {self.floor}.")


@dataclass(frozen=True)
class Draws:
    """The guide's trace, and the model's on the same draws.

    Args:
        model: which was run.
        drawn, told: traces of guide and model.
        weights: probabilities of the enumerated sites.
        particles: number S of draws.
        batch: which both were run on.
    """

    model: nn.Module
    drawn: poutine.Trace
    told: poutine.Trace
    weights: "Weights"
    particles: int
    batch: Batch

    @property
    def labels(self) -> Labels:
        """At which discrete sites were put."""
        return self.batch.labels

    def log_weights(self) -> Tensor:
        r"""``(S, B)`` log importance weights with the enumerated sites summed out, in nats.

        :math:`\log \sum_y p(x, y, z_s) / q(z_s \mid x, y)`, differentiable, for local sites only.

        Raises:
            ValueError: for a pair with global sites.
        """
        told, drawn = dict(sample_sites(self.told)), latent_sites(self.drawn)
        sites = [*told.items(), *drawn.items()]
        shared = sorted({name for name, site in sites if not is_local(site)})
        if shared:
            raise ValueError(
                f"Expected a pair whose sites are all local but {shared} belong to the whole "
                "data set, which has no bound for each row; use the terms of evaluate."
            )
        x = self.batch.x
        weight = torch.zeros(self.particles, len(x), dtype=x.dtype, device=x.device)
        for site in told.values():
            weight = weight + _masked(site)
        for site in drawn.values():
            if not is_enumerated(site):
                weight = weight - _masked(site)
        for site in filter(is_enumerated, drawn.values()):
            weight = weight.logsumexp(site["infer"]["_enumerate_dim"], keepdim=True)
        return weight.reshape(self.particles, len(x))


def draw_pair(model: nn.Module, guide: nn.Module, batch: Batch, particles: int = 1) -> Draws:
    """Run the guide and then the model on its draws, with S particles.

    The start of an objective of one's own: see :meth:`Draws.log_weights`.
    """
    with pyro.validation_enabled(False):  # a check waits for the device
        drawn, told = run_pair(model, guide, batch, particles=particles)
    return Draws(model, drawn, told, Weights(drawn), particles, batch)


class Penalty(nn.Module):
    """A quantity per datum whose mean is minimised beside the bound; to inherit from.

    ``forward`` takes :class:`Draws` and gives ``(B,)``.

    Args:
        weight: of the quantity in the loss, a number or a schedule.
    """

    def __init__(self, weight: float | Linear = 1.0) -> None:
        super().__init__()
        self.weight = weight


class ELBO(Objective):
    r"""The bound :math:`E_q[\log p(x, \cdot) - \log q(\cdot \mid x)]` of a model and its guide.

    Sites that the guide enumerates are summed out exactly, each term over only those it depends on,
    so that I independent factors cost a sum and not a product; all other sites are drawn with
    reparameterisation, or with the estimator that :func:`estimated` gave them, for which several
    particles are each other's baseline. Equal to Pyro's ``TraceEnum_ELBO`` on the same draws, in
    value and gradient, but of static shape and without host synchronisation.

    Calling it with rows ``(B, P)`` and the number N of data that they stand for gives the loss, in
    nats per datum, and the terms:

    - ``reconstruction``: the expected log-likelihood of ``x``; ``log p(s)`` for other observed s;
    - ``kl[s]`` for every latent site s: the expectation of log q(s) - log p(s);
    - each penalty under its name, which is no part of the bound;
    - ``elbo``: reconstruction minus KLs, unweighted; ``objective``: the loss with its sign changed.

    A term is ``(B,)`` where it is local. Global sites count 1/N in each datum, and are scalars.
    Where a label is known, the bound is that of log p(x, label).

    Args:
        model, guide: programs that :func:`check_pair` accepts.
        kl: how the KL of a site enters the loss; sites that are not named have weight 1.
        particles: number S of draws.
        penalties: what is minimised beside the bound, by name.
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
            raise ValueError(f"Expected a positive particles but got {particles}.")
        self.kl = dict(kl or {})
        self.particles = particles
        self.penalties = nn.ModuleDict(dict(penalties or {}))

    def loss(self, batch: Batch) -> Loss:
        with pyro.validation_enabled(False):
            return self.loss_of(self.draw(batch))

    def terms(self, x: Tensor, size: int | None = None) -> Terms:
        """The named terms and their sum, ``elbo``, without weights, floors and penalties."""
        batch = in_precision(self.model, Batch(x, size))
        with pyro.validation_enabled(False):
            return self.terms_of(self.draw(batch))

    def held_out(self, batch: Batch) -> Terms:
        """Terms of rows that are no part of the training set."""
        with pyro.validation_enabled(False):
            return self.terms_of(self.draw(batch))

    def check(self, sites: Mapping[str, Site]) -> None:
        unknown = [name for name in self.kl if name not in sites]
        if unknown:
            raise ValueError(
                f"Expected KL policies for sites among {list(sites)} but got {unknown}."
            )

    def draw(self, batch: Batch) -> Draws:
        """The draws that :meth:`loss` is an expectation over."""
        return draw_pair(self.model, self.guide, batch, self.particles)

    def loss_of(self, draws: Draws) -> Loss:
        """The loss of draws, with all weights, floors and penalties."""
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
            loss = loss + self._now(penalty.weight) * terms[name].mean()
        return Loss(loss, terms | {"objective": -loss})

    def terms_of(self, draws: Draws) -> Terms:
        """The terms of draws, and their sum, ``elbo``."""
        guesses, weights = latent_sites(draws.drawn), draws.weights
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
        for name, site in sample_sites(draws.told):
            if site["is_observed"]:
                label = "reconstruction" if name == "x" else f"log p({name})"
                terms[label] = expected(log_prob(site), site)
            else:
                divergence = self.divergence(name, site, guesses.pop(name))
                terms[f"kl[{name}]"] = expected(divergence, site)
        for name, site in guesses.items():
            terms[f"kl[{name}]"] = expected(log_prob(site), site)
        bound = sum(-t if name.startswith("kl[") else t for name, t in terms.items())
        return terms | {"elbo": torch.as_tensor(bound)}

    def divergence(self, name: str, told: Site, guessed: Site) -> Tensor:
        """log q - log p of a site at its draw, or their KL in closed form if that was chosen."""
        if name in self.kl and self.kl[name].analytic and not is_enumerated(guessed):
            try:
                return kl_divergence(guessed["fn"], told["fn"])
            except NotImplementedError:
                pass
        guess = log_prob(guessed)
        if is_scored(guessed) and not guessed["fn"].has_rsample:
            guess = guess.detach()  # whose own gradient has expectation zero
        return guess - log_prob(told)

    def _weighted(self, name: str, divergence: Tensor) -> Tensor:
        policy = self.kl.get(name)
        if policy is None:
            return divergence
        if policy.floor > 0:
            divergence = divergence.clamp(min=policy.floor)
        return self._now(policy.weight) * divergence

    def _now(self, weight: float | Linear) -> float | Tensor:
        return weight(self.clock) if isinstance(weight, Linear) else weight


class Autoencoder(ELBO):
    """The reconstruction alone, of codes at their means: no bound, but a start for one.

    The other terms are reported and not minimised, nor are penalties.
    """

    def loss(self, batch: Batch) -> Loss:
        with pyro.validation_enabled(False):
            drawn, told = run_pair(self.model, self.guide, batch, means=True)
            terms = self.terms_of(Draws(self.model, drawn, told, Weights(drawn), 1, batch))
        loss = -terms["reconstruction"].mean()
        return Loss(loss, terms | {"objective": -loss})


class Weights:
    """The probabilities of the enumerated sites, which turn a term into its expectation.

    And the scores of the draws that are not wholly reparameterised.
    """

    def __init__(self, drawn: poutine.Trace) -> None:
        self.log_q = {
            site["infer"]["_enumerate_dim"]: log_prob(site)
            for _, site in sample_sites(drawn)
            if is_enumerated(site)
        }
        self.scores: dict[bool, list[Tensor]] = {True: [], False: []}  # local, and global
        self.crowd = 1
        for site in latent_sites(drawn).values():
            if is_scored(site):
                score = site["fn"].score_parts(site["value"]).score_function
                if isinstance(score, Tensor):
                    self.scores[is_local(site)].append(score)
                    sizes = {frame.name: frame.size for frame in site["cond_indep_stack"]}
                    self.crowd = sizes.get("particles", 1)

    def reinforce(self, cost: Tensor, local: bool) -> Tensor:
        """The same cost, with the gradient of the scores times it, less a baseline.

        It is multiplied by exp(score - score), the gradient of one of the two stopped (Foerster et
        al., "DiCE", 2018). The baseline is the mean cost of the other particles, if there are any.
        """
        scores = self.scores[False] + (self.scores[True] if local else [])
        if not scores or not torch.is_grad_enabled():
            return cost
        if self.crowd > 1 and (cost.dim() < 2 or cost.shape[-2] != self.crowd):
            return cost  # the same for all particles, and so no cost of any of them
        one = torch.as_tensor(sum(score - score.detach() for score in scores)).exp()
        if self.crowd == 1:
            return cost * one
        fixed = cost.detach()
        others = (fixed.sum(-2, keepdim=True) - fixed) / (self.crowd - 1)
        return cost * one - others * (one - 1)

    def expect(self, score: Tensor, particles: int = 1, events: int = 0) -> Tensor:
        """``(B, ...)`` from ``(K_I, ..., K_1, [S,] B, ...)``; 0 times the log of 0 is 0.

        Args:
            score: what to average, with ``events`` dimensions right of the plates.
            particles: S, averaged as well if more than 1.
        """
        parents: set[int] = set()
        found = self._spread(score, events)
        while found > parents:
            parents = found
            found = found.union(*(self._spread(self.log_q[dim]) for dim in parents))
        if parents:
            log_weight = torch.as_tensor(sum(self.log_q[dim] for dim in sorted(parents)))
            weight = log_weight.exp().reshape(*log_weight.shape, *[1] * events)
            summed = [dim - events for dim in sorted(parents)]
            seen = torch.where(weight == 0, 0.0, score)  # a NaN weight stays a NaN
            score = (weight * seen).sum(summed, keepdim=True)
        if particles > 1 and score.dim() > 1:
            score = score.mean(-2 - events)
        return score.reshape(score.shape[-1 - events :])

    def _spread(self, score: Tensor, events: int = 0) -> set[int]:
        """The enumerated dimensions along which ``score`` varies."""
        plates = score.shape[: score.dim() - events]
        return {dim for dim in self.log_q if len(plates) >= -dim and plates[dim] > 1}


def _masked(site: Site) -> Tensor:
    return scale_and_mask(log_prob(site), mask=site["mask"])
