"""Training data and held-out rows: in memory, in files, or in batches."""

import torch
from torch import Tensor, nn

from priorzoo.inference.batch import Batch, Context, Labels, Transform, binarises
from priorzoo.inference.checking import check_pair
from priorzoo.inference.data.accepts import Accepts
from priorzoo.inference.data.batches import Batches
from priorzoo.inference.data.beside import by_name
from priorzoo.inference.data.checks import admit, as_batch
from priorzoo.inference.data.stored.rows import StoredRows
from priorzoo.inference.data.streams import Iterables, opened
from priorzoo.inference.processes import Processes
from priorzoo.models.contract import check_context, needed


def batches_of(
    model: nn.Module,
    data: Tensor | Iterables,
    labels: Labels | None,
    context: Context | None,
    batch_size: int,
    size: int | None,
    transform: Transform | None,
    device: torch.device,
    processes: Processes,
) -> Batches:
    """Batches of the data, see :class:`Training`; rows in memory are converted but not checked.

    Raises:
        ValueError: for data that cannot be converted, and for labels or context beside an iterable.
    """
    rows, size = opened(data, batch_size, size)
    labels, context = by_name(labels, "labels"), by_name(context, "context")
    if isinstance(rows, StoredRows) and (labels or context):
        raise ValueError(
            "Expected rows in memory beside labels and context but got StoredRows; name their "
            "columns there, labels={'y': 'column'}."
        )
    if isinstance(rows, Tensor):
        whole = as_batch(model, rows.detach(), labels, context, transform).counted()
        size = whole.size  # None without weights, for the number of rows
        rows, labels, context = whole.x, whole.labels, whole.context
        own = transform is not None and not binarises(transform)
        if rows.dim() > 2 and not own:  # flat before networks may take their sizes from it
            accepts = Accepts.of(model, whole.context)
            rows, context = accepts.converted(rows), accepts.aligned(whole.context)
    elif labels:
        raise ValueError(
            "Expected rows in memory beside labels but got an iterable of batches; give a tensor."
        )
    elif context:
        raise ValueError(
            "Expected rows in memory beside context but got an iterable of batches; give batches "
            "that are mappings, {'x': rows, 'exposure': values}."
        )
    return Batches(model, rows, labels, context, batch_size, size, transform, device, processes)


def check_given(model: nn.Module, guide: nn.Module, batches: Batches) -> None:
    """Check a pair and the rows that it is to train on, which are converted.

    Raises:
        ValueError: for a pair that does not fit, and rows that the likelihood does not accept.
    """
    rows, context = batches.data, batches.context
    told = isinstance(rows, Tensor) or not (needed(model) | needed(guide))
    if told and batches.device.type != "meta":  # where supports have no values to compare
        check_pair(model, guide, context=context)
    if isinstance(rows, Tensor):
        batches.data = admit(model, rows, context=context, transform=batches.transform).x


def held_out(
    model: nn.Module,
    guide: nn.Module,
    rows: object,
    context: Context | None,
    transform: Transform | None,
    device: torch.device,
) -> Batch | StoredRows | None:
    """Held-out rows as a batch on the device, or in files; None if there are none.

    Raises:
        ValueError: for rows or context that cannot be used.
    """
    if rows is None or isinstance(rows, StoredRows):
        return rows
    found = admit(model, rows, context=context, transform=transform, name="validation")
    check_context(found.context, len(found.x), model, guide)
    return found.to(device)
