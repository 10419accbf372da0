"""MFCVAE: the bound by enumeration, the closed-form responsibilities, the ladders, the start."""

import math
from itertools import product

import pytest
import torch
from pyro import distributions as dist
from pyro import poutine
from torch import nn

from priorzoo.benchmarks.papers.falck2021 import place_facets
from priorzoo.guides import Code, CodeThenCluster, FacetCode
from priorzoo.inference import ELBO, draw
from priorzoo.inference.batch import Batch
from priorzoo.models import (
    GMVAE,
    MLP,
    FacetMixture,
    Gaussian,
    LadderDecoder,
    LadderEncoder,
)

pytestmark = pytest.mark.usefixtures("double")


def build(code=4, clusters=(3, 2)):
    model = FacetMixture(MLP(code, 6, (8,)), code=code, clusters=clusters)
    for logits in model.logits:
        nn.init.normal_(logits)
    return model, FacetCode(MLP(6, 2 * code, (5,)), model)


def test_the_bound_is_the_sum_over_all_pairs_of_clusters():
    """At the codes that the guide drew, with q(r_1, r_2) p(x, z, r_1, r_2) written out by hand."""
    model, guide = build()
    x = torch.bernoulli(torch.full((4, 6), 0.4))
    with torch.random.fork_rng():
        loss = ELBO(model, guide).loss(Batch(x)).value
    free = {f"r_{j}": torch.zeros(4).long() for j in (1, 2)}  # so that they take no random numbers
    q = poutine.trace(poutine.condition(guide, free)).get_trace(x).nodes
    z = [q[f"z_{j}"]["value"] for j in (1, 2)]
    pixels = dist.Bernoulli(logits=model.decoder(torch.cat(z, -1))).log_prob(x).sum(-1)
    codes = sum(q[f"z_{j}"]["fn"].log_prob(z[j - 1]) for j in (1, 2))
    total = torch.zeros(4)
    for pair in product(range(3), range(2)):
        weight, difference = torch.ones(4), pixels - codes
        for k, part, site, facet, logits in zip(
            pair, z, ("r_1", "r_2"), model.facets, model.logits, strict=True
        ):
            own = q[site]["fn"].logits.log_softmax(-1)[:, k]
            means, scales = facet.components()
            prior = dist.Normal(means[k], scales[k]).log_prob(part).sum(-1)
            weight = weight * own.exp()
            difference = difference + logits.log_softmax(-1)[k] + prior - own
        total += weight * difference
    torch.testing.assert_close(loss, -total.mean())


def test_responsibilities_are_expectations_under_q_by_quadrature():
    model, guide = build(code=2)
    loc, scale = torch.tensor([[0.3], [-1.2]]), torch.tensor([[0.7], [0.2]])
    grid = torch.linspace(-8, 8, 40_001)
    means, scales = model.facets[0].components()
    inside = dist.Normal(means[:, 0], scales[:, 0]).log_prob(grid[:, None])
    expected = []
    for m, s in zip(loc[:, 0], scale[:, 0], strict=True):
        q = dist.Normal(m, s).log_prob(grid).exp()
        expected.append(torch.trapezoid(q[:, None] * inside, grid, dim=0))
    wanted = torch.stack(expected) + model.logits[0].log_softmax(-1)
    torch.testing.assert_close(guide.responsibilities(1, loc, scale), wanted, rtol=1e-6, atol=1e-6)


def test_no_other_clusters_have_a_higher_bound():
    """The gradient of E_q(z) [sum_k q_k (log p(z, k) - log q_k)] in the logits of q is zero."""
    _, guide = build()
    loc, scale = torch.randn(5, 2), torch.rand(5, 2) + 0.1
    score = guide.responsibilities(1, loc, scale).detach()
    logits = score.clone().requires_grad_()
    q = logits.softmax(-1)
    (gradient,) = torch.autograd.grad((q * (score - q.log())).sum(), logits)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-12)


