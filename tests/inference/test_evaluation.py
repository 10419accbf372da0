"""The bounds against evidence known in closed form."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import MultivariateNormal
from scipy.stats import ks_2samp
from torch import nn

from priorzoo.guides import ClusterThenCode, Code
from priorzoo.inference import ELBO, KL, evaluate, fit, importance_bound
from priorzoo.models import GMVAE, MLP, VAE, Gaussian, data_plate
from priorzoo.models.distributions.gaussian import deviation

pytestmark = pytest.mark.usefixtures("double")
P, D, K = 5, 2, 3


def linear_vae(likelihood):
    return VAE(MLP(D, P, ()), likelihood, D), Code(MLP(P, 2 * D, ()))


def linear_gmvae():
    model = GMVAE(MLP(D, P, ()), Gaussian(0.8), D, K, learn_weights=True)
    nn.init.normal_(model.logits)
    return model, ClusterThenCode(MLP(P, K, ()), MLP(P, 2 * D, (), clusters=K))


def evidence(model, x):
    """log p(x) of a linear decoder: a Gaussian, or a mixture of one for each cluster."""
    weight, bias = model.decoder.layers[0].weight, model.decoder.layers[0].bias
    noise = model.likelihood(torch.zeros(P)).variance.diag()
    if isinstance(model, VAE):
        return MultivariateNormal(bias, weight @ weight.T + noise).log_prob(x)
    parts = MultivariateNormal(
        model.loc @ weight.T + bias,
        weight @ (deviation(model.raw) ** 2).diag_embed() @ weight.T + noise,
    )
    return dist.MixtureSameFamily(dist.Categorical(logits=model.logits), parts).log_prob(x)


@pytest.fixture(params=["vae", "gmvae"])
def pair(request):
    """A pair whose guide is near the posterior, so that importance weights are not heavy-tailed."""
    model, guide = linear_vae(Gaussian(0.8)) if request.param == "vae" else linear_gmvae()
    x = model(size=100).detach()
    fit(model, guide, x, steps=60, optimiser=lambda parameters: torch.optim.Adam(parameters, 0.03))
    return model, guide


def test_a_linear_vae_is_probabilistic_pca():
    """Trained, its bound is tight, and the evidence is Tipping & Bishop's maximum (1999, eq. 8)."""
    x = torch.randn(200, D) * torch.tensor([1.5, 0.8]) @ torch.randn(D, P) + torch.randn(P)
    x = x + 0.5 * torch.randn(200, P)
    eigenvalues = torch.linalg.eigvalsh(x.T.cov(correction=0)).flip(0)
    logs = eigenvalues[:D].log().sum() + (P - D) * eigenvalues[D:].mean().log()
    maximum = -0.5 * (P * math.log(2 * math.pi) + logs + P)

    model, guide = linear_vae(Gaussian(1.0, "shared"))
    fit(
        model,
        guide,
        x,
        steps=1000,
        batch_size=200,
        objective=ELBO(model, guide, kl={"z": KL(analytic=True)}),
        optimiser=lambda parameters: torch.optim.Adam(parameters, lr=0.1),
        schedule=lambda optimiser: torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 1000),
        every=1000,
    )
    found = evaluate(model, guide, x, importance_samples=50)
    many = evaluate(model, guide, x.repeat(20, 1))  # with the KL in closed form, draws matter more
    assert many["elbo"] == pytest.approx(maximum.item(), abs=0.05)
    assert found["log p(x)"] == pytest.approx(maximum.item(), abs=0.05)
    assert evidence(model, x).mean() <= maximum


@pytest.mark.parametrize("samples", [1, 5])
@pytest.mark.parametrize("held", [20_000, 8_000])
def test_importance_weights_have_the_evidence_as_their_mean(pair, samples, held):
    """E exp(bound) = p(x) for any number of samples, held at once or in chunks (of 2, 2 and 1)."""
    model, guide = pair
    x = model(size=1).detach()
    with torch.no_grad():
        log_weights = importance_bound(model, guide, x.expand(4000, -1), samples, held=held)
        ratios = (log_weights - evidence(model, x)).exp()
    assert abs(ratios.mean() - 1) < 4 * ratios.std() / math.sqrt(4000)
    assert ratios.std() > 0.01


