"""Conjugate stochastic variational inference: bounds and natural gradients by autodiff."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import singledispatch, wraps
from typing import cast

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor, distributed, nn
from torch.distributions import kl_divergence

from priorzoo.inference.batch import Batch
from priorzoo.inference.objectives.contract import Loss, Terms
from priorzoo.inference.objectives.elbo import ELBO, KL, Draws, Penalty
from priorzoo.inference.pairs import run_pair
from priorzoo.inference.randomness import Stream
from priorzoo.inference.sites import (
    Site,
    evaluating,
    is_enumerated,
    latent_sites,
    sample_sites,
    site_of,
)
from priorzoo.models.distributions.exponential import ExponentialFamily, Natural
from priorzoo.models.pyro_internals import AnyMessage, Messenger


class Expectations(Messenger):
    """Puts expected statistics in the place of global variables, which are then not drawn.

    Programs are run below it in the order guide, model: what the first says of a variable is q,
    what the second says is p. Both go on with the expectation under q, a leaf of the graph.
    """

    def __init__(self) -> None:
        super().__init__()
        self.families: dict[str, type[ExponentialFamily]] = {}
        self.q: dict[str, Tensor] = {}
        self.p: dict[str, Tensor] = {}
        self.expected: dict[str, Tensor] = {}

    def _pyro_conjugate(self, msg: AnyMessage) -> None:
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

    def _pyro_post_sample(self, msg: AnyMessage) -> None:
        if msg["name"] == self.last:
            raise _Left


def until(program: Callable[..., object], last: str) -> Callable[..., None]:
    """The program, left once a site is sampled."""

    @wraps(program, updated=())
    def begun(x: Tensor, size: int | None = None, **context: Tensor) -> None:
        with suppress(_Left), _Leaves(last):
            program(x, size, **context)

    return begun


class Averaged(ELBO):
    """An :class:`ELBO` with every KL in closed form where torch knows one, and held weights.

    The responsibilities are the optimum given all else: the gradient through them is zero, but
    where a KL is priced otherwise, and there the paper holds them fixed.
    """

    def divergence(self, name: str, told: Site, guessed: Site) -> Tensor:
        if not is_enumerated(guessed):
            try:
                return kl_divergence(guessed["fn"], told["fn"])
            except NotImplementedError:
                pass
        return super().divergence(name, told, guessed)

    def draw(self, batch: Batch) -> Draws:
        draws = super().draw(batch)
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

    The loss is for networks and point parameters, and holds the globals fixed. Natural gradients,
    :math:`\lambda - \lambda^*`, follow once the networks have moved. They are those of the bound
    without weights and floors: a KL of weight twenty does not count each datum for twenty.

    Terms are those of :class:`ELBO`, with ``kl[...]`` of each global factor over N.

    Args:
        model, guide, kl, particles, penalties: as in :class:`ELBO`.
    """

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

    def held_out(self, batch: Batch) -> Terms:
        """Terms of the predictive bound of new rows, eq. (11) of Paquet, Ghaisas and Tieleman.

        The globals' divergence is no part of it; it is given beside, as ``globals``, in nats for
        the whole training set.
        """
        draws = self.draw(replace(batch, size=None))
        terms = super().terms_of(draws)
        assert isinstance(draws, Averages)
        divergences = draws.globals.divergences().values()
        return terms | {"globals": torch.stack([d.detach() for d in divergences]).sum()}

    def natural_gradients(self, batch: Batch) -> Mapping[str, Tensor]:
        """lambda - lambda* for the natural parameters, from new responsibilities."""
        names = {id(parameter): name for name, parameter in self.named_parameters()}
        found = self.optima(batch)
        return {names[id(natural)]: natural.detach() - optimum for natural, optimum in found}

    def optima(self, batch: Batch) -> list[tuple[Tensor, Tensor]]:
        """Each factor's natural parameters, and lambda* for rows that stand for N data."""
        return [(q, p + counted) for q, p, counted in self.messages(batch)]

    def messages(self, batch: Batch) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Natural parameters of each factor and of its prior, and what the rows add to the latter.

        What is added is a sum over rows, N/B times, and so may be taken in parts.
        """
        model = self.model if self.until is None else until(self.model, self.until)
        guide = torch.no_grad()(self.guide)
        local = Averaged(cast(nn.Module, model), guide, particles=self.particles)
        with pyro.validation_enabled(False), torch.enable_grad(), Expectations() as found:
            joint = local.terms_of(local.draw(batch))["elbo"].mean() * batch.data
            leaves = list(found.expected.values())
            gradients = torch.autograd.grad(joint, leaves, materialize_grads=True)
        parts = zip(found.q.values(), found.p.values(), gradients, strict=True)
        return [(q, p.detach(), _over_processes(gradient)) for q, p, gradient in parts]

    def draw(self, batch: Batch) -> Draws:
        with Expectations() as found:
            draws = super().draw(batch)
        return Averages(**vars(draws), globals=found)

    def terms_of(self, draws: Draws) -> Terms:
        terms = super().terms_of(draws)
        assert isinstance(draws, Averages)
        bound = terms.pop("elbo")
        for label, divergence in draws.globals.divergences().items():
            share = divergence / draws.batch.data
            terms[f"kl[{label}]"] = share.to(draws.batch.x.dtype)
            bound = bound - terms[f"kl[{label}]"]
        return terms | {"elbo": bound}


class Pretraining(ConjugateELBO):
    r"""The bound of the same networks with codes :math:`z \sim \mathcal N(0, I)`, for a start.

    The first phase of Paquet, Ghaisas and Tieleman, 2018, section 2.4. Discrete sites and globals
    have no part in it, nor have penalties, and the natural parameters stay where they are.
    """

    def loss(self, batch: Batch) -> Loss:
        with pyro.validation_enabled(False):
            terms = self.terms_of(self.draw(replace(batch, labels={})))
        loss = -terms["reconstruction"].mean()
        for name, term in terms.items():
            if name.startswith("kl["):
                loss = loss + self._weighted(name[3:-1], term.mean())
        return Loss(loss, terms | {"objective": -loss})

    def natural_gradients(self, batch: Batch) -> Mapping[str, Tensor]:
        return {}

    def terms_of(self, draws: Draws) -> Terms:
        mixture = super().terms_of(draws)
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


@singledispatch
def predictive(
    model: nn.Module, guide: nn.Module, prune: bool = False
) -> tuple[nn.Module, nn.Module]:
    """The pair of a new row given the training set; a pair without global variables is its own.

    Registered by the class of the model.

    Args:
        model, guide: a trained pair.
        prune: whether mixture components are left out to which less than one datum was added.
    """
    return model, guide


def _last_site(model: nn.Module, guide: nn.Module) -> str | None:
    """The last site before x, or None where the likelihood itself reads a global variable."""
    numbers = [*model.parameters(), *guide.parameters()]
    device = numbers[0].device if numbers else torch.device("cpu")
    with evaluating(model, guide), Stream(0, device):
        with torch.no_grad(), Expectations():
            x = site_of(poutine.trace(model).get_trace(size=2), "x")["value"]
        with torch.enable_grad(), Expectations() as globals_:
            _, told = run_pair(model, guide, Batch(x))
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
