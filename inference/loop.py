"""The training loop: order, history, evaluation, early stopping, and what to do with a NaN."""

import inspect
import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from tqdm import tqdm

from priorzoo.inference.evaluation import evaluate
from priorzoo.inference.objective import ELBO
from priorzoo.inference.pairs import (
    Transform,
    check_data,
    check_pair,
    evaluating,
    latent_sites,
    run_pair,
)
from priorzoo.inference.prediction import draw
from priorzoo.inference.randomness import Stream
from priorzoo.inference.step import Precision, check_step, descend

Row = dict[str, Any]
Batches = Iterable[Tensor | tuple[Tensor, ...] | list[Tensor]]


def fit(
    model: nn.Module,
    guide: nn.Module,
    data: Tensor | Batches,
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
        batch_size: rows a step, where ``data`` is a tensor; the last of a pass may be smaller.
        size: number N of data that an iterable of batches stands for, and needs.
        transform: applied to each batch, such as ``torch.bernoulli`` for dynamic binarisation.
        clip: norm to which the gradient is cut; None for no bound.
        precision: see :func:`descend`.
        seed: of order, transform and draws; the caller's random state is untouched.
        every: steps between two rows of the history; one pass over the data if None.
        validation: held-out rows ``(V, P)``, evaluated for each row of the history.
        patience: rows without a better validation bound after which the training stops; None to go
            on. With it, the parameters after :meth:`run` are the best seen so far.
        record: called with each row of the history as soon as it is there.
    """

    def __init__(
        self,
        model: nn.Module,
        guide: nn.Module,
        data: Tensor | Batches,
        *,
        objective: ELBO | None = None,
        optimiser: Callable[[Iterable[nn.Parameter]], Optimizer] | None = None,
        schedule: Callable[[Optimizer], LRScheduler] | None = None,
        batch_size: int = 100,
        size: int | None = None,
        transform: Transform | None = None,
        clip: float | None = None,
        precision: Precision = "float32",
        seed: int = 0,
        every: int | None = None,
        validation: Tensor | None = None,
        patience: int | None = None,
        record: Callable[[Row], None] | None = None,
    ) -> None:
        self.model, self.guide, self.data = model, guide, data
        self.objective = ELBO(model, guide) if objective is None else objective
        parameters = [p for p in self.objective.parameters() if p.requires_grad]
        if not parameters:
            raise ValueError("Expected parameters to learn but model and guide have none.")
        self.device = parameters[0].device
        self.objective.to(self.device)
        self.optimiser = (optimiser or _adam)(parameters)
        self.schedule = None if schedule is None else schedule(self.optimiser)
        self.batch_size, self.transform, self.clip = batch_size, transform, clip
        self.precision: Precision = precision
        self.validation, self.patience, self.record = validation, patience, record
        self.seed, self.every = seed, every
        self._check(size)
        self.validation = None if validation is None else validation.to(self.device)
        self.size, self.epoch = self._extent(size)
        self.objective.clock.restart(self.epoch)
        self.stream = Stream(seed, self.device)
        self.batches = self._batches()
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
                bar.set_postfix({k: f"{v:.4g}" for k, v in row.items() if k in _shown(row)})
        _, since, best = self._best
        self._latest = self._state() if since else {}
        if since:
            self.objective.load_state_dict(best)
        return self.history

    def _state(self) -> dict[str, Tensor]:
        return {name: number.clone() for name, number in self.objective.state_dict().items()}

    def _advance(self, until: int, bar: "tqdm[Any]") -> Row:
        """Train to a step, and average the terms on the way, with one synchronisation."""
        totals: dict[str, Tensor] = {}
        begun = self.step
        while self.step < until:
            x = next(self.batches)
            terms = descend(
                self.objective,
                self.optimiser,
                x,
                self.size,
                clip=self.clip,
                precision=self.precision,
            )
            for name, term in terms.items():
                totals[name] = totals[name] + term if name in totals else term
            self.step += 1
            bar.update()
            if self.schedule is not None and self.step % self.epoch == 0:
                self.schedule.step()
        means = torch.stack(list(totals.values())) / (until - begun)
        row = dict(zip(totals, means.tolist(), strict=True))
        if not all(map(math.isfinite, row.values())):
            raise FloatingPointError(
                f"Expected finite terms but got {row} between steps {begun} and {until}; lower the "
                "step size, clip the gradient, or see whether a variance lacks a floor."
            )
        return {"step": until, "epoch": until / self.epoch, "split": "train", **row}

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

    def _check(self, size: int | None) -> None:
        if self.objective.model is not self.model or self.objective.guide is not self.guide:
            raise ValueError("Expected an objective of the same model and guide but got another.")
        check_pair(self.model, self.guide)
        if isinstance(self.data, Tensor):
            check_data(self.model, self.data, "x", self.transform)
        elif size is None:
            raise ValueError("Expected the size of the data with iterable batches; give size=N.")
        if self.validation is not None:
            check_data(self.model, self.validation, "validation", self.transform)
        elif self.patience is not None:
            raise ValueError("Expected validation rows with patience but got none; give them.")
        for name, value in (
            ("batch_size", self.batch_size),
            ("every", self.every),
            ("patience", self.patience),
            ("particles", self.objective.particles),
        ):
            if value is not None and value < 1:
                raise ValueError(f"Expected a positive {name} but got {value}.")
        check_step(self.clip, self.precision)
        for made in (self.optimiser, self.schedule):
            _check_alone(made)
        self._check_policies()

    def _check_policies(self) -> None:
        """A misspelt site is found here, and not when the objective first meets it."""
        if not self.objective.kl:
            return
        with evaluating(self.guide), torch.no_grad(), Stream(0, self.device):
            drawn, _ = run_pair(self.model, self.guide, draw(self.model, 2, means=False))
        known = list(latent_sites(drawn))
        unknown = [name for name in self.objective.kl if name not in known]
        if unknown:
            raise ValueError(f"Expected KL policies for sites among {known} but got {unknown}.")

    def _extent(self, size: int | None) -> tuple[int, int]:
        """Number of data, and of steps in one pass over them."""
        if isinstance(self.data, Tensor):
            return len(self.data), math.ceil(len(self.data) / self.batch_size)
        assert size is not None
        length = getattr(self.data, "__len__", None)
        return size, length() if length else math.ceil(size / self.batch_size)

    def _batches(self) -> Iterator[Tensor]:
        """Batches without end, on the device; a tensor's rows in a new order at each pass."""
        while True:
            x = None
            for x in self._pass():
                x = x.to(self.device, non_blocking=True)
                yield x if self.transform is None else self.transform(x)
            if x is None:
                raise ValueError(
                    "Expected batches in every pass but got none; give a list or a DataLoader, not "
                    "an iterator that runs out."
                )

    def _pass(self) -> Iterator[Tensor]:
        if isinstance(self.data, Tensor):
            order = torch.randperm(len(self.data), device=self.data.device)
            for index in order.split(self.batch_size):
                yield self.data[index]
        else:
            for batch in self.data:
                yield batch if isinstance(batch, Tensor) else batch[0]


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
