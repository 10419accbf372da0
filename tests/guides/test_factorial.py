import pytest
import torch
from pyro import poutine
from scipy import stats
from torch import nn

from priorzoo.guides import ClusterThenCode, FactorialCode
from priorzoo.inference import (
    ELBO,
    Classification,
    ConjugateAdam,
    ConjugateELBO,
    cluster_probabilities,
    descend,
    draw,
    evaluate,
    importance_bound,
    predictive,
)
from priorzoo.inference.batch import Batch
from priorzoo.models import GMVAE, MLP, Dirichlet, FactorialMixture, Gaussian, NormalGamma

N = 1000


def build(code=4, clusters=(3, 2), **settings):
    model = FactorialMixture(MLP(code, 6, (8,)), code=code, clusters=clusters, **settings)
    return model, FactorialCode(MLP(6, 2 * code, (5,)), code, clusters)


def binary(count):
    return torch.bernoulli(torch.full((count, 6), 0.4))


@pytest.mark.usefixtures("double")
def test_code_of_a_new_row_is_that_of_parameters_drawn_first():
    """Student's t against mu, alpha ~ q and z ~ N(mu, 1 / alpha), by Kolmogorov and Smirnov."""
    model, guide = build(code=1, clusters=2)
    usual = [torch.tensor([[v], [1.0]]) for v in (-0.7, 1.5, 2.2, 0.9)]
    guide.components[0].data = NormalGamma.natural(*usual)
    story, _ = predictive(model, guide)
    held = poutine.condition(story, data={"r_1": torch.zeros(5000).long()})
    z = poutine.trace(held).get_trace(size=5000).nodes["z_1"]["value"][:, 0]
    m, s, a, b = (part[0, 0] for part in usual)
    alpha = torch.distributions.Gamma(a, b).sample((5000,))
    mu = torch.distributions.Normal(m, (s * alpha).rsqrt()).sample()
    drawn = torch.distributions.Normal(mu, alpha.rsqrt()).sample()
    assert stats.ks_2samp(z.numpy(), drawn.numpy()).pvalue > 1e-3


def test_clusters_of_a_new_row_leave_out_the_pruned():
    model, guide = build()
    guide.weights[0].data = Dirichlet.natural(torch.tensor([31.0, 1.4, 11.0]))
    guide.weights[1].data = Dirichlet.natural(torch.tensor([1.0, 1.0]))
    story, _ = predictive(model, guide, prune=True)
    assert story.used(1).tolist() == [True, False, True]
    trace = poutine.trace(story).get_trace(size=20_000)
    share = torch.bincount(trace.nodes["r_1"]["value"], minlength=3) / 20_000
    torch.testing.assert_close(share, torch.tensor([31, 0, 11]) / 42, rtol=0, atol=0.015)
    assert trace.nodes["r_2"]["value"].unique().tolist() == [0, 1]  # all alike: none is left out
    whole, _ = predictive(model, guide)
    share = poutine.trace(whole).get_trace(size=1).nodes["r_1"]["fn"].probs[0]
    torch.testing.assert_close(share, torch.tensor([31, 1.4, 11]) / 43.4)


def test_any_factors_are_clamped_in_samples():
    model, guide = build()
    with torch.no_grad():  # x is then z_1, z_1, z_1 and z_2, z_2, z_2 without noise
        weight = torch.zeros(6, 4)
        weight[:3, 0] = weight[3:, 2] = 1
        model.decoder = MLP(4, 6, ())
        model.decoder.layers[0].weight.copy_(weight)
        model.likelihood = Gaussian(0.5)
    usual = torch.tensor([[-50.0], [0.0], [50.0]]), *torch.tensor([1e4, 1e4, 1e4])
    guide.components[0].data = NormalGamma.natural(*usual).expand(3, 2, 4).clone()
    guide.components[1].data = guide.components[0].data[::2].clone()
    story, _ = predictive(model, guide)
    x = draw(story, 50, given={"r_1": 1, "r_2": 0})
    assert x[:, 0].abs().max() < 10
    assert x[:, 3].max() < -40
    x = draw(story, 50, given={"r_2": torch.arange(50) % 2})
    assert ((x[:, 3] > 0) == (torch.arange(50) % 2 == 1)).all()
    assert len((x[:, 0] / 50).round().unique()) == 3


@pytest.mark.usefixtures("double")
def test_bound_of_a_new_row_is_below_the_weighted_one():
    """Eq. (11) averages logarithms of which the importance bound is the logarithm of averages."""
    model, guide = build()
    x = binary(40)
    terms = evaluate(model, guide, x)
    divergences = sum(value for name, value in terms.items() if name.startswith("kl["))
    assert terms["elbo"] == pytest.approx(terms["reconstruction"] - divergences)
    assert set(terms) >= {"kl[z_1]", "kl[r_1]", "kl[z_2]", "kl[r_2]", "globals"}
    few, many = (importance_bound(*predictive(model, guide), x, s).mean() for s in (1, 500))
    assert terms["elbo"] < many
    assert few < many


