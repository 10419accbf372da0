"""The training loop: order, history, evaluation, early stopping, and what to do with a NaN."""

import inspect
import math
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from tqdm import tqdm

from priorzoo.inference.data.batches import Iterables, Order
from priorzoo.inference.evaluation import evaluate
from priorzoo.inference.objectives.elbo import ELBO, Terms
from priorzoo.inference.pairs import (
    Labels,
    Transform,
    check_data,
    check_labels,
    check_pair,
    evaluating,
    is_enumerated,
    latent_sites,
    run_pair,
)
from priorzoo.inference.prediction import draw
from priorzoo.inference.randomness import Stream
from priorzoo.inference.training.compiled import Compiled
from priorzoo.inference.training.execution import Captured, Execution, Steps, choose, prepare
from priorzoo.inference.training.step import Precision, check_step, descend

Row = dict[str, Any]


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
        data: rows ``(N, P)`` on the device to train on, or any iterable of batches.
        steps, epochs: how long; exactly one of the two.
        progress: whether to show a bar with the terms.
        settings: the other arguments of :class:`Training`.

    Raises:
        ValueError: for a pair that does not fit, data the model cannot score, or bad settings.
        FloatingPointError: when a term becomes NaN or infinite.
    """
    return Training(model, guide, data, **settings).run(steps, epochs, progress=progress)


class Training:
    """A training that can be run on in portions; :func:`fit` runs it in one.

    Args:
        model, guide, data: as in :func:`fit`.
        objective: of the same model and guide; ``ELBO(model, guide)`` if None.
        optimiser: makes an optimiser of parameters; Adam with step size 0.001 if None.
        schedule: makes a schedule of that optimiser, stepped after each pass over the data.
        labels: of discrete sites, each ``(N,)`` integers with -1 for unknown, where ``data`` is a
            tensor; the guide's site is clamped to them.
        batch_size: rows a step, where ``data`` is a tensor; the last of a pass may be smaller.
        size: number N of data that an iterable of batches stands for, and needs.
        transform: applied to each batch, such as ``torch.bernoulli`` for dynamic binarisation.
        clip: norm to which the gradient is cut; None for no bound.
        precision: see :func:`descend`.
        step: how a step is run. ``eager``; ``compiled``, see :class:`Compiled`; ``cudagraph``, see
            :class:`Captured`; or ``auto``, the fastest of them for the device and the data.
        seed: of order, transform and draws; the caller's random state is untouched.
        every: steps between two rows of the history; one pass over the data if None.
        validation: held-out rows ``(V, P)``, evaluated for each row of the history.
        patience: rows without a better validation bound after which the training stops; None to go
            on. With it, the parameters after :meth:`run` are the best seen so far.
        record: called with each row of the history as soon as it is there.
        checkpoint: called after each row of the history, when :meth:`state` may be saved.
    """

    def __init__(
        self,
        model: nn.Module,
        guide: nn.Module,
        data: Tensor | Iterables,
        *,
        objective: ELBO | None = None,
        optimiser: Callable[[Iterable[nn.Parameter]], Optimizer] | None = None,
        schedule: Callable[[Optimizer], LRScheduler] | None = None,
        labels: Labels | None = None,
        batch_size: int = 100,
        size: int | None = None,
        transform: Transform | None = None,
        clip: float | None = None,
        precision: Precision = "float32",
        step: Execution = "eager",
        seed: int = 0,
        every: int | None = None,
        validation: Tensor | None = None,
        patience: int | None = None,
        record: Callable[[Row], None] | None = None,
        checkpoint: Callable[[], None] | None = None,
    ) -> None:
        self.model, self.guide, self.data = model, guide, data
        self.labels = dict(labels or {})
        self.objective = ELBO(model, guide) if objective is None else objective
        parameters = [p for p in self.objective.parameters() if p.requires_grad]
        if not parameters:
            raise ValueError("Expected parameters to learn but model and guide have none.")
        self.device = parameters[0].device
        self.objective.to(self.device).train()  # a loaded pair is in evaluation mode
        self.execution = choose(
            step, self.device, isinstance(data, Tensor), self.objective.keeps_state
        )
        self.optimiser = (optimiser or _adam)(parameters)
        prepare(self.optimiser, self.execution)
        self.schedule = None if schedule is None else schedule(self.optimiser)
        self.batch_size, self.transform, self.clip = batch_size, transform, clip
        self.checkpoint = checkpoint
        self.precision: Precision = precision
        self.validation, self.patience, self.record = validation, patience, record
        self.seed, self.every = seed, every
        self._check()
        self.validation = None if validation is None else validation.to(self.device)
        self.batches = Order(data, self.labels, batch_size, size, transform, self.device)
        self.size, self.epoch = self.batches.size, self.batches.epoch
        self.objective.clock.restart(self.epoch)
        self.stream = Stream(seed, self.device)
        self.steps = self._steps()
        self.history: list[Row] = []
        self.step, self.seconds, self.stopped = 0, 0.0, False
        self._best: tuple[float, int, dict[str, Tensor]] = (-math.inf, 0, {})
        self._latest: dict[str, Tensor] = {}  # where the best was put back, to go on from

    def length(self, steps: int | None = None, epochs: float | None = None) -> int:
        """The number of steps in so many steps or passes over the data.

        Raises:
            ValueError: unless exactly one of the two is given, and is finite and positive.
        """
        given = steps if epochs is None else epochs
        if given is None or (steps is not None and epochs is not None):
            raise ValueError(f"Expected steps or epochs but got steps={steps}, epochs={epochs}.")
        unit = self.epoch if steps is None else 1
        if not math.isfinite(given) or round(given * unit) < 1:
            raise ValueError(
                f"Expected a length of at least one step but got steps={steps}, epochs={epochs}."
            )
        return round(given * unit)

    def run(
        self, steps: int | None = None, epochs: float | None = None, *, progress: bool = False
    ) -> list[Row]:
        """Go on for so many steps or passes over the data; returns the whole history so far."""
        last = self.step + self.length(steps, epochs)
        every = self.epoch if self.every is None else self.every
        self.objective.clock.total = last
        if self._latest:
            self.objective.load_state_dict(self._latest)
        with tqdm(total=last, initial=self.step, disable=not progress, unit="step") as bar:
            while self.step < last and not self.stopped:
                begun = time.perf_counter()
                until = min(last, (self.step // every + 1) * every)
                with self.stream:
                    row = self._advance(until, bar)
                self.seconds += time.perf_counter() - begun
                self._keep(row | {"seconds": round(self.seconds, 3)})
                if self.validation is not None:
                    self._validate()
                if self.checkpoint is not None:
                    self.checkpoint()
                bar.set_postfix({k: f"{v:.4g}" for k, v in row.items() if k in _shown(row)})
        _, since, best = self._best
        self._latest = self._state() if since else {}
        if since:
            self.objective.load_state_dict(best)
        return self.history

    def state(self) -> dict[str, Any]:
        """All that a new training of the same settings needs to go on from here, but the history.

        Raises:
            ValueError: for data that are no tensor, whose pass cannot be taken up in the middle.
        """
        return {
            "objective": self.objective.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": None if self.schedule is None else self.schedule.state_dict(),
            "batches": self.batches.state(),
            "random": self.stream.state,
            "clock": self.objective.clock.step,
            "step": self.step,
            "seconds": self.seconds,
            "stopped": self.stopped,
            "best": self._best,
            "latest": self._latest,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a :meth:`state`, as if there had been no break."""
        self.objective.load_state_dict(state["objective"])
        self.optimiser.load_state_dict(state["optimiser"])
        prepare(self.optimiser, self.execution)
        self.steps.forget()
        if self.schedule is not None:
            self.schedule.load_state_dict(state["schedule"])
        self.batches.restore(state["batches"])
        self.stream.state = state["random"]
        self.objective.clock.step.copy_(state["clock"])
        self.step, self.seconds, self.stopped = state["step"], state["seconds"], state["stopped"]
        self._best, self._latest = tuple(state["best"]), state["latest"]

    def _state(self) -> dict[str, Tensor]:
        return {name: number.clone() for name, number in self.objective.state_dict().items()}

    def _advance(self, until: int, bar: "tqdm[Any]") -> Row:
        """Train to a step, and average the terms on the way, with one synchronisation."""
        begun = self.step
        while self.step < until:
            self.steps()
            self.step += 1
            bar.update()
            if self.schedule is not None and self.step % self.epoch == 0:
                self.schedule.step()
        row = self.steps.means()
        if not all(map(math.isfinite, row.values())):
            raise FloatingPointError(
                f"Expected finite terms but got {row} between steps {begun} and {until}; lower the "
                "step size, clip the gradient, or see whether a variance lacks a floor."
            )
        return {"step": until, "epoch": until / self.epoch, "split": "train", **row}

    def _steps(self) -> Steps:
        if self.execution == "eager":
            return Steps(self._descend, self.batches)
        in_memory = isinstance(self.data, Tensor)
        compiled = Compiled(
            self.objective,
            self.optimiser,
            self.size,
            clip=self.clip,
            precision=self.precision,
            rows=min(self.batch_size, self.size) if in_memory else None,
        )
        return (Captured if self.execution == "cudagraph" else Steps)(compiled, self.batches)

    def _descend(self, x: Tensor, labels: Labels) -> Terms:
        return descend(
            self.objective,
            self.optimiser,
            x,
            self.size,
            clip=self.clip,
            precision=self.precision,
            labels=labels,
        )

    def _validate(self) -> None:
        assert self.validation is not None
        terms = evaluate(
            self.model, self.guide, self.validation, transform=self.transform, seed=self.seed
        )
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

    def _check(self) -> None:
        if self.objective.model is not self.model or self.objective.guide is not self.guide:
            raise ValueError("Expected an objective of the same model and guide but got another.")
        check_pair(self.model, self.guide)
        if isinstance(self.data, Tensor):
            check_data(self.model, self.data, "x", self.transform)
        if self.validation is not None:
            check_data(self.model, self.validation, "validation", self.transform)
        elif self.patience is not None:
            raise ValueError("Expected validation rows with patience but got none; give them.")
        for name, value in (
            ("batch_size", self.batch_size),
            ("every", self.every),
            ("patience", self.patience),
        ):
            if value is not None and value < 1:
                raise ValueError(f"Expected a positive {name} but got {value}.")
        check_step(self.clip, self.precision)
        for made in (self.optimiser, self.schedule):
            _check_alone(made)
        if self.objective.kl or self.labels:
            self._check_sites()

    def _check_sites(self) -> None:
        """A misspelt site is found here, and not when the objective first meets it."""
        with evaluating(self.guide), torch.no_grad(), Stream(0, self.device):
            drawn, _ = run_pair(self.model, self.guide, draw(self.model, 2, means=False))
        sites = latent_sites(drawn)
        unknown = [name for name in self.objective.kl if name not in sites]
        if unknown:
            raise ValueError(
                f"Expected KL policies for sites among {list(sites)} but got {unknown}."
            )
        choices = {
            name: site["fn"].logits.shape[-1] for name, site in sites.items() if is_enumerated(site)
        }
        for name, label in self.labels.items():
            if name not in choices:
                raise ValueError(
                    f"Expected labels of sites that the guide enumerates, {list(choices)}, but got "
                    f"those of {name!r}."
                )
            check_labels(label, name, choices[name], self.data)


def _adam(parameters: Iterable[nn.Parameter]) -> Optimizer:
    return torch.optim.Adam(parameters, lr=1e-3)


def _check_alone(made: Optimizer | LRScheduler | None) -> None:
    """Refuse what wants a closure or a metric in each step, which the loop has not."""
    wanted = [] if made is None else inspect.signature(type(made).step).parameters.values()
    names = [p.name for p in wanted if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    if len(names) > 1:
        raise ValueError(
            f"Expected an optimiser and a schedule whose step needs no arguments but "
            f"{type(made).__name__} needs {', '.join(names[1:])}; choose another."
        )


def _shown(row: Row) -> list[str]:
    return [name for name in row if name in ("elbo", "reconstruction") or name.startswith("kl[")]
