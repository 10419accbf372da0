"""An encoder of the observed cells of a row as a set."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from priorzoo.models.inlets import Feature, Inlet
from priorzoo.models.networks import MLP


class SetEncoder(nn.Module):
    r"""Adds up what it reads of each observed cell, so that missing cells need no value.

    .. math:: \mathrm{MLP}\Bigl(\textstyle\sum_{j\ \mathrm{observed}}
        \mathrm{relu}(x_j a_j + b_j)\Bigr)

    The order of the cells does not matter, only what a_j and b_j say of each. After the set
    encoders of Ma et al., "EDDI: Efficient Dynamic Discovery of High-Value Information with Partial
    VAE", 2019, with one layer a cell, of its own.

    Args:
        inputs, outputs: sizes of the rows ``(..., inputs)`` and ``(..., outputs)``.
        hidden, clusters, covariates, features: as in :class:`MLP`.
        width: size M of a_j and b_j.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        hidden: Sequence[int] = (512,),
        clusters: int | None = None,
        width: int = 64,
        covariates: int = 0,
        features: Sequence[Feature] | None = None,
    ) -> None:
        super().__init__()
        self.inputs, self.outputs, self.hidden, self.clusters = inputs, outputs, hidden, clusters
        self.width, self.covariates, self.features = width, covariates, features
        self.inlet = Inlet(inputs, features=features)
        shape, bound = (self.inlet.cells, width), self.inlet.cells**-0.5
        self.slope = nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
        self.offset = nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
        self.head = MLP(width, outputs, hidden, clusters, covariates=covariates)

    @property
    def takes(self) -> frozenset[str]:
        """What the network takes beside x and the cluster."""
        return self.head.takes | {"observed"}

    def forward(
        self,
        x: Tensor,
        y: Tensor | None = None,
        *,
        observed: Tensor | None = None,
        covariates: Tensor | None = None,
    ) -> Tensor:
        read = self.inlet.read(x, observed).unsqueeze(-1)
        each = (read * self.slope + self.offset).relu()
        if observed is not None:
            each = each * self.inlet.seen(observed).unsqueeze(-1)
        return self.head(each.sum(-2), y, covariates=covariates).to(x.dtype)
