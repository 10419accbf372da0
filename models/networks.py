"""Networks for any model or guide; all map flat rows to flat rows."""

import itertools
import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from priorzoo.models.inlets import Feature, Inlet
from priorzoo.models.words import Weighting

Activation = Literal["relu", "tanh"]


def glorot(network: nn.Module) -> None:
    """Initialise weights by Glorot's uniform rule and biases to 0, as the reference codes do."""
    for module in network.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class MLP(nn.Module):
    """Multi-layer perceptron, optionally conditioned on a cluster.

    The cluster adds a learnt vector after the first linear map, which is the same as appending its
    one-hot encoding to the input. The linear map of x is then computed once for all enumerated
    clusters.

    Args:
        inputs, outputs: sizes of the rows ``(..., inputs)`` and ``(..., outputs)``.
        hidden: sizes of the hidden layers; empty for a linear map.
        clusters: number K of clusters, for a network that is also called with ``y``, integers in
            0..K-1 of a shape that broadcasts with the batch; None for a network of x only.
        activation: activation of the hidden layers, ``relu`` or ``tanh``.
        dropout: dropout probability of hidden units during training.
        covariates: number C of covariates ``(B, C)`` that the network takes beside x; 0 for none.
        masked: whether it takes which cells of x are observed, ``(B, inputs)`` booleans.
        features: what it reads of each cell of x, see :class:`Inlet`, such as ``Columns.features``.
        weighting: of counts of words, how they are read, ``tf-idf`` or ``log-tf-idf``; see
            :func:`weigh_words`. ``none`` for x as it is.
        input_dropout: dropout probability of what is read of x during training.
        centred: whether it subtracts from the features what their means are given the covariates,
            see :class:`Inlet`, in place of reading the covariates.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        hidden: Sequence[int] = (512, 512),
        clusters: int | None = None,
        activation: Activation = "relu",
        dropout: float = 0.0,
        covariates: int = 0,
        masked: bool = False,
        features: Sequence[Feature] | None = None,
        weighting: Weighting = "none",
        input_dropout: float = 0.0,
        centred: bool = False,
    ) -> None:
        super().__init__()
        if activation not in get_args(Activation):
            raise ValueError(
                f"Expected activation among {get_args(Activation)} but got {activation!r}."
            )
        self.inputs, self.outputs, self.hidden, self.clusters = inputs, outputs, hidden, clusters
        self.activation = activation
        self.dropout = dropout
        self.covariates, self.masked, self.features = covariates, masked, features
        self.weighting, self.input_dropout, self.centred = weighting, input_dropout, centred
        self.inlet = Inlet(inputs, covariates, masked, features, weighting, input_dropout, centred)
        sizes = [self.inlet.width, *hidden, outputs]
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in itertools.pairwise(sizes))
        glorot(self)
        if clusters is not None:
            bound = math.sqrt(6 / (inputs + clusters + sizes[1]))
            self.shift = nn.Parameter(torch.empty(clusters, sizes[1]).uniform_(-bound, bound))

    @property
    def takes(self) -> frozenset[str]:
        """What the network takes beside x and the cluster."""
        return self.inlet.takes

    def forward(
        self,
        x: Tensor,
        y: Tensor | None = None,
        *,
        observed: Tensor | None = None,
        covariates: Tensor | None = None,
    ) -> Tensor:
        first, *rest = self.layers
        h = first(self.inlet(x, observed, covariates))
        if y is not None:
            h = h + functional.embedding(y, self.shift)
        for layer in rest:
            h = h.relu() if self.activation == "relu" else h.tanh()
            h = layer(functional.dropout(h, self.dropout, self.training))
        return h.to(x.dtype)


class _Convolutional(nn.Module):
    """Base class of networks of pictures, which have the same settings.

    A subclass builds its layers in ``_build``.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        shape: Sequence[int],
        channels: Sequence[int] = (32, 64),
        hidden: Sequence[int] = (256,),
        clusters: int | None = None,
        strides: Sequence[int] | None = None,
        covariates: int = 0,
        masked: bool = False,
    ) -> None:
        super().__init__()
        self.inputs, self.outputs, self.shape = inputs, outputs, shape
        self.channels, self.hidden, self.clusters = channels, hidden, clusters
        self.strides, self.covariates, self.masked = strides, covariates, masked
        self.takes = Inlet(inputs, covariates, masked).takes
        self._build(_strides(channels, strides))

    def _build(self, strides: Sequence[int]) -> None:
        raise NotImplementedError


