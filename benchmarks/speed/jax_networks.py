"""The zoo's networks in JAX, with the weights of those in torch; needs the extra ``peers``."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial, singledispatch
from itertools import count

import jax
from jax import Array, lax
from jax import numpy as jnp
from torch import Tensor, nn

from priorzoo.models import MLP, ConvDecoder, ConvEncoder
from priorzoo.models.networks import picture

Weights = Mapping[str, Array]
Apply = Callable[..., Array]  # of weights and rows
LAYOUT = ("NHWC", "HWIO", "NHWC")


def array(tensor: Tensor) -> Array:
    """A copy of a tensor in the same dtype; float64 needs ``jax.enable_x64``."""
    return jnp.array(tensor.detach().cpu().numpy())


@singledispatch
def network(module: nn.Module) -> tuple[Weights, Apply]:
    """Weights of a network, and the function of them and of rows ``(..., inputs)``.

    Raises:
        ValueError: for a class that is not written here.
    """
    raise ValueError(f"Expected an MLP or convolutions but got {type(module).__name__}.")


@network.register
def _(module: MLP) -> tuple[Weights, Apply]:
    weights: dict[str, Array] = {}
    for i, layer in enumerate(module.layers):
        weight, bias = _parameters(layer)
        weights |= {f"weight_{i}": array(weight.T), f"bias_{i}": array(bias)}
    if module.clusters is not None:
        weights["clusters"] = array(module.shift)[:, None]  # (K, 1, H)
    return weights, partial(_mlp, jax.nn.relu if module.activation == "relu" else jnp.tanh)


def _mlp(activation: Apply, weights: Weights, x: Array) -> Array:
    """Rows ``(..., outputs)``, and ``(K, ..., outputs)`` of a network that clusters enter."""
    h = x @ weights["weight_0"] + weights["bias_0"]
    if "clusters" in weights:
        h = h + weights["clusters"]
    for i in count(1):
        if f"weight_{i}" not in weights:
            return h
        h = activation(h) @ weights[f"weight_{i}"] + weights[f"bias_{i}"]
    raise AssertionError


@network.register
def _(module: ConvEncoder) -> tuple[Weights, Apply]:
    shape, strides = picture(module.shape, module.inputs), _strides(module)
    kernels: dict[str, Array] = {}
    for i, layer in enumerate(module.layers):
        weight, bias = _parameters(layer)
        kernels |= {f"kernel_{i}": array(weight.permute(2, 3, 1, 0)), f"offset_{i}": array(bias)}
    weights, head = network(module.head)
    image = jax.ShapeDtypeStruct((1, *shape), weights["weight_0"].dtype)
    _, height, width, depth = jax.eval_shape(partial(_convolve, strides, kernels), image).shape
    weight, _ = _parameters(module.head.layers[0])
    first = weight.unflatten(1, (depth, height, width)).movedim(1, -1)
    moved = {"weight_0": array(first.flatten(1).T)}  # which reads the channels last
    return {**kernels, **weights, **moved}, partial(_encode, shape, strides, head)


def _encode(
    shape: Sequence[int], strides: Sequence[int], head: Apply, weights: Weights, x: Array
) -> Array:
    h = _convolve(strides, weights, x.reshape(-1, *shape))
    return head(weights, h.reshape(*x.shape[:-1], -1))


def _convolve(strides: Sequence[int], weights: Weights, h: Array) -> Array:
    for i, step in enumerate(strides):
        odd = [(0, size % 2 if step == 1 else 0) for size in h.shape[1:3]]
        h = jnp.pad(h, ((0, 0), *odd, (0, 0)))
        ends = ((1, 1), (1, 1))
        kernel = weights[f"kernel_{i}"]
        h = lax.conv_general_dilated(h, kernel, (step, step), ends, dimension_numbers=LAYOUT)
        h = jax.nn.relu(h + weights[f"offset_{i}"])
    return h


@network.register
def _(module: ConvDecoder) -> tuple[Weights, Apply]:
    weights, head = network(module.head)
    kernels: dict[str, Array] = {}
    for i, layer in enumerate(module.layers):
        weight, bias = _parameters(layer)
        turned = weight.flip(2, 3).permute(2, 3, 0, 1)
        kernels |= {f"kernel_{i}": array(turned), f"offset_{i}": array(bias)}
    depth, height, width = module.start
    last = len(module.head.layers) - 1
    weight, bias = (part.unflatten(0, module.start) for part in _parameters(module.head.layers[-1]))
    moved = {  # which writes the channels last
        f"weight_{last}": weight.movedim(0, 2).flatten(0, 2).T,
        f"bias_{last}": bias.movedim(0, 2).flatten(),
    }
    weights = {**weights, **{name: array(value) for name, value in moved.items()}}
    places = [*zip(reversed(_strides(module)), reversed(module.crops), strict=True)]
    shape = (height, width, depth)
    return {**kernels, **weights}, partial(_decode, shape, module.copies, places, head)


def _decode(
    shape: Sequence[int],
    copies: int,
    places: Sequence[tuple[int, tuple[int, int]]],
    head: Apply,
    weights: Weights,
    z: Array,
) -> Array:
    h = head(weights, z).reshape(-1, *shape)
    for i, (step, (height, width)) in enumerate(places):
        h, rests = jax.nn.relu(h), [(side - 1) % step for side in (height, width)]
        h = lax.conv_general_dilated(
            h,
            weights[f"kernel_{i}"],
            (1, 1),
            [(1, 1 + rest) for rest in rests],
            lhs_dilation=(step, step),
            dimension_numbers=LAYOUT,
        )
        h = (h + weights[f"offset_{i}"])[:, :height, :width]
    h = jnp.moveaxis(h.reshape(*h.shape[:-1], copies, -1), 3, 1)
    return h.reshape(*z.shape[:-1], -1)


def _strides(module: ConvEncoder | ConvDecoder) -> Sequence[int]:
    return [2] * len(module.channels) if module.strides is None else module.strides


def _parameters(layer: nn.Module) -> tuple[Tensor, Tensor]:
    return layer.get_parameter("weight"), layer.get_parameter("bias")
