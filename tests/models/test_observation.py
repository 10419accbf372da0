"""Missing cells, covariates and exposure at the site x of the zoo's models."""

import math
from typing import Unpack

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO
from scipy import stats
from torch import nn

from priorzoo.guides import ClusterThenCode, Code
from priorzoo.inference import check_pair, evaluate, fit, importance_bound
from priorzoo.models import GMVAE, MLP, VAE, Beside, Gaussian, Multinomial, data_plate
from priorzoo.models.contract import accepted
from priorzoo.models.observation import marginal

B, P, D, C, S = 6, 5, 2, 3, 0.7

pytestmark = pytest.mark.usefixtures("double")


@pytest.fixture
def x():
    return torch.randn(B, P) + 1


@pytest.fixture
def observed():
    """One row whole, one row all missing."""
    mask = torch.rand(B, P) < 0.6
    mask[0], mask[1] = True, False
    return mask


class ExactPosterior(nn.Module):
    """q(z | observed cells) of a linear decoder with Gaussian noise."""

    def __init__(self, model):
        super().__init__()
        self.layer = model.decoder.layers[0]

    def forward(self, x, size=None, observed=None):
        w, seen = self.layer.weight, observed.to(x.dtype)
        precision = torch.eye(D) + torch.einsum("bp,pi,pj->bij", seen, w, w) / S**2
        centred = (x - self.layer.bias).where(observed, 0.0)
        loc = torch.linalg.solve(precision, centred @ w / S**2)
        with data_plate(x, size):
            pyro.sample("z", dist.MultivariateNormal(loc, precision_matrix=precision))


def linear():
    model = VAE(MLP(D, P, ()), Gaussian(S), D)
    return model, ExactPosterior(model)


def evidence(model, x, observed):
    """log N(x_o; b_o, W_o W_o^T + s^2 I), row by row."""
    layer, found = model.decoder.layers[0], []
    loc, root = layer.bias.detach().numpy(), layer.weight.detach()
    cov = (root @ root.T + S**2 * torch.eye(P)).numpy()
    for row, seen in zip(x.numpy(), observed.numpy(), strict=True):
        part = stats.multivariate_normal(loc[seen], cov[seen][:, seen]) if seen.any() else None
        found.append(part.logpdf(row[seen]) if part else 0.0)
    return torch.tensor(found)


def test_the_masked_bound_is_the_evidence_of_the_observed_cells(x, observed):
    """With the exact posterior each draw gives the evidence itself, without Monte-Carlo error."""
    model, guide = linear()
    expected = evidence(model, x, observed)
    holed = x.where(observed, torch.nan)
    context = {"observed": observed}
    found = importance_bound(model, guide, holed, 1, context=context)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        evaluate(model, guide, holed, context=context)["elbo"], expected.mean().item()
    )
    loss = Trace_ELBO().loss(model, guide, holed.nan_to_num(7.0), observed=observed)
    assert loss == pytest.approx(-expected.sum().item())


class Wide(nn.Module):
    """q(y) q(z) that covers every posterior of the toy; it looks at no row."""

    def forward(self, x, size=None, observed=None):
        with data_plate(x, size):
            logits = torch.zeros(len(x), 3)
            pyro.sample("y", dist.Categorical(logits=logits), infer={"enumerate": "parallel"})
            pyro.sample("z", dist.Normal(torch.zeros(D), 2.0).to_event(1))


def test_the_importance_bound_comes_to_the_evidence_of_a_masked_mixture(x, observed):
    """log sum_k N(x_o; W mu_k + b, W S_k W^T + s^2 I) / 3, with the clusters summed out."""
    model = GMVAE(MLP(D, P, ()), Gaussian(S), D, 3)
    layer, (loc, scale), each = model.decoder.layers[0], model.components(), []
    with torch.no_grad():
        for k in range(3):
            root = layer.weight * scale[k]
            part = VAE(MLP(D, P, ()), Gaussian(S), D)
            part.decoder.layers[0].weight.copy_(root)
            part.decoder.layers[0].bias.copy_(layer(loc[k]))
            each.append(evidence(part, x, observed))
    expected = torch.stack(each).logsumexp(0) - math.log(3)
    found = importance_bound(model, Wide(), x, 20_000, context={"observed": observed})
    torch.testing.assert_close(found, expected, rtol=0, atol=0.06)


def test_missing_cells_have_no_gradient(x, observed):
    model = GMVAE(MLP(D, P, (4,)), Gaussian(S), D, 3)
    guide = ClusterThenCode(MLP(P, 3, (4,), masked=True), MLP(P, 2 * D, (4,), clusters=3))
    for hole in (0.0, torch.nan, torch.inf):
        rows = x.where(observed, hole).requires_grad_()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            drawn = poutine.trace(poutine.enum(guide, -2)).get_trace(rows, observed=observed)
            told = poutine.trace(poutine.replay(model, trace=drawn)).get_trace(
                rows, observed=observed
            )
        total = told.log_prob_sum() - drawn.log_prob_sum()
        (gradient,) = torch.autograd.grad(total, rows)
        assert (gradient[~observed] == 0).all()
        assert (gradient[0] != 0).all()
        decoded = told.nodes["x"]["fn"].base_dist.base_dist.loc
        assert decoded.shape[-2:] == (B, P)


