"""Expectations over the enumerated sites of a guide, and score-function gradients of its draws."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from pyro import poutine
from torch import Tensor

from priorzoo.inference.batch import Batch
from priorzoo.inference.dimensions import varying
from priorzoo.inference.sites import (
    PARTICLES,
    Site,
    is_enumerated,
    is_scored,
    log_prob,
    plates_of,
    sample_sites,
    shape_of,
)


@dataclass(frozen=True)
class Score:
    """The score of a draw that is not fully reparameterised, or of an observed site of the guide.

    Args:
        name: the site.
        value: log density whose gradient is the score, in the batch shape of the site.
        plates: dimensions of the plates of the site by name.
        drawn: whether the guide draws the site. Observed sites without reparameterisation, such as
            factors, are the log density of draws that the user makes in some other way.
    """

    name: str
    value: Tensor
    plates: Mapping[str, int]
    drawn: bool

    @property
    def change(self) -> Tensor:
        """Zero, with the gradient of the score."""
        return self.value - self.value.detach()

    @property
    def local(self) -> bool:
        """Whether there is one draw for each datum."""
        return "data" in self.plates


class Weights:
    r"""Takes expectations over the enumerated sites, and adds score-function gradients.

    A cost f that depends on enumerated sites y and on a scored draw v of particle s adds

    .. math:: \sum_e q(e)\, \bigl(F_s(e) - b_s(e)\bigr)\, \nabla \log q(v_s \mid e), \quad
        F_s(e) = \sum_{y \setminus e} q(y \setminus e \mid e, v_s)\, f(y, v_s), \quad
        b_s = \tfrac{1}{S - 1} \textstyle\sum_{r \ne s} F_r

    to the gradient, where e are those of y that v depends on. The baseline b is the mean over the
    other particles of the *expected* cost. Subtracted inside the expectation it would be biased if
    q(y) depends on v, since then the weight of the baseline depends on v.

    Args:
        guide_trace: gives the probabilities of the enumerated sites, and the scores of the draws
            that are not fully reparameterised.
    """

    def __init__(self, guide_trace: poutine.Trace) -> None:
        self.log_q: dict[int, Tensor] = {}
        self.scores: list[Score] = []
        self.particle_dim: int | None = None
        for name, site in sample_sites(guide_trace):
            self.particle_dim = plates_of(site).get(PARTICLES, self.particle_dim)
            if is_enumerated(site):
                self.log_q[site["infer"]["_enumerate_dim"]] = log_prob(site)
            elif torch.is_grad_enabled() and (is_scored(site) or not site["fn"].has_rsample):
                score = site["fn"].score_parts(site["value"]).score_function
                if isinstance(score, Tensor):
                    drawn = not site["is_observed"]
                    self.scores.append(Score(name, score, plates_of(site), drawn))
        self.scores.sort(key=lambda score: score.local)

    def term(self, cost: Tensor, site: Site, before: Collection[str], batch: Batch) -> Tensor:
        """Expected cost of a site per datum: ``(B,)`` for a local site, otherwise divided by N.

        The costs of a local site are multiplied by the weights of the rows.

        Args:
            cost: in the batch shape of the site, ``(K_I, ..., K_1, [S,] ..., B)``.
            site: gives the plates; other plates, between S and B, are summed over.
            before: names of sites whose draws may enter the cost of a global site.
            batch: gives B and N.
        """
        plates = plates_of(site)
        mean = self._expected(cost, plates, before)
        if "data" in plates:
            return batch.weighted(self._of_rows(mean) * (len(batch.x) / batch.data))
        return mean.sum() / (self._particles(mean) * batch.data)

    def expect(self, score: Tensor, particles: int = 1, events: int = 0) -> Tensor:
        """Average ``(K_I, ..., K_1, [S,] ..., B, ...)`` to ``(B, ...)``, with 0 times log 0 as 0.

        Plates other than data and particles are summed over. The gradient includes the scores'.

        Args:
            score: values to average, with ``events`` dimensions to the right of the plates.
            particles: S; if it is above 1, particles are averaged too.

        Raises:
            ValueError: for events in further plates, which cannot be summed over.
        """
        if not events:
            plates = {"data": -1}
            if self.particle_dim is not None:
                plates[PARTICLES] = self.particle_dim
            return self._of_rows(self._expected(score, plates, ()))
        score = self._summed(score, events)
        if particles > 1 and self.particle_dim is not None:
            score = score.mean(self.particle_dim - events, keepdim=True)
        if score.shape[: -1 - events].numel() > 1:
            raise ValueError(
                f"Expected values of one site for each datum but got {tuple(score.shape)} with "
                f"{events} event dimension(s); choose a site that is in the plate 'data' only."
            )
        return score.reshape(score.shape[-1 - events :])

    def unplated_sizes(self, site: Site) -> dict[int, int]:
        """The sizes of the dimensions of a site that belong to no plate and no enumerated site."""
        shape, known = shape_of(site), {*plates_of(site).values(), *self.log_q}
        return {dim: shape[dim] for dim in varying(shape) if dim not in known}

    def _expected(self, cost: Tensor, plates: Mapping[str, int], before: Collection[str]) -> Tensor:
        """The cost with enumerated sites summed out, ``(1, ..., 1, [S,] ..., B)``."""
        scores = self._scores_in(cost, plates, before)
        if not scores:
            return self._summed(cost)
        # DiCE (Foerster et al., 2018): the factor is 1, its gradient that of the scores.
        changes = [self._over(plates, score) for score in scores]
        mean = self._summed(cost * torch.as_tensor(sum(changes)).exp())
        if self.particle_dim is not None:
            for score, change in zip(scores, changes, strict=True):
                if score.drawn:
                    mean = mean - self._summed(self._baseline(cost, score) * change)
        return mean

    def _scores_in(
        self, cost: Tensor, plates: Mapping[str, int], before: Collection[str]
    ) -> list[Score]:
        """The scores of the draws that a cost in these plates may depend on.

        A cost that does not vary along an enumerated site does not depend on a draw that does.
        """
        if not self.scores or not torch.is_grad_enabled():
            return []
        dims = self._enumerated_dims(cost)
        weighted = [cost, *(self.log_q[dim] for dim in self._with_parents(dims))]
        if self.particle_dim is not None and not any(self._particles(t) > 1 for t in weighted):
            return []  # the same for all particles: it does not depend on the draws
        found = []
        for score in self.scores:
            inside = "data" in plates or not score.local or not score.drawn or score.name in before
            if inside and self._enumerated_dims(score.value) <= dims:
                found.append(score)
        return found

    def _baseline(self, cost: Tensor, score: Score) -> Tensor:
        """The mean over the other particles of the cost, given what the score depends on."""
        above = self._with_parents(self._enumerated_dims(score.value))
        below = self._with_parents(self._enumerated_dims(cost)) - above
        fixed = self._weighted(cost.detach(), below).detach()
        count = self._particles(fixed)
        if count == 1:
            return fixed
        assert self.particle_dim is not None
        return (fixed.sum(self.particle_dim, keepdim=True) - fixed) / (count - 1)

    def _over(self, plates: Mapping[str, int], score: Score) -> Tensor:
        """The change of a score, summed over the plates that are not in ``plates``."""
        change = score.change
        shared = {dim for name, dim in score.plates.items() if plates.get(name) == dim}
        kept = shared | self.log_q.keys()
        lost = [d for d in range(-change.dim(), 0) if change.shape[d] > 1 and d not in kept]
        return change.sum(lost, keepdim=True) if lost else change

    def _of_rows(self, mean: Tensor) -> Tensor:
        """The mean over particles, summed over further plates: ``(B,)``."""
        dims = (dim for dim in range(-mean.dim(), -1) if dim != self.particle_dim)
        own = [dim for dim in dims if mean.shape[dim] > 1]
        mean = mean.sum(own, keepdim=True) if own else mean
        if self.particle_dim is not None and mean.dim() >= -self.particle_dim:
            mean = mean.mean(self.particle_dim)
        return mean.reshape(mean.shape[-1:])

    def _summed(self, score: Tensor, events: int = 0) -> Tensor:
        """The expectation over all enumerated sites that ``score`` depends on."""
        return self._weighted(
            score, self._with_parents(self._enumerated_dims(score, events)), events
        )

    def _weighted(self, score: Tensor, dims: Collection[int], events: int = 0) -> Tensor:
        """The sum over enumerated sites, weighted by their probabilities given the others."""
        if not dims:
            return score
        log_weight = torch.as_tensor(sum(self.log_q[dim] for dim in sorted(dims)))
        weight = log_weight.exp().reshape(*log_weight.shape, *[1] * events)
        finite = torch.where(weight == 0, 0.0, score)  # a NaN weight stays a NaN
        return (weight * finite).sum([dim - events for dim in sorted(dims)], keepdim=True)

    def _with_parents(self, dims: set[int]) -> set[int]:
        """The enumerated dimensions, and those that their probabilities depend on."""
        found = dims.union(*(self._enumerated_dims(self.log_q[dim]) for dim in dims))
        return found if found == dims else self._with_parents(found)

    def _enumerated_dims(self, score: Tensor, events: int = 0) -> set[int]:
        """The enumerated dimensions along which ``score`` varies."""
        plates = score.shape[: score.dim() - events]
        return {dim for dim in self.log_q if len(plates) >= -dim and plates[dim] > 1}

    def _particles(self, values: Tensor) -> int:
        """The number of particles along which the values may differ."""
        dim = self.particle_dim
        return 1 if dim is None or values.dim() < -dim else values.shape[dim]
