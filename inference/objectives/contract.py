"""The interface of objectives: a loss, natural gradients, and state to commit after a step."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor, nn

from priorzoo.inference.batch import Batch, Context, Labels, in_precision
from priorzoo.inference.objectives.schedules import Clock
from priorzoo.inference.running import PROGRAM_LOCK
from priorzoo.inference.sites import Site

Terms = dict[str, Tensor]


class Loss(NamedTuple):
    """The loss of a mini-batch.

    Args:
        value: the loss to minimise, in nats per datum, 0-dimensional.
        terms: its parts and other values to report, by name, each ``(B,)`` or 0-dimensional; the
            history has their means.
        carry: state to commit after the step, see :meth:`Objective.commit`.
    """

    value: Tensor
    terms: Terms
    carry: Mapping[str, Tensor] = {}


class Objective(nn.Module, ABC):
    """Base class of losses of a model and its guide.

    A subclass defines :meth:`loss`, and the other methods only if it needs them. A step of any kind
    (eager, compiled, captured on a GPU) calls ``loss``, lets the optimiser step, and then calls
    ``natural_gradients`` and ``commit``. The first two must not change any state, so that they can
    be recorded as graphs.

    Args:
        model, guide: programs that :func:`check_pair` accepts.
    """

    def __init__(self, model: nn.Module, guide: nn.Module) -> None:
        super().__init__()
        self.model, self.guide = model, guide
        self.clock = Clock()

    @abstractmethod
    def loss(self, batch: Batch) -> Loss:
        """The loss of a mini-batch, differentiable with respect to the parameters."""

    def forward(
        self,
        x: Tensor,
        size: int | None = None,
        labels: Labels | None = None,
        context: Context | None = None,
    ) -> tuple[Tensor, Terms]:
        """Value and terms of :meth:`loss` for rows ``(B, P)`` of a data set of ``size`` rows."""
        batch = Batch(x, size, labels or {}, context or {})
        with PROGRAM_LOCK:
            found = self.loss(in_precision(self.model, batch))
        return found.value, found.terms

    def natural_gradients(self, batch: Batch) -> Mapping[str, Tensor]:
        """Gradients for a second step of the optimiser, by parameter name.

        They are computed after the optimiser's step on the gradients of :meth:`loss`.
        """
        return {}

    def commit(self, carry: Mapping[str, Tensor]) -> None:
        """Update state in place by the ``carry`` of :meth:`loss`, without host synchronisation."""

    def check(self, sites: Mapping[str, Site]) -> None:
        """Check before training that the settings fit the guide's latent ``sites``.

        Raises:
            ValueError: if they do not.
        """
