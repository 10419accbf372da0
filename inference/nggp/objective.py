"""The objective of mixtures whose weights are integrated out: it keeps count of the clusters."""

from typing import Any

import torch
from torch import Tensor, nn

from priorzoo.inference.objectives.elbo import ELBO, Terms
from priorzoo.inference.objectives.schedules import Clock
from priorzoo.inference.pairs import Guessed


class Census(Clock):
    """A clock that with each step moves the model's expected sizes towards those of the batch.

    Args:
        model: an :class:`NGGPMixture`.
        rate: share of the batch in the running mean.
    """

    model: Any

    def __init__(self, model: Any, rate: float) -> None:
        super().__init__()
        self.__dict__["model"] = model
        self.rate = rate
        self.pending: Tensor | None = None
        self.data = 0

    def tick(self) -> None:
        """Count one step and its batch, in place and without host synchronisation."""
        super().tick()
        if self.pending is not None:
            self.model.observe(self.pending, self.rate, self.data)
            self.pending = None


class Collapsed(ELBO):
    r"""The bound for :class:`NGGPMixture`, beside whose descent the sizes are kept up to date.

    Each datum's prior is its predictive law given running expected sizes of the others, scaled to
    the N data that they stand for. Its gradient for q(y_n) is that of the collapsed bound, of which
    the value :class:`Judge` computes. Without this objective the sizes would stay as they
    are. Terms that the loss does not contain: ``clusters``, how many there are; ``occupied``, E[K]
    of those that hold data; ``alone``, the share of data in clusters of their own; ``log u``, the
    draw of v.

    Where the model learns alpha and sigma, their gradient is that of the bound's log p(y), with v
    integrated out, at the running sizes; the terms then have both. That of the predictive laws
    would be a pseudo-likelihood's, which knows of no cluster but singletons that it was once new.

    Args:
        model, guide, settings: as in :class:`ELBO`.
        rate: of the running mean, per step.
    """

    clock: Census
    counting = True

    def __init__(
        self, model: nn.Module, guide: nn.Module, *settings: Any, rate: float = 0.05, **more: Any
    ) -> None:
        super().__init__(model, guide, *settings, **more)
        if not 0 < rate <= 1:
            raise ValueError(f"Expected a rate in (0, 1] but got {rate}.")
        self.rate = rate
        self.clock = Census(model, rate)

    @property
    def left(self) -> Tensor | None:
        """The probabilities of the batch's clusters, from a call to the next tick."""
        return self.clock.pending

    @left.setter
    def left(self, probabilities: Tensor | None) -> None:
        self.clock.pending = probabilities

    def forward(self, x: Tensor, size: int | None = None, *rest: Any) -> tuple[Tensor, Terms]:
        with Guessed() as guessed:
            loss, terms = super().forward(x, size, *rest)
        model: Any = self.model
        data = len(x) if size is None else size
        with torch.no_grad():
            probabilities = guessed.sites["y"]["fn"].probs
            if self.training:
                self.clock.pending = probabilities.reshape(-1, probabilities.shape[-1])
                self.clock.data = data
            terms["clusters"] = model.active.to(loss).sum()
            terms["occupied"] = model.occupancy(data).occupied.sum()
            terms["alone"] = model.alone(data) / data
            terms["log u"] = guessed.sites["v"]["value"].mean()
            if model.learn_law:
                terms["concentration"] = model.law.concentration
                terms["discount"] = model.law.discount
        if model.learn_law and torch.is_grad_enabled():
            told = model.log_evidence(data) / data
            loss = loss - (told - told.detach())
        return loss, terms
