"""Missing cells of rows: a mask beside the rows, and 0 in place of what the rows hold there."""

from collections.abc import Mapping

import torch
from torch import Tensor

OBSERVED = "observed"  # name of the mask among what is told beside the rows
REMEDY = "give context={'observed': ~x.isnan()} to programs that know of missing cells"


def blank(
    rows: Tensor, beside: Mapping[str, Tensor], name: str = "x"
) -> tuple[Tensor, dict[str, Tensor]]:
    """Rows with 0 in their missing cells, and the context with the mask as booleans.

    Whatever the rows hold in missing cells, such as NaN, reaches no program and no transform. Rows
    are returned as they are if the context has no mask.

    Raises:
        ValueError: for a mask of another shape than the rows, or one of other values than 0 and 1.
    """
    if OBSERVED not in beside:
        return rows, dict(beside)
    mask = beside[OBSERVED]
    if mask.shape != rows.shape:
        raise ValueError(
            f"Expected context 'observed' with a value for each cell of {name}, shape "
            f"{tuple(rows.shape)}, but got {tuple(mask.shape)}; give False for missing cells."
        )
    if mask.dtype != torch.bool:
        if not bool(((mask == 0) | (mask == 1)).all()):
            raise ValueError(
                f"Expected context 'observed' of booleans but got {mask.dtype} with values from "
                f"{mask.min():g} to {mask.max():g}; give True for observed cells."
            )
        mask = mask.to(torch.bool)
    return rows.masked_fill(~mask, 0), {**beside, OBSERVED: mask}
