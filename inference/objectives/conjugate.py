"""Conjugate stochastic variational inference: natural gradients by automatic differentiation."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import singledispatch, wraps
from typing import cast

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor, nn
from torch.distributions import kl_divergence

from priorzoo.inference.batch import Batch
from priorzoo.inference.objectives.closed_forms import ClosedForms
from priorzoo.inference.objectives.contract import Loss, Terms
from priorzoo.inference.objectives.draws import Draws
from priorzoo.inference.objectives.elbo import ELBO, KL, closed_form
from priorzoo.inference.objectives.penalties import Penalty
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
from priorzoo.models.contract import needed
from priorzoo.models.distributions.exponential import ExponentialFamily, Natural
from priorzoo.models.pyro_internals import AnyMessage, Messenger


class Expectations(Messenger):
    """Replaces the statistics of global variables by expected ones; the variables are not drawn.

    Run the guide and then the model under this handler: the first distribution of a variable is q,
    the second is p. Both programs get the expectation under q, a leaf of the autograd graph.
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


class _Stop(Exception):
    pass


class _StopAfter(Messenger):
    def __init__(self, last: str) -> None:
        super().__init__()
        self.last = last

    def _pyro_post_sample(self, msg: AnyMessage) -> None:
        if msg["name"] == self.last:
            raise _Stop


def stopped_after(program: Callable[..., object], last: str) -> Callable[..., None]:
    """The program, stopped as soon as the site ``last`` is sampled."""

    @wraps(program, updated=())
    def stopped(x: Tensor, size: int | None = None, **context: Tensor) -> None:
        with suppress(_Stop), _StopAfter(last):
            program(x, size, **context)

    return stopped


class Averaged(ELBO):
    """An :class:`ELBO` with closed-form KLs where torch has them, and no gradient through q(r).

    The responsibilities q(r) are optimal given everything else, so that the gradient through them
    is zero. With KL weights other than 1 it is not, and the paper holds them fixed there too.
    """

    def divergence(self, name: str, model_site: Site, guide_site: Site) -> Tensor:
        closed = closed_form(model_site, guide_site)
        return super().divergence(name, model_site, guide_site) if closed is None else closed

    def draw(self, batch: Batch) -> Draws:
        draws = super().draw(batch)
        log_q = draws.weights.log_q
        log_q.update({dim: score.detach() for dim, score in log_q.items()})
        return draws


@dataclass(frozen=True)
class AveragedDraws(Draws):
    """Draws of the local sites given expected statistics of the global variables, ``globals``."""

    globals: Expectations


