"""The VampPrior against its mixture written out."""

import pytest
import torch
from pyro import poutine
from torch.distributions import Normal

from priorzoo.guides import CodeThenCluster
from priorzoo.inference import ELBO, load, save
from priorzoo.models import MLP, VampPrior
from priorzoo.models.distributions.gaussian import deviation

P, D, K = 6, 2, 4


def pair(**settings):
    encoder = MLP(P, 2 * D, (5,))
    model = VampPrior(MLP(D, P, (5,)), encoder, P, code=D, clusters=K, **settings)
    torch.nn.init.uniform_(model.pseudo_inputs, -0.5, 1.5)
    return model, CodeThenCluster(encoder, model)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("bounded", [True, False])
def test_the_bound_has_the_mixture_of_posteriors_as_its_prior(bounded):
    """log p(x|z) + log 1/K sum_k q(z|u_k) - log q(z|x), in value and in every gradient."""
    model, guide = pair(bounded=bounded)
    x = torch.bernoulli(torch.full((5, P), 0.4))
    torch.manual_seed(0)
    found = ELBO(model, guide).terms(x)["elbo"]
    torch.manual_seed(0)
    q = poutine.trace(guide).get_trace(x).nodes["z"]
    u = model.pseudo_inputs.clamp(0, 1) if bounded else model.pseudo_inputs
    loc, raw = model.encoder(u).chunk(2, -1)
    parts = Normal(loc, deviation(raw)).log_prob(q["value"].unsqueeze(1)).sum(-1)
    prior = parts.logsumexp(-1) - torch.tensor(float(K)).log()
    pixels = model.likelihood(model.decoder(q["value"])).log_prob(x)
    expected = pixels + prior - q["fn"].log_prob(q["value"])
    torch.testing.assert_close(found, expected)
    numbers = list(model.parameters())
    ours, hand = (torch.autograd.grad(bound.sum(), numbers) for bound in (found, expected))
    torch.testing.assert_close(ours, hand)


def test_the_shared_encoder_is_saved_once_and_loaded_shared(tmp_path):
    model, guide = pair()
    save(tmp_path, model, guide)
    loaded, reader = load(tmp_path)
    assert reader.encoder is loaded.encoder
    numbers = sum(p.numel() for p in model.parameters())
    assert (tmp_path / "model.safetensors").stat().st_size < 4 * numbers + 2_000
