"""What a network reads of a row: its cells, which of them are observed, and covariates."""

import torch
from torch import Tensor, nn


class Inlet(nn.Module):
    """The input of a network's first layer: the cells, then the mask, then the covariates.

    It has no parameters. The mask is 1 for observed cells and 0 for missing ones.

    Args:
        inputs: number P of cells.
        covariates: number C of covariates; 0 if the network does not take them.
        masked: whether the network takes the mask.
    """

    def __init__(self, inputs: int, covariates: int = 0, masked: bool = False) -> None:
        super().__init__()
        self.inputs, self.covariates, self.masked = inputs, covariates, masked
        self.width = inputs * (1 + masked) + covariates
        names = {"covariates": covariates > 0, "observed": masked}
        self.takes = frozenset(name for name, taken in names.items() if taken)

    def forward(
        self, x: Tensor, observed: Tensor | None = None, covariates: Tensor | None = None
    ) -> Tensor:
        """``(..., width)`` of cells ``(..., P)``; without a mask, all cells are observed.

        Raises:
            ValueError: without covariates, or with another number of them.
        """
        parts = [x]
        if self.masked:
            parts.append(torch.ones_like(x) if observed is None else observed.to(x.dtype))
        if self.covariates:
            if covariates is None or covariates.shape[1:] != (self.covariates,):
                sides = [] if covariates is None else ["N", *map(str, covariates.shape[1:])]
                found = f"({', '.join(sides)})" if sides else "none"
                raise ValueError(
                    f"Expected covariates (N, {self.covariates}) but got {found}; give "
                    "context={'covariates': values}."
                )
            parts.append(covariates.to(x.dtype))
        if len(parts) == 1:
            return x
        batch = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
        return torch.cat([part.expand(*batch, -1) for part in parts], -1)
