"""The training loop: batches, history, evaluation, early stopping, and errors for NaN."""

import inspect
import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, get_args

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from tqdm import tqdm

from priorzoo.inference.batch import Batch, Context, Labels, Transform, binarises
from priorzoo.inference.checking import check_pair
from priorzoo.inference.data.accepts import Accepts
from priorzoo.inference.data.batches import Batches
from priorzoo.inference.data.beside import by_name, check_labels
from priorzoo.inference.data.checks import admit, as_batch
from priorzoo.inference.data.stored.rows import StoredRows
from priorzoo.inference.data.streams import Iterables, opened
from priorzoo.inference.data.tensors import check_count
from priorzoo.inference.evaluation import evaluate
from priorzoo.inference.objectives.contract import Objective, Terms
from priorzoo.inference.objectives.elbo import ELBO
from priorzoo.inference.pairs import run_pair, without_side_effects
from priorzoo.inference.prediction import draw
from priorzoo.inference.randomness import Stream
from priorzoo.inference.running import PROGRAM_LOCK, keeping_state
from priorzoo.inference.sites import is_enumerated, latent_sites
from priorzoo.inference.training.compiled import Compiled
from priorzoo.inference.training.dry_run import check_last_batch, create_parameters
from priorzoo.inference.training.execution import Captured, Execution, Steps, choose, prepare
from priorzoo.inference.training.step import Precision, check_step, take_step
from priorzoo.models.contract import accepted, check_context, needed

