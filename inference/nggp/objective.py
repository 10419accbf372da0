"""The objective for :class:`NGGPMixture`, which also updates the expected cluster sizes."""

from collections.abc import Mapping
from typing import cast

import pyro
import torch
from torch import Tensor, nn

from priorzoo.inference.batch import Batch, in_precision
from priorzoo.inference.objectives.closed_forms import closed_terms
from priorzoo.inference.objectives.conjugate import bound
from priorzoo.inference.objectives.contract import Loss, Terms
from priorzoo.inference.objectives.draws import Draws
from priorzoo.inference.objectives.elbo import ELBO, KL
from priorzoo.inference.objectives.penalties import Penalty
from priorzoo.inference.running import PROGRAM_LOCK
from priorzoo.inference.sites import latent_sites, site_of
from priorzoo.models.contract import WEIGHTS
from priorzoo.models.nggp.mixture import NGGPMixture
from priorzoo.models.nggp.occupancy import Occupancy
from priorzoo.models.nggp.size_sums import exact_log_prior, least_log_prior, size_sums

FEW = 20_000  # rows times clusters of a batch whose cluster sizes are computed exactly


class Collapsed(ELBO):
    r"""The objective of :class:`NGGPMixture`; each step also updates the model's cluster sizes.

    The loss is a negative pseudo-likelihood with a variational bound of each factor: the prior of
    each datum's cluster is its predictive distribution given running averages of the sizes, scaled
    to N data. Its gradient with respect to q(y_n) is that of the collapsed bound, but as a product
    of full conditionals it is not a bound: its value may be above log p(x_1..N). It is reported as
    ``pseudo-likelihood``, and the collapsed bound as ``elbo``, both in nats per datum:

    .. math:: N\,\mathrm{elbo} = \sum_n \big(E \log p(x_n \mid z_n) -
        \mathrm{KL}[q(z_n) \| p(z_n \mid y_n)] + H[q(y_n)]\big) + E_q \log p(y_{1..N})

    ``kl[y]`` is the part of y, with v integrated out. ``elbo`` is a lower bound of the logarithm of
    :math:`\sum_y p(y) p(x_{1..N} \mid y)` over all labellings y of the data by the C existing
    clusters and by clusters of one datum, where p(y) is the probability of the partition that y
    induces. It is not normalised over labellings: a partition counts once for each way to label its
    clusters, C! / (C - K)! times if K of them are existing clusters.

    In :meth:`held_out`, which :func:`evaluate` uses, and for a batch of all N rows, the sizes in
    ``elbo`` are those of the rows' own q(y), and it is a bound. For a smaller batch it is an
    estimate from below, by the tangent at the running averages of the sizes.

    With another objective, such as :class:`Autoencoder`, the sizes do not change, and ``elbo`` is a
    bound for the mixture with weights fixed by these sizes.

    Further terms, which are not part of the loss: ``clusters``, number of existing clusters;
    ``occupied``, expected number of those with data; ``alone``, share of data that are alone in
    their cluster; ``log u``, the draw of v.

    If the model learns alpha and sigma, their gradient is that of the collapsed bound's log p(y) at
    the running sizes, with v integrated out; their values are reported as terms. The gradient of
    the predictive distributions would instead maximise a pseudo-likelihood, in which hardly any
    datum begins a cluster.

    Args:
        model: an :class:`NGGPMixture`.
        guide, kl, particles, penalties: as in :class:`ELBO`.
        rate: weight of a batch in the running averages of the sizes.
    """

    def __init__(
        self,
        model: nn.Module,
        guide: nn.Module,
        kl: Mapping[str, KL] | None = None,
        particles: int = 1,
        penalties: Mapping[str, Penalty] | None = None,
        rate: float = 0.05,
    ) -> None:
        super().__init__(model, guide, kl, particles, penalties)
        if not 0 < rate <= 1:
            raise ValueError(f"Expected a rate in (0, 1] but got {rate}.")
        self.rate = rate

    def terms(self, x: Tensor, size: int | None = None) -> Terms:
        with PROGRAM_LOCK, pyro.validation_enabled(False):
            draws = self.draw(in_precision(self.model, Batch(x, size)))
            return self._reported(draws, self.terms_of(draws))

    def held_out(self, batch: Batch) -> Terms:
        """Terms without E_q[log p(y)], and sums over rows from which :meth:`concluded` computes it.

        The rows are a data set of their own; only their q(y) depends on the training set's sizes.
        """
        with pyro.validation_enabled(False):
            draws = self.draw(batch)
            found, q = closed_terms(self, draws), _probabilities(draws)
        present = cast(NGGPMixture, self.model).active
        sums = {"sums": size_sums(q[0, :, :-1][:, present]), "alone": q[0, :, -1]}
        weighted = {name: batch.weighted(value) for name, value in sums.items()}
        return _collapsed(found, batch.weighted(_negative_entropy(q))) | weighted

    def concluded(self, means: Terms, rows: int) -> Terms:
        law, terms = cast(NGGPMixture, self.model).law, dict(means)
        sums, alone = terms.pop("sums") * rows, terms.pop("alone") * rows
        evidence = exact_log_prior(law, sums, alone, float(rows)) / rows
        added = {"kl[y]": terms["kl[y]"] - evidence, "elbo": terms["elbo"] + evidence}
        return terms | added

    def loss_of(self, draws: Draws) -> Loss:
        loss, terms, _ = super().loss_of(draws)
        model, sites = cast(NGGPMixture, self.model), latent_sites(draws.guide_trace)
        data = draws.batch.data
        with torch.no_grad():
            probabilities = sites["y"]["fn"].probs
            carry = {
                "responsibilities": probabilities.reshape(-1, probabilities.shape[-1]),
                "data": torch.full_like(model.counted, data),
            }
            if WEIGHTS in draws.batch.context:
                particles = len(carry["responsibilities"]) // len(draws.batch.x)
                carry[WEIGHTS] = draws.batch.context[WEIGHTS].repeat(particles)
            terms["clusters"] = model.active.to(loss).sum()
            terms["occupied"] = model.occupancy(data).occupied.sum()
            terms["alone"] = model.alone(data) / data
            terms["log u"] = sites["v"]["value"].mean()
            if model.learn_law:
                terms["concentration"] = model.law.concentration
                terms["discount"] = model.law.discount
        if model.learn_law and torch.is_grad_enabled():
            evidence = model.log_evidence(data) / data
            loss = loss - (evidence - evidence.detach())
        return Loss(loss, self._reported(draws, terms), carry)

    def commit(self, carry: Mapping[str, Tensor]) -> None:
        """Update the model's running averages of cluster sizes by the batch."""
        cast(NGGPMixture, self.model).observe(
            carry["responsibilities"], self.rate, carry["data"], carry.get(WEIGHTS)
        )

    @torch.no_grad()
    def _reported(self, draws: Draws, terms: Terms) -> Terms:
        """The terms with the collapsed bound as ``elbo``."""
        model, q, data = cast(NGGPMixture, self.model), _probabilities(draws), draws.batch.data
        if len(draws.batch.x) < data or WEIGHTS in draws.batch.context:
            return _collapsed(terms, terms["kl[y]"] - self._tangent(draws))
        law, own, alone = model.law, q[..., :-1], q[..., -1].sum(-1)
        if own[0].numel() <= FEW:
            evidence = exact_log_prior(law, size_sums(own).sum(1), alone, float(data))
        else:
            sizes = Occupancy(*(part.sum(1) for part in Occupancy.of(own)))
            evidence = least_log_prior(law, sizes, alone, float(data))
        return _collapsed(terms, _negative_entropy(q) - evidence.mean() / data)

    def _tangent(self, draws: Draws) -> Tensor:
        """Collapsed bound minus the expected log conditional prior of y, in nats per datum.

        E_q[log p(y)] is expanded to first order in q(y) around the running averages, where its
        derivative is the logarithm of each datum's conditional prior.
        """
        model, data = cast(NGGPMixture, self.model), draws.batch.data
        sizes, alone = model.occupancy(data), model.alone(data)
        of_y = site_of(draws.model_trace, "y")["fn"].logits
        share = torch.cat([sizes.mean, alone.unsqueeze(0)]) / data
        expected = torch.where(share > 0, share * of_y, 0.0).sum(-1).mean()
        of_v = site_of(draws.model_trace, "v")["fn"]  # at the same sizes
        evidence = least_log_prior(model.law, sizes, alone, float(data), of_v)
        return evidence.mean() / data - expected


def _collapsed(terms: Terms, divergence: Tensor) -> Terms:
    """The terms with ``kl[y]`` of the collapsed bound, in which v has no term of its own."""
    pseudo = terms["elbo"]
    divergence = divergence.to(pseudo)
    rest = pseudo + terms["kl[y]"] + terms["kl[v]"]
    kept = {name: term for name, term in terms.items() if name != "kl[v]"}
    bound = {"elbo": rest - divergence, "pseudo-likelihood": pseudo}
    return kept | {"kl[y]": divergence} | bound


def _probabilities(draws: Draws) -> Tensor:
    """``(S, B, K + 1)`` probabilities q(y)."""
    probabilities: Tensor = site_of(draws.guide_trace, "y")["fn"].probs
    return probabilities.reshape(-1, *probabilities.shape[-2:])


def _negative_entropy(q: Tensor) -> Tensor:
    """``(B,)``: E[log q(y_n)], averaged over particles."""
    return torch.xlogy(q, q).sum(-1).mean(0)


@bound.register
def _(model: NGGPMixture, guide: nn.Module) -> ELBO:
    return Collapsed(model, guide)
