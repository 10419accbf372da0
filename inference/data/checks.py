"""Conversion and checks of rows, labels and context, used by all public functions.

Inputs with only one meaning are converted; all others are refused, with what was expected. Every
public function that takes rows calls :func:`admit`; :class:`CheckedBatches` checks each batch of
an iterable.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from priorzoo.inference.batch import (
    Batch,
    Context,
    Labels,
    Transform,
    binarises,
    in_precision,
)
from priorzoo.inference.data.accepts import Accepts, device_of
from priorzoo.inference.data.beside import as_labels, beside_of, by_name, check_labels
from priorzoo.inference.data.missing import blank
from priorzoo.inference.data.tensors import as_tensor, check_count, check_finite
from priorzoo.inference.data.transformed import applied
from priorzoo.inference.randomness import Stream

PORTION = 1000  # rows that a transform is tried on at a time


def admit(
    model: nn.Module,
    x: object,
    *,
    labels: Labels | None = None,
    context: Context | None = None,
    transform: Transform | None = None,
    name: str = "x",
    dry_run: bool = True,
    on_device: bool = False,
) -> Batch:
    """Convert and check rows in memory with their labels and context.

    Args:
        model: its likelihood says which rows it accepts.
        x: rows ``(N, P)``, or pictures where P is the product of their sides: anything that
            :func:`as_tensor` takes, of any dtype whose numbers the networks' dtype can hold.
        labels, context: by name, with a value for each row.
        transform: if it is None, the rows themselves are converted and checked; for
            ``binarised`` or ``torch.bernoulli`` they are checked as probabilities of the 0 and 1
            that the likelihood accepts; otherwise it decides what the likelihood gets, which is
            then checked.
        name: name of the rows in error messages.
        dry_run: whether to run another transform here, to check its results. If not, the caller
            checks these, and the rows to transform keep their precision.
        on_device: whether to move the batch to the device of the model's parameters.

    Raises:
        ValueError: for rows, labels or context that cannot be used, saying what to change.
    """
    precise = dry_run or transform is None
    batch = as_batch(model, x, labels, context, transform, name, precise)
    if on_device:
        batch = batch.to(device_of(model, batch.x.device))
    accepts = Accepts.of(model, in_precision(model, batch).context)
    if transform is None or binarises(transform):
        batch = replace(batch, context=accepts.aligned(batch.context))
        rows = accepts.filled(accepts.converted(batch.x, name), batch.context)
        accepts.check(rows if transform is None else rows.round(), name)
        if transform is not None:
            _check_unit(rows, name)
        kept = rows if dry_run or transform is None else accepts.shaped(batch.x, name)
        return replace(batch, x=kept)
    if len(batch.x) == 0:
        raise ValueError(f"Expected {name} with at least one row but got none; give some.")
    if dry_run:
        with Stream(0, batch.x.device):
            for part in batch.split(PORTION):
                made = applied(transform, part.x, name)
                accepts.check(accepts.filled(made, part.context), name)
    return batch


def admit_step(
    model: nn.Module,
    x: object,
    size: int | None = None,
    labels: Labels | None = None,
    context: Context | None = None,
) -> Batch:
    """Convert a batch for one training step; its values are checked on the CPU only.

    What the likelihood accepts is read once for each model, until its modules are exchanged.

    Raises:
        ValueError: as in :func:`admit`.
    """
    if size is not None:
        check_count(size, "size")
    batch = replace(as_batch(model, x, labels, context), size=size)
    accepts = Accepts.remembered(model, batch.context)
    batch = replace(batch, context=accepts.aligned(batch.context))
    rows = accepts.converted(batch.x, exact=batch.x.device.type == "cpu")
    rows = accepts.filled(rows, batch.context)
    if rows.device.type == "cpu":
        accepts.check(rows)
    for name, label in batch.labels.items():
        if name not in accepts.choices:
            raise ValueError(
                f"Expected labels of the Categorical sites {list(accepts.choices)} but got "
                f"labels of {name!r}; name one of them."
            )
        if label.device.type == "cpu" or label.shape != rows.shape[:1]:
            check_labels(label, name, accepts.choices[name], rows)
    return replace(batch, x=rows)


def as_batch(
    model: nn.Module,
    x: object,
    labels: Labels | None = None,
    context: Context | None = None,
    transform: Transform | None = None,
    name: str = "x",
    precise: bool = True,
) -> Batch:
    """Rows, labels and context as tensors, not checked yet.

    Whole numbers become floats, and if ``precise`` all floats those of the networks' precision,
    unless a transform that does not binarise decides that.
    """
    rows = as_tensor(x, name)
    if rows.dim() == 0:
        raise ValueError(f"Expected rows in {name} but got one number; give an array (N, ...).")
    own = transform is not None and not binarises(transform)
    if not own and not rows.is_floating_point():
        rows = _as_floats(model, rows)
    beside = beside_of(by_name(context, "context"), len(rows), check_finite)
    rows, beside = blank(rows, beside, name)
    given = {key: as_labels(value, key) for key, value in by_name(labels, "labels").items()}
    batch = Batch(rows, None, given, beside)
    return in_precision(model, batch, transform) if precise else batch


def check_data(
    model: nn.Module,
    x: object,
    name: str = "x",
    transform: Transform | None = None,
    context: Context | None = None,
) -> None:
    """Check that a model's likelihood accepts the rows, see :func:`admit`.

    Args:
        x: rows ``(N, P)``, or pictures.
        name: name of the data in error messages.
        transform: applied to each batch.
        context: keyword arguments of the programs beside x, each ``(N, ...)``.

    Raises:
        ValueError: for no rows, a wrong shape, values that the networks' dtype cannot hold, NaN or
            infinity, or values outside the support of the likelihood.
    """
    admit(model, x, context=context, transform=transform, name=name)


def _as_floats(model: nn.Module, rows: Tensor) -> Tensor:
    """Whole numbers as the floats of the networks, if these hold them without rounding."""
    weights = [p for p in getattr(model, "parameters", list)() if p.is_floating_point()]
    made = rows.to(weights[0].dtype if weights else torch.get_default_dtype())
    small = rows.dtype not in (torch.int32, torch.int64)
    return made if small or bool((made.to(rows.dtype) == rows).all()) else rows


def in_unit(x: Tensor) -> Tensor:
    """Whether all values are in [0, 1], 0-dimensional."""
    return ((x >= 0) & (x <= 1)).all()


def _check_unit(x: Tensor, name: str) -> None:
    if x.device.type != "meta" and not bool(in_unit(x)):
        raise ValueError(
            f"Expected {name} within [0, 1] to binarise but got values from {x.min():g} to "
            f"{x.max():g}; rescale the data, or leave the transform out."
        )
