"""When a training saves a checkpoint: after each row, when one is due, and when a signal came."""

from collections.abc import Callable

from priorzoo.benchmarks.runs.folder import Checkpoints
from priorzoo.benchmarks.runs.interruption import Deferred
from priorzoo.inference.training.checkpoints import Packed


class Keeping(Deferred):
    """Inside ``with``, a signal waits for the end of a step, and a checkpoint is saved then.

    What comes between two intervals of a training, such as its validation, may take long: a copy of
    the state before it is kept in memory, and saved if a signal breaks it off.

    Args:
        checkpoints: where to.
        state: the state of the training, which can be saved between two steps.
    """

    def __init__(self, checkpoints: Checkpoints, state: Callable[[], Packed]) -> None:
        super().__init__()
        self._checkpoints, self._state = checkpoints, state
        self._copy: Packed | None = None

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            if self.wanted is not None and self._copy is not None:
                self.hurry()
                self._checkpoints.save(self._copy)
        finally:
            super().__exit__(kind, *rest)

    def due(self) -> bool:
        """Whether a checkpoint shall be saved after this step."""
        return self.wanted is not None or self._checkpoints.due

    def pause(self, slow: bool) -> None:
        """Between two steps: save a checkpoint if one is due, a copy before what is ``slow``."""
        if self.due():
            self.save()
        elif slow:
            self._copy = self._state()

    def save(self) -> None:
        """Save a checkpoint, and then end the training if a signal came."""
        self.hurry()
        self._checkpoints.save(self._state())
        self._copy = None
        self.check()
