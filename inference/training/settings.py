"""Checks of a training's settings before its first step, and its optimiser."""

import inspect
import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Literal, get_args

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from priorzoo.inference.batch import Batch
from priorzoo.inference.checking import check_pair
from priorzoo.inference.data.batches import Batches
from priorzoo.inference.data.beside import check_labels
from priorzoo.inference.data.stored.rows import StoredRows
from priorzoo.inference.data.tensors import check_count
from priorzoo.inference.objectives.contract import Objective
from priorzoo.inference.objectives.elbo import ELBO
from priorzoo.inference.pairs import run_pair, without_side_effects
from priorzoo.inference.prediction import draw
from priorzoo.inference.sites import is_enumerated, latent_sites
from priorzoo.inference.training.execution import Execution
from priorzoo.models.contract import accepted

Unit = Literal["epoch", "step"]
MakesOptimiser = Callable[[Iterable[nn.Parameter]], Optimizer]
RATE = 1e-3  # of Adam


def optimiser_of(
    make: MakesOptimiser | None, lr: float | None, parameters: Iterable[nn.Parameter]
) -> Optimizer:
    """The user's optimiser, or Adam with a learning rate, 0.001 if None.

    ``torch.optim.Optimizer`` imports torch's compiler, which takes about a second, only to keep
    ``add_param_group`` out of compiled graphs. Nothing is compiled here, so it is called without.

    Raises:
        ValueError: for a rate beside an optimiser, which has its own, or one that is not positive.
    """
    if make is not None and lr is not None:
        raise ValueError(f"Expected an optimiser or lr but got both; give lr={lr} to the former.")
    if lr is not None and not 0 < lr < math.inf:
        raise ValueError(f"Expected a positive learning rate lr but got {lr}.")
    name = "add_param_group"
    decorated = getattr(Optimizer, name)
    setattr(Optimizer, name, inspect.unwrap(decorated))
    try:
        return (make or partial(torch.optim.Adam, lr=RATE if lr is None else lr))(parameters)
    finally:
        setattr(Optimizer, name, decorated)


def check_counts(**settings: object) -> None:
    """Check that settings are positive whole numbers, or None.

    Raises:
        ValueError: if one is not.
    """
    for name, value in settings.items():
        if value is not None:
            check_count(value, name)


def length_of(steps: int | None, epochs: float | None, epoch: int) -> int:
    """The number of steps in ``steps`` steps or in ``epochs`` passes of ``epoch`` steps each.

    Raises:
        ValueError: unless exactly one of the two is given, and it is finite and positive.
    """
    given = steps if epochs is None else epochs
    if given is None or (steps is not None and epochs is not None):
        raise ValueError(
            f"Expected steps or epochs but got steps={steps}, epochs={epochs}; give one."
        )
    unit = epoch if steps is None else 1
    if not math.isfinite(given) or round(given * unit) < 1:
        raise ValueError(
            f"Expected a length of at least one step but got steps={steps}, epochs={epochs}; "
            "train for longer."
        )
    return round(given * unit)


def check_schedule(
    optimiser: Optimizer, schedule: LRScheduler | None, unit: str, validation: object
) -> None:
    """Check that an optimiser and a schedule can be stepped by a training.

    Raises:
        ValueError: for an unknown unit, for an optimiser or a schedule whose step needs arguments,
            and for one that needs validation rows where there are none.
    """
    if unit not in get_args(Unit):
        raise ValueError(f"Expected schedule_unit among {get_args(Unit)} but got {unit!r}.")
    _check_needs_no_arguments(optimiser)
    if not isinstance(schedule, ReduceLROnPlateau):
        _check_needs_no_arguments(schedule)
    elif validation is None:
        raise ValueError(
            "Expected validation rows with ReduceLROnPlateau, which needs their bound, but got "
            "none; give validation, or choose another schedule."
        )


def learnt_parameters(objective: Objective, batches: Batches) -> list[nn.Parameter]:
    """The parameters to train.

    Raises:
        ValueError: if there are none, or if the pair cannot run and so could not make them.
    """
    learnt = [p for p in objective.parameters() if p.requires_grad]
    if not learnt:
        check_pair(objective.model, objective.guide, context=batches.context)  # says why
        raise ValueError("Expected trainable parameters but model and guide have none.")
    return learnt


def check_patience(patience: int | None, validation: object) -> None:
    """Check that there are validation rows for early stopping.

    Raises:
        ValueError: for patience without rows.
    """
    if patience is not None and validation is None:
        raise ValueError("Expected validation rows with patience but got none; give some.")


def check_objective(
    objective: Objective, model: nn.Module, guide: nn.Module, batches: Batches
) -> None:
    """Check that an objective is that of a pair, and its settings and the labels of the data.

    Raises:
        ValueError: for an objective of another pair, and as :func:`check_sites`.
    """
    if objective.model is not model or objective.guide is not guide:
        raise ValueError("Expected an objective of the same model and guide but got another.")
    if batches.labelled or (isinstance(objective, ELBO) and objective.kl):
        check_sites(objective, batches)


def check_sites(objective: Objective, batches: Batches) -> None:
    """Check the site names in the objective's settings and in the labels of the data.

    Raises:
        ValueError: for a site that the guide lacks, and for labels that it cannot have.
    """
    model, guide = objective.model, objective.guide
    data = batches.data
    beside = data.first(2).batch.context if isinstance(data, StoredRows) else batches.context
    few = {name: value[:2] for name, value in beside.items()}
    with without_side_effects(model, guide):
        x = draw(model, 2, means=False, context=accepted(model, few))
        guide_trace, _ = run_pair(model, guide, Batch(x, context=few))
    sites = latent_sites(guide_trace)
    objective.check(sites)
    choices = {
        name: site["fn"].logits.shape[-1]
        for name, site in sites.items()
        if is_enumerated(site) and isinstance(site["fn"], dist.Categorical)
    }
    for name in batches.labelled:
        if name not in choices:
            raise ValueError(
                f"Expected labels of Categorical sites that the guide enumerates, {list(choices)}, "
                f"but got labels of {name!r}; make it a Categorical site, or leave them out."
            )
        if name in batches.labels:
            assert isinstance(data, Tensor)
            check_labels(batches.labels[name], name, choices[name], data)


def _check_needs_no_arguments(made: Optimizer | LRScheduler | None) -> None:
    """Refuse optimisers and schedules whose ``step`` needs a closure or a metric."""
    wanted = [] if made is None else inspect.signature(type(made).step).parameters.values()
    names = [p.name for p in wanted if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    if len(names) > 1:
        raise ValueError(
            f"Expected an optimiser and a schedule whose step needs no arguments but "
            f"{type(made).__name__} needs {', '.join(names[1:])}; choose another."
        )


def prepare(optimiser: Optimizer, step: Execution) -> None:
    """Set an optimiser to its fused implementation, unless its user has chosen another one.

    For ``cudagraph`` the learning rate becomes a tensor, so that a schedule can still change it.

    Raises:
        ValueError: for ``cudagraph`` with an optimiser that cannot be captured.
    """
    if step == "eager":
        return
    for group in optimiser.param_groups:
        open_kind = group.get("fused", True) is None and not group.get("foreach")
        if open_kind and not group.get("differentiable"):
            group["fused"] = True
        if step != "cudagraph":
            continue
        if "capturable" in group:
            group["capturable"] = True
        elif not group.get("fused"):
            raise ValueError(
                f"Expected an optimiser that can be captured but got {type(optimiser).__name__}; "
                "choose one of torch's with capturable or fused, such as Adam, or step='compiled'."
            )
        device = group["params"][0].device
        group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float32, device=device)
