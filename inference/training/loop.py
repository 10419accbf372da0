"""The training loop: batches, history, evaluation, early stopping, and errors for NaN."""

import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from priorzoo.inference.batch import Batch, Context, Labels, Transform
from priorzoo.inference.checking import check_pair
from priorzoo.inference.data.stored.rows import StoredRows
from priorzoo.inference.data.streams import Iterables
from priorzoo.inference.data.tensors import check_count
from priorzoo.inference.evaluation import evaluate
from priorzoo.inference.objectives.contract import Objective, Terms
from priorzoo.inference.objectives.elbo import ELBO
from priorzoo.inference.processes import ALONE, Processes
from priorzoo.inference.progress import Progress, say
from priorzoo.inference.randomness import Stream
from priorzoo.inference.running import PROGRAM_LOCK, keeping_state
from priorzoo.inference.training.averaging import MovingAverage
from priorzoo.inference.training.captured import Captured
from priorzoo.inference.training.compiled import Compiled, unheard
from priorzoo.inference.training.dry_run import check_last_batch, create_parameters
from priorzoo.inference.training.execution import (
    Execution,
    Recorded,
    Steps,
    choose,
)
from priorzoo.inference.training.given import batches_of, check_given, held_out
from priorzoo.inference.training.nonfinite import (
    SMALLER,
    OnNonfinite,
    Place,
    Remedy,
    rates_of,
    rescale,
    scale_rates,
)
from priorzoo.inference.training.settings import (
    MakesOptimiser,
    Unit,
    check_counts,
    check_schedule,
    check_sites,
    maker_of,
    prepare,
)
from priorzoo.inference.training.step import Precision, check_step, take_step
from priorzoo.inference.training.watch import Trouble, Undo, Watch

