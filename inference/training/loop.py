"""The training loop: batches, history, evaluation, early stopping, and errors for NaN."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from priorzoo.inference.batch import Batch, Context, Labels, Transform
from priorzoo.inference.data.stored.rows import StoredRows
from priorzoo.inference.data.streams import Iterables
from priorzoo.inference.data.tensors import check_count
from priorzoo.inference.evaluation import evaluate
from priorzoo.inference.objectives.contract import Objective
from priorzoo.inference.objectives.elbo import ELBO
from priorzoo.inference.processes import ALONE, Processes
from priorzoo.inference.progress import Progress, say
from priorzoo.inference.randomness import Stream
from priorzoo.inference.running import PROGRAM_LOCK, keeping_state
from priorzoo.inference.training.averaging import MovingAverage
from priorzoo.inference.training.compiled import unheard
from priorzoo.inference.training.descent import Descent, TrainingState, steps_of
from priorzoo.inference.training.dry_run import check_last_batch, create_parameters
from priorzoo.inference.training.execution import Execution, Recorded, choose
from priorzoo.inference.training.given import batches_of, check_given, held_out
from priorzoo.inference.training.leaving import Leaving
from priorzoo.inference.training.nonfinite import OnNonfinite, Remedy, rates_of, rescale
from priorzoo.inference.training.reporting import Reports, Row
from priorzoo.inference.training.scheduling import Schedule
from priorzoo.inference.training.settings import (
    MakesOptimiser,
    Unit,
    check_counts,
    check_objective,
    check_patience,
    check_schedule,
    learnt_parameters,
    length_of,
    optimiser_of,
    prepare,
)
from priorzoo.inference.training.step import Precision, check_step


def fit(
    model: nn.Module,
    guide: nn.Module,
    data: Tensor | Iterables,
    *,
    steps: int | None = None,
    epochs: float | None = None,
    progress: bool = False,
    **settings: Any,
) -> list[Row]:
    """Train a model and its guide, in place, and return the history as rows.

    Args:
        model, guide: a pair that :func:`check_pair` accepts.
        data: rows ``(N, P)`` on the device to train on, :class:`StoredRows` for files that are
            larger than memory, or any iterable of batches.
        steps, epochs: length of the training; give exactly one of the two.
        progress: whether to show a progress bar with the terms.
        settings: the other arguments of :class:`Training`.

    Raises:
        ValueError: for a pair that does not fit, data that the likelihood does not accept, or
            invalid settings.
        FloatingPointError: if a term or gradient becomes NaN or infinite, see ``on_nonfinite``.
    """
    return Training(model, guide, data, **settings).run(steps, epochs, progress=progress)


class Training:
    """A training that can be continued by further calls of :meth:`run`; :func:`fit` calls it once.

    Args:
        model, guide, data: as in :func:`fit`.
        objective: of the same model and guide; ``ELBO(model, guide)`` if None.
        optimiser: makes an optimiser of parameters; Adam if None.
        lr: Adam's learning rate, 0.001 if None; another optimiser has its own.
        schedule: makes a learning rate schedule of that optimiser. ``ReduceLROnPlateau`` gets the
            negative validation bound after each validation.
        schedule_unit: any other schedule is stepped after each pass over the data (``epoch``) or
            after each ``step``, as a warm-up or one-cycle schedule needs.
        labels: labels of discrete sites, each ``(N,)`` integers with -1 for unknown, if ``data`` is
            a tensor; the guide's site is set to known labels.
        context: keyword arguments of model and guide beside x, such as an exposure, each
            ``(N, ...)``, if ``data`` is a tensor; batches of an iterable contain their own. Its
            ``weights``, ``(N,)``, count a row of weight w as w rows; those of an iterable must have
            mean 1.
        batch_size: rows in a batch, if ``data`` is a tensor; the last of a pass may be smaller.
        size: number N of data in the data set, required for an iterable of batches.
        transform: applied to each batch, such as :func:`binarised` for dynamic binarisation.
        clip: maximal norm of the gradient; None for no clipping.
        average: decay of the :class:`MovingAverage` of the parameters, such as 0.999, which are
            evaluated and left after :meth:`run` in place of the latest; None for the latest.
        precision: see :func:`descend`.
        step: how a step is run. ``eager``; ``compiled``, see :class:`Compiled`; ``cudagraph``, see
            :class:`Captured`; or ``auto``, the fastest of them for the device and the data.
        seed: seed of order, transform and draws; the global random state is not changed.
        every: steps between two rows of the history; one pass over the data if None.
        validation: held-out rows ``(V, P)``, or :class:`StoredRows`, evaluated for each row of the
            history.
        validation_context: keyword arguments for these rows, each ``(V, ...)``.
        on_nonfinite: what to do about a step with terms or gradients that are NaN or infinite:
            ``raise``, ``skip`` or ``rollback``, see :class:`Remedy`. With the last two, a row of
            the history with split ``nonfinite`` says what was done.
        rollbacks: how often ``rollback`` goes back.
        patience: number of validations without a better bound after which the training stops; None
            for no early stopping. With it, the parameters after :meth:`run` are the best so far.
        record: called with each new row of the history.
        checkpoint: called after each row of the history, when :meth:`state` can be saved.
        due: asked after each step whether ``pause`` shall be called before the next.
        pause: called then and before each row of the history, when :meth:`state` can be saved too.
        processes: those that share each batch, see :func:`joined`; all of them must make the same
            calls, with the whole data. A step is then that of one process with the whole batch, and
            so is the state.
    """

    def __init__(
        self,
        model: nn.Module,
        guide: nn.Module,
        data: Tensor | Iterables,
        *,
        objective: Objective | None = None,
        optimiser: MakesOptimiser | None = None,
        lr: float | None = None,
        schedule: Callable[[Optimizer], LRScheduler] | None = None,
        schedule_unit: Unit = "epoch",
        labels: Labels | None = None,
        context: Context | None = None,
        batch_size: int = 100,
        size: int | None = None,
        transform: Transform | None = None,
        clip: float | None = None,
        average: float | None = None,
        precision: Precision = "float32",
        step: Execution = "eager",
        seed: int = 0,
        every: int | None = None,
        validation: Tensor | StoredRows | None = None,
        validation_context: Context | None = None,
        patience: int | None = None,
        on_nonfinite: OnNonfinite = "raise",
        rollbacks: int = 3,
        record: Callable[[Row], None] | None = None,
        checkpoint: Callable[[], None] | None = None,
        due: Callable[[], bool] | None = None,
        pause: Callable[[], None] | None = None,
        processes: Processes = ALONE,
    ) -> None:
        self.processes = processes
        self.model, self.guide, self.transform = model, guide, transform
        self.objective = ELBO(model, guide) if objective is None else objective
        first = next(self.objective.parameters(), data if isinstance(data, Tensor) else None)
        self.device = torch.device("cpu") if first is None else first.device
        self.objective.to(self.device).train()  # a loaded pair is in evaluation mode
        self.average = None if average is None else MovingAverage(self.objective, average)
        self.seed, self.every, self.patience = seed, every, patience
        check_count(batch_size, "batch_size")
        check_counts(every=every, patience=patience)
        given = data, labels, context, batch_size, size, transform, self.device
        self.batches = batches_of(model, *given, processes)
        self.size, self.epoch = self.batches.size, self.batches.epoch
        create_parameters(model, guide, self.batches, seed)
        parameters = learnt_parameters(self.objective, self.batches)
        in_memory = isinstance(self.batches.data, Tensor)
        self.execution = choose(step, self.device, in_memory, processes.count > 1)
        self.optimiser = optimiser_of(optimiser, lr, parameters)
        self.rates, self.remedy = rates_of(self.optimiser), Remedy(on_nonfinite, rollbacks)
        prepare(self.optimiser, self.execution)
        self.schedule = None if schedule is None else schedule(self.optimiser)
        self.record, self.checkpoint, self.due, self.pause = record, checkpoint, due, pause
        check_given(model, guide, self.batches)
        held = validation, validation_context, transform, self.device
        self.validation = held_out(model, guide, *held)
        check_step(clip, precision)
        check_objective(self.objective, model, guide, self.batches)
        check_schedule(self.optimiser, self.schedule, schedule_unit, self.validation)
        check_patience(patience, self.validation)
        self._begin(schedule_unit, clip, precision)
        check_last_batch(self.objective, self.batches, precision, seed)

    def _begin(self, unit: Unit, clip: float | None, precision: Precision) -> None:
        """Initialise everything that changes during the training."""
        self.objective.clock.restart(self.epoch)
        self.stream = Stream(self.seed, self.device)
        skips = self.remedy.policy == "skip"
        own = self.objective, self.optimiser, self.batches, self.execution
        self.steps = steps_of(*own, clip=clip, precision=precision, skips=skips)
        schedule = Schedule(self.schedule, unit, self.epoch)
        moved = self.objective, self.optimiser, schedule, self.average
        self.descent = Descent(*moved, self.steps, self.execution, self.stream)
        self.leaving = Leaving(self.objective, self.average, self.patience)
        validate = None if self.validation is None else self._validated
        self.reports = Reports(self.descent, self.remedy, self.leaving, validate, self._tell)
        self.history = self.reports.rows

    @property
    def step(self) -> int:
        """The number of steps taken."""
        return self.descent.step

    @property
    def stopped(self) -> bool:
        """Whether the training has stopped early."""
        return self.descent.stopped

    @property
    def seconds(self) -> float:
        """Seconds in which steps were taken, without evaluation."""
        return self.descent.seconds

    def length(self, steps: int | None = None, epochs: float | None = None) -> int:
        """The number of steps in ``steps`` steps or ``epochs`` passes over the data.

        Raises:
            ValueError: unless exactly one of the two is given, and it is finite and positive.
        """
        return length_of(steps, epochs, self.epoch)

    def run(
        self, steps: int | None = None, epochs: float | None = None, *, progress: bool = False
    ) -> list[Row]:
        """Train for more steps or passes over the data; returns the whole history so far."""
        return self.run_to(self.step + self.length(steps, epochs), progress=progress)

    def run_to(self, last: int, *, progress: bool = False) -> list[Row]:
        """Train up to a step, also from a :meth:`state` of which only the row is missing."""
        every = self.epoch if self.every is None else self.every
        self.objective.clock.total = last
        self.leaving.put_back()
        if self.remedy.good is None or not self.steps.count:
            self.remedy.keep(self.descent.state)
        if isinstance(self.steps, Recorded):
            self.steps.descend.tell = say if progress else unheard
        with Progress(shown=progress, total=last, initial=self.step, unit="step") as bar:
            while (self.step < last or self.steps.count) and not self.stopped:
                until = min(last, ((self.step - self.steps.count) // every + 1) * every)
                self.descent.advance(until, bar, self.due)
                if not self.reports.gone_back():
                    if self.pause is not None:
                        self.pause()
                    if self.step == until:
                        self._report(bar)
                bar.update(self.step - bar.n)
        self.leaving.put()
        return self.history

    def averaged(self) -> AbstractContextManager[None]:
        """Inside ``with``, the parameters are those to evaluate: their averages, if there are any.

        No step may be taken there, and no :meth:`state`.
        """
        return self.leaving.averaged()

    def moved(self) -> None:
        """Tell the training that its parameters were changed between two steps, as moves do.

        Averages begin anew: those of components at two places would be of neither.
        """
        self.leaving.moved()

    def state(self) -> TrainingState:
        """The state from which a new training with the same settings can continue, without history.

        Raises:
            ValueError: for an iterable, which cannot be resumed in the middle of a pass.
        """
        own: TrainingState = {"batches": self.batches.state(), "seconds": self.seconds}
        own |= {"rates": self.rates} | self.leaving.state()
        return self.descent.state() | own | {"remedy": self.remedy.state(bool(self.steps.count))}

    def restore(self, state: TrainingState) -> None:
        """Continue from a :meth:`state`, exactly as without the interruption.

        If this training began with other learning rates than that of the state, the rates that were
        reached change in the same proportion.
        """
        self.descent.restore(state)
        self.descent.seconds = state["seconds"]
        self.leaving.restore(state)
        if "remedy" in state:
            self.remedy.restore(state["remedy"])
            rescale(self.optimiser, self.schedule, state["rates"], self.rates)

    def _report(self, bar: Progress) -> None:
        """Add a row to the history, and keep the state."""
        self.processes.level(self.objective)  # running statistics of each share's own rows differ
        terms = self.reports.report()
        if terms is None:
            return
        if self.checkpoint is not None:
            self.checkpoint()
        self.remedy.keep(self.descent.state)
        bar.set_postfix({k: f"{v:.4g}" for k, v in terms.items() if _is_shown(k)})

    def _tell(self, row: Row) -> None:
        """Call ``record``, which may be set at any time."""
        if self.record is not None:
            self.record(row)

    def _validated(self) -> dict[str, float]:
        """The terms of the held-out rows, in nats per datum."""
        held = self.validation
        assert held is not None
        x, context = (held.x, held.context) if isinstance(held, Batch) else (held, None)
        with PROGRAM_LOCK, keeping_state(self.model, self.guide):
            how: dict[str, Any] = {"transform": self.transform, "seed": self.seed}
            how["processes"] = self.processes
            return evaluate(self.model, self.guide, x, context=context, **how)


def _is_shown(term: str) -> bool:
    return term in ("elbo", "reconstruction") or term.startswith("kl[")
