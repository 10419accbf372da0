"""Conjugate stochastic variational inference: bounds and natural gradients by autodiff."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor, distributed, nn
from torch.distributions import kl_divergence

from priorzoo.inference.objectives.elbo import ELBO, KL, Draws, Penalty, Terms
from priorzoo.inference.pairs import (
    Labels,
    Site,
    evaluating,
    is_enumerated,
    latent_sites,
    run_pair,
    sample_sites,
    site_of,
)
from priorzoo.inference.randomness import Stream
from priorzoo.models.distributions.exponential import Family, Natural


class Expectations(Messenger):
    """Puts expected statistics in the place of global variables, which are then not drawn.

    Programs are run below it in the order guide, model: what the first says of a variable is q,
    what the second says is p. Both go on with the expectation under q, a leaf of the graph.
    """

    def __init__(self) -> None:
        super().__init__()
        self.families: dict[str, type[Family]] = {}
        self.q: dict[str, Tensor] = {}
        self.p: dict[str, Tensor] = {}
        self.expected: dict[str, Tensor] = {}

    def _pyro_conjugate(self, msg: Site) -> None:
        names, family, natural, _ = msg["args"]
        label = ",".join(names)
        if label in self.q:
            self.p[label] = natural
        else:
            self.families[label], self.q[label] = family, natural
            self.expected[label] = family.expected_statistics(natural.detach()).requires_grad_()
        msg["value"] = self.expected[label]

    def divergences(self) -> dict[str, Tensor]:
        """KL(q || p) of each global factor, in nats, a scalar."""
        return {
            label: family.kl(self.q[label].detach(), self.p[label]).sum()
            for label, family in self.families.items()
        }


class _Left(Exception):
    pass


class _Leaves(Messenger):
    def __init__(self, last: str) -> None:
        super().__init__()
        self.last = last

    def _pyro_post_sample(self, msg: Site) -> None:
        if msg["name"] == self.last:
            raise _Left


def until(program: Callable[..., Any], last: str) -> Callable[..., None]:
    """The program, left behind once a site is sampled."""

    def begun(*args: Any, **settings: Any) -> None:
        with suppress(_Left), _Leaves(last):
            program(*args, **settings)

    return begun


class Averaged(ELBO):
    """An :class:`ELBO` with every KL in closed form where torch knows one, and held weights.

    The responsibilities are the optimum given all else: the gradient through them is zero, but
    where a KL is priced otherwise, and there the paper holds them fixed.
    """

    def _divergence(self, name: str, told: Site, guessed: Site) -> Tensor:
        if not is_enumerated(guessed):
            try:
                return kl_divergence(guessed["fn"], told["fn"])
            except NotImplementedError:
                pass
        return super()._divergence(name, told, guessed)

    def _draw(self, x: Tensor, size: int | None, labels: Labels | None = None) -> Draws:
        draws = super()._draw(x, size, labels)
        log_q = draws.weights.log_q
        log_q.update({dim: score.detach() for dim, score in log_q.items()})
        return draws


@dataclass(frozen=True)
class Averages(Draws):
    """Draws of the local sites, and the averages over global ones that they were made with."""

    globals: Expectations


class ConjugateELBO(Averaged):
    r"""The bound averaged over global variables in closed form, and their natural gradients.

    Model and guide name their globals by :func:`conjugate`. As the expected log joint is linear in
    the expected statistics of each, its gradient with respect to these is
    :math:`\lambda^* - \lambda_p`, whatever the model: the optimum given the rest is
    :math:`\lambda^* = \lambda_p + \nabla_{\bar t}\, \tfrac N B \sum_n \mathbb E \log p(x_n, \cdot)`
    (Hoffman et al., "Stochastic Variational Inference", 2013; eq. (13) of Paquet, Ghaisas and
    Tieleman, 2018, for the mixture).

    The loss is for networks and point parameters, and holds the globals fixed. The closure of
    :meth:`again` then leaves :math:`\lambda - \lambda^*` as the gradient of natural parameters. Its
    terms are those of the bound, without any policy: a KL that is priced twenty-fold does not count
    each datum for twenty.

    Terms are those of :class:`ELBO`, with ``kl[...]`` of each global factor over N.

    Args:
        model, guide, kl, particles, penalties: as in :class:`ELBO`.
    """

    renewing = True

    def __init__(
        self,
        model: nn.Module,
        guide: nn.Module,
        kl: Mapping[str, KL] | None = None,
        particles: int = 1,
        penalties: Mapping[str, Penalty] | None = None,
    ) -> None:
        super().__init__(model, guide, kl, particles, penalties)
        self.until = _last_site(model, guide)

    def _loss(self, x: Tensor, size: int | None, labels: Labels | None) -> tuple[Tensor, Terms]:
        loss, terms = super()._loss(x, size, labels)
        # Zero, but a stage that trains the globals alone has then something to descend.
        idle = sum(p.sum() * 0 for p in self.parameters() if isinstance(p, Natural))
        return loss + idle, terms

    def held_out(self, x: Tensor, size: int | None = None) -> Terms:
        """Terms of the predictive bound of new rows, eq. (11) of Paquet, Ghaisas and Tieleman.

        The globals' divergence is no part of it; it is given beside, as ``globals``, in nats for
        the whole training set.
        """
        draws = self._draw(x, None)
        terms = super()._terms(draws, x, None)
        assert isinstance(draws, Averages)
        divergences = draws.globals.divergences().values()
        return terms | {"globals": torch.stack([d.detach() for d in divergences]).sum()}

    def renewed(
        self, x: Tensor, size: int | None = None, labels: Labels | None = None
    ) -> dict[str, Tensor]:
        """lambda - lambda* for the natural parameters, from new responsibilities."""
        names = {id(parameter): name for name, parameter in self.named_parameters()}
        found = self.optima(x, size, labels)
        return {names[id(natural)]: natural.detach() - optimum for natural, optimum in found}

    def optima(
        self, x: Tensor, size: int | None = None, labels: Labels | None = None
    ) -> list[tuple[Tensor, Tensor]]:
        """Each factor's natural parameters, and lambda* for rows that stand for N data."""
        return [(q, p + counted) for q, p, counted in self.messages(x, size, labels)]

    def messages(
        self, x: Tensor, size: int | None = None, labels: Labels | None = None
    ) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Natural parameters of each factor and of its prior, and what the rows add to the latter.

        What is added is a sum over rows, N/B times, and so may be taken in parts.
        """
        data = len(x) if size is None else size
        model: Any = self.model if self.until is None else until(self.model, self.until)
        guide: Any = torch.no_grad()(self.guide)
        local = Averaged(model, guide, particles=self.particles)
        with torch.enable_grad(), Expectations() as found:
            joint = local._terms(local._draw(x, size, labels), x, size)["elbo"].mean() * data
            leaves = list(found.expected.values())
            gradients = torch.autograd.grad(joint, leaves, materialize_grads=True)
        parts = zip(found.q.values(), found.p.values(), gradients, strict=True)
        return [(q, p.detach(), _over_processes(gradient)) for q, p, gradient in parts]

    def _draw(self, x: Tensor, size: int | None, labels: Labels | None = None) -> Draws:
        with Expectations() as found:
            draws = super()._draw(x, size, labels)
        return Averages(**vars(draws), globals=found)

    def _terms(self, draws: Draws, x: Tensor, size: int | None) -> Terms:
        terms = super()._terms(draws, x, size)
        assert isinstance(draws, Averages)
        data = len(x) if size is None else size
        bound = terms.pop("elbo")
        for label, divergence in draws.globals.divergences().items():
            terms[f"kl[{label}]"] = (divergence / data).to(x.dtype)
            bound = bound - terms[f"kl[{label}]"]
        return terms | {"elbo": bound}


class Pretraining(ConjugateELBO):
    r"""The bound of the same networks with codes :math:`z \sim \mathcal N(0, I)`, for a start.

    The first phase of Paquet, Ghaisas and Tieleman, 2018, section 2.4. Discrete sites and globals
    have no part in it, nor have penalties, and the natural parameters stay where they are.
    """

    renewing = False

    def _loss(self, x: Tensor, size: int | None, labels: Labels | None) -> tuple[Tensor, Terms]:
        terms = self._terms(self._draw(x, size), x, size)
        loss = -terms["reconstruction"].mean()
        for name, term in terms.items():
            if name.startswith("kl["):
                loss = loss + self._price(name[3:-1], term.mean())
        return loss, terms | {"objective": -loss}

    def _terms(self, draws: Draws, x: Tensor, size: int | None) -> Terms:
        mixture = super()._terms(draws, x, size)
        terms = {"reconstruction": mixture["reconstruction"]}
        for name, site in latent_sites(draws.drawn).items():
            if not is_enumerated(site):
                q = site["fn"]
                standard = dist.Normal(torch.zeros_like(q.mean), 1.0).to_event(1)
                divergence = draws.weights.expect(kl_divergence(q, standard), draws.particles)
                terms[f"kl[{name}]"] = divergence
        bound = terms["reconstruction"] - sum(terms[n] for n in terms if n.startswith("kl["))
        return terms | {"elbo": bound}


def bound(model: nn.Module, guide: nn.Module) -> ELBO:
    """The bound that scores a pair: averaged over its conjugate globals, if it has any."""
    conjugates = any(isinstance(parameter, Natural) for parameter in guide.parameters())
    return (ConjugateELBO if conjugates else ELBO)(model, guide)


def predictive(model: nn.Module, guide: nn.Module, **settings: Any) -> tuple[nn.Module, nn.Module]:
    """The pair of a new row given the training set: a guide with globals has one, by a method of
    this name; any other pair stays as it is.
    """
    made = getattr(guide, "predictive", None)
    return (model, guide) if made is None else made(model, **settings)


def _last_site(model: nn.Module, guide: nn.Module) -> str | None:
    """The last site before x, or None where the likelihood itself reads a global variable."""
    numbers = [*model.parameters(), *guide.parameters()]
    device = numbers[0].device if numbers else torch.device("cpu")
    with evaluating(model, guide), Stream(0, device):
        with torch.no_grad(), Expectations():
            x = site_of(poutine.trace(model).get_trace(size=2), "x")["value"]
        with torch.enable_grad(), Expectations() as globals_:
            _, told = run_pair(model, guide, x)
            seen = site_of(told, "x")
            score = seen["fn"].log_prob(seen["value"]).sum()
            leaves = list(globals_.expected.values())
    if not leaves:
        raise ValueError(
            f"Expected global variables that {type(guide).__name__} names by conjugate() but got "
            "none; use ELBO."
        )
    if score.requires_grad:
        reads = torch.autograd.grad(score, leaves, allow_unused=True)
        if any(part is not None for part in reads):
            return None
    names = list(dict(sample_sites(told)))
    return names[names.index("x") - 1]


def _over_processes(gradient: Tensor) -> Tensor:
    """The mean over processes, each of which sees a part of the batch."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(gradient)
        gradient = gradient / distributed.get_world_size()
    return gradient
