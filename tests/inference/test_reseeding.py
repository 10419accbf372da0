"""Clusters that hold no rows are placed where the bound is lowest, and hold rows from then on."""

import math

import pytest
import torch
from torch import nn

from priorzoo.guides import CodesThenCluster, CodeThenCluster
from priorzoo.inference import (
    Training,
    cluster_probabilities,
    code_variances,
    codes,
    reseed_clusters,
)
from priorzoo.inference.reseeding import row_bounds
from priorzoo.models import GMVAE, MLP, VAE, DilokthanakulGMVAE, Gaussian
from priorzoo.models.distributions.gaussian import deviation, raw_variance

K, D, P, EACH = 3, 2, 4, 100
CENTRES = torch.tensor([[0.0, 0.0], [6.0, 0.0], [0.0, 6.0]])


class Identity(nn.Module):
    """The first two values of a row as code, nearly without spread, in a linear map that learns."""

    def __init__(self, outputs=2 * D):
        super().__init__()
        self.linear = nn.Linear(P, outputs)
        with torch.no_grad():
            self.linear.weight.zero_()
            self.linear.weight[:D, :D] = torch.eye(D)
            self.linear.bias.fill_(-5.0)
            self.linear.bias[:D] = 0.0

    def forward(self, x):
        return self.linear(x)


def planted(counts=(EACH, EACH, EACH)):
    """Rows of clusters in the plane, one after the other, and two values that are noise."""
    torch.manual_seed(0)
    y = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return torch.cat([CENTRES[y], torch.zeros(len(y), P - D)], 1) + 0.3 * torch.randn(len(y), P), y


def mixture(**more):
    """Components at two planted clusters, and one that is out of reach of all rows."""
    decoder = nn.Linear(D, P)
    with torch.no_grad():
        decoder.weight.copy_(torch.eye(P, D))
        decoder.bias.zero_()
    model = GMVAE(decoder, Gaussian(scale=0.3), code=D, clusters=K, **more)
    lost = torch.tensor([[0.0, 0.0], [6.0, 0.0], [60.0, 60.0]])
    spread = 0.2 * torch.ones(K, D)
    full = {"full": spread.diag_embed(), "tied": 0.2 * torch.eye(D)}
    model.set_components(lost, full.get(more.get("covariance"), spread))
    return model, CodeThenCluster(Identity(), model)


def owners(model, guide, x):
    return cluster_probabilities(model, guide, x).argmax(-1)


def agree(found, truth):
    """Whether two labellings are the same up to names."""
    pairs = set(zip(found.tolist(), truth.tolist(), strict=True))
    return len(pairs) == len(set(found.tolist())) == len(set(truth.tolist()))


@pytest.mark.parametrize("moved", [False, True])
def test_a_planted_cluster_that_no_component_has_is_regained_with_the_move_alone(moved):
    x, y = planted()
    model, guide = mixture()

    def move():
        if moved and training.step < 40:
            reseed_clusters(model, guide, x, seed=training.step, worst=0.2)

    how = {"batch_size": 50, "every": 20, "checkpoint": move}
    how["optimiser"] = lambda parameters: torch.optim.Adam(parameters, lr=0.01)
    training = Training(model, guide, x, **how)
    training.run(80)
    assert agree(owners(model, guide, x), y) == moved
    assert len(owners(model, guide, x).unique()) == K - (not moved)


