"""When a training saves a checkpoint: after each row of the history, in time, and at a signal."""

import time
from collections.abc import Callable

from priorzoo.benchmarks.runs.folder import Checkpoints
from priorzoo.benchmarks.runs.interruption import Deferred, stop
from priorzoo.inference.processes import ALONE, Processes
from priorzoo.inference.training.checkpoints import Packed

AGREE = 0.25  # seconds after which several processes ask each other whether one is due


class Keeping(Deferred):
    """Inside ``with``, a signal waits for the end of a step, and a checkpoint is saved then.

    What comes between two intervals of a training, such as its validation, may take long: a copy of
    the state before it is kept in memory, and saved if a signal breaks it off.

    Args:
        checkpoints: where to.
        state: the state of the training, which can be saved between two steps.
        processes: those that train together. A signal that any of them gets ends all at the same
            step; the first saves.
    """

    def __init__(
        self, checkpoints: Checkpoints, state: Callable[[], Packed], processes: Processes = ALONE
    ) -> None:
        super().__init__()
        self._checkpoints, self._state, self._processes = checkpoints, state, processes
        self._copy: Packed | None = None
        self._steps = self._left = 0  # that were and are to be taken before they ask again
        self._agreed = 0  # the signal that all processes know of
        self._asked = time.monotonic()

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            if self.wanted is not None and self._copy is not None:
                self.hurry()
                self._checkpoints.save(self._copy)
        finally:
            super().__exit__(kind, *rest)

    def due(self) -> bool:
        """Whether a checkpoint shall be saved after this step."""
        self._left -= 1
        return self._left < 0 and self._agree()

    def pause(self, slow: bool) -> None:
        """Between two steps: save a checkpoint if one is due, a copy before what is ``slow``."""
        if self._agree():
            self._save()
        elif slow and self._processes.is_first:
            self._copy = self._state()

    def save(self) -> None:
        """Save a checkpoint, and then end the training if a signal came."""
        self._agree()
        self._save()

    def _save(self) -> None:
        self.hurry()
        if self._processes.is_first:
            self._checkpoints.save(self._state())
        self._copy = None
        if self._processes.count == 1:
            self.check()
        elif self._agreed:
            stop(self._agreed)

    def _agree(self) -> bool:
        """Whether a checkpoint is due, by the first process's clock or a signal to any."""
        due = self._processes.is_first and self._checkpoints.due
        wanted, late, steps = self._processes.most(self.wanted or 0, int(due), self._spare())
        self._agreed = wanted
        self.wanted = wanted or self.wanted  # one that came just now is for the next time
        self._left = self._steps = steps
        return bool(wanted or late)

    def _spare(self) -> int:
        """The number of steps after which the first asks the others again."""
        took, self._asked = time.monotonic() - self._asked, time.monotonic()
        if self._processes.count == 1 or not self._processes.is_first:
            return 0
        return min(1000, int(AGREE * (self._steps + 1) / max(took, 1e-6)))
