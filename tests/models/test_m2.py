"""M2 and the modified M2."""

import pytest
import torch
from pyro import poutine
from torch import nn

from priorzoo.models import M2, MLP, ModifiedM2
from priorzoo.models.distributions.gaussian import deviation

pytestmark = pytest.mark.usefixtures("double")
P, D, K = 6, 2, 3


def logits(model, y, z):
    """Of x, where the cluster and the code are held."""
    held = poutine.condition(model, {"y": y, "z": z})
    return poutine.trace(held).get_trace(size=len(z)).nodes["x"]["fn"].base_dist.logits


def test_m2_decodes_the_code_and_a_one_hot_cluster():
    """As Kingma et al. (2014) write it: one large linear map of [z, one-hot y], built by hand."""
    network = MLP(D, P, (4, 5), clusters=K)
    first, *rest = network.layers
    large = nn.Linear(D + K, 4)
    large.weight = nn.Parameter(torch.cat([first.weight, network.shift.T], 1))
    large.bias = first.bias
    concatenated = nn.Sequential(large, nn.ReLU(), rest[0], nn.ReLU(), rest[1])
    y, z = torch.tensor([0, 2, 1, 2]), torch.randn(4, D)
    rows = torch.cat([z, torch.eye(K)[y]], 1)
    found = logits(M2(network, code=D, clusters=K), y, z)
    torch.testing.assert_close(found, concatenated(rows))


@pytest.mark.parametrize("link", ["identity", "relu", "layer"])
def test_the_modified_m2_moves_and_scales_by_linear_maps_of_the_cluster(link):
    """As Shu (2016) writes it: h = mu(y) + sqrt(var(y)) z, with mu and var linear in one-hot y."""
    model = ModifiedM2(MLP(D, P, (4,)), code=D, clusters=K, link=link)
    y, z = torch.tensor([0, 2, 1, 2]), torch.randn(4, D)
    one_hot = torch.eye(K)[y]
    h = one_hot @ model.loc + (one_hot @ deviation(model.raw) ** 2).sqrt() * z
    if link == "layer":
        h = h @ model.layer.weight.T + model.layer.bias
    if link != "identity":
        h = h.clamp(min=0)
    torch.testing.assert_close(logits(model, y, z), model.decoder(h))


def test_the_offset_is_the_bias_of_the_reference_linear_maps():
    """As in Shu's code: mu and the raw variance are linear maps of one-hot y, with a bias."""
    model = ModifiedM2(MLP(D, P, (4,)), code=D, clusters=K, offset=True)
    nn.init.normal_(model.shared)
    y, z = torch.tensor([0, 2, 1, 2]), torch.randn(4, D)
    maps = [nn.Linear(K, D), nn.Linear(K, D)]
    for linear, rows, bias in zip(maps, (model.loc, model.raw), model.shared, strict=True):
        linear.weight, linear.bias = nn.Parameter(rows.T), nn.Parameter(bias)
    loc, raw = (linear(torch.eye(K)[y]) for linear in maps)
    h = (loc + deviation(raw) * z).relu()
    torch.testing.assert_close(logits(model, y, z), model.decoder(h))


def test_a_misspelt_link_is_refused():
    with pytest.raises(ValueError, match="identiti"):
        ModifiedM2(MLP(D, P), code=D, clusters=K, link="identiti")


@pytest.mark.parametrize(
    "model",
    [
        lambda: M2(MLP(D, P, clusters=K), code=D, clusters=K),
        lambda: ModifiedM2(MLP(D, P), code=D, clusters=K),
    ],
)
def test_cluster_and_code_know_nothing_of_each_other(model):
    """p(y) is uniform, and p(z | y) standard normal whatever the cluster."""
    trace = poutine.trace(model()).get_trace(size=5)
    torch.testing.assert_close(trace.nodes["y"]["fn"].probs, torch.full((5, K), 1 / 3))
    torch.testing.assert_close(trace.nodes["z"]["fn"].mean, torch.zeros(5, D))
    torch.testing.assert_close(trace.nodes["z"]["fn"].variance, torch.ones(5, D))
