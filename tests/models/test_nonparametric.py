"""The nonparametric VAE beside the plain one, and its coupling by hand."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from priorzoo.guides import Code, CodeAndPlace
from priorzoo.inference import ELBO, check_pair, codes, evaluate, fit, load, save
from priorzoo.models import MLP, VAE, KernelMean, LeaveOneOutGP, NonparametricVAE, data_plate
from priorzoo.models.distributions.gaussian import diagonal_normal

P, D, B = 6, 3, 8


def networks():
    """Decoder, encoder and locator, the same at each call."""
    torch.manual_seed(1)
    return MLP(D, P, (8,)), MLP(P, 2 * D, (5,)), MLP(P, 2, (5,))


def rows(count=B):
    return torch.bernoulli(torch.full((count, P), 0.4))


def trained(model, guide, x):
    fit(model, guide, x, steps=25, batch_size=10, seed=3)
    return [model.decoder.state_dict(), guide.encoder.state_dict()]


@pytest.mark.parametrize("coupling", [KernelMean, LeaveOneOutGP])
@pytest.mark.parametrize("settings", [{"weight": 0.0}, {"stop_gradient": True}])
def test_an_idle_coupling_leaves_a_vae_to_the_last_bit(settings, coupling):
    """Without weight, and where the gradient stops, the code is trained as a VAE's."""
    x = rows(40)
    decoder, encoder, locator = networks()
    start = [p.clone() for p in locator.parameters()]
    model = NonparametricVAE(decoder, code=D, coupling=coupling(), **settings)
    found = trained(model, CodeAndPlace(encoder, locator), x)
    moved = any((a != b).any() for a, b in zip(start, locator.parameters(), strict=True))
    decoder, encoder, _ = networks()
    expected = trained(VAE(decoder, code=D), Code(encoder), x)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert moved == ("stop_gradient" in settings)


def test_a_coupling_that_is_on_moves_the_code():
    x = rows(40)
    decoder, encoder, locator = networks()
    found = trained(NonparametricVAE(decoder, code=D), CodeAndPlace(encoder, locator), x)
    decoder, encoder, _ = networks()
    plain = trained(VAE(decoder, code=D), Code(encoder), x)
    assert any((found[1][name] != plain[1][name]).any() for name in plain[1])


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("unit_plane", [False, True])
def test_terms_are_those_of_a_vae_and_of_the_plane(unit_plane):
    """log p(coupling) from the two networks, -log N(u; 0, I) where wanted, the rest as in a VAE."""
    x, (decoder, encoder, locator) = rows().double(), networks()
    model = NonparametricVAE(decoder, code=D, weight=0.7, unit_plane=unit_plane)
    torch.manual_seed(2)
    found = ELBO(model, CodeAndPlace(encoder, locator)).terms(x)
    torch.manual_seed(2)
    expected = ELBO(VAE(decoder, code=D), Code(encoder)).terms(x)
    for name in ("reconstruction", "kl[z]"):
        torch.testing.assert_close(found[name], expected[name])
    q, u = diagonal_normal(encoder(x)), locator(x)
    coupling = -0.7 * KernelMean()(u, q.mean, q.stddev)
    torch.testing.assert_close(found["log p(coupling)"], coupling)
    price = (
        0.5 * u.square().sum(1) + torch.tensor(2 * torch.pi).log() if unit_plane else 0 * u[:, 0]
    )
    torch.testing.assert_close(found["kl[u]"], price)
    assert (found["kl[q]"] == 0).all()
    torch.testing.assert_close(found["elbo"], expected["elbo"] + coupling - price)


def test_the_coupling_of_a_row_depends_on_its_batch():
    """The other terms do not, so that batches of an evaluation must be named beside its bound."""
    decoder, encoder, locator = networks()
    model, guide = NonparametricVAE(decoder, code=D), CodeAndPlace(encoder, locator)
    x = rows(40)
    terms = [evaluate(model, guide, x, batch_size=size) for size in (1, 5, 40)]
    assert terms[0]["log p(coupling)"] == 0
    assert terms[1]["log p(coupling)"] != pytest.approx(terms[2]["log p(coupling)"], rel=1e-3)


class OneNetwork(nn.Module):
    """Another guide of the same sites: one network for code and place."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x, size=None):
        parameters, u = self.network(x).split([2 * D, 2], -1)
        with data_plate(x, size):
            code = diagonal_normal(parameters)
            moments = torch.stack([code.mean, code.stddev], -2)
            pyro.sample("z", code)
            pyro.sample("q", dist.Delta(moments, event_dim=2))
            pyro.sample("u", dist.Delta(u, event_dim=1))


@pytest.mark.parametrize("coupling", [KernelMean, LeaveOneOutGP])
def test_a_shift_of_all_places_has_the_gradient_0_to_the_last_bits(coupling):
    u = (0.3 * torch.randn(40, 2, dtype=torch.float64)).requires_grad_()
    loc, scale = torch.randn(2, 40, D, dtype=torch.float64).unbind()
    (gradient,) = torch.autograd.grad(coupling()(u, loc, scale.exp()).sum(), u)
    assert gradient.sum(0).abs().max() < 3e-16 * gradient.abs().sum()


def test_another_guide_of_the_same_sites_may_be_swapped_in():
    model, guide = NonparametricVAE(networks()[0], code=D), OneNetwork(MLP(P, 2 * D + 2, (5,)))
    check_pair(model, guide)
    history = fit(model, guide, rows(50), steps=60, every=20)
    assert history[-1]["elbo"] > history[0]["elbo"]


def test_a_guide_without_places_is_refused():
    decoder, encoder, _ = networks()
    with pytest.raises(ValueError, match=r"the guide lacks the latent sites \['q', 'u'\]"):
        check_pair(NonparametricVAE(decoder, code=D), Code(encoder))


def test_a_loaded_pair_trains_with_dropout_again(tmp_path):
    """And is evaluated without, before and after."""
    networks = MLP(D, P, (8,), dropout=0.5), MLP(P, 2 * D, (5,)), MLP(P, 2, (5,), dropout=0.5)
    save(tmp_path, NonparametricVAE(networks[0], code=D), CodeAndPlace(*networks[1:]))
    model, guide = load(tmp_path)
    x = rows()
    torch.testing.assert_close(codes(model, guide, x, site="u"), guide.locator(x))
    fit(model, guide, x, steps=1)
    assert (guide.locator(x) != guide.locator(x)).any()
    expected = guide.locator.eval()(x)
    guide.locator.train()
    torch.testing.assert_close(codes(model, guide, x, site="u"), expected)


def test_codes_and_places_are_read_by_their_sites():
    decoder, encoder, locator = networks()
    model, guide, x = NonparametricVAE(decoder, code=D), CodeAndPlace(encoder, locator), rows()
    torch.testing.assert_close(codes(model, guide, x, site="u", batch_size=3), locator(x))
    torch.testing.assert_close(codes(model, guide, x, batch_size=3), encoder(x)[:, :D])