class ConvEncoder(_Convolutional):
    """Convolutions over a picture, then an :class:`MLP`, which the cluster, if any, enters.

    Args:
        inputs, outputs: sizes of the flat rows; ``inputs`` is the product of ``shape``.
        shape: height and width, then the number of channels if it is not 1.
        channels: output channels of the convolutions, each 3 x 3.
        hidden, clusters: as in :class:`MLP`.
        strides: stride 1 or 2 of each convolution; all 2 if None. Stride 2 halves the picture;
            before stride 1, odd sides are padded to even ones.
        covariates: as in :class:`MLP`; they enter after the convolutions.
        masked: whether it takes which pixels are observed, in further channels.
    """

    def _build(self, strides: Sequence[int]) -> None:
        height, width, depth = picture(self.shape, self.inputs)
        sizes = [depth * (1 + self.masked), *self.channels]
        pairs = zip(itertools.pairwise(sizes), strides, strict=True)
        self.layers = nn.ModuleList(nn.Conv2d(*pair, 3, step, 1) for pair, step in pairs)
        glorot(self)
        _, sides = _sides((height, width), strides)
        flat = math.prod(sides[-1]) * sizes[-1]
        self.head = MLP(flat, self.outputs, self.hidden, self.clusters, covariates=self.covariates)

    def forward(
        self,
        x: Tensor,
        y: Tensor | None = None,
        *,
        observed: Tensor | None = None,
        covariates: Tensor | None = None,
    ) -> Tensor:
        height, width, depth = picture(self.shape, self.inputs)
        h = x.reshape(-1, height, width, depth)
        if self.masked:
            seen = torch.ones_like(x) if observed is None else observed.to(x.dtype).expand_as(x)
            h = torch.cat([h, seen.reshape(-1, height, width, depth)], -1)
        h = h.movedim(-1, 1)
        _, sides = _sides((height, width), _strides(self.channels, self.strides))
        for layer, (height, width) in zip(self.layers, sides, strict=False):
            h = functional.pad(h, (0, width - h.shape[-1], 0, height - h.shape[-2]))
            h = _convolved(layer, h).relu()
        return self.head(h.reshape(*x.shape[:-1], -1), y, covariates=covariates).to(x.dtype)


class ConvDecoder(_Convolutional):
    """The mirror of :class:`ConvEncoder`: an :class:`MLP`, then transposed convolutions.

    Args:
        inputs, outputs: sizes of the flat rows; ``outputs`` is a multiple of the product of
            ``shape`` (twice the product if the likelihood takes means and log scales).
        shape, channels, hidden, clusters, strides: as in :class:`ConvEncoder`; ``channels`` and
            ``strides`` are listed in the encoder's order and used in reverse.
        covariates: as in :class:`MLP`.
        masked: False, since a decoder sees no pixels.
    """

    def _build(self, strides: Sequence[int]) -> None:
        values = math.prod(self.shape)
        height, width, depth = picture(self.shape, values)
        self.copies, left = divmod(self.outputs, values)
        if left:
            raise ValueError(
                f"Expected a multiple of shape {self.shape} as outputs but got {self.outputs}."
            )
        if self.masked:
            raise ValueError("Expected a decoder without a mask but got masked=True; leave it out.")
        self.crops, sides = _sides((height, width), strides)
        sizes = [depth * self.copies, *self.channels]
        self.layers = nn.ModuleList()
        for i, step in reversed(list(enumerate(strides))):
            rest = ((sides[i][0] - 1) % step, (sides[i][1] - 1) % step)
            self.layers.append(nn.ConvTranspose2d(sizes[i + 1], sizes[i], 3, step, 1, rest))
        glorot(self)
        self.start = (sizes[-1], *sides[-1])
        made = math.prod(self.start)
        self.head = MLP(self.inputs, made, self.hidden, self.clusters, covariates=self.covariates)

    def forward(
        self, z: Tensor, y: Tensor | None = None, *, covariates: Tensor | None = None
    ) -> Tensor:
        h = self.head(z, y, covariates=covariates)
        batch = h.shape[:-1]
        h = h.reshape(-1, *self.start)
        for layer, (height, width) in zip(self.layers, reversed(self.crops), strict=True):
            h = _convolved(layer, h.relu())[..., :height, :width]
        height, width, depth = picture(self.shape, math.prod(self.shape))
        h = h.reshape(-1, self.copies, depth, height, width).movedim(2, -1)
        return h.reshape(*batch, self.outputs).to(z.dtype)


def _convolved(layer: nn.Module, h: Tensor) -> Tensor:
    """The layer's output, in float32 for pictures smaller than its kernel.

    On the CPU, gradients of such convolutions in half precision can be NaN in torch.
    """
    if min(h.shape[-2:]) >= 3:
        return layer(h)
    with torch.autocast(h.device.type, enabled=False):
        return layer(h.to(next(layer.parameters()).dtype))


def _strides(channels: Sequence[int], strides: Sequence[int] | None) -> Sequence[int]:
    """One stride for each convolution."""
    if strides is None:
        return [2] * len(channels)
    if len(strides) != len(channels) or not set(strides) <= {1, 2}:
        raise ValueError(
            f"Expected strides of 1 or 2, one for each of {len(channels)} convolutions, but got "
            f"{list(strides)}."
        )
    return strides


def _sides(
    side: tuple[int, int], strides: Sequence[int]
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Heights and widths before each convolution, first without padding and then with padding;
    the second list ends with the output size of the last convolution.
    """
    reached, seen = [], []
    for step in strides:
        reached.append(side)
        pad = step == 1
        seen.append((side[0] + pad * (side[0] % 2), side[1] + pad * (side[1] % 2)))
        side = ((seen[-1][0] - 1) // step + 1, (seen[-1][1] - 1) // step + 1)
    return reached, [*seen, side]


def picture(shape: Sequence[int], size: int) -> tuple[int, int, int]:
    """Height, width and channels of a picture of this shape, whose product must be ``size``."""
    if len(shape) not in (2, 3) or math.prod(shape) != size:
        raise ValueError(
            f"Expected a shape (H, W) or (H, W, C) of {size} values but got {tuple(shape)}; use an "
            "MLP for data that are not pictures."
        )
    height, width, *depth = shape
    return height, width, depth[0] if depth else 1
