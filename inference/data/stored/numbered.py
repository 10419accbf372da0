"""Rows with their numbers in the order of the files they are from."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from priorzoo.inference.batch import Batch


@dataclass(frozen=True)
class Numbered:
    """Rows with their numbers in the order of the files.

    Args:
        batch: ``(B, ...)``.
        numbers: ``(B,)``.
    """

    batch: Batch
    numbers: Tensor

    def at(self, index: Tensor | slice) -> "Numbered":
        """The rows at an index."""

        def chosen(values: Tensor) -> Tensor:  # faster than indexing, for rows of many bytes
            return values[index] if isinstance(index, slice) else values.index_select(0, index)

        tensors = [chosen(values) for values in self.batch.tensors]
        return Numbered(self.batch.with_tensors(tensors), chosen(self.numbers))


def joined(parts: Sequence[Numbered]) -> Numbered:
    """Rows one after the other."""
    if len(parts) == 1:
        return parts[0]
    tensors = zip(*(part.batch.tensors for part in parts), strict=True)
    batch = parts[0].batch.with_tensors([torch.cat(each) for each in tensors])
    return Numbered(batch, torch.cat([part.numbers for part in parts]))
