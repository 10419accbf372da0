"""Taking training steps, and the state of everything that they change."""

import time
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from priorzoo.inference.batch import Batch
from priorzoo.inference.data.batches import Batches
from priorzoo.inference.objectives.contract import Objective, Terms
from priorzoo.inference.progress import Progress
from priorzoo.inference.randomness import Stream
from priorzoo.inference.training.averaging import MovingAverage
from priorzoo.inference.training.captured import Captured
from priorzoo.inference.training.compiled import Compiled
from priorzoo.inference.training.execution import Execution, Recorded, Steps
from priorzoo.inference.training.nonfinite import Place
from priorzoo.inference.training.scheduling import Schedule
from priorzoo.inference.training.settings import prepare
from priorzoo.inference.training.step import Precision, take_step
from priorzoo.inference.training.watch import Trouble, Undo, Watch

TrainingState = dict[str, Any]


def steps_of(
    objective: Objective,
    optimiser: Optimizer,
    batches: Batches,
    execution: Execution,
    *,
    clip: float | None,
    precision: Precision,
    skips: bool,
) -> Steps:
    """The steps of a training in one of the ways to run them.

    Args:
        objective, optimiser, batches: of the training.
        execution: as :func:`choose` returns it, not ``auto``.
        clip, precision: as in :func:`descend`.
        skips: whether a step with NaN or infinity is undone and the training goes on.
    """
    undo = Undo(objective, optimiser) if skips else None
    watch = Watch(objective, counts=skips)

    def take(batch: Batch) -> Terms:
        return take_step(objective, optimiser, batch, clip=clip, precision=precision, watch=watch)

    if execution == "eager":
        return Steps(take, batches, watch, undo)
    in_memory = isinstance(batches.data, Tensor)
    compiled = Compiled(
        objective,
        optimiser,
        clip=clip,
        precision=precision,
        watch=watch,
        rows=min(batches.batch_size, batches.rows) if in_memory else None,
    )
    kind = Captured if execution == "cudagraph" else Recorded
    return kind(compiled, batches, watch, undo)


class Descent:
    """Takes training steps; its state is everything that they change.

    Args:
        objective, optimiser: of the training.
        schedule: steps the learning rate schedule.
        average: follows the parameters, or None.
        steps: as :func:`steps_of` makes them.
        execution: how these are run.
        stream: of their draws.
    """

    def __init__(
        self,
        objective: Objective,
        optimiser: Optimizer,
        schedule: Schedule,
        average: MovingAverage | None,
        steps: Steps,
        execution: Execution,
        stream: Stream,
    ) -> None:
        self.objective, self.optimiser, self.execution = objective, optimiser, execution
        self.schedule, self.average = schedule, average
        self.steps, self.batches, self.stream = steps, steps.batches, stream
        self.step, self.stopped = 0, False
        self.seconds = 0.0  # of all steps, also of those that were undone

    def advance(self, until: int, bar: Progress, due: Callable[[], bool] | None) -> None:
        """Train until a step, or to where a pause is due, without host synchronisation."""
        begun = time.perf_counter()
        with self.stream:
            while self.step < until:
                self.stream.let_others_run()
                taken = self.steps.take(self._ahead(until))
                self.step += taken
                if self.average is not None:
                    self.average.take()
                bar.update(taken)
                self.schedule.take(self.step)
                if due is not None and due():
                    break
        self.seconds += time.perf_counter() - begun

    def place(self, trouble: Trouble) -> Place:
        """Where the first step was that was not finite."""
        before = self.step - self.steps.count + trouble.after
        passed, batch = divmod(before, self.batches.epoch)
        rows = self.steps.rows_of(trouble.after, batch)
        return Place(before + 1, batch + 1, passed + 1, rows)

    def state(self) -> TrainingState:
        """What steps change, but for the position in an iterable that has none."""
        saved, buffers = self.objective.state_dict(), self.objective.named_buffers()
        state: TrainingState = {
            "objective": saved,
            "buffers": {n: b for n, b in buffers if n not in saved and not n.startswith("clock.")},
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state(),
            "sums": self.steps.state(),
            "random": self.stream.state,
            "clock": self.objective.clock.step,
            "step": self.step,
            "stopped": self.stopped,
        }
        if self.batches.resumable:
            state["batches"] = self.batches.state()
        if self.average is not None:
            state["average"] = self.average.state()
        return state

    def restore(self, state: TrainingState) -> None:
        """Continue from a :meth:`state`."""
        self.objective.load_state_dict(state["objective"])
        self.optimiser.load_state_dict(state["optimiser"])
        prepare(self.optimiser, self.execution)
        self.steps.restore(state["sums"])
        self.schedule.restore(state["schedule"])
        if "batches" in state:
            self.batches.restore(state["batches"])
        buffers = dict(self.objective.named_buffers())
        for name, tensor in state.get("buffers", {}).items():
            buffers[name].copy_(tensor)
        if self.average is not None:
            self.average.restore(state["average"])
        self.stream.state = state["random"]
        self.objective.clock.step.copy_(state["clock"])
        self.step, self.stopped = state["step"], state["stopped"]

    def _ahead(self, until: int) -> int:
        """The number of steps up to a step, or up to where schedule or average move."""
        return 1 if self.average is not None else self.schedule.ahead(self.step, until)