def test_bound_of_a_new_row_is_that_of_a_mixture_known_exactly():
    """With 1e9 pseudo-counts the globals are points, and the bound is the explicit mixture's."""
    model, guide = build(code=2, clusters=3)
    loc, scale, share = torch.randn(3, 2), torch.rand(3, 2) + 0.5, torch.tensor([0.2, 0.3, 0.5])
    count = torch.tensor(1e9).double()
    guide.components[0].data = NormalGamma.natural(
        loc.double(), count, count / 2, count / 2 * scale.double().square()
    )
    guide.weights[0].data = Dirichlet.natural(count * share)
    points = GMVAE(model.decoder, code=2, clusters=3, learn_weights=True)
    points.set_components(loc, scale.square())
    points.logits.data = share.log()
    x = binary(10)
    terms = ConjugateELBO(model, guide, particles=4000).held_out(Batch(x))

    class Twin(nn.Module):
        def forward(self, x, size=None):
            def rename(site):
                site["name"] = {"r_1": "y", "z_1": "z"}.get(site["name"], site["name"])

            with Renamed(rename):
                guide.local(x, size)

    expected = ELBO(points, Twin(), particles=4000).terms(x)
    torch.testing.assert_close(terms["kl[r_1]"], expected["kl[y]"], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(terms["kl[z_1]"], expected["kl[z]"], rtol=0.1, atol=0.1)


class Renamed(poutine.messenger.Messenger):
    def __init__(self, rename):
        super().__init__()
        self._pyro_sample = rename


def test_labels_clamp_their_rows_alone():
    model, guide = build()
    x = binary(6)
    labels = {"r_1": torch.tensor([2, -1, 0, -1, 1, -1])}
    objective = ConjugateELBO(model, guide)
    draws = objective.draw(Batch(x, N, labels))
    found = draws.guide_trace.nodes["r_1"]["fn"].probs
    free = cluster_probabilities(model, guide, x, "r_1")
    known = labels["r_1"] >= 0
    torch.testing.assert_close(found[known], torch.eye(3)[labels["r_1"][known]])
    torch.testing.assert_close(found[~known], free[~known])
    other = draws.guide_trace.nodes["r_2"]["fn"].probs
    torch.testing.assert_close(other, cluster_probabilities(model, guide, x, "r_2"))


def test_labels_count_in_the_natural_step():
    """All rows labelled: each weight is its prior count and N / B times its rows."""
    objective = ConjugateELBO(*build())
    labels = {"r_1": torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2, 2])}
    optimiser = ConjugateAdam(objective.parameters(), rate=1.0)
    descend(objective, optimiser, binary(10), N, labels=labels)
    (counts,) = Dirichlet.usual(objective.guide.weights[0].detach())
    torch.testing.assert_close(counts.float(), 1 + N / 10 * torch.tensor([3.0, 2, 5]))


def test_classification_term_is_scaled_to_the_data_set():
    """Eq. (8): Delta N / B times the sum over labelled rows of log g, for networks only."""
    model, guide = build()
    x, labels = binary(5), {"r_1": torch.tensor([2, -1, 0, -1, 1])}
    term = Classification(7.0, site="r_1")
    plain, priced = ConjugateELBO(model, guide), ConjugateELBO(model, guide, penalties={"d": term})
    gradients = []
    for objective in (plain, priced):
        objective.zero_grad()
        torch.manual_seed(3)
        (objective(x, N, labels)[0] * N).backward()
        gradients.append(guide.encoder.layers[0].weight.grad.clone())
    log_g = cluster_log_probabilities(guide, x)
    total = N / 5 * 7.0 * (log_g[0, 2] + log_g[2, 0] + log_g[4, 1])
    (expected,) = torch.autograd.grad(total, guide.encoder.layers[0].weight)
    torch.testing.assert_close(gradients[0] - gradients[1], expected, rtol=1e-3, atol=1e-2)
    assert all(part.grad is None for part in guide.components)
    held = priced.optima(Batch(x, N, labels))
    for (_, found), (_, alone) in zip(held, plain.optima(Batch(x, N, labels)), strict=True):
        torch.testing.assert_close(found, alone)


def cluster_log_probabilities(guide, x):
    loc, raw = guide.encoder(x).chunk(2, -1)
    q = torch.distributions.Normal(loc[:, :2], (nn.functional.softplus(raw[:, :2]) + 1e-4).sqrt())
    m, s, a, b = (part.float() for part in NormalGamma.usual(guide.components[0].detach()))
    (c,) = Dirichlet.usual(guide.weights[0].detach())
    spread = (q.loc[:, None] - m).square() + q.variance[:, None]
    score = (a.digamma() - b.log() - 1 / s - a / b * spread).sum(-1) / 2
    return (score + c.digamma().float()).log_softmax(-1)


def test_other_guides_do_not_fit():
    from priorzoo.inference import check_pair

    model, _ = build()
    with pytest.raises(ValueError, match="lacks the latent sites"):
        check_pair(model, ClusterThenCode(MLP(6, 3, ()), MLP(6, 8, (), clusters=3)))
