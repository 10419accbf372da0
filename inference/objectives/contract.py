"""What a training minimises, and what its step may ask of it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor, nn

from priorzoo.inference.batch import Batch, in_precision
from priorzoo.inference.objectives.schedules import Clock
from priorzoo.inference.sites import Site

Terms = dict[str, Tensor]


class Loss(NamedTuple):
    """The loss of a mini-batch.

    Args:
        value: what is minimised, in nats per datum, 0-dimensional.
        terms: what it is made of, by name, each ``(B,)`` or 0-dimensional; the history reports
            their means.
        carry: state to commit after the step, see :meth:`Objective.commit`.
    """

    value: Tensor
    terms: Terms
    carry: Mapping[str, Tensor] = {}


class Objective(nn.Module, ABC):
    """A loss of a model and its guide; to inherit from.

    A subclass gives :meth:`loss`, and the other methods only where it needs them. Steps of every
    kind (eager, compiled, captured on a GPU) call the same three: ``loss``, then, once the
    optimiser has moved the parameters, ``natural_gradients``, then ``commit``. The first two must
    not change any state, so that they can be recorded as one graph.

    Args:
        model, guide: programs that :func:`check_pair` accepts.
    """

    def __init__(self, model: nn.Module, guide: nn.Module) -> None:
        super().__init__()
        self.model, self.guide = model, guide
        self.clock = Clock()

    @abstractmethod
    def loss(self, batch: Batch) -> Loss:
        """The loss of a mini-batch, with gradients for the parameters that descend it."""

    def forward(
        self, x: Tensor, size: int | None = None, labels: Mapping[str, Tensor] | None = None
    ) -> tuple[Tensor, Terms]:
        """Value and terms of :meth:`loss` of rows ``(B, P)`` that stand for ``size`` data."""
        found = self.loss(in_precision(self.model, Batch(x, size, labels or {})))
        return found.value, found.terms

    def natural_gradients(self, batch: Batch) -> Mapping[str, Tensor]:
        """Gradients for a second step of the optimiser, by the names of the parameters.

        They are computed once the optimiser has taken its step on the gradients of :meth:`loss`.
        """
        return {}

    def commit(self, carry: Mapping[str, Tensor]) -> None:
        """Take up what :meth:`loss` left in ``carry``, in place, without host synchronisation."""

    def check(self, sites: Mapping[str, Site]) -> None:
        """Refuse settings that do not fit the guide's latent ``sites``, before training."""
