"""Checked rows of an evaluation or a prediction, in memory or read from files in portions."""

import math
from collections.abc import Iterator
from dataclasses import replace

from torch import nn

from priorzoo.inference.batch import Batch, Context, Transform
from priorzoo.inference.data.checks import admit
from priorzoo.inference.data.stored.rows import StoredRows
from priorzoo.inference.data.transformed import BLOCK

MOST = 10_000  # rows of files that are in memory at a time, or as many as one batch has


def portions(
    model: nn.Module,
    x: object,
    batch_size: int,
    *,
    context: Context | None = None,
    transform: Transform | None = None,
) -> tuple[int, Iterator[Batch]]:
    """The number of rows, and the rows in portions on the model's device, in their order.

    Rows in memory are one portion. Portions of :class:`StoredRows` are multiples of a batch and of
    a block of :func:`transformed`, so that a result does not depend on where the rows are.

    Args:
        model, context, transform: as in :func:`admit`.
        x: rows, or :class:`StoredRows`.
        batch_size: into which the portions will be divided.

    Raises:
        ValueError: for rows that the likelihood does not accept, and for context beside files.
    """
    if not isinstance(x, StoredRows):
        whole = _admitted(model, x, context, transform).counted()
        return len(whole.x), iter([whole])
    if context:
        raise ValueError(
            f"Expected rows in memory beside context but got {type(x).__name__}; name the columns "
            "of the context there, context={'exposure': 'column'}."
        )
    unit = math.lcm(batch_size, BLOCK)
    return x.size, _read(model, x, max(1, MOST // unit) * unit, transform)


def _read(
    model: nn.Module, stored: StoredRows, rows: int, transform: Transform | None
) -> Iterator[Batch]:
    def check(batch: Batch) -> Batch:
        return _admitted(model, batch.x, batch.context, transform)

    for part in stored.in_order(rows):
        yield replace(stored.checked(part, check), size=stored.size)


def _admitted(
    model: nn.Module, x: object, context: Context | None, transform: Transform | None
) -> Batch:
    dry_run = transform is None
    return admit(model, x, context=context, transform=transform, dry_run=dry_run, on_device=True)
