"""Means of what encoders read of the cells of a table, given the covariates of its rows."""

import torch
from torch import Tensor, nn

from priorzoo.inference.batch import Context
from priorzoo.models.contract import WEIGHTS
from priorzoo.models.inlets import Inlet

RIDGE = 1e-6  # times the number of rows: covariates of one category each are collinear with 1
ROWS = 20_000


@torch.no_grad()
def centre_features(
    model: nn.Module, guide: nn.Module, x: Tensor, *, seed: int = 0, context: Context | None = None
) -> None:
    """Set what a guide's centred networks subtract, by least squares over the observed cells.

    Recipes for tables with missing cells or covariates call it before the first step: a missing
    count is then read as an average one and not as 0, and what a batch does to all its rows alike
    is left to the decoder, which is told the batch.

    Args:
        model: not used; recipes call functions of model, guide and rows.
        guide: whose networks are set, in place.
        x: training rows ``(N, P)``, of which the first 20,000 are used.
        seed: not used, since nothing is drawn.
        context: what the programs are told beside x, each ``(N, ...)``, weights of rows included.
    """
    told = {name: value[:ROWS] for name, value in (context or {}).items()}
    rows, observed = x[:ROWS], told.get("observed")
    for inlet in guide.modules():
        if isinstance(inlet, Inlet) and inlet.centred:
            cells = rows if observed is None else rows.masked_fill(~observed, 0)
            features = inlet.read(cells, observed).double()
            seen = torch.ones_like(features) if observed is None else inlet.seen(observed).double()
            if WEIGHTS in told:
                seen = seen * told[WEIGHTS].double().unsqueeze(1)
            design = features.new_ones(len(rows), 1)
            if inlet.covariates:
                design = torch.cat([design, told["covariates"].double()], 1)
            inlet.centre.copy_(least_squares(design, features, seen))


def least_squares(design: Tensor, values: Tensor, weights: Tensor) -> Tensor:
    """``(C, P)``: coefficients of each column of values, each cell with a weight of its own.

    Args:
        design: ``(N, C)``, of any rank; of the solutions a small one is taken.
        values, weights: ``(N, P)``.
    """
    count = design.shape[1]
    products = (design.unsqueeze(2) * design.unsqueeze(1)).flatten(1)
    gram = (weights.T @ products).unflatten(1, (count, count))
    gram = gram + RIDGE * len(design) * torch.eye(count).to(gram)
    right = (weights * values).T @ design
    return torch.linalg.solve(gram, right).T
