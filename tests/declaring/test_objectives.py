"""Objectives of one's own, written with public names: importance-weighted bounds."""

import math

import pytest
import torch

from priorzoo.guides import ClusterThenCode, Code, MeanField
from priorzoo.inference import ELBO, Batch, Loss, Objective, descend, draw_pair, importance_bound
from priorzoo.models import GMVAE, MLP, VAE

P, D, K = 5, 2, 3


class ImportanceWeighted(Objective):
    """log of the mean of S weights p(x, z) / q(z | x): Burda et al., 2016."""

    def __init__(self, model, guide, samples=5):
        super().__init__(model, guide)
        self.samples = samples

    def loss(self, batch):
        log_w = draw_pair(self.model, self.guide, batch, self.samples).log_weights()
        bound = log_w.logsumexp(0) - math.log(self.samples)
        return Loss(-bound.mean(), {"elbo": bound})


class DoublyReparameterised(ImportanceWeighted):
    """The guide's gradient through the draws alone: Tucker et al., 2019; without clusters."""

    def loss(self, batch):
        draws = draw_pair(self.model, self.guide, batch, self.samples)
        z = draws.guide_trace.nodes["z"]
        score = z["fn"].log_prob(z["value"].detach())
        log_w = draws.log_weights() + score - score.detach()  # q's own parameters are held
        weight = log_w.detach().softmax(0)
        if z["value"].requires_grad:
            z["value"].register_hook(lambda gradient: weight.unsqueeze(-1) * gradient)
        bound = log_w.detach().logsumexp(0) - math.log(self.samples)
        return Loss(-(weight * log_w).sum(0).mean(), {"elbo": bound})


def vae():
    return VAE(MLP(D, P, (6,)), code=D), Code(MLP(P, 2 * D, (6,)))


def mixture():
    return GMVAE(MLP(D, P, (6,)), code=D, clusters=K), ClusterThenCode(
        MLP(P, K, (6,)), MLP(P, 2 * D, (6,), clusters=K)
    )


def mean_field():
    return GMVAE(MLP(D, P, (6,)), code=D, clusters=K), MeanField(
        MLP(P, K, (6,)), MLP(P, 2 * D, (6,))
    )


@pytest.fixture
def x():
    return torch.rand(20, P).round()


@pytest.mark.parametrize(
    ("kind", "make"),
    [
        (ImportanceWeighted, vae),
        (ImportanceWeighted, mixture),
        (ImportanceWeighted, mean_field),
        (DoublyReparameterised, vae),
    ],
)
def test_the_value_is_that_of_the_importance_bound(kind, make, x):
    """On the same draws, with clusters summed inside the weight."""
    pair = make()
    torch.manual_seed(1)
    expected = importance_bound(*pair, x, 7)
    torch.manual_seed(1)
    value, terms = kind(*pair, samples=7)(x)
    torch.testing.assert_close(terms["elbo"], expected)
    if kind is ImportanceWeighted:
        torch.testing.assert_close(value, -expected.mean())


def test_one_sample_without_clusters_is_the_elbo(x):
    """In value and in every gradient."""
    pair = vae()
    results = []
    for objective in (ImportanceWeighted(*pair, samples=1), ELBO(*pair)):
        torch.manual_seed(1)
        value, _ = objective(x)
        results.append([value, *torch.autograd.grad(value, list(objective.parameters()))])
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("kind", [ImportanceWeighted, DoublyReparameterised])
def test_it_trains_compiled_as_eagerly(kind, x, trained_both_ways, request):
    if kind is DoublyReparameterised:
        request.getfixturevalue("recorded")  # of the two, one in machine code is enough
    pair, history = trained_both_ways(
        vae,
        x,
        objective=kind,
        steps=20,
        every=10,
        batch_size=10,
        validation=x,
        optimiser=lambda parameters: torch.optim.Adam(parameters, lr=0.01),
    )
    train = [row["elbo"] for row in history if row["split"] == "train"]
    assert train[-1] > train[0]
    bounds = []
    for measured in (kind(*pair, 200).loss, lambda batch: importance_bound(*pair, batch.x, 200)):
        torch.manual_seed(1)
        found = measured(Batch(x))
        bounds.append(found.terms["elbo"] if isinstance(found, Loss) else found)
    torch.testing.assert_close(*bounds)


def gradients(kind, pair, row, repeats):
    """Of so many independent batches of one row many times over, flat, ``(repeats, ...)``."""
    objective, found = kind(*pair, samples=4), []
    for _ in range(repeats):
        value, _ = objective(row.expand(400, -1))
        parts = torch.autograd.grad(value, list(objective.parameters()))
        found.append(torch.cat([part.flatten() for part in parts]))
    return torch.stack(found)


@pytest.mark.usefixtures("double")
def test_the_doubly_reparameterised_gradient_has_the_same_mean_and_varies_less():
    """Within five standard errors, for the model's parameters and the guide's."""
    pair = vae()
    row = torch.tensor([[1.0, 0, 1, 1, 0]])
    plain, doubly = (
        gradients(k, pair, row, 40) for k in (ImportanceWeighted, DoublyReparameterised)
    )
    error = ((plain.var(0) + doubly.var(0)) / len(plain)).sqrt()
    assert ((plain.mean(0) - doubly.mean(0)).abs() <= 5 * error + 1e-9).all()
    guides = sum(p.numel() for p in pair[1].parameters())
    assert doubly[:, -guides:].var(0).sum() < 0.9 * plain[:, -guides:].var(0).sum()


@pytest.mark.usefixtures("double")
def test_the_doubly_reparameterised_gradient_is_that_of_finite_differences():
    """Central differences of the bound over 20,000 draws, whose noise stays the same."""
    pair, x = vae(), torch.rand(20_000, P).round()[:1].expand(20_000, -1)
    objective = DoublyReparameterised(*pair, samples=3)
    bias = pair[1].encoder.layers[-1].bias
    torch.manual_seed(2)
    (found,) = torch.autograd.grad(objective(x)[0], bias)
    expected = torch.zeros(2 * D)
    for i in range(2 * D):
        ends = []
        for shift in (1e-4, -1e-4):
            with torch.no_grad():
                bias[i] += shift
                torch.manual_seed(2)
                ends.append(-objective(x)[1]["elbo"].mean())
                bias[i] -= shift
        expected[i] = (ends[0] - ends[1]) / 2e-4
    torch.testing.assert_close(found, expected, rtol=0, atol=0.03)


def test_a_loop_of_ones_own_takes_it(x):
    objective = ImportanceWeighted(*vae())
    optimiser = torch.optim.Adam(objective.parameters(), lr=0.02)
    bounds = [descend(objective, optimiser, x)["elbo"] for _ in range(60)]
    assert sum(bounds[-10:]) > sum(bounds[:10])
