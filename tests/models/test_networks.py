"""Networks against the same maps written out."""

import math

import pytest
import torch
from torch import nn

from priorzoo.models import MLP, ConvDecoder, ConvEncoder

pytestmark = pytest.mark.usefixtures("double")
SHAPES = [(28, 28), (28, 20), (15, 7), (16, 16, 3), (5, 4, 2)]


def identity(network):
    """Makes a linear MLP of square weight the identity."""
    (layer,) = network.layers
    with torch.no_grad():
        layer.weight.copy_(torch.eye(*layer.weight.shape))
        layer.bias.zero_()


@pytest.mark.parametrize("hidden", [(), (4,), (4, 3)])
def test_mlp_is_a_sequence_of_layers(hidden):
    network = MLP(6, 2, hidden)
    layers = [module for layer in network.layers for module in (layer, nn.ReLU())][:-1]
    x = torch.randn(5, 6)
    torch.testing.assert_close(network(x), nn.Sequential(*layers)(x))


def test_dropout_leaves_out_hidden_units_while_training_alone():
    """Each with the probability given, what is left scaled up so that the mean stays."""
    network = MLP(1, 2_000, (2_000,), dropout=0.3)
    first, second = network.layers
    with torch.no_grad():
        first.weight.fill_(1.0)
        second.weight.copy_(torch.eye(2_000))
    kept = network(torch.ones(1, 1))
    torch.testing.assert_close(kept.unique(), torch.tensor([0, 1 / 0.7]))
    assert (kept == 0).double().mean().item() == pytest.approx(0.3, abs=0.05)
    assert (network.eval()(torch.ones(1, 1)) == 1).all()


def test_without_dropout_nothing_is_drawn():
    """So that a seed gives what it gave before there was any."""
    network = MLP(6, 2, (4,))
    state = torch.get_rng_state()
    network(torch.zeros(5, 6))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("hidden", [(), (4,), (4, 3)])
def test_a_cluster_is_a_one_hot_appended_to_the_rows(hidden):
    """For one cluster a row, and for all of them at once along a dimension to the left."""
    network = MLP(6, 2, hidden, clusters=3)
    first, *rest = network.layers
    large = nn.Linear(6 + 3, first.out_features)
    large.weight = nn.Parameter(torch.cat([first.weight, network.shift.T], 1))
    large.bias = first.bias
    plain = nn.Sequential(large, *[m for layer in rest for m in (nn.ReLU(), layer)])
    x, y = torch.randn(5, 6), torch.tensor([0, 2, 1, 1, 0])
    torch.testing.assert_close(network(x, y), plain(torch.cat([x, torch.eye(3)[y]], 1)))
    every = torch.stack([plain(torch.cat([x, torch.eye(3)[k].expand(5, -1)], 1)) for k in range(3)])
    torch.testing.assert_close(network(x, torch.arange(3).reshape(3, 1)), every)


def test_weights_start_by_glorots_rule():
    """Uniform within sqrt(6 / (in + out)); the cluster counts among the inputs; biases are 0."""
    network = MLP(300, 200, (), clusters=100)
    (layer,) = network.layers
    for weight, bound in (
        (layer.weight, math.sqrt(6 / 500)),
        (network.shift, math.sqrt(6 / 600)),
    ):
        assert weight.abs().max() <= bound
        assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)
    assert (layer.bias == 0).all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("clusters", [None, 3])
def test_convolutions_map_rows_to_rows(shape, clusters):
    """Of any size, odd ones too, under any batch; a conditional network takes all the clusters."""
    size = math.prod(shape)
    settings = {"shape": shape, "channels": (2, 3, 4), "hidden": (5,), "clusters": clusters}
    encoder, decoder = ConvEncoder(size, 6, **settings), ConvDecoder(2, size, **settings)
    wide = ConvDecoder(2, 2 * size, **settings)
    y = [] if clusters is None else [torch.arange(clusters).reshape(clusters, 1)]
    left = () if clusters is None else (clusters,)
    x, z = torch.randn(4, size), torch.randn(4, 2)
    assert encoder(x, *y).shape == (*left, 4, 6)
    assert decoder(z, *y).shape == (*left, 4, size)
    assert wide(z, *y).shape == (*left, 4, 2 * size)
    torch.testing.assert_close(decoder(z.expand(7, 4, 2))[3], decoder(z))