def test_the_importance_bound_rises_to_the_evidence(pair):
    """From above the ELBO to log p(x), each step beyond the noise.

    At one sample its mean is the ELBO, or higher by what summing clusters in the weight gains.
    """
    model, guide = pair
    x = model(size=40).detach()
    many = x.repeat(1000, 1)
    with torch.no_grad():
        exact = evidence(model, x).mean()
        last = importance_bound(model, guide, x, 5000).mean()
        draws = [ELBO(model, guide).terms(many)["elbo"]]
        draws += [importance_bound(model, guide, many, samples) for samples in (1, 10)]
    draws = torch.stack(draws).reshape(3, 1000, 40).mean(-1)
    mean, error = draws.mean(-1), draws.std(-1) / math.sqrt(1000)
    assert mean[0] - 4 * error[0] < mean[1] + 4 * error[1]
    assert mean[1] + 4 * error[1] < mean[2] - 4 * error[2]
    assert mean[2] < exact
    assert abs(last - exact) < 0.005


def test_chunks_have_the_distribution_of_the_whole():
    """Four samples one by one, or at once: the same bound in distribution (Kolmogorov, Smirnov)."""
    model, guide = linear_gmvae()
    x = model(size=1).detach().expand(2000, -1)
    with torch.no_grad():
        whole, chunked = (importance_bound(model, guide, x, 4, held=h) for h in (8000, 2000))
    assert ks_2samp(whole, chunked).pvalue > 0.01
    with torch.no_grad():
        more = importance_bound(model, guide, x, 8)
    assert ks_2samp(whole, more).pvalue < 1e-6


def test_rows_weigh_the_same_whatever_the_batches():
    """Seven rows by threes: the mean over rows, not over batches; exact, since nothing is drawn."""
    means, classifier = torch.randn(K, P), nn.Linear(P, K)

    class Mixture(nn.Module):
        def forward(self, x=None, size=None):
            with data_plate(x, size):
                y = pyro.sample("y", dist.Categorical(logits=torch.zeros(K)))
                return pyro.sample("x", dist.Normal(means[y], 1.0).to_event(1), obs=x)

    class Classifier(nn.Module):
        def forward(self, x, size=None):
            with data_plate(x, size):
                q_y = dist.Categorical(logits=classifier(x))
                pyro.sample("y", q_y, infer={"enumerate": "parallel"})

    x = torch.randn(7, P)
    mixture = dist.MixtureSameFamily(
        dist.Categorical(logits=torch.zeros(K)), dist.Normal(means, 1.0).to_event(1)
    )
    found = evaluate(Mixture(), Classifier(), x, batch_size=3, importance_samples=1)
    terms = ELBO(Mixture(), Classifier()).terms(x)
    assert found["log p(x)"] == pytest.approx(mixture.log_prob(x).mean().item())
    for name, term in terms.items():
        assert found[name] == pytest.approx(term.mean().item())


def test_networks_are_evaluated_in_evaluation_mode():
    """Dropout is off while evaluating, and on again afterwards where it was on."""
    model, guide = linear_vae(Gaussian(0.8))
    model.decoder = nn.Sequential(nn.Dropout(0.5), model.decoder)
    guide.encoder.eval()
    x = model(size=20).detach()
    found = evaluate(model, guide, x)
    assert model.training
    assert model.decoder[0].training
    assert not guide.encoder.training
    assert found == evaluate(model.eval(), guide.eval(), x)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(3, P - 1), r"shape \(N, 5\) but got \(3, 4\)"),
        (torch.zeros(0, P), "at least one row"),
        (torch.full((3, P), math.nan), "NaN or infinity"),
    ],
)
def test_rows_that_cannot_be_scored_are_refused(x, message):
    with pytest.raises(ValueError, match=message):
        evaluate(*linear_vae(Gaussian(0.8)), x.double())


@pytest.mark.parametrize("samples", [0, -3])
def test_an_importance_bound_needs_a_sample(samples):
    model, guide = linear_vae(Gaussian(0.8))
    x = model(size=3).detach()
    with pytest.raises(ValueError, match=f"at least one sample but got samples={samples}"):
        importance_bound(model, guide, x, samples)
    if samples < 0:  # 0 are for none
        with pytest.raises(ValueError, match="importance_samples of at least 0 but got -3"):
            evaluate(model, guide, x, importance_samples=samples)


def test_a_global_site_has_no_importance_bound_for_each_row():
    class Centre(nn.Module):
        def forward(self, x=None, size=None):
            mu = pyro.sample("mu", dist.Normal(torch.zeros(P), 1.0).to_event(1))
            with data_plate(x, size):
                return pyro.sample("x", dist.Normal(mu, 1.0).to_event(1), obs=x)

    class Around(nn.Module):
        def forward(self, x, size=None):
            pyro.sample("mu", dist.Normal(torch.ones(P), 0.1).to_event(1))

    with pytest.raises(ValueError, match=r"\['mu'\] belong to the whole data set"):
        importance_bound(Centre(), Around(), torch.zeros(3, P), 5)
