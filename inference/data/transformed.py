"""Batches of an evaluation, with a separate random stream for a random transform."""

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor

from priorzoo.inference.batch import Batch, Transform
from priorzoo.inference.data.tensors import FOREIGN
from priorzoo.inference.failures import first_line
from priorzoo.inference.randomness import Stream, derive

BLOCK = 100  # rows that are transformed at a time, whatever the batch size


def transformed(
    batch: Batch, rows: int, transform: Transform | None, seed: int, first: int = 0
) -> Iterator[Batch]:
    """Divide the batch into batches of at most ``rows`` transformed rows.

    Blocks of 100 rows are transformed under a seed that is derived from ``seed`` and the block's
    number; the last block is padded with copies of its last row. What an elementwise random
    transform draws for a row therefore depends only on the seed, the row and its number. The
    caller's random stream is neither used nor changed.

    Args:
        batch: the rows with their labels and context.
        rows: rows in a batch.
        transform: applied to the blocks; None for rows as they are.
        seed: seed of the transform.
        first: number of the batch's first row, a multiple of 100.
    """
    if transform is None:
        yield from batch.split(rows)
        return
    blocks = batch.x.split(BLOCK)

    @lru_cache(maxsize=1)  # a block may end in the next batch
    def made(index: int) -> Tensor:
        block = blocks[index]
        place = torch.arange(BLOCK, device=block.device).clamp(max=len(block) - 1)
        with Stream(derive(seed, first // BLOCK + index, 1), block.device):
            return applied(transform, block[place])[: len(block)]

    start = 0
    for part in batch.split(rows):
        stop = start + len(part.x)
        begin, last = start // BLOCK, (stop - 1) // BLOCK
        found = torch.cat([made(index) for index in range(begin, last + 1)])
        yield replace(part, x=found[start - begin * BLOCK : stop - begin * BLOCK])
        start = stop


def applied(transform: Transform, x: Tensor, name: str = "x") -> Tensor:
    """The transformed rows.

    Raises:
        ValueError: for a transform that cannot be applied, or that returns no tensor of as many
            rows.
    """
    try:
        made = transform(x)
    except FOREIGN as error:
        reason = first_line(error)
        raise ValueError(
            f"Expected a transform of {name}, {x.dtype} of shape {tuple(x.shape)}, but it failed: "
            f"{reason}; change the transform or the data."
        ) from error
    if not isinstance(made, Tensor) or made.shape[:1] != x.shape[:1]:
        found = tuple(made.shape) if isinstance(made, Tensor) else type(made).__name__
        raise ValueError(
            f"Expected a transform that returns a tensor of {len(x)} rows but got {found}; "
            "transform each row."
        )
    return made
