"""Comparing a state that was read with the training that shall continue from it."""

import copy
import math
import reprlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from priorzoo.inference.data.batches import Batches
from priorzoo.inference.failures import FAILURES, one_line
from priorzoo.inference.schema import Flag, Many, Number, Record, Schema, Text, Whole
from priorzoo.inference.training.averaging import MovingAverage
from priorzoo.inference.training.descent import TrainingState
from priorzoo.inference.training.loop import Training

NUMBERS: Mapping[str, Schema] = {
    "step": Whole(),
    "seconds": Number(0),
    "stopped": Flag(),
    "sums": Record({"names": Many(Text()), "count": Whole()}),
}


def resume(training: Training, state: TrainingState, place: object) -> None:
    """Restore a state, once names, shapes, types and finite values are those of this training.

    Args:
        training: which has taken no step yet.
        state: as its :meth:`Training.state` returns it, read from a file.
        place: of the file, for messages.

    Raises:
        ValueError: naming the first entry that does not fit.
    """
    check_state(state, training, f"the checkpoint in {place}")
    try:
        training.restore(state)
        with training.stream:  # which refuses a random state that is none
            pass
    except FAILURES as error:
        said = one_line(error)
        raise ValueError(
            f"Expected a checkpoint in {place} that fits this training but got {said:.300}; train "
            "again."
        ) from error


def check_state(found: object, training: Training, place: str) -> None:
    """Check what :func:`resume` says, without restoring anything."""
    own = training.state()
    if not isinstance(found, Mapping) or not own.keys() <= found.keys():
        raise _wrong(own, place, found)
    for name, schema in NUMBERS.items():
        if problem := schema.problem(found[name], name):
            raise ValueError(f"{problem}, in {place}; train again.")
    for name in ("objective", "random", "clock"):
        check_alike(found[name], own[name], f"{name} of {place}")
    for name in ("optimiser", "schedule"):
        check_alike(found[name], own[name], f"{name} of {place}", more=True)
    check_parameters(found["objective"], own["objective"], f"objective of {place}")
    if isinstance(training.batches.data, Tensor):
        _check_order(found["batches"], training.batches, place)
    _check_sums(found["sums"], place)
    _check_best(found["best"], found["latest"], own["objective"], place)
    _check_moments(found["optimiser"]["state"], training.optimiser, place)
    if training.average is not None:
        _check_average(found["average"], training.average, place)


def check_alike(found: object, own: object, place: str, *, more: bool = False) -> None:
    """Check that a value has the names, shapes and types of another.

    Args:
        found, own: nested mappings and lists of tensors and plain values.
        place: name of the value.
        more: whether mappings may have further entries.

    Raises:
        ValueError: naming the first entry that differs.
    """
    if not _fits(found, own, more):
        raise _wrong(own, place, found)
    if isinstance(own, Mapping) and isinstance(found, Mapping):
        for name in own:
            check_alike(found[name], own[name], f"{name} in {place}", more=more)
    elif isinstance(own, (list, tuple)) and isinstance(found, (list, tuple)):
        for one, mine in zip(found, own, strict=True):
            check_alike(one, mine, place, more=more)


def _fits(found: object, own: object, more: bool) -> bool:
    if isinstance(own, Tensor):
        return isinstance(found, Tensor) and (found.shape, found.dtype) == (own.shape, own.dtype)
    if isinstance(own, Mapping):
        return isinstance(found, Mapping) and own.keys() <= found.keys() <= (
            found.keys() if more else own.keys()
        )
    if isinstance(own, (list, tuple)):
        return isinstance(found, (list, tuple)) and len(found) == len(own)
    if isinstance(own, (bool, str)):
        return type(found) is type(own)
    if isinstance(own, (int, float)):
        return isinstance(found, (int, float)) and not isinstance(found, bool)
    return found is None or isinstance(found, (bool, int, float, str))