class ConjugateELBO(Averaged):
    r"""The ELBO with global variables averaged in closed form, and their natural gradients.

    Model and guide declare their global variables by :func:`conjugate`. The expected log joint is
    linear in the expected statistics of each variable, so that for any model its gradient with
    respect to them is :math:`\lambda^* - \lambda_p`: the optimum given everything else is
    :math:`\lambda^* = \lambda_p + \nabla_{\bar t}\, \tfrac N B \sum_n \mathbb E \log p(x_n, \cdot)`
    (Hoffman et al., "Stochastic Variational Inference", 2013; eq. (13) of Paquet, Ghaisas and
    Tieleman, 2018, for the mixture).

    The loss trains networks and point parameters, with the global variables fixed. The natural
    gradients, :math:`\lambda - \lambda^*`, are computed after the networks' step. They do not use
    KL weights and floors: with a KL weight of 20, a datum must not count as 20 data.

    Terms are those of :class:`ELBO`, plus ``kl[...]`` of each global factor divided by N.

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
        self.last_site = _last_site(model, guide)

    def held_out(self, batch: Batch) -> Terms:
        """Terms of the predictive bound of new rows, eq. (11) of Paquet, Ghaisas and Tieleman.

        The KL of the global variables is not part of the bound. It is reported separately as
        ``globals``, in nats for the whole training set.
        """
        draws = self.draw(replace(batch, size=None))
        terms = super().terms_of(draws)
        assert isinstance(draws, AveragedDraws)
        divergences = draws.globals.divergences().values()
        return terms | {"globals": torch.stack([d.detach() for d in divergences]).sum()}

    def natural_gradients(self, batch: Batch) -> Mapping[str, Tensor]:
        """lambda - lambda* by name of the natural parameters, from updated responsibilities."""
        names = {id(parameter): name for name, parameter in self.named_parameters()}
        found = self.optima(batch)
        return {names[id(natural)]: natural.detach() - optimum for natural, optimum in found}

    def optima(self, batch: Batch) -> list[tuple[Tensor, Tensor]]:
        """The natural parameters of each factor, and their optimum lambda*."""
        return [(q, p + counted) for q, p, counted in self.messages(batch)]

    def messages(self, batch: Batch) -> list[tuple[Tensor, Tensor, Tensor]]:
        """For each factor its natural parameters, those of its prior, and lambda* - lambda_p.

        lambda* - lambda_p is N/B times a sum over rows, so that batches can be added up. Of a batch
        that processes share, it is that of all its rows.
        """
        model = self.model if self.last_site is None else stopped_after(self.model, self.last_site)
        guide = torch.no_grad()(self.guide)
        local = Averaged(cast(nn.Module, model), guide, particles=self.particles)
        with pyro.validation_enabled(False), torch.enable_grad(), Expectations() as found:
            joint = local.terms_of(local.draw(batch))["elbo"].mean() * batch.data
            leaves = list(found.expected.values())
            gradients = torch.autograd.grad(joint, leaves, materialize_grads=True)
        parts = zip(found.q.values(), found.p.values(), gradients, strict=True)
        share = batch.share
        return [(q, p.detach(), g if share is None else share.mean(g)) for q, p, g in parts]

    def draw(self, batch: Batch) -> Draws:
        with Expectations() as found:
            draws = super().draw(batch)
        return AveragedDraws(**vars(draws), globals=found)

    def terms_of(self, draws: Draws) -> Terms:
        terms = super().terms_of(draws)
        assert isinstance(draws, AveragedDraws)
        bound = terms.pop("elbo")
        for label, divergence in draws.globals.divergences().items():
            share = divergence / draws.batch.data
            terms[f"kl[{label}]"] = share.to(draws.batch.x.dtype)
            bound = bound - terms[f"kl[{label}]"]
        return terms | {"elbo": bound}


class Pretraining(ConjugateELBO):
    r"""The ELBO of a plain VAE, :math:`z \sim \mathcal N(0, I)`, with the same networks.

    This pretrains the networks, the first phase of Paquet, Ghaisas and Tieleman, 2018, section 2.4.
    It does not use discrete sites, global variables and penalties, and does not change the natural
    parameters.
    """

    def loss(self, batch: Batch) -> Loss:
        with pyro.validation_enabled(False):
            terms = self.terms_of(self.draw(replace(batch, labels={})))
        loss = -terms["reconstruction"].mean()
        for name, term in terms.items():
            if name.startswith("kl["):
                loss = loss + self._weighted(name[3:-1], term.mean(), batch)
        return Loss(loss, terms | {"objective": -loss})

    def natural_gradients(self, batch: Batch) -> Mapping[str, Tensor]:
        return {}

    def terms_of(self, draws: Draws) -> Terms:
        mixture = super().terms_of(draws)
        terms = {"reconstruction": mixture["reconstruction"]}
        for name, site in latent_sites(draws.guide_trace).items():
            if not is_enumerated(site):
                q = site["fn"]
                standard = dist.Normal(torch.zeros_like(q.mean), 1.0).to_event(1)
                divergence = draws.weights.expect(kl_divergence(q, standard), draws.particles)
                terms[f"kl[{name}]"] = draws.batch.weighted(divergence)
        bound = terms["reconstruction"] - sum(terms[n] for n in terms if n.startswith("kl["))
        return terms | {"elbo": bound}


@singledispatch
def bound(model: nn.Module, guide: nn.Module) -> ELBO:
    """The ELBO that evaluates a pair: closed forms where they are exact, draws elsewhere.

    Other implementations are registered by the class of the model.
    """
    conjugates = any(isinstance(parameter, Natural) for parameter in guide.parameters())
    return (ConjugateELBO if conjugates else ClosedForms)(model, guide)


@singledispatch
def predictive(
    model: nn.Module, guide: nn.Module, prune: bool = False
) -> tuple[nn.Module, nn.Module]:
    """Model and guide of a new row given the training set.

    A pair without global variables is returned as it is. Other implementations are registered by
    the class of the model.

    Args:
        model, guide: a trained pair.
        prune: whether to leave out mixture components that hold less than one datum.
    """
    return model, guide


def _last_site(model: nn.Module, guide: nn.Module) -> str | None:
    """The last site before x, or None if the likelihood itself uses a global variable.

    None too for programs that need context, which is not known yet.
    """
    if needed(model) | needed(guide):
        return None
    parameters = [*model.parameters(), *guide.parameters()]
    device = parameters[0].device if parameters else torch.device("cpu")
    with evaluating(model, guide), Stream(0, device):
        with torch.no_grad(), Expectations():
            x = site_of(poutine.trace(model).get_trace(size=2), "x")["value"]
        with torch.enable_grad(), Expectations() as globals_:
            _, model_trace = run_pair(model, guide, Batch(x))
            observed = site_of(model_trace, "x")
            score = observed["fn"].log_prob(observed["value"]).sum()
            leaves = list(globals_.expected.values())
    if not leaves:
        raise ValueError(
            f"Expected {type(guide).__name__} to declare global variables by conjugate() but got "
            "none; use ELBO."
        )
    if score.requires_grad:
        reads = torch.autograd.grad(score, leaves, allow_unused=True)
        if any(part is not None for part in reads):
            return None
    names = list(dict(sample_sites(model_trace)))
    return names[names.index("x") - 1]
