"""Networks whose layers have parts of the code of their own: early ones local, late ones global."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from priorzoo.models.networks import glorot

GATE = 0.1  # by which what a lower part of the code adds is multiplied


class LadderEncoder(nn.Module):
    """Parameters of part j of the code from hidden layer j, as variational ladder encoders have.

    Falck et al., 2021, after Zhao, Song and Ermon, "Learning Hierarchical Features from Generative
    Models", 2017, and Willetts et al., "Disentangling to Cluster", 2019.

    Args:
        inputs, outputs: sizes of the rows; the outputs are locations and then raw variances of a
            code that the layers share equally.
        hidden: widths of the hidden layers, one for each part of the code.

    Raises:
        ValueError: for outputs that cannot be shared equally.
    """

    def __init__(self, inputs: int, outputs: int, hidden: Sequence[int] = (500, 2000)) -> None:
        super().__init__()
        self.inputs, self.outputs, self.hidden = inputs, outputs, hidden
        part = _part(outputs, 2 * len(hidden))
        pairs = zip([inputs, *hidden], hidden, strict=False)
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairs)
        self.rungs = nn.ModuleList(nn.Linear(width, 2 * part) for width in hidden)
        glorot(self)

    def forward(self, x: Tensor) -> Tensor:
        h, found = x, []
        for layer, rung in zip(self.layers, self.rungs, strict=True):
            h = layer(h).relu()
            found.append(rung(h).chunk(2, -1))
        return torch.cat([part for parts in zip(*found, strict=True) for part in parts], -1)


class LadderDecoder(nn.Module):
    """Rows of a code whose last part enters the first layer, and whose first part the last one.

    Args:
        inputs, outputs: sizes of the code, which the layers share equally, and of the rows.
        hidden: widths of the hidden layers, one for each part of the code, from the code on.

    Raises:
        ValueError: for a code that cannot be shared equally.
    """

    def __init__(self, inputs: int, outputs: int, hidden: Sequence[int] = (2000, 500)) -> None:
        super().__init__()
        self.inputs, self.outputs, self.hidden = inputs, outputs, hidden
        part = _part(inputs, len(hidden))
        self.rungs = nn.ModuleList(nn.Linear(part, width) for width in hidden)
        pairs = zip(hidden, [*hidden[1:], outputs], strict=True)
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairs)
        glorot(self)

    def forward(self, z: Tensor) -> Tensor:
        last, *others = reversed(z.chunk(len(self.rungs), -1))
        first, *rungs = self.rungs
        h = first(last).relu()
        for rung, layer, part in zip(rungs, self.layers, others, strict=False):
            h = layer(h).relu() + GATE * rung(part).relu()
        return self.layers[-1](h)


def _part(size: int, count: int) -> int:
    if size % count:
        raise ValueError(
            f"Expected a size that {count} parts share equally but got {size}; give a multiple."
        )
    return size // count
