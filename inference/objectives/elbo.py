"""The evidence lower bound with discrete sites summed out, as named terms per datum."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from torch import Tensor, nn
from torch.distributions import kl_divergence

from priorzoo.inference.objectives.schedules import Clock, Linear
from priorzoo.inference.pairs import (
    Labels,
    Site,
    is_enumerated,
    is_local,
    is_scored,
    latent_sites,
    run_pair,
    sample_sites,
)

Terms = dict[str, Tensor]


@dataclass(frozen=True)
class KL:
    """What becomes of one site's KL divergence in the optimised objective.

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
    """A guide's trace, the model's on the same draws, and the ``labels`` that were clamped."""

    model: nn.Module
    drawn: poutine.Trace
    told: poutine.Trace
    weights: "Weights"
    particles: int
    labels: Labels


class Penalty(nn.Module):
    """A quantity per datum whose mean the objective descends beside the bound; to inherit from.

    ``forward`` takes :class:`Draws` and gives ``(B,)``.

    Args:
        weight: its price, a number or a schedule.
    """

    def __init__(self, weight: float | Linear = 1.0) -> None:
        super().__init__()
        self.weight = weight


class ELBO(nn.Module):
    r"""The bound :math:`E_q[\log p(x, \cdot) - \log q(\cdot \mid x)]` of a model and its guide.

    Sites that the guide enumerates are summed out exactly, each term over only those it depends on,
    so that I independent factors cost a sum and not a product; all other sites are drawn with
    reparameterisation, or with the estimator that :func:`estimated` gave them, for which several
    particles are each other's baseline. Equal to Pyro's ``TraceEnum_ELBO`` on the same draws, in
    value and gradient, but of static shape and without host synchronisation.

    Calling it with rows ``(B, P)`` and the number N of data that they stand for gives the loss to
    descend, in nats per datum, and the terms:

    - ``reconstruction``: the expected log-likelihood of ``x``; ``log p(s)`` for other observed s;
    - ``kl[s]`` for every latent site s: the expectation of log q(s) - log p(s);
    - each penalty under its name, which is no part of the bound;
    - ``elbo``: reconstruction minus KLs, unweighted; ``objective``: the loss with its sign changed.

    A term is ``(B,)`` where it is local. Global sites count 1/N in each datum, and are scalars.
    Where a label is known, the bound is that of log p(x, label).

    Args:
        model, guide: programs that :func:`check_pair` accepts.
        kl: a policy for each site that has one; others have weight 1.
        particles: number S of draws.
        penalties: what else is descended, by name.
    """

    def __init__(
        self,
        model: nn.Module,
        guide: nn.Module,
        kl: Mapping[str, KL] | None = None,
        particles: int = 1,
        penalties: Mapping[str, Penalty] | None = None,
    ) -> None:
        super().__init__()
        if particles < 1:
            raise ValueError(f"Expected a positive particles but got {particles}.")
        self.model, self.guide = model, guide
        self.kl = dict(kl or {})
        self.particles = particles
        self.penalties = nn.ModuleDict(dict(penalties or {}))
        self.clock = Clock()

    def forward(
        self, x: Tensor, size: int | None = None, labels: Labels | None = None
    ) -> tuple[Tensor, Terms]:
        with pyro.validation_enabled(False):  # a check waits for the device
            return self._loss(x, size, labels)

    def terms(self, x: Tensor, size: int | None = None) -> Terms:
        """The named terms and their sum, ``elbo``, without any policy but ``analytic``."""
        with pyro.validation_enabled(False):
            return self._terms(self._draw(x, size), x, size)

    def _loss(self, x: Tensor, size: int | None, labels: Labels | None) -> tuple[Tensor, Terms]:
        draws = self._draw(x, size, labels)
        terms = self._terms(draws, x, size)
        unknown = [name for name in self.kl if f"kl[{name}]" not in terms]
        if unknown:
            known = [name[3:-1] for name in terms if name.startswith("kl[")]
            raise ValueError(f"Expected KL policies for sites among {known} but got {unknown}.")
        loss = torch.zeros((), device=x.device)
        for name, term in terms.items():
            if name.startswith("kl["):
                loss = loss + self._price(name[3:-1], term.mean())
            elif name != "elbo":
                loss = loss - term.mean()
        for name, penalty in self.penalties.items():
            assert isinstance(penalty, Penalty)
            terms[name] = penalty(draws)
            loss = loss + self._now(penalty.weight) * terms[name].mean()
        return loss, terms | {"objective": -loss}

    keeps_state = False  # whether a call changes what no graph records
    renewing = False  # whether the optimiser asks for gradients once more, see `renewed`
    counting = False  # whether a call leaves something for the clock, see `left`
    left: Tensor | None = None  # which the clock takes up at its next tick

    def renewed(
        self, x: Tensor, size: int | None = None, labels: Labels | None = None
    ) -> dict[str, Tensor]:
        """Gradients by the names of their parameters, of an objective that is ``renewing``: those
        that the optimiser asks for when it has moved the others.
        """
        raise NotImplementedError

    def again(
        self, x: Tensor, size: int | None = None, labels: Labels | None = None
    ) -> Callable[[], Any] | None:
        """What the optimiser's step calls as its closure; None for one that needs none."""
        if not self.renewing:
            return None

        def closure() -> None:
            parameters = dict(self.named_parameters())
            for name, gradient in self.renewed(x, size, labels).items():
                parameters[name].grad = gradient

        return closure

    def held_out(self, x: Tensor, size: int | None = None) -> Terms:
        """Terms of rows that are no part of the training set."""
        return self.terms(x, size)

    def _draw(self, x: Tensor, size: int | None, labels: Labels | None = None) -> Draws:
        drawn, told = run_pair(
            self.model, self.guide, x, size, particles=self.particles, labels=labels
        )
        return Draws(self.model, drawn, told, Weights(drawn), self.particles, labels or {})

    def _terms(self, draws: Draws, x: Tensor, size: int | None) -> Terms:
        guesses, weights = latent_sites(draws.drawn), draws.weights
        data = len(x) if size is None else size
        share = len(x) / data

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
                terms[label] = expected(_log_prob(site), site)
            else:
                divergence = self._divergence(name, site, guesses.pop(name))
                terms[f"kl[{name}]"] = expected(divergence, site)
        for name, site in guesses.items():
            terms[f"kl[{name}]"] = expected(_log_prob(site), site)
        bound = sum(-t if name.startswith("kl[") else t for name, t in terms.items())
        return terms | {"elbo": torch.as_tensor(bound)}

    def _divergence(self, name: str, told: Site, guessed: Site) -> Tensor:
        if name in self.kl and self.kl[name].analytic and not is_enumerated(guessed):
            try:
                return kl_divergence(guessed["fn"], told["fn"])
            except NotImplementedError:
                pass
        guess = _log_prob(guessed)
        if is_scored(guessed) and not guessed["fn"].has_rsample:
            guess = guess.detach()  # whose own gradient has expectation zero
        return guess - _log_prob(told)

    def _price(self, name: str, divergence: Tensor) -> Tensor:
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

    The other terms are reported and not descended, nor are penalties.
    """

    def _loss(self, x: Tensor, size: int | None, labels: Labels | None) -> tuple[Tensor, Terms]:
        drawn, told = run_pair(self.model, self.guide, x, size, means=True, labels=labels)
        terms = self._terms(Draws(self.model, drawn, told, Weights(drawn), 1, {}), x, size)
        loss = -terms["reconstruction"].mean()
        return loss, terms | {"objective": -loss}


class Weights:
    """The probabilities of the enumerated sites, which turn a term into its expectation.

    And the scores of the draws that are not wholly reparameterised.
    """

    def __init__(self, drawn: poutine.Trace) -> None:
        self.log_q = {
            site["infer"]["_enumerate_dim"]: _log_prob(site)
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


def _log_prob(site: Site) -> Tensor:
    with pyro.validation_enabled(False):  # it would ask the device, and globals heed it only here
        score: Tensor = site["fn"].log_prob(site["value"])
    return score
