"""Guides with a Gaussian code."""

import pytest
import torch
from pyro import poutine
from scipy import stats
from torch import nn

from priorzoo.guides import ClusterThenCode, Code
from priorzoo.inference import ELBO
from priorzoo.models import GMVAE, MLP, ConvEncoder

pytestmark = pytest.mark.usefixtures("double")
B, P, D, K = 4, 6, 2, 3


def gaussian(parameters, z):
    """Log density of codes by scipy, from locations and raw variances side by side."""
    loc, raw = parameters.detach().numpy()[..., :D], parameters.detach()[..., D:]
    scale = (nn.functional.softplus(raw) + 1e-4).sqrt().numpy()
    return torch.tensor(stats.norm(loc, scale).logpdf(z.detach().numpy()).sum(-1))


def test_code_is_the_gaussian_of_its_encoder():
    guide, x = Code(MLP(P, 2 * D, (5,))), torch.randn(B, P)
    trace = poutine.trace(guide).get_trace(x)
    z = trace.nodes["z"]["value"]
    assert z.shape == (B, D)
    trace.compute_log_prob()
    torch.testing.assert_close(trace.nodes["z"]["log_prob"].detach(), gaussian(guide.encoder(x), z))


def test_cluster_then_code_factorises():
    """log q(y, z | x) = log q(y | x) + log q(z | x, y), the code from its own cluster's network."""
    guide = ClusterThenCode(MLP(P, K, (5,)), MLP(P, 2 * D, (5,), clusters=K))
    x = torch.randn(B, P)
    trace = poutine.trace(guide).get_trace(x)
    y, z = trace.nodes["y"]["value"], trace.nodes["z"]["value"]
    expected = torch.zeros(())
    for row in range(B):
        log_q_y = guide.classifier(x[row]).log_softmax(-1)[y[row]].detach()
        code = guide.conditional_encoder(x[row], y[row])
        expected = expected + log_q_y + gaussian(code, z[row])
    torch.testing.assert_close(trace.log_prob_sum().detach(), expected)


def counted(network, kind):
    """Rows that the first layer of a kind is given, one entry a call."""
    rows = []
    layer = next(module for module in network.modules() if isinstance(module, kind))
    layer.register_forward_pre_hook(lambda _, inputs: rows.append(inputs[0].shape[:-1]))
    return rows


@pytest.mark.parametrize("particles", [1, 2])
def test_what_depends_on_x_alone_is_computed_once(particles):
    """The first linear map sees B rows in one call, not K times B."""
    encoder = MLP(P, 2 * D, (5, 5), clusters=K)
    first, second = counted(encoder, nn.Linear), counted(encoder.layers[1:], nn.Linear)
    model = GMVAE(MLP(D, P, (4,)), code=D, clusters=K)
    objective = ELBO(model, ClusterThenCode(MLP(P, K), encoder), particles=particles)
    objective(torch.bernoulli(torch.full((B, P), 0.5)))
    assert first == [(B,)]
    assert [shape[0] for shape in second] == [K]  # as the rest must


def test_convolutions_are_computed_once():
    encoder = ConvEncoder(P, 2 * D, (3, 2), (2,), (5,), clusters=K)
    pictures = counted(encoder, nn.Conv2d)
    model = GMVAE(MLP(D, P, (4,)), code=D, clusters=K)
    ELBO(model, ClusterThenCode(MLP(P, K), encoder))(torch.zeros(B, P))
    assert [shape[0] for shape in pictures] == [B]
