"""Rows with their numbers in the order of the files they are from."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from priorzoo.inference.batch import Batch
from priorzoo.inference.data.stored.files import Part


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


def filled(parts: Iterable[Part], rows: int) -> Part:
    """Parts one after the other, of which one or two are in memory beside the result.

    Args:
        parts: with the same names, in any dtypes: integers with missing values are floats.
        rows: of all parts together.
    """
    whole: Part = {}
    start = 0
    for part in parts:
        if len(part["x"]) == rows:
            return part
        for name, values in part.items():
            if name not in whole:
                whole[name] = values.new_empty(rows, *values.shape[1:])
            kind = torch.promote_types(whole[name].dtype, values.dtype)
            whole[name] = whole[name].to(kind)
            whole[name][start : start + len(values)] = values
        start += len(part["x"])
    return whole
