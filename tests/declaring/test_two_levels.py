"""A mixture of two levels, y1 and y2 given y1, both enumerated, against sums over all pairs."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from priorzoo.inference import (
    ELBO,
    Batch,
    cluster_probabilities,
    codes,
    draw_pair,
    importance_bound,
)
from priorzoo.models import MLP, Gaussian, data_plate

P, D, K1, K2, B = 4, 2, 2, 3, 5


class TwoLevels(nn.Module):
    """``nested`` says whether y2 and the code's mean depend on y1."""

    def __init__(self, decoder, nested=True):
        super().__init__()
        self.decoder, self.nested, self.likelihood = decoder, nested, Gaussian(0.7)
        self.first = nn.Parameter(torch.randn(K1))
        self.second = nn.Parameter(torch.randn(K1 if nested else 1, K2))
        self.loc = nn.Parameter(torch.randn(K1 if nested else 1, K2, D))

    def forward(self, x=None, size=None):
        with data_plate(x, size):
            y1 = pyro.sample("y1", dist.Categorical(logits=self.first))
            above = y1 if self.nested else torch.zeros_like(y1)
            y2 = pyro.sample("y2", dist.Categorical(logits=self.second[above]))
            z = pyro.sample("z", dist.Normal(self.loc[above, y2], 1.0).to_event(1))
            return pyro.sample("x", self.likelihood(self.decoder(z)), obs=x)


class TwoLevelGuide(nn.Module):
    def __init__(self, first, second, encoder, nested=True):
        super().__init__()
        self.first, self.second, self.encoder, self.nested = first, second, encoder, nested

    def forward(self, x, size=None):
        every = {"enumerate": "parallel"}
        with data_plate(x, size):
            y1 = pyro.sample("y1", dist.Categorical(logits=self.first(x)), infer=every)
            logits = self.second(x, y1) if self.nested else self.second(x)
            y2 = pyro.sample("y2", dist.Categorical(logits=logits), infer=every)
            joint = y1 * K2 + y2 if self.nested else y2
            loc, log_scale = self.encoder(x, joint).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


def made(nested):
    model = TwoLevels(nn.Linear(D, P), nested)
    second = MLP(P, K2, (6,), clusters=K1 if nested else None)
    encoder = MLP(P, 2 * D, (6,), clusters=K1 * K2 if nested else K2)
    return model, TwoLevelGuide(MLP(P, K1, (6,)), second, encoder, nested)


def of_pair(model, guide, x, a, b):
    """log p(y1, y2), log q(y1, y2 | x), the prior of z and its posterior, for one pair (a, b)."""
    above = torch.tensor(a if model.nested else 0)
    joint = above * K2 + b
    log_p = model.first.log_softmax(-1)[a] + model.second[above].log_softmax(-1)[b]
    second = guide.second(x, above) if model.nested else guide.second(x)
    log_q = guide.first(x).log_softmax(-1)[:, a] + second.log_softmax(-1)[:, b]
    loc, log_scale = guide.encoder(x, joint).chunk(2, -1)
    return log_p, log_q, dist.Normal(model.loc[above, b], 1.0), dist.Normal(loc, log_scale.exp())


PAIRS = [(a, b) for a in range(K1) for b in range(K2)]
both = pytest.mark.parametrize("nested", [True, False])
double = pytest.mark.usefixtures("double")


@both
@pytest.mark.usefixtures("recorded")
def test_it_trains_eagerly_and_compiled(nested, trained_both_ways):
    x = torch.randn(20, P) + torch.arange(20).remainder(3).unsqueeze(1)
    _, history = trained_both_ways(lambda: made(nested), x, epochs=10, batch_size=10)
    assert history[-1]["elbo"] > history[0]["elbo"] + 0.5
    assert {"kl[y1]", "kl[y2]", "kl[z]", "reconstruction"} < history[-1].keys()


@both
@double
def test_probabilities_of_each_level_are_sums_over_the_other(nested):
    model, guide = made(nested)
    x = torch.randn(B, P)
    table = torch.stack([of_pair(model, guide, x, a, b)[1].exp() for a, b in PAIRS], -1)
    table = table.reshape(B, K1, K2)
    for site, level in (("y1", 2), ("y2", 1)):
        for rows in (500, 2):
            found = cluster_probabilities(model, guide, x, site=site, batch_size=rows)
            torch.testing.assert_close(found, table.sum(level))


@both
@double
def test_codes_are_averaged_over_both_levels(nested):
    model, guide = made(nested)
    x = torch.randn(B, P)
    parts = [of_pair(model, guide, x, a, b) for a, b in PAIRS]
    expected = sum(log_q.exp().unsqueeze(-1) * q_z.mean for _, log_q, _, q_z in parts)
    torch.testing.assert_close(codes(model, guide, x), expected)


@both
@double
def test_the_bound_is_a_sum_over_all_pairs_at_the_same_draws(nested):
    model, guide = made(nested)
    x = torch.randn(B, P)
    torch.manual_seed(1)
    z = draw_pair(model, guide, Batch(x)).guide_trace.nodes["z"]["value"]
    z = z.reshape(K2, -1, B, D).expand(K2, K1, B, D)
    expected = torch.zeros(B)
    for a, b in PAIRS:
        log_p, log_q, p_z, q_z = of_pair(model, guide, x, a, b)
        scores = model.likelihood(model.decoder(z[b, a])).log_prob(x) + log_p - log_q
        scores = scores + (p_z.log_prob(z[b, a]) - q_z.log_prob(z[b, a])).sum(-1)
        expected = expected + log_q.exp() * scores
    torch.manual_seed(1)
    torch.testing.assert_close(ELBO(model, guide).terms(x)["elbo"], expected)


@both
@double
def test_the_importance_bound_comes_to_the_evidence(nested):
    """Log of a sum of K1 K2 Gaussians in closed form, since the decoder is linear."""
    model, guide = made(nested)
    x = torch.randn(B, P)
    weight, scale = model.decoder.weight, model.likelihood.log_scale.exp() + 1e-3
    covariance = weight @ weight.T + scale.square() * torch.eye(P)
    parts = []
    for a, b in PAIRS:
        log_p, _, p_z, _ = of_pair(model, guide, x, a, b)
        parts.append(
            log_p + dist.MultivariateNormal(model.decoder(p_z.mean), covariance).log_prob(x)
        )
    with torch.no_grad():
        guide.encoder.layers[-1].bias[D:] += 1  # broad, so that no weight rules the mean
        expected = torch.stack(parts).logsumexp(0)
        found = importance_bound(model, guide, x, 50_000)
    torch.testing.assert_close(found, expected, rtol=0, atol=0.05)
