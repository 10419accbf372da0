"""When a learning rate schedule is stepped: after steps, passes or validations."""

from typing import Any

from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from priorzoo.inference.training.settings import Unit


class Schedule:
    """A learning rate schedule and when it is stepped; nothing happens without one.

    Args:
        made: the schedule of an optimiser, or None. ``ReduceLROnPlateau`` is stepped after each
            validation, whatever the unit.
        unit: any other schedule is stepped after each pass (``epoch``) or each ``step``.
        epoch: number of steps in a pass.
    """

    def __init__(self, made: LRScheduler | None, unit: Unit, epoch: int) -> None:
        self.made = made
        self.every = 1 if unit == "step" else epoch

    def ahead(self, step: int, until: int) -> int:
        """The number of steps from ``step`` to ``until``, or to where the schedule is stepped."""
        if self.made is None or isinstance(self.made, ReduceLROnPlateau):
            return until - step
        return min(until - step, self.every - step % self.every)

    def take(self, step: int) -> None:
        """Step the schedule if that is due after this many training steps."""
        due = step % self.every == 0
        if self.made is not None and due and not isinstance(self.made, ReduceLROnPlateau):
            self.made.step()

    def validated(self, bound: float) -> None:
        """Tell the schedule the bound of held-out rows, in nats per datum, if it needs that."""
        if isinstance(self.made, ReduceLROnPlateau):
            self.made.step(-bound)

    def state(self) -> dict[str, Any] | None:
        """What the schedule keeps between two steps; None without one."""
        return None if self.made is None else self.made.state_dict()

    def restore(self, state: dict[str, Any] | None) -> None:
        """Continue from a :meth:`state`."""
        if self.made is not None and state is not None:
            self.made.load_state_dict(state)