def check_parameters(found: object, own: Mapping[str, Tensor], place: str) -> None:
    """Check that parameters and buffers are like others, and finite where these are.

    Raises:
        ValueError: naming the first that is not.
    """
    check_alike(found, own, place)
    assert isinstance(found, Mapping)
    for name, tensor in found.items():
        if not tensor.isfinite().all() and own[name].isfinite().all():
            raise ValueError(f"Expected finite values in {name} of the {place}; train again.")


def _check_order(found: object, batches: Batches, place: str) -> None:
    """The order of rows in the current pass, of which there is none before the first."""
    assert isinstance(batches.data, Tensor)
    rows = len(batches.data)
    if not isinstance(found, Mapping) or not {"order", "place"} <= found.keys():
        raise _wrong("order and place", f"batches of {place}", found)
    order = found["order"]
    fits = isinstance(order, Tensor) and order.dtype == torch.int64 and order.dim() == 1
    if not fits or not torch.equal(order.sort().values, torch.arange(rows if len(order) else 0)):
        raise _wrong(f"each of {rows} rows once", f"order of {place}", order)
    if problem := Whole(0, rows + batches.batch_size).problem(found["place"], "place"):
        raise ValueError(f"{problem}, in {place}; train again.")


def _check_sums(found: Mapping[str, object], place: str) -> None:
    names, sums = found["names"], found.get("sums")
    assert isinstance(names, Sequence)
    if not isinstance(sums, Tensor) or (names and sums.shape != (len(names),)):
        raise _wrong(f"a sum for each of {len(names)} terms", f"sums of {place}", sums)


def _check_best(found: object, latest: object, own: Mapping[str, Tensor], place: str) -> None:
    """The best bound, the rows since then, its parameters, and the latest parameters."""
    if not isinstance(found, Sequence) or len(found) != 3:
        raise _wrong("a bound, a number and parameters", f"best of {place}", found)
    bound, since, parameters = found
    fits = isinstance(bound, (int, float)) and not isinstance(bound, bool)
    if not fits or math.isnan(bound) or Whole().problem(since, "best"):
        raise _wrong("a bound and a number", f"best of {place}", found[:2])
    for kept in (parameters, latest):
        if kept != {}:
            check_parameters(kept, own, f"best of {place}")


def _check_average(found: object, own: MovingAverage, place: str) -> None:
    """How many steps are averaged, and the averages, of which there are none before the first."""
    if not isinstance(found, Mapping) or found.keys() != own.state().keys():
        raise _wrong(own.state(), f"average of {place}", found)
    if problem := Whole().problem(found["steps"], "average"):
        raise ValueError(f"{problem}, in {place}; train again.")
    wanted = own.learnt() if found["steps"] else {}
    check_parameters(found["values"], wanted, f"average of {place}")


def _check_moments(found: object, optimiser: Optimizer, place: str) -> None:
    """What an optimiser keeps for each parameter: as after a first step, and finite."""
    if not isinstance(found, Mapping):
        raise _wrong("the state of an optimiser", place, found)
    own = _after_a_step(optimiser)
    for index, kept in found.items():
        name = f"the optimiser's state {index!r:.20} of {place}"
        if isinstance(index, bool) or index not in own:
            raise _wrong(f"one of {len(own)} parameters", name, kept)
        check_alike(kept, own[index], name)
        for one in kept.values() if isinstance(kept, Mapping) else ():
            if isinstance(one, Tensor) and not one.isfinite().all():
                raise _wrong("finite values", name, one)


def _after_a_step(optimiser: Optimizer) -> Mapping[int, object]:
    """What a copy of an optimiser keeps after a step with gradients of zero."""
    copied = copy.deepcopy(optimiser)
    for group in copied.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    copied.step()
    return copied.state_dict()["state"]


def _wrong(expected: object, place: str, found: object) -> ValueError:
    said = expected if isinstance(expected, str) else _kind(expected)
    return ValueError(f"Expected {said} for {place} but got {_kind(found)}; train again.")


def _kind(value: object) -> str:
    if isinstance(value, Tensor):
        return f"{value.dtype} of shape {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return f"entries {', '.join(map(str, value))}"[:200]
    return " ".join(reprlib.repr(value).split())[:60]