def test_a_multinomial_is_renormalised_over_the_observed_cells(observed):
    logits, x = torch.randn(B, P), torch.poisson(torch.full((B, P), 3.0))
    fn = Multinomial()(logits)
    found = marginal(fn, observed).log_prob(x.where(observed, 0.0))
    for b in range(B):
        seen = observed[b]
        counts, p = x[b][seen].numpy(), logits[b][seen].softmax(-1).numpy()
        expected = stats.multinomial(int(counts.sum()), p).logpmf(counts) if len(p) else 0.0
        assert found[b].item() == pytest.approx(float(expected))


def test_masked_networks_tell_zero_from_missing(x):
    network = MLP(P, 3, (4,), masked=True)
    whole = network(x)
    torch.testing.assert_close(network(x, observed=torch.ones(B, P, dtype=torch.bool)), whole)
    zero = x.clone()
    zero[:, 0] = 0.0
    seen = torch.ones(B, P, dtype=torch.bool)
    seen[:, 0] = False
    assert (network(zero, observed=seen) != network(zero)).all()


def test_covariates_are_further_inputs_of_the_decoder(x):
    """As a decoder of the code and the covariates in one row."""
    c, z = torch.randn(B, C), torch.randn(4, B, D)
    network, plain = MLP(D, P, (4,), covariates=C), MLP(D + C, P, (4,))
    plain.load_state_dict(network.state_dict())
    expected = plain(torch.cat([z, c.expand(4, B, C)], -1))
    torch.testing.assert_close(network(z, covariates=c), expected)
    model = VAE(network, Gaussian(S), D)
    told = poutine.trace(model).get_trace(x, covariates=c)
    torch.testing.assert_close(
        told.nodes["x"]["fn"].mean, network(told.nodes["z"]["value"], covariates=c)
    )


def vae(**settings):
    return VAE(MLP(D, P, (4,), **settings), Gaussian(S), D), Code(MLP(P, 2 * D, (4,)))


class Plain(nn.Module):
    """A guide that has never heard of missing cells."""

    def forward(self, x, size=None):
        with data_plate(x, size):
            pyro.sample("z", dist.Normal(torch.zeros(D), 1.0).to_event(1))


@pytest.mark.parametrize(
    ("settings", "context", "message"),
    [
        ({}, {"covariate": torch.ones(B, C)}, "covariate;"),
        ({}, {"covariates": torch.ones(B, C)}, "build it with covariates=C"),
        ({"covariates": C}, {}, "Expected context covariates for VAE"),
        ({"covariates": C}, {"covariates": torch.ones(B, 2)}, r"got \(N, 2\)"),
        ({}, {"exposure": torch.ones(B)}, "likelihood of counts, with rates.*Gaussian"),
        ({}, {"exposure": torch.zeros(B)}, "'exposure' above 0"),
        ({}, {"observed": torch.ones(B)}, r"a value for each cell of x, shape \(6, 5\)"),
        ({}, {"observed": torch.full((B, P), 0.5)}, "booleans"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(settings, context, message, x):
    for use in (
        lambda pair: fit(*pair, x, steps=1, context=context),
        lambda pair: evaluate(*pair, x, context=context),
    ):
        with pytest.raises(ValueError, match=message) as refused:
            use(vae(**settings))
        assert "\n" not in str(refused.value)


def test_nan_is_refused_unless_it_is_said_to_be_missing(x, observed):
    holed = x.where(observed, torch.nan)
    with pytest.raises(ValueError, match=r"row 1, column 0.*observed.*isnan"):
        fit(*vae(), holed, steps=1)
    history = fit(*vae(), holed, steps=2, context={"observed": ~holed.isnan()})
    assert torch.tensor(history[-1]["elbo"]).isfinite()
    some = observed.clone()
    some[2] = True
    with pytest.raises(ValueError, match="NaN or infinity in 1 of 6 rows, first in row 2"):
        fit(
            *vae(),
            x.where(observed, torch.nan).index_fill(0, torch.tensor([2]), torch.nan),
            steps=1,
            context={"observed": some},
        )


def test_programs_that_do_not_know_of_missing_cells_are_refused(x, observed):
    model, _ = vae()
    with pytest.raises(ValueError, match="Plain does not name observed"):
        check_pair(model, Plain(), x, {"observed": observed})
    with pytest.raises(ValueError, match="Plain does not name observed"):
        evaluate(model, Plain(), x, context={"observed": observed})


def test_programs_name_what_they_are_told_in_any_way_of_writing_it():
    def several(x, size=None, **beside: "Unpack[Beside]"):
        return x

    def one(x, size=None, *, exposure=None):
        return x

    def every(x, **context):
        return x

    told = {"observed": torch.ones(1, 1), "weights": torch.ones(1), "batch": torch.ones(1)}
    assert accepted(several, told).keys() == {"observed"}
    assert accepted(VAE(MLP(D, P), code=D), told).keys() == {"observed"}
    assert accepted(one, told) == {}
    assert accepted(every, told).keys() == {"observed", "batch"}
