"""What a recipe is: all that a training depends on but its seed and its machine."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from priorzoo.inference import ELBO, KL
from priorzoo.inference.training.execution import Execution
from priorzoo.inference.training.nonfinite import OnNonfinite
from priorzoo.inference.training.settings import Unit
from priorzoo.inference.training.step import Precision
from priorzoo.models import MLP, Bernoulli

Changes = Mapping[str, object]  # by dotted option, values that take the place of the recipe's


@dataclass(frozen=True)
class Part:
    """A class by its import path, and those of its arguments that the recipe chooses."""

    class_path: str
    init_args: Mapping[str, Any] = field(default_factory=dict)


def part(kind: Callable[..., object], **arguments: object) -> Part:
    """A :class:`Part` of a class or function at hand, with these arguments."""
    return Part(f"{kind.__module__}.{kind.__qualname__}", arguments)


BOUND = part(ELBO)
BINARY = part(Bernoulli)
WIDE = part(MLP, hidden=[512, 512])
# The reference sums its loss over a batch of 100 where we take the mean: its eps of 1e-8 is ours of
# 1e-10. Weights of pixels that are nearly always black have gradients of that size.
ADAM = part(torch.optim.Adam, lr=1e-3, eps=1e-10, fused=True)


@dataclass(frozen=True)
class Stage:
    """A named part of a training, before the recipe's own.

    Args:
        name: which its rows of the history bear.
        begin: a function called first, with model, guide, training rows, ``seed``, and ``labels``
            or the ``transform`` of batches if it names them.
        steps, epochs: how long it trains; neither where it only begins.
        objective, kl, schedule: in place of the recipe's.
        learn: prefixes of the parameters that learn, such as ``guide.encoder``; all if empty.
    """

    name: str
    begin: Part | None = None
    steps: int | None = None
    epochs: float | None = None
    objective: Part | None = None
    kl: Mapping[str, KL] | None = None
    schedule: Part | None = None
    learn: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """All settings of a training run but its seed and its machine.

    Args:
        summary: one line for ``priorzoo list``.
        paper: where the settings come from.
        model, guide, likelihood: classes and arguments; networks and sizes are filled in.
        encoder, decoder: networks; a class that takes ``inputs``, ``outputs``, ``clusters`` (None
            for a network of x or z alone) and, if it names it, the ``shape`` of a picture.
        objective: the loss, a class of :class:`ELBO` and arguments of its own.
        kl: policies for the KL terms of sites.
        penalties: by name, terms that are added to the loss.
        particles: draws for each datum and step.
        optimiser, schedule: any of torch's. The ``total_steps`` of a schedule that takes them are
            those of the stage or training, unless they are given.
        schedule_unit: whether the schedule is stepped after each pass over the data (``epoch``) or
            after each ``step``.
        data: name of a data set, or path of a file or a folder of images.
        binarise: ``none``, ``static`` (once) or ``dynamic`` (anew in each batch, also in tests).
        reading: of a table, how it is read: ``columns``, ``scaling``, ``layer``, and of images
            ``size`` and ``mode``, each as text, see :func:`read_table`.
        train, validation: rows to train on (None for all that are left) and to hold out for the
            validation bound, both from the training set.
        labelled: how many of the training rows, equally many of each class, keep their label.
        labels: for each discrete site the name of the data set's labels that it is clamped to, such
            as ``{"r_1": "eyes"}``; ``labelled`` rows, whatever their classes, then keep them all.
        labelled_share: of the rows of a pass over the data that have labels, at least; these come
            several times, so that their bound and penalties weigh as often. 0 for once.
        stages: what comes before the training proper, in order.
        n_init, init_steps: starts, and steps of each; the one with the best bound goes on.
        moves: functions by name, called between two steps, at every row of the history but the
            last, with model, guide, training rows, ``seed``, and ``transform`` of batches or the
            share of the training that is ``done`` if it names them; what each returns, if
            anything, is a row of the history.
        batch_size: rows a step.
        steps, epochs: how long; exactly one of the two.
        every: steps between two rows of the history; one pass over the data if None.
        curve: whether test rows are scored at every row of the history; nothing is chosen by them.
        clip: norm to which the gradient is cut.
        average: decay of the moving average of the parameters, such as 0.999, which are evaluated
            and saved in place of the latest ones; in each stage with steps too.
        on_nonfinite: what to do about a step with NaN or infinity: ``raise`` (end), ``skip`` (leave
            it out) or ``rollback`` (back to the last row, and on with half the learning rate).
        rollbacks: how often ``rollback`` goes back before the training ends.
        patience: rows without a better validation bound after which the training stops.
        precision: of the networks.
        step: how a step is run, ``eager``, ``compiled``, ``cudagraph`` or ``auto``.
        memory: training rows that a nonparametric VAE remembers, spread over its plane; None for
            all.
        published: values to compare with, each with its protocol in its name.
    """

    summary: str
    model: Part
    guide: Part
    paper: str = ""
    likelihood: Part = BINARY
    encoder: Part = WIDE
    decoder: Part = WIDE
    objective: Part = BOUND
    kl: Mapping[str, KL] = field(default_factory=dict)
    penalties: Mapping[str, Part] = field(default_factory=dict)
    particles: int = 1
    optimiser: Part = ADAM
    schedule: Part | None = None
    schedule_unit: Unit = "epoch"
    data: str = "mnist"
    binarise: Literal["none", "static", "dynamic"] = "dynamic"
    reading: Mapping[str, str] = field(default_factory=dict)
    train: int | None = None
    validation: int = 0
    labelled: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    labelled_share: float = 0.0
    stages: tuple[Stage, ...] = ()
    n_init: int = 1
    init_steps: int = 500
    moves: Mapping[str, Part] = field(default_factory=dict)
    batch_size: int = 100
    steps: int | None = None
    epochs: float | None = None
    every: int | None = None
    curve: bool = False
    clip: float | None = None
    average: float | None = None
    on_nonfinite: OnNonfinite = "raise"
    rollbacks: int = 3
    patience: int | None = None
    precision: Precision = "float32"
    step: Execution = "eager"
    memory: int | None = None
    published: Mapping[str, float] = field(default_factory=dict)