@pytest.mark.parametrize("shape", [(5, 4), (4, 3, 2)])
def test_convolution_written_out(shape):
    """One layer, rows read as height, width, channels: each sum of nine neighbours by hand."""
    height, width, depth = (*shape, 1)[:3]
    rows, columns = (height + 1) // 2, (width + 1) // 2
    network = ConvEncoder(math.prod(shape), 3 * rows * columns, shape, (3,), ())
    identity(network.head)
    (layer,) = network.layers
    x = torch.randn(2, math.prod(shape))
    expected = layer.bias.detach().reshape(1, 3, 1, 1).repeat(2, 1, rows, columns)
    for i in range(rows):
        for j in range(columns):
            for a in range(max(0, 2 * i - 1), min(height, 2 * i + 2)):
                for b in range(max(0, 2 * j - 1), min(width, 2 * j + 2)):
                    for c in range(depth):
                        weight = layer.weight[:, c, a - 2 * i + 1, b - 2 * j + 1].detach()
                        pixel = x[:, (a * width + b) * depth + c]
                        expected[:, :, i, j] += weight * pixel.unsqueeze(-1)
    torch.testing.assert_close(network(x), expected.clamp(min=0).flatten(1))


@pytest.mark.parametrize("shape", [(5, 4), (4, 3, 2)])
@pytest.mark.parametrize("copies", [1, 2])
def test_transposed_convolution_written_out(shape, copies):
    """One layer: each code adds to nine pixels; rows are copies, height, width, channels."""
    height, width, depth = (*shape, 1)[:3]
    rows, columns = (height + 1) // 2, (width + 1) // 2
    size = math.prod(shape)
    network = ConvDecoder(3 * rows * columns, copies * size, shape, (3,), ())
    identity(network.head)
    (layer,) = network.layers
    z = torch.randn(2, 3 * rows * columns)
    h = z.clamp(min=0).reshape(2, 3, rows, columns)
    expected = torch.zeros(2, copies, height, width, depth)
    for i in range(rows):
        for j in range(columns):
            for a in range(max(0, 2 * i - 1), min(height, 2 * i + 2)):
                for b in range(max(0, 2 * j - 1), min(width, 2 * j + 2)):
                    weight = layer.weight[:, :, a - 2 * i + 1, b - 2 * j + 1].detach()
                    added = (h[:, :, i, j] @ weight).reshape(2, copies, depth)
                    expected[:, :, a, b] += added
    torch.testing.assert_close(network(z), expected.flatten(1))


@pytest.mark.parametrize("shape", [(3, 3), (6,), (1, 2, 3, 1)])
@pytest.mark.parametrize("kind", [ConvEncoder, ConvDecoder])
def test_a_shape_that_does_not_fit_is_refused(kind, shape):
    sizes = (6, 4) if kind is ConvEncoder else (4, 6)
    with pytest.raises(ValueError, match=r"\(H, W\)|multiple"):
        kind(*sizes, shape=shape)


PAPER = {"channels": (32, 32, 32, 64, 64, 64, 64, 64), "strides": (1, 2, 1, 2, 1, 2, 1, 1)}


def test_the_factorial_mixtures_network_has_its_papers_parameters():
    """567,745 at D = 64 and 28 x 28, with 4 x 4 x 64 between convolutions and linear map."""
    settings = {"shape": (28, 28), "hidden": (), **PAPER}
    encoder, decoder = ConvEncoder(784, 128, **settings), ConvDecoder(64, 784, **settings)
    count = sum(p.numel() for network in (encoder, decoder) for p in network.parameters())
    assert count == 567_745
    assert decoder.start == (64, 4, 4)
    sides = []
    for layer in (*encoder.layers, *decoder.layers):
        layer.register_forward_hook(lambda _, given, made: sides.append((given[0], made)))
    decoder(encoder(torch.rand(2, 784))[:, :64])
    sides = [(given.shape[-1], made.shape[-1]) for given, made in sides]
    down = [(28, 28), (28, 14), (14, 14), (14, 7), (8, 8), (8, 4), (4, 4), (4, 4)]
    up = [(4, 4), (4, 4), (4, 8), (8, 8), (7, 14), (14, 14), (14, 28), (28, 28)]
    assert sides == down + up


@pytest.mark.parametrize("shape", [(60, 64), (28, 20), (7, 5, 3)])
def test_strides_fit_any_picture(shape):
    size = math.prod(shape)
    settings = {"shape": shape, "hidden": (), **PAPER}
    x = torch.rand(3, size)
    z = ConvEncoder(size, 10, **settings)(x)
    assert z.shape == (3, 10)
    assert ConvDecoder(10, 2 * size, **settings)(z).shape == (3, 2 * size)


def test_strides_that_do_not_fit_are_refused():
    for strides in ((1, 2), (3,), (0,)):
        with pytest.raises(ValueError, match="Expected strides"):
            ConvEncoder(784, 2, (28, 28), channels=(4,), strides=strides)