@pytest.mark.parametrize("covariance", ["diagonal", "full", "tied"])
def test_a_starved_cluster_becomes_the_gaussian_of_the_rows_of_lowest_bound(covariance):
    """These are the planted ones without a component, whose codes' moments it has."""
    x, y = planted((EACH, EACH, EACH // 2))
    model, guide = mixture(covariance=covariance)
    before = model.components()[1].clone()
    hardest = row_bounds(model, guide, x).argsort()[: EACH // 2]
    assert set(y[hardest].tolist()) == {2}
    done = reseed_clusters(model, guide, x, seed=0, worst=0.2)
    assert done == {"reseeded": 1.0, "smallest share": pytest.approx(0, abs=1e-6)}
    z, spread = codes(model, guide, x)[y == 2], code_variances(model, guide, x)[y == 2]
    expected = z.var(0, unbiased=False) + spread.mean(0)
    loc, scale = model.components()
    torch.testing.assert_close(loc[2], z.mean(0))
    torch.testing.assert_close(loc[:2], CENTRES[:2])
    if covariance == "tied":
        torch.testing.assert_close(scale, before)
        return
    found = scale[2] if covariance == "diagonal" else (scale[2] @ scale[2].T).diagonal().sqrt()
    torch.testing.assert_close(found.square(), expected, rtol=1e-3, atol=1e-4)
    assert torch.equal(scale[:2], before[:2])


def test_a_row_of_weight_two_counts_as_two():
    """Weights say how often a row is among those that a cluster is placed on."""
    x, y = planted((EACH, EACH, 20))
    weights = torch.ones(len(x)).masked_fill(y == 2, 2.0)
    model, guide = mixture()
    twice, _ = planted((EACH, EACH, 20))
    copies = torch.cat([twice, twice[y == 2]])
    reseed_clusters(model, guide, x, seed=0, worst=40 / 240, context={"weights": weights})
    other, own = mixture()
    reseed_clusters(other, own, copies, seed=0, worst=40 / 240)
    torch.testing.assert_close(model.loc, other.loc)
    torch.testing.assert_close(model.raw, other.raw)


def test_bounds_of_rows_are_those_of_the_densities():
    """log p(x | z) + log sum_k p(z | k) / K - log q(z | x), with z near its mean."""
    x, _ = planted((3, 3, 3))
    model, guide = mixture()
    loc, scale = model.components()
    z, s = codes(model, guide, x), code_variances(model, guide, x).sqrt()
    q = torch.distributions.Normal(z, s)
    parts = torch.distributions.Normal(loc, scale).log_prob(z[:, None]).sum(-1)
    pixels = torch.distributions.Normal(model.decoder(z), 0.3).log_prob(x).sum(-1)
    expected = pixels + parts.logsumexp(-1) - math.log(K) + q.entropy().sum(-1)
    found = row_bounds(model, guide, x.repeat(400, 1)).unflatten(0, (400, -1)).mean(0)
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.2)


def test_heads_of_a_second_code_are_placed_for_every_second_code():
    x, y = planted()
    decoder = nn.Linear(D, P)
    with torch.no_grad():
        decoder.weight.copy_(torch.eye(P, D))
        decoder.bias.zero_()
    how = {"code": D, "second_code": 2, "clusters": K, "hidden": [4], "learn_weights": True}
    model = DilokthanakulGMVAE(decoder, Gaussian(scale=0.3), **how)
    guide = CodesThenCluster(Identity(2 * D + 4), model)
    for k, place in enumerate([[0.0, 0.0], [6.0, 0.0], [60.0, 60.0]]):
        model.place_cluster(k, torch.tensor(place), 0.2 * torch.ones(D))
    with torch.no_grad():
        model.logits.copy_(torch.tensor([1.0, 2.0, -9.0]))
    assert not agree(owners(model, guide, x), y)
    reseed_clusters(model, guide, x, seed=0, worst=0.2)
    assert agree(owners(model, guide, x), y)
    heads = model.heads(torch.randn(5, 2)).unflatten(-1, (K, 2 * D))[:, 2]
    assert torch.equal(heads, heads[:1].expand_as(heads))
    logits = model.logits.detach()
    assert logits.softmax(0)[2].item() == pytest.approx(1 / K)
    assert (logits[1] - logits[0]).item() == pytest.approx(1)


def test_several_starved_clusters_get_rows_of_different_owners():
    x, _ = planted()
    model, guide = mixture()
    with torch.no_grad():
        model.loc[0] = torch.tensor([-50.0, 50.0])
        model.raw.copy_(raw_variance(torch.ones(K, D)))
    done = reseed_clusters(model, guide, x, seed=0, worst=0.6)
    assert done["reseeded"] == 2
    assert len(owners(model, guide, x).unique()) == K


def test_nothing_is_moved_without_hunger_or_after_the_share():
    x, _ = planted()
    model, guide = mixture()
    assert reseed_clusters(model, guide, x, seed=0, done=0.51) == {}
    assert model.loc[2].tolist() == [60.0, 60.0]
    assert reseed_clusters(model, guide, x, seed=0, done=0.5)["reseeded"] == 1
    before = model.loc.clone()
    assert reseed_clusters(model, guide, x, seed=1)["reseeded"] == 0
    assert torch.equal(model.loc, before)


def test_a_model_whose_clusters_cannot_be_placed_is_refused():
    model = VAE(MLP(D, P), code=D)
    with pytest.raises(ValueError, match="VAE has no place_cluster; add that method"):
        reseed_clusters(model, CodeThenCluster(Identity(), model), torch.zeros(4, P), seed=0)


def test_deviations_are_floored():
    """A part of equal rows leaves a variance above zero."""
    model, _ = mixture()
    model.place_cluster(2, torch.zeros(D), torch.zeros(D))
    assert (model.components()[1][2] >= deviation(torch.tensor(-20.0))).all()
