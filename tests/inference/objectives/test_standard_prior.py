"""The bound under a standard normal prior against that of a VAE, and against sums written out."""

import pyro.distributions as dist
import pytest
import torch
from torch.distributions import kl_divergence

from priorzoo.inference import ELBO, KL, Linear, StandardPrior
from priorzoo.inference.batch import Batch
from priorzoo.inference.sites import site_of

pytestmark = pytest.mark.usefixtures("double")
B, N = 5, 20


def drawn(objective, x):
    """Draws of a batch, with q(z) and z."""
    draws = objective.draw(Batch(x, N))
    site = site_of(draws.guide_trace, "z")
    return draws, site["fn"], site["value"]


def divergence(q, z):
    return kl_divergence(q, dist.Normal(torch.zeros_like(z), 1).to_event(1))


@pytest.mark.parametrize("name", ["vae", "vae-flow", "vae-multinomial"])
@pytest.mark.parametrize("analytic", [False, True])
def test_is_the_bound_of_a_vae(zoo, name, analytic):
    """Whose prior is standard normal already, on the same draws."""
    (model, guide), x = zoo[name].pair(), zoo[name].rows(B)
    found = []
    for kind in (ELBO, StandardPrior):
        torch.manual_seed(1)
        found.append(kind(model, guide, {"z": KL(0.5, analytic=analytic)}).loss(Batch(x, N)))
    torch.testing.assert_close(found[1].value, found[0].value)
    assert found[1].terms.keys() == found[0].terms.keys()


@pytest.mark.parametrize("name", ["vade", "vade-tied", "nggp-log-concave", "nggp-full"])
def test_a_mixture_is_a_vae_with_the_same_networks(zoo, name):
    (model, guide), x = zoo[name].pair(), zoo[name].rows(B)
    objective = StandardPrior(model, guide, {"z": KL(0.3, analytic=True)})
    draws, q, z = drawn(objective, x)
    loss = objective.loss_of(draws)
    pixels = model.likelihood(model.decoder(z)).log_prob(x).reshape(B)
    apart = divergence(q, z).reshape(B)
    torch.testing.assert_close(loss.value, (0.3 * apart - pixels).mean())
    torch.testing.assert_close(loss.terms["elbo"], pixels - apart)


@pytest.mark.parametrize("name", ["gmvae", "m2", "m2-relu"])
def test_clusters_of_the_guide_are_summed_out(zoo, name):
    (model, guide), x = zoo[name].pair(), zoo[name].rows(B)
    objective = StandardPrior(model, guide)
    draws, q, z = drawn(objective, x)
    weights = guide.classifier(x).softmax(-1).T  # (K, B)
    apart = (q.log_prob(z) - dist.Normal(torch.zeros_like(z), 1).to_event(1).log_prob(z)).squeeze()
    pixels = site_of(draws.model_trace, "x")
    told = pixels["fn"].log_prob(x).expand_as(weights)
    torch.testing.assert_close(objective.terms_of(draws)["elbo"], (weights * (told - apart)).sum(0))


@pytest.mark.parametrize("name", ["vade", "nggp", "nggp-full"])
def test_the_prior_of_the_model_has_no_gradient(zoo, name):
    """The networks have one each."""
    (model, guide), x = zoo[name].pair(), zoo[name].rows(B)
    StandardPrior(model, guide).loss(Batch(x, N)).value.backward()
    networks = {*model.decoder.parameters(), *guide.encoder.parameters()}
    prior = [p for p in model.parameters() if p not in networks]
    assert prior
    assert all(p.grad is None or not p.grad.any() for p in prior)
    assert all(p.grad is not None and p.grad.any() for p in networks if p.dim() > 1)


def test_a_weight_follows_its_schedule(zoo):
    (model, guide), x = zoo["nggp-full"].pair(), zoo["nggp-full"].rows(B)
    policy = {"z": KL(Linear(0.0, 1.0, steps=4), analytic=True)}
    objective = StandardPrior(model, guide, policy)
    draws, q, z = drawn(objective, x)
    pixels = model.likelihood(model.decoder(z)).log_prob(x).mean()
    for weight in (0.0, 0.25, 0.5):
        expected = weight * divergence(q, z).mean() - pixels
        torch.testing.assert_close(objective.loss_of(draws).value, expected)
        objective.clock.tick()


def test_codes_without_such_a_prior_are_refused(zoo):
    for name, said in (
        ("nggp-dirichlet", "real numbers"),
        ("vq-vae", "a point"),
        ("factorial", "site 'z'"),
        ("sticks-beta", "site 'z'"),
    ):
        (model, guide), x = zoo[name].pair(), zoo[name].rows(B)
        with pytest.raises(ValueError, match=said):
            StandardPrior(model, guide).loss(Batch(x, N))