Row = dict[str, Any]
Unit = Literal["epoch", "step"]
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
        FloatingPointError: if a term becomes NaN or infinite.
    """
    return Training(model, guide, data, **settings).run(steps, epochs, progress=progress)


class Training:
    """A training that can be continued by further calls of :meth:`run`; :func:`fit` calls it once.

    Args:
        model, guide, data: as in :func:`fit`.
        objective: of the same model and guide; ``ELBO(model, guide)`` if None.
        optimiser: makes an optimiser of parameters; Adam with learning rate 0.001 if None.
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
        precision: see :func:`descend`.
        step: how a step is run. ``eager``; ``compiled``, see :class:`Compiled`; ``cudagraph``, see
            :class:`Captured`; or ``auto``, the fastest of them for the device and the data.
        seed: seed of order, transform and draws; the global random state is not changed.
        every: steps between two rows of the history; one pass over the data if None.
        validation: held-out rows ``(V, P)``, or :class:`StoredRows`, evaluated for each row of the
            history.
        validation_context: keyword arguments for these rows, each ``(V, ...)``.
        patience: number of validations without a better bound after which the training stops; None
            for no early stopping. With it, the parameters after :meth:`run` are the best so far.
        record: called with each new row of the history.
        checkpoint: called after each row of the history, when :meth:`state` can be saved.
        due: asked after each step whether ``pause`` shall be called before the next.
        pause: called then and before each row of the history, when :meth:`state` can be saved too.
    """

    def __init__(
        self,
        model: nn.Module,
        guide: nn.Module,
        data: Tensor | Iterables,
        *,
        objective: Objective | None = None,
        optimiser: Callable[[Iterable[nn.Parameter]], Optimizer] | None = None,
        schedule: Callable[[Optimizer], LRScheduler] | None = None,
        schedule_unit: Unit = "epoch",
        labels: Labels | None = None,
        context: Context | None = None,
        batch_size: int = 100,
        size: int | None = None,
        transform: Transform | None = None,
        clip: float | None = None,
        precision: Precision = "float32",
        step: Execution = "eager",
        seed: int = 0,
        every: int | None = None,
        validation: Tensor | StoredRows | None = None,
        validation_context: Context | None = None,
        patience: int | None = None,
        record: Callable[[Row], None] | None = None,
        checkpoint: Callable[[], None] | None = None,
        due: Callable[[], bool] | None = None,
        pause: Callable[[], None] | None = None,
    ) -> None:
        self.model, self.guide, self.transform = model, guide, transform
        self.objective = ELBO(model, guide) if objective is None else objective
        first = next(self.objective.parameters(), data if isinstance(data, Tensor) else None)
        self.device = torch.device("cpu") if first is None else first.device
        self.objective.to(self.device).train()  # a loaded pair is in evaluation mode
        self.seed, self.every, self.batch_size, self.patience = seed, every, batch_size, patience
        self._check_numbers()
        data, size = opened(data, batch_size, size)
        self._keep_data(data, by_name(labels, "labels"), by_name(context, "context"), size)
        create_parameters(model, guide, self.batches, seed)
        parameters = self._learnt()
        self.execution = choose(step, self.device, isinstance(data, Tensor))
        self.optimiser = (optimiser or _adam)(parameters)
        prepare(self.optimiser, self.execution)
        self.schedule = None if schedule is None else schedule(self.optimiser)
        self.schedule_unit, self.clip, self.precision = schedule_unit, clip, precision
        self.record, self.checkpoint, self.due, self.pause = record, checkpoint, due, pause
        self.validation: Batch | StoredRows | None = None
        self._check_data(validation, validation_context)
        self._check()
        self._begin()
        check_last_batch(self.objective, self.batches, precision, seed)

    def _learnt(self) -> list[nn.Parameter]:
        parameters = [p for p in self.objective.parameters() if p.requires_grad]
        if not parameters:
            check_pair(self.model, self.guide, context=self.context)  # says why it cannot run
            raise ValueError("Expected trainable parameters but model and guide have none.")
        return parameters

    def _keep_data(
        self, data: Tensor | Iterables, labels: Labels, context: Context, size: int | None
    ) -> None:
        self.data, self.labels, self.context = data, dict(labels), {}
        if isinstance(data, StoredRows) and (labels or context):
            raise ValueError(
                "Expected rows in memory beside labels and context but got StoredRows; name their "
                "columns there, labels={'y': 'column'}."
            )
        if isinstance(data, Tensor):
            whole = as_batch(self.model, data.detach(), labels, context, self.transform).counted()
            size = whole.size  # None without weights, for the number of rows
            self.data, self.labels = whole.x, dict(whole.labels)
            self.context = dict(whole.context)
            own = self.transform is not None and not binarises(self.transform)
            if whole.x.dim() > 2 and not own:  # flat before networks may take their sizes from it
                accepts = Accepts.of(self.model, whole.context)
                self.data = accepts.converted(whole.x)
                self.context = accepts.aligned(whole.context)
        elif labels:
            raise ValueError(
                "Expected rows in memory beside labels but got an iterable of batches; give a "
                "tensor."
            )
        elif context:
            raise ValueError(
                "Expected rows in memory beside context but got an iterable of batches; give "
                "batches that are mappings, {'x': rows, 'exposure': values}."
            )
        self.batches = Batches(
            self.model,
            self.data,
            self.labels,
            self.context,
            self.batch_size,
            size,
            self.transform,
            self.device,
        )
        self.size, self.epoch = self.batches.size, self.batches.epoch

    def _begin(self) -> None:
        """Initialise everything that changes during the training."""
        if isinstance(self.validation, Batch):
            self.validation = self.validation.to(self.device)
        self.objective.clock.restart(self.epoch)
        self.stream = Stream(self.seed, self.device)
        self.steps = self._steps()
        self.history: list[Row] = []
        self.step, self.seconds, self.stopped = 0, 0.0, False
        self._best: tuple[float, int, State] = (-math.inf, 0, {})
        self._latest: State = {}  # to continue from, once the best parameters were restored

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
        with tqdm(total=last, initial=self.step, disable=not progress, unit="step") as bar:
            while (self.step < last or self.steps.count) and not self.stopped:
                begun = time.perf_counter()
                until = min(last, ((self.step - self.steps.count) // every + 1) * every)
                with self.stream:
                    self._advance(until, bar)
                self.seconds += time.perf_counter() - begun
                if self.pause is not None:
                    self.pause()
                if self.step == until:
                    self._report(bar)
        _, since, best = self._best
        self._latest = self._state() if since else {}
        if since:
            self.objective.load_state_dict(best)
        return self.history

    def state(self) -> TrainingState:
        """The state from which a new training with the same settings can continue, without history.

        Raises:
            ValueError: for an iterable, which cannot be resumed in the middle of a pass.
        """
        return {
            "objective": self.objective.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": None if self.schedule is None else self.schedule.state_dict(),
            "batches": self.batches.state(),
            "sums": self.steps.state(),
            "random": self.stream.state,
            "clock": self.objective.clock.step,
            "step": self.step,
            "seconds": self.seconds,
            "stopped": self.stopped,
            "best": self._best,
            "latest": self._latest,
        }

    def restore(self, state: TrainingState) -> None:
        """Continue from a :meth:`state`, exactly as without the interruption."""
        self.objective.load_state_dict(state["objective"])
        self.optimiser.load_state_dict(state["optimiser"])
        prepare(self.optimiser, self.execution)
        self.steps.restore(state["sums"])
        if self.schedule is not None and state["schedule"] is not None:
            self.schedule.load_state_dict(state["schedule"])
        self.batches.restore(state["batches"])
        self.stream.state = state["random"]
        self.objective.clock.step.copy_(state["clock"])
        self.step, self.seconds, self.stopped = state["step"], state["seconds"], state["stopped"]
        bound, since, best = state["best"]
        self._best, self._latest = (bound, since, best), state["latest"]

    def _state(self) -> State:
        return {name: tensor.clone() for name, tensor in self.objective.state_dict().items()}

    def _advance(self, until: int, bar: "tqdm[Any]") -> None:
        """Train until a step, or to where a pause is due, without host synchronisation."""
        while self.step < until:
            self.stream.let_others_run()
            self.steps()
            self.step += 1
            bar.update()
            self._move_schedule()
            if self.due is not None and self.due():
                break

    def _report(self, bar: "tqdm[Any]") -> None:
        """Average the terms since the last row into a new one, and validate."""
        begun = self.step - self.steps.count
        terms = self.steps.means()
        if not all(map(math.isfinite, terms.values())):
            raise FloatingPointError(
                f"Expected finite terms but got {terms} between steps {begun} and {self.step}; "
                "lower the learning rate, clip the gradient, or check whether a variance needs a "
                "floor."
            )
        row: Row = {"step": self.step, "epoch": self.step / self.epoch, "split": "train", **terms}
        self._keep(row | {"seconds": round(self.seconds, 3)})
        if self.validation is not None:
            self._validate()
        if self.checkpoint is not None:
            self.checkpoint()
        bar.set_postfix({k: f"{v:.4g}" for k, v in terms.items() if k in _shown(terms)})

    def _move_schedule(self) -> None:
        due = self.schedule_unit == "step" or self.step % self.epoch == 0
        if self.schedule is not None and due and not isinstance(self.schedule, ReduceLROnPlateau):
            self.schedule.step()

    def _steps(self) -> Steps:
        if self.execution == "eager":
            return Steps(self._take_step, self.batches)
        in_memory = isinstance(self.data, Tensor)
        compiled = Compiled(
            self.objective,
            self.optimiser,
            clip=self.clip,
            precision=self.precision,
            rows=min(self.batch_size, self.batches.rows) if in_memory else None,
        )
        return (Captured if self.execution == "cudagraph" else Steps)(compiled, self.batches)

    def _take_step(self, batch: Batch) -> Terms:
        return take_step(
            self.objective, self.optimiser, batch, clip=self.clip, precision=self.precision
        )

    def _validate(self) -> None:
        held = self.validation
        x, context = (held.x, held.context) if isinstance(held, Batch) else (held, None)
        assert x is not None
        with PROGRAM_LOCK, keeping_state(self.model, self.guide):
            terms = evaluate(
                self.model,
                self.guide,
                x,
                transform=self.transform,
                seed=self.seed,
                context=context,
            )
        if isinstance(self.schedule, ReduceLROnPlateau):
            self.schedule.step(-terms["elbo"])
        row = {"step": self.step, "epoch": self.step / self.epoch, "split": "valid", **terms}
        self._keep(row | {"seconds": round(self.seconds, 3)})
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

    def _check_numbers(self) -> None:
        check_count(self.batch_size, "batch_size")
        for name, value in (
            ("every", self.every),
            ("patience", self.patience),
        ):
            if value is not None:
                check_count(value, name)

    def _check_data(self, held: object, beside: Context | None) -> None:
        """Check the pair, and convert and check the rows to train on and the held-out rows."""
        told = isinstance(self.data, Tensor) or not (needed(self.model) | needed(self.guide))
        if told and self.device.type != "meta":  # where supports have no values to compare
            check_pair(self.model, self.guide, context=self.context)
        if isinstance(self.data, Tensor):
            self.data = self.batches.data = admit(
                self.model, self.data, context=self.context, transform=self.transform
            ).x
        if isinstance(held, StoredRows):
            self.validation = held
        elif held is not None:
            self.validation = admit(
                self.model, held, context=beside, transform=self.transform, name="validation"
            )
            rows = len(self.validation.x)
            check_context(self.validation.context, rows, self.model, self.guide)
        elif self.patience is not None:
            raise ValueError("Expected validation rows with patience but got none; give some.")

    def _check(self) -> None:
        if self.objective.model is not self.model or self.objective.guide is not self.guide:
            raise ValueError("Expected an objective of the same model and guide but got another.")
        check_step(self.clip, self.precision)
        self._check_schedule()
        if self._labelled() or (isinstance(self.objective, ELBO) and self.objective.kl):
            self._check_sites()

    def _check_schedule(self) -> None:
        if self.schedule_unit not in get_args(Unit):
            raise ValueError(
                f"Expected schedule_unit among {get_args(Unit)} but got {self.schedule_unit!r}."
            )
        _check_needs_no_arguments(self.optimiser)
        if isinstance(self.schedule, ReduceLROnPlateau):
            if self.validation is None:
                raise ValueError(
                    "Expected validation rows with ReduceLROnPlateau, which needs their bound, but "
                    "got none; give validation, or choose another schedule."
                )
        else:
            _check_needs_no_arguments(self.schedule)

    def _labelled(self) -> list[str]:
        """The sites whose labels are given."""
        return list(self.data.labels if isinstance(self.data, StoredRows) else self.labels)

    def _check_sites(self) -> None:
        """Check the site names in the objective's settings and in the labels before training."""
        data = self.data
        beside = data.first(2).batch.context if isinstance(data, StoredRows) else self.context
        context = {name: value[:2] for name, value in beside.items()}
        with without_side_effects(self.model, self.guide):
            x = draw(self.model, 2, means=False, context=accepted(self.model, context))
            guide_trace, _ = run_pair(self.model, self.guide, Batch(x, context=context))
        sites = latent_sites(guide_trace)
        self.objective.check(sites)
        choices = {
            name: site["fn"].logits.shape[-1]
            for name, site in sites.items()
            if is_enumerated(site) and isinstance(site["fn"], dist.Categorical)
        }
        for name in self._labelled():
            if name not in choices:
                raise ValueError(
                    f"Expected labels of Categorical sites that the guide enumerates, "
                    f"{list(choices)}, but got labels of {name!r}; make it a Categorical site, or "
                    "leave them out."
                )
            if name in self.labels:
                check_labels(self.labels[name], name, choices[name], self.data)


def _adam(parameters: Iterable[nn.Parameter]) -> Optimizer:
    return torch.optim.Adam(parameters, lr=1e-3)


def _check_needs_no_arguments(made: Optimizer | LRScheduler | None) -> None:
    """Refuse optimisers and schedules whose ``step`` needs a closure or a metric."""
    wanted = [] if made is None else inspect.signature(type(made).step).parameters.values()
    names = [p.name for p in wanted if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    if len(names) > 1:
        raise ValueError(
            f"Expected an optimiser and a schedule whose step needs no arguments but "
            f"{type(made).__name__} needs {', '.join(names[1:])}; choose another."
        )


def _shown(row: Row) -> list[str]:
    return [name for name in row if name in ("elbo", "reconstruction") or name.startswith("kl[")]
