import torch
from sklearn.metrics import adjusted_rand_score
from torch import nn

from priorzoo.guides import FactorialCode
from priorzoo.inference import ConjugateELBO, cluster_probabilities, fit, seed_components
from priorzoo.inference.batch import Batch
from priorzoo.models import MLP, Dirichlet, FactorialMixture, Gaussian


def fixed(clusters):
    """x is the code, half of it for each of two factors."""
    decoder, encoder = MLP(4, 4, ()), MLP(4, 8, ())
    for network in (decoder, encoder):
        nn.init.eye_(network.layers[0].weight)
        network.requires_grad_(False)
    encoder.layers[0].bias[4:] = -30
    model = FactorialMixture(decoder, Gaussian(1.0), 4, clusters)
    return ConjugateELBO(model, FactorialCode(encoder, 4, clusters))


def rows(count, clusters=(5, 3)):
    """Well-separated clusters of each half, drawn independently."""
    corners = 60 * torch.tensor([[0.0, 0], [1, 0], [0, 1], [1, 1], [0.5, 2]])
    centres = [corners[:k] for k in clusters]
    truth = [torch.randint(k, (count,)) for k in clusters]
    x = torch.cat([c[t] for c, t in zip(centres, truth, strict=True)], -1)
    return x + torch.randn(count, 4), truth


def test_separate_clusters_are_found():
    x, truth = rows(700)  # more than are held at a time
    objective = fixed((5, 3))
    seed_components(objective, x)
    for site, labels in zip(("r_1", "r_2"), truth, strict=True):
        found = cluster_probabilities(objective.model, objective.guide, x, site).argmax(-1)
        assert adjusted_rand_score(labels, found) > 0.9
    for weights in objective.guide.weights:
        (counts,) = Dirichlet.usual(weights.detach())
        torch.testing.assert_close(counts.sum().item(), 700.0 + len(counts))


def test_labels_say_which_cluster_is_which():
    x, truth = rows(400)
    objective = fixed((5, 3))
    labels = {"r_1": torch.where(torch.rand(400) < 0.2, truth[0], -1)}
    seed_components(objective, x, labels)
    found = cluster_probabilities(objective.model, objective.guide, x, "r_1").argmax(-1)
    assert (found == truth[0]).float().mean() > 0.99


def test_components_without_rows_stay_at_the_prior():
    x = torch.zeros(50, 4)
    objective = fixed((2, 2))
    seed_components(objective, x, {"r_1": torch.zeros(50).long()}, rounds=0)
    (counts,) = Dirichlet.usual(objective.guide.weights[0].detach())
    torch.testing.assert_close(counts.float(), torch.tensor([51.0, 1.0]))


def test_rows_taken_in_parts_add_up():
    """The last round is the natural step of all rows at once, by the responsibilities before it."""
    x, _ = rows(1200)
    parts, whole = fixed((5, 3)), fixed((5, 3))
    for objective, rounds in ((parts, 3), (whole, 2)):
        torch.manual_seed(1)
        seed_components(objective, x, rounds=rounds)
    optima = [optimum for _, optimum in whole.optima(Batch(x))]
    found = [*parts.guide.weights, *parts.guide.components]
    for optimum in optima:
        assert any(
            optimum.shape == part.shape and torch.allclose(optimum, part.data, rtol=1e-4)
            for part in found
        )


def test_components_are_counted_by_weights_beside_covariates_and_missing_cells():
    """Pseudo-counts are those of the rows that the weights stand for."""
    x, _ = rows(300)
    decoder, encoder = MLP(4, 4, (), covariates=1), MLP(4, 8, (), covariates=1, masked=True)
    model = FactorialMixture(decoder, Gaussian(1.0), 4, (5, 3))
    objective = ConjugateELBO(model, FactorialCode(encoder, 4, (5, 3)))
    weights, observed = torch.randint(4, (300,)), torch.rand(300, 4) < 0.8
    context = {"weights": weights, "observed": observed, "covariates": torch.randn(300, 1)}
    seed_components(objective, x, context=context)
    for natural in objective.guide.weights:
        (counts,) = Dirichlet.usual(natural.detach())
        torch.testing.assert_close(counts.sum().item(), float(weights.sum()) + len(counts))
    history = fit(model, objective.guide, x, objective=objective, steps=3, context=context)
    assert torch.tensor(history[-1]["elbo"]).isfinite()
