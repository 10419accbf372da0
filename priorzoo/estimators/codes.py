"""Codes of rows, and rows of codes."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import check_array
from torch import Tensor, nn

from priorzoo.inference import Stream, codes, draw
from priorzoo.inference.data.tables.schema import Table


def codes_of(
    model: nn.Module, guide: nn.Module, table: Table, sites: Sequence[str]
) -> NDArray[np.float32]:
    """``(N, D)``: the means of all codes of rows, side by side."""
    told = table.context
    found = [codes(model, guide, table.rows, site, context=told).cpu() for site in sites]
    return torch.cat(found, 1).numpy()


def decoded(model: nn.Module, z: object, sites: Sequence[str], size: int) -> Tensor:
    """Means of x for codes ``(N, D)``; what else the decoder reads is drawn from the prior.

    Args:
        model: the model.
        z: the codes.
        sites: whose they are, side by side and of one size.
        size: D.

    Raises:
        ValueError: for another number of columns.
    """
    rows = check_array(z, dtype=np.float32)
    if rows.shape[1] != size:
        raise ValueError(
            f"Expected codes (N, {size}) but got {rows.shape}; give those of transform."
        )
    parts = torch.from_numpy(rows).chunk(len(sites), -1)
    with Stream(0):
        return draw(model, len(rows), given=dict(zip(sites, parts, strict=True))).cpu()
