"""Guides whose cluster is the exact posterior given the codes."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import nn
from torch.distributions import Normal

from priorzoo.guides import CodeThenCluster, cluster_posterior
from priorzoo.inference import ELBO, check_pair, evaluate, load, save
from priorzoo.models import GMVAE, M2, MLP, VAE, DilokthanakulGMVAE, data_plate
from priorzoo.models.distributions.gaussian import deviation

P, D, K = 6, 2, 3


def gmvae():
    model = GMVAE(MLP(D, P, (4,)), code=D, clusters=K, learn_weights=True)
    nn.init.normal_(model.logits)
    nn.init.normal_(model.loc)
    return model


@pytest.mark.usefixtures("double")
def test_the_posterior_is_bayes_rule_by_hand_and_differentiable():
    model, z = gmvae(), torch.randn(5, D, requires_grad=True)
    pairs = zip(model.loc, model.raw, strict=True)
    scores = [Normal(loc, deviation(raw)).log_prob(z).sum(-1) for loc, raw in pairs]
    joint = model.logits.log_softmax(-1) + torch.stack(scores, -1)
    found = cluster_posterior(model, {"z": z}).probs
    torch.testing.assert_close(found, joint.softmax(-1))
    torch.autograd.gradcheck(lambda z: cluster_posterior(model, {"z": z}).probs, (z,))
    picked = (found[:, 0].sum(), joint.softmax(-1)[:, 0].sum())
    for parameter in (z, model.loc, model.raw, model.logits):
        ours, hand = (torch.autograd.grad(p, parameter, retain_graph=True)[0] for p in picked)
        torch.testing.assert_close(ours, hand)


class OneHot(nn.Module):
    """The same story with a cluster in one-hot form."""

    def __init__(self, of):
        super().__init__()
        self.of = of

    def forward(self, x=None, size=None):
        with data_plate(x, size):
            y = pyro.sample("y", dist.OneHotCategorical(logits=self.of.logits))
            prior = dist.Normal(y @ self.of.loc, y @ deviation(self.of.raw)).to_event(1)
            logits = self.of.decoder(pyro.sample("z", prior))
            return pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)


@pytest.mark.usefixtures("double")
def test_the_posterior_of_a_one_hot_cluster_is_the_same():
    model, z = gmvae(), torch.randn(5, D)
    expected = cluster_posterior(model, {"z": z}).probs
    torch.testing.assert_close(cluster_posterior(OneHot(model), {"z": z}).probs, expected)


@pytest.mark.usefixtures("double")
def test_the_posterior_reads_both_codes_of_a_prior_that_has_two():
    model = DilokthanakulGMVAE(MLP(D, P), code=D, second_code=4, clusters=K, hidden=(5,))
    z, w = torch.randn(7, 5, D), torch.randn(7, 5, 4)
    first, last = model.heads.layers
    heads = last(first(w).tanh()).reshape(7, 5, K, 2 * D)
    parts = Normal(heads[..., :D], deviation(heads[..., D:]))
    expected = parts.log_prob(z.unsqueeze(-2)).sum(-1).softmax(-1)
    torch.testing.assert_close(cluster_posterior(model, {"z": z, "w": w}).probs, expected)


def test_a_code_that_knows_nothing_of_the_cluster_leaves_it_uniform():
    model = M2(MLP(D, P, clusters=K), code=D, clusters=K)
    found = cluster_posterior(model, {"z": torch.randn(5, D)}).probs
    torch.testing.assert_close(found, torch.full((5, K), 1 / K))


def test_a_model_without_a_cluster_is_refused_in_one_line():
    model = VAE(MLP(D, P), code=D)
    with pytest.raises(ValueError, match=r"Expected VAE to sample \['y'\] but it does not"):
        check_pair(model, CodeThenCluster(MLP(P, 2 * D), model))


def test_a_model_with_another_latent_site_is_refused_in_one_line():
    """The posterior given z alone would depend on a draw of w."""
    model = DilokthanakulGMVAE(MLP(D, P), code=D, second_code=4, clusters=K, hidden=(5,))
    with pytest.raises(ValueError, match=r"latent sites \['y', 'z'\] only but it also samples 'w'"):
        check_pair(model, CodeThenCluster(MLP(P, 2 * D), model))


def test_the_model_stays_its_own():
    """Its parameters are no part of the guide."""
    model = gmvae()
    guide = CodeThenCluster(MLP(P, 2 * D), model)
    assert {name.split(".")[0] for name, _ in guide.named_parameters()} == {"encoder"}


def test_a_loaded_guide_reads_the_loaded_model(tmp_path):
    model = gmvae()
    guide = CodeThenCluster(MLP(P, 2 * D), model)
    save(tmp_path, model, guide)
    other, reader = load(tmp_path)
    assert reader.model is other
    x = torch.ones(4, P)
    before = evaluate(other, reader, x)
    with torch.no_grad():
        other.logits.add_(torch.tensor([3.0, 0, 0]))
    assert evaluate(other, reader, x)["kl[y]"] != before["kl[y]"]


def test_the_model_is_decoded_once_and_not_for_each_cluster():
    seen = []

    class Counted(MLP):
        def forward(self, x, y=None):
            seen.append(x.shape[:-1].numel())
            return super().forward(x, y)

    model = GMVAE(Counted(D, P, (4,)), code=D, clusters=K)
    guide = CodeThenCluster(MLP(P, 2 * D), model)
    ELBO(model, guide)(torch.ones(5, P))
    assert seen == [5]


@pytest.mark.usefixtures("double")
def test_the_cluster_costs_nothing_beyond_the_code():
    """The bound is that of z alone under the mixture: no gap is left in y."""
    model = gmvae()
    guide = CodeThenCluster(MLP(P, 2 * D), model)
    x = torch.bernoulli(torch.full((5, P), 0.4))
    torch.manual_seed(0)
    terms = ELBO(model, guide).terms(x)
    torch.manual_seed(0)
    q = poutine.trace(guide).get_trace(x).nodes["z"]
    z = q["value"]
    joint = model.logits.log_softmax(-1) + Normal(model.loc, deviation(model.raw)).log_prob(
        z.unsqueeze(1)
    ).sum(-1)
    pixels = model.likelihood(model.decoder(z)).log_prob(x)
    expected = pixels + joint.logsumexp(-1) - q["fn"].log_prob(z)
    torch.testing.assert_close(terms["elbo"], expected)
