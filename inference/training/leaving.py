"""The parameters that a training leaves: the best, the averages, or the latest."""

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from priorzoo.inference.objectives.contract import Objective
from priorzoo.inference.training.averaging import MovingAverage

Parameters = Mapping[str, Tensor]


class Leaving:
    """Early stopping, and the parameters that a training leaves.

    With ``patience`` these are the best so far by the bound of held-out rows, otherwise the moving
    averages if there are any, and otherwise the latest. A training that goes on does so from the
    latest.

    Args:
        objective: of the training.
        average: of its parameters, or None.
        patience: number of validations without a better bound after which training stops; None
            for no early stopping.
    """

    def __init__(
        self, objective: Objective, average: MovingAverage | None, patience: int | None
    ) -> None:
        self.objective, self.average, self.patience = objective, average, patience
        self.bound, self.since = -math.inf, 0  # the best, and validations since then
        self.best: Parameters = {}
        self.latest: Parameters = {}  # to continue from, once others took their place

    def averaged(self) -> AbstractContextManager[None]:
        """Inside ``with``, the parameters are those to evaluate: their averages, if there are any.

        No step may be taken there.
        """
        return nullcontext() if self.average is None else self.average.in_place()

    def stops(self, bound: float) -> bool:
        """Take the bound of held-out rows, in nats per datum; returns whether training stops."""
        if self.patience is None:
            return False
        if bound > self.bound:
            self.bound, self.since, self.best = bound, 0, self._copy()
            return False
        self.since += 1
        return self.since >= self.patience

    def put(self) -> None:
        """Put the parameters that the training leaves in place of the latest, and keep these."""
        self.latest = self._copy() if self.since or self.average is not None else {}
        if self.since:
            self.objective.load_state_dict(self.best)
        elif self.average is not None:
            self.average.put()

    def put_back(self) -> None:
        """Put the latest parameters back, unless those in place were changed in the meantime."""
        self._keep_changed()
        if self.latest:
            self.objective.load_state_dict(self.latest)
            self.latest = {}

    def moved(self) -> None:
        """Let averages begin anew, since parameters were changed between two steps."""
        self._keep_changed()
        if self.average is not None:
            self.average.restart()

    def state(self) -> dict[str, Any]:
        """The best bound with its parameters, and the latest parameters if others are in place."""
        return {"best": (self.bound, self.since, self.best), "latest": self.latest}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a :meth:`state`."""
        self.bound, self.since, self.best = state["best"]
        self.latest = state["latest"]

    def _keep_changed(self) -> None:
        """Forget the latest parameters if those in place are no longer what was left."""
        values = {} if self.average is None else self.average.values
        left = self.best if self.since else values
        for name, parameter in self.objective.named_parameters():
            if name in left and not torch.equal(parameter.detach().to(left[name]), left[name]):
                self.latest = {}

    def _copy(self) -> Parameters:
        return {name: tensor.clone() for name, tensor in self.objective.state_dict().items()}