Row = dict[str, Any]
State = Mapping[str, Tensor]
TrainingState = dict[str, Any]


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
        self.in_memory = isinstance(self.batches.data, Tensor)
        create_parameters(model, guide, self.batches, seed)
        parameters = self._learnt()
        self.execution = choose(step, self.device, self.in_memory, processes.count > 1)
        self.optimiser = maker_of(optimiser, lr)(parameters)
        self.rates, self.remedy = rates_of(self.optimiser), Remedy(on_nonfinite, rollbacks)
        prepare(self.optimiser, self.execution)
        self.schedule = None if schedule is None else schedule(self.optimiser)
        self.schedule_unit, self.clip, self.precision = schedule_unit, clip, precision
        self.record, self.checkpoint, self.due, self.pause = record, checkpoint, due, pause
        check_given(model, guide, self.batches)
        held = validation, validation_context, transform, self.device
        self.validation = held_out(model, guide, *held)
        self._check()
        self._begin()
        check_last_batch(self.objective, self.batches, precision, seed)

    def _learnt(self) -> list[nn.Parameter]:
        parameters = [p for p in self.objective.parameters() if p.requires_grad]
        if not parameters:
            check_pair(
                self.model, self.guide, context=self.batches.context
            )  # says why it cannot run
            raise ValueError("Expected trainable parameters but model and guide have none.")
        return parameters

    def _begin(self) -> None:
        """Initialise everything that changes during the training."""
        self.objective.clock.restart(self.epoch)
        self.stream = Stream(self.seed, self.device)
        self.steps = self._steps()
        self.history: list[Row] = []
        self.step, self.seconds, self.stopped = 0, 0.0, False
        self._best: tuple[float, int, State] = (-math.inf, 0, {})
        self._latest: State = {}  # to continue from, once the best or averages took their place

    def length(self, steps: int | None = None, epochs: float | None = None) -> int:
        """The number of steps in ``steps`` steps or ``epochs`` passes over the data.

        Raises:
            ValueError: unless exactly one of the two is given, and it is finite and positive.
        """
        given = steps if epochs is None else epochs
        if given is None or (steps is not None and epochs is not None):
            raise ValueError(
                f"Expected steps or epochs but got steps={steps}, epochs={epochs}; give one."
            )
        unit = self.epoch if steps is None else 1
        if not math.isfinite(given) or round(given * unit) < 1:
            raise ValueError(
                f"Expected a length of at least one step but got steps={steps}, epochs={epochs}; "
                "train for longer."
            )
        return round(given * unit)

    def run(
        self, steps: int | None = None, epochs: float | None = None, *, progress: bool = False
    ) -> list[Row]:
        """Train for more steps or passes over the data; returns the whole history so far."""
        return self.run_to(self.step + self.length(steps, epochs), progress=progress)

    def run_to(self, last: int, *, progress: bool = False) -> list[Row]:
        """Train up to a step, also from a :meth:`state` of which only the row is missing."""
        every = self.epoch if self.every is None else self.every
        self.objective.clock.total = last
        if self._latest:
            self.objective.load_state_dict(self._latest)
            self._latest = {}
        if self.remedy.good is None or not self.steps.count:
            self.remedy.keep(self._changing)
        if isinstance(self.steps, Recorded):
            self.steps.descend.tell = say if progress else unheard
        with Progress(shown=progress, total=last, initial=self.step, unit="step") as bar:
            while (self.step < last or self.steps.count) and not self.stopped:
                begun = time.perf_counter()
                until = min(last, ((self.step - self.steps.count) // every + 1) * every)
                with self.stream:
                    self._advance(until, bar)
                self.seconds += time.perf_counter() - begun
                if not self._gone_back():
                    if self.pause is not None:
                        self.pause()
                    if self.step == until:
                        self._report(bar)
                bar.update(self.step - bar.n)
        _, since, best = self._best
        self._latest = self._state() if since or self.average is not None else {}
        if since:
            self.objective.load_state_dict(best)
        elif self.average is not None:
            self.average.put()
        return self.history

    def averaged(self) -> AbstractContextManager[None]:
        """Inside ``with``, the parameters are those to evaluate: their averages, if there are any.

        No step may be taken there, and no :meth:`state`.
        """
        return nullcontext() if self.average is None else self.average.in_place()

    def moved(self) -> None:
        """Tell the training that its parameters were changed between two steps, as moves do.

        Averages begin anew: those of components at two places would be of neither.
        """
        if self.average is not None:
            self.average.restart()

    def state(self) -> TrainingState:
        """The state from which a new training with the same settings can continue, without history.

        Raises:
            ValueError: for an iterable, which cannot be resumed in the middle of a pass.
        """
        own: TrainingState = {"batches": self.batches.state(), "seconds": self.seconds}
        own |= {"rates": self.rates, "best": self._best, "latest": self._latest}
        return self._changing() | own | {"remedy": self.remedy.state(bool(self.steps.count))}

    def restore(self, state: TrainingState) -> None:
        """Continue from a :meth:`state`, exactly as without the interruption.

        If this training began with other learning rates than that of the state, the rates that were
        reached change in the same proportion.
        """
        self._change(state)
        bound, since, best = state["best"]
        self._best, self._latest = (bound, since, best), state["latest"]
        self.seconds = state["seconds"]
        if "remedy" in state:
            self.remedy.restore(state["remedy"])
            rescale(self.optimiser, self.schedule, state["rates"], self.rates)

    def _changing(self) -> TrainingState:
        """What steps change, but for the position in an iterable."""
        saved, average = self.objective.state_dict(), self.average
        buffers = self.objective.named_buffers()
        return {
            "objective": saved,
            "buffers": {n: b for n, b in buffers if n not in saved and not n.startswith("clock.")},
            "optimiser": self.optimiser.state_dict(),
            "schedule": None if self.schedule is None else self.schedule.state_dict(),
            "sums": self.steps.state(),
            "random": self.stream.state,
            "clock": self.objective.clock.step,
            "step": self.step,
            "stopped": self.stopped,
        } | {
            **({"batches": self.batches.state()} if self.batches.resumable else {}),
            **({} if average is None else {"average": average.state()}),
        }

    def _change(self, state: TrainingState) -> None:
        self.objective.load_state_dict(state["objective"])
        self.optimiser.load_state_dict(state["optimiser"])
        prepare(self.optimiser, self.execution)
        self.steps.restore(state["sums"])
        if self.schedule is not None and state["schedule"] is not None:
            self.schedule.load_state_dict(state["schedule"])
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

    def _state(self) -> State:
        return {name: tensor.clone() for name, tensor in self.objective.state_dict().items()}

    def _advance(self, until: int, bar: Progress) -> None:
        """Train until a step, or to where a pause is due, without host synchronisation."""
        while self.step < until:
            self.stream.let_others_run()
            taken = self.steps.take(self._ahead(until))
            self.step += taken
            if self.average is not None:
                self.average.take()
            bar.update(taken)
            self._move_schedule()
            if self.due is not None and self.due():
                break

    def _ahead(self, until: int) -> int:
        """The number of steps up to a step, or up to where schedule or average move."""
        if self.average is not None:
            return 1
        if self.schedule is None or isinstance(self.schedule, ReduceLROnPlateau):
            return until - self.step
        unit = 1 if self.schedule_unit == "step" else self.epoch
        return min(until - self.step, unit - self.step % unit)

    def _gone_back(self) -> bool:
        """Whether steps were not finite and were undone, so that a row is still to be reached."""
        if self.remedy.policy == "skip" or (trouble := self.steps.trouble()) is None:
            return False
        self._go_back(self.remedy.described(trouble, self._place(trouble)))
        return True

    def _go_back(self, said: str) -> None:
        lost, good = self.step, self.remedy.go_back(said)
        self._change(good)
        scale_rates(self.optimiser, self.schedule, SMALLER)
        self.remedy.keep(self._changing)
        self._keep(self._row("nonfinite", done="rollback", lost=lost - self.step, said=said))

    def _report(self, bar: Progress) -> None:
        """Average the terms since the last row into a new one, and validate."""
        self.processes.level(self.objective)  # running statistics of each share's own rows differ
        terms = self.steps.means(self._skipped())
        if not all(map(math.isfinite, terms.values())):
            raise FloatingPointError(
                f"Expected terms whose sum over steps is finite but got {terms}; choose "
                "a smaller every."
            )
        try:
            with self.averaged():
                held = {} if self.validation is None else self._evaluated(self.validation)
        except FloatingPointError as error:
            if self.remedy.policy != "rollback":
                raise
            return self._go_back(f"after step {self.step} those of held-out rows are not: {error}")
        if terms:
            self._keep(self._row("train", **terms) | {"seconds": round(self.seconds, 3)})
        if held:
            with self.averaged():
                self._validate(held)
        if self.checkpoint is not None:
            self.checkpoint()
        self.remedy.keep(self._changing)
        bar.set_postfix({k: f"{v:.4g}" for k, v in terms.items() if k in _shown(terms)})

    def _skipped(self) -> int:
        """The number of steps since the last row that were skipped, with a row that says so."""
        trouble = self.steps.trouble()
        if trouble is None:
            return 0
        count, said = trouble.steps, self.remedy.described(trouble, self._place(trouble))
        self.remedy.skipped(count, self.steps.count, said)
        self._keep(self._row("nonfinite", done="skip", lost=count, said=said))
        return count

    def _row(self, split: str, **values: object) -> Row:
        return {"step": self.step, "epoch": self.step / self.epoch, "split": split, **values}

    def _place(self, trouble: Trouble) -> Place:
        before = self.step - self.steps.count + trouble.after
        passed, batch = divmod(before, self.epoch)
        rows = self.steps.rows_of(trouble.after, batch)
        return Place(before + 1, batch + 1, passed + 1, rows)

    def _move_schedule(self) -> None:
        due = self.schedule_unit == "step" or self.step % self.epoch == 0
        if self.schedule is not None and due and not isinstance(self.schedule, ReduceLROnPlateau):
            self.schedule.step()

    def _steps(self) -> Steps:
        undo = Undo(self.objective, self.optimiser) if self.remedy.policy == "skip" else None
        self.watch = Watch(self.objective, counts=undo is not None)
        if self.execution == "eager":
            return Steps(self._take_step, self.batches, self.watch, undo)
        compiled = Compiled(
            self.objective,
            self.optimiser,
            clip=self.clip,
            precision=self.precision,
            watch=self.watch,
            rows=min(self.batches.batch_size, self.batches.rows) if self.in_memory else None,
        )
        kind = Captured if self.execution == "cudagraph" else Recorded
        return kind(compiled, self.batches, self.watch, undo)

    def _take_step(self, batch: Batch) -> Terms:
        how: dict[str, Any] = {"clip": self.clip, "precision": self.precision}
        return take_step(self.objective, self.optimiser, batch, **how, watch=self.watch)

    def _evaluated(self, held: Batch | StoredRows) -> dict[str, float]:
        x, context = (held.x, held.context) if isinstance(held, Batch) else (held, None)
        with PROGRAM_LOCK, keeping_state(self.model, self.guide):
            how: dict[str, Any] = {"transform": self.transform, "seed": self.seed}
            how["processes"] = self.processes
            return evaluate(self.model, self.guide, x, context=context, **how)

    def _validate(self, terms: dict[str, float]) -> None:
        if isinstance(self.schedule, ReduceLROnPlateau):
            self.schedule.step(-terms["elbo"])
        self._keep(self._row("valid", **terms) | {"seconds": round(self.seconds, 3)})
        if self.patience is None:
            return
        best, since, state = self._best
        if terms["elbo"] > best:
            self._best = (terms["elbo"], 0, self._state())
        else:
            self._best = (best, since + 1, state)
            self.stopped = since + 1 >= self.patience

    def _keep(self, row: Row) -> None:
        self.history.append(row)
        if self.record is not None:
            self.record(row)

    def _check(self) -> None:
        if self.objective.model is not self.model or self.objective.guide is not self.guide:
            raise ValueError("Expected an objective of the same model and guide but got another.")
        if self.patience is not None and self.validation is None:
            raise ValueError("Expected validation rows with patience but got none; give some.")
        check_step(self.clip, self.precision)
        check_schedule(self.optimiser, self.schedule, self.schedule_unit, self.validation)
        if self.batches.labelled or (isinstance(self.objective, ELBO) and self.objective.kl):
            check_sites(self.objective, self.batches)


def _shown(row: Row) -> list[str]:
    return [name for name in row if name in ("elbo", "reconstruction") or name.startswith("kl[")]
