"""Tensors side by side whose other dimensions may differ."""

from collections.abc import Sequence

import torch
from torch import Tensor


def side_by_side(parts: Sequence[Tensor]) -> Tensor:
    """``(..., D_1 + ... + D_I)`` from parts ``(..., D_i)``, whose other dimensions are broadcast.

    Parts of a code that are enumerated apart have dimensions of their own.
    """
    batch = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
    return torch.cat([part.expand(*batch, -1) for part in parts], -1)