def test_one_facet_with_a_certain_code_has_the_posterior_of_vade():
    mixture, _ = build(code=2, clusters=(3,))
    vade = GMVAE(mixture.decoder, code=2, clusters=3, learn_weights=True)
    vade.load_state_dict(
        {"logits": mixture.logits[0], **mixture.facets[0].state_dict()}, strict=False
    )
    encoder = MLP(6, 4, (5,))
    x = torch.rand(7, 6)
    with torch.no_grad():
        encoder.layers[-1].weight[2:] = 0
        encoder.layers[-1].bias[2:] = -40  # the floor of the variance is left
    ours = FacetCode(encoder, mixture).responsibilities
    loc = poutine.trace(Code(encoder)).get_trace(x).nodes["z"]["fn"].base_dist.loc
    held = poutine.condition(CodeThenCluster(encoder, vade), data={"z": loc})
    exact = poutine.trace(held).get_trace(x).nodes["y"]["fn"].probs
    found = ours(1, loc, torch.zeros_like(loc)).softmax(-1)
    torch.testing.assert_close(found, exact)


def test_a_cluster_of_one_facet_is_drawn_with_the_others_free():
    model = FacetMixture(nn.Identity(), Gaussian(0.1), 2, (2, 2))
    for facet in model.facets:
        facet.set_components(torch.tensor([[-5.0], [5.0]]).double(), torch.full((2, 1), 0.01))
    x = draw(model, 400, given={"r_1": 1})
    assert (x[:, 0] > 4).all()
    assert 100 < (x[:, 1] > 0).sum() < 300


def test_each_part_of_a_code_has_layers_of_its_own():
    encoder, decoder = LadderEncoder(6, 8, (5, 7)), LadderDecoder(4, 6, (7, 5))
    x = torch.rand(3, 6)
    early, late = encoder(x)[:, [0, 1, 4, 5]], encoder(x)[:, [2, 3, 6, 7]]
    deep = encoder.layers[1].weight
    assert not torch.autograd.grad(early.sum(), deep, retain_graph=True)[0].any()
    assert torch.autograd.grad(late.sum(), deep)[0].abs().sum() > 0
    z = torch.rand(3, 4, requires_grad=True)
    assert decoder(z).shape == (3, 6)
    assert decoder(z.expand(2, 3, 4)).shape == (2, 3, 6)
    first, last = decoder.rungs
    decoder(z).sum().backward()
    assert first.weight.grad.abs().sum() > 0
    assert last.weight.grad.abs().sum() > 0
    with pytest.raises(ValueError, match="4 parts share equally but got 6"):
        LadderEncoder(6, 6, (5, 7))
    with pytest.raises(ValueError, match="2 factors share equally but got 5"):
        FacetMixture(nn.Identity(), code=5, clusters=(2, 2))


def test_facets_are_placed_at_the_groups_of_their_codes():
    """Two coordinates with 2 and 3 groups that are independent of each other."""
    a, b = torch.arange(300) % 2, torch.arange(300) // 2 % 3
    x = torch.stack([4.0 * a, 3.0 * b], -1) + 0.1 * torch.randn(300, 2)
    encoder = nn.Linear(2, 4)
    with torch.no_grad():
        encoder.weight.copy_(torch.cat([torch.eye(2), torch.zeros(2, 2)]))
        encoder.bias.copy_(torch.tensor([0, 0, -5.0, -5.0]))
    model = FacetMixture(nn.Identity(), Gaussian(0.1), 2, (2, 3))
    place_facets(model, FacetCode(encoder, model), x, seed=0)
    for facet, centres, share in zip(model.facets, ([0, 4], [0, 3, 6]), (2, 3), strict=True):
        means = facet.components()[0][:, 0].sort().values
        torch.testing.assert_close(means, torch.tensor(centres).double(), rtol=0, atol=0.1)
        weights = model.logits[share - 2].softmax(-1)
        torch.testing.assert_close(weights, torch.full((share,), 1 / share), rtol=0, atol=0.02)
    with pytest.raises(ValueError, match="Expected a FacetMixture"):
        place_facets(nn.Identity(), nn.Identity(), x, seed=0)
    with pytest.raises(ValueError, match="at least 2 rows to place clusters but got 1"):
        place_facets(model, FacetCode(encoder, model), x[:1], seed=0)
    assert math.isfinite(ELBO(model, FacetCode(encoder, model)).loss(Batch(x)).value.item())
