"""Dilokthanakul's GMVAE: the two estimators of its prior terms, and its remedies."""

import math

import pytest
import torch
from pyro.infer import TraceEnum_ELBO
from torch.distributions import Normal, kl_divergence

from priorzoo.guides import CodesThenCluster, MeanFieldCodes
from priorzoo.inference import ELBO, KL, ConsistencyViolation
from priorzoo.inference.batch import Batch
from priorzoo.models import MLP, DilokthanakulGMVAE
from priorzoo.models.distributions.gaussian import deviation

pytestmark = pytest.mark.usefixtures("double")
P, D, W, K = 6, 2, 3, 4


def second_version(spread=3.0):
    model = DilokthanakulGMVAE(MLP(D, P, (4,)), code=D, second_code=W, clusters=K, hidden=(5,))
    with torch.no_grad():  # components apart, so that the posterior of y is no constant
        model.heads.layers[-1].bias.normal_(std=spread)
    return model, CodesThenCluster(MLP(P, 2 * (D + W), (5,)), model)


def rows(count):
    return torch.bernoulli(torch.full((count, P), 0.4))


def by_hand(model, guide, x, z, w):
    """log q(z), log N(z; mu_k(w), var_k(w)) of each k, KL of each k, of codes (S, B, .)."""
    loc, raw = guide.joint_encoder(x)[:, : 2 * D].chunk(2, -1)
    q = Normal(loc, deviation(raw))
    hidden, last = model.heads.layers
    heads = last(hidden(w).tanh()).reshape(*w.shape[:-1], K, 2 * D)
    parts = Normal(heads[..., :D], deviation(heads[..., D:]))
    log_q = q.log_prob(z).sum(-1)
    log_n = parts.log_prob(z.unsqueeze(-2)).sum(-1)
    wide = Normal(q.loc.unsqueeze(-2), q.scale.unsqueeze(-2))
    return log_q, log_n, kl_divergence(wide, parts).sum(-1)


def drawn(guide, x, particles, seed):
    """The codes that an objective of so many particles draws under a seed."""
    torch.manual_seed(seed)
    objective = ELBO(guide.model, guide, particles=particles)
    sites = objective.draw(Batch(x)).guide_trace.nodes
    return sites["z"]["value"], sites["w"]["value"]


def terms_of(model, guide, x, seed, kl, particles):
    torch.manual_seed(seed)
    return ELBO(model, guide, kl, particles).terms(x)


def test_exact_and_paper_terms_are_those_of_the_paper_by_hand():
    (model, guide), x = second_version(), rows(5)
    z, w = drawn(guide, x, 7, seed=1)
    log_q, log_n, divergence = by_hand(model, guide, x, z, w)
    posterior = log_n.softmax(-1)
    y_prior = math.log(K) - torch.special.entr(posterior).sum(-1)
    exact = terms_of(model, guide, x, 1, {}, 7)
    paper = terms_of(model, guide, x, 1, {"z": KL(analytic=True)}, 7)
    for terms in (exact, paper):
        torch.testing.assert_close(terms["kl[y]"], y_prior.mean(0))
    marginal = log_q - (log_n.logsumexp(-1) - math.log(K))
    torch.testing.assert_close(exact["kl[z]"] + exact["kl[y]"], marginal.mean(0))
    torch.testing.assert_close(paper["kl[z]"], (posterior * divergence).sum(-1).mean(0))


def test_the_paper_s_bound_is_lower_by_a_covariance():
    """By sum_k Cov_q(z)(p(k | z, w), log p(z | w, k)), to the error of the draws."""
    (model, guide), x = second_version(), rows(3)
    torch.nn.init.zeros_(model.heads.layers[0].weight)  # heads that no w moves: one covariance
    count = 20_000
    z, w = drawn(guide, x, count, seed=2)
    _, log_n, _ = by_hand(model, guide, x, z, w)
    posterior = log_n.softmax(-1)
    products = (posterior - posterior.mean(0)) * (log_n - log_n.mean(0))
    covariance = products.sum(-1).mean(0)
    exact = terms_of(model, guide, x, 2, {}, count)["elbo"]
    paper = terms_of(model, guide, x, 2, {"z": KL(analytic=True)}, count)["elbo"]
    error = (log_n.std(0).amax(-1) + products.sum(-1).std(0)) / math.sqrt(count)
    assert (covariance > 0.05).all()
    assert ((exact - paper - covariance).abs() < 5 * error).all()


@pytest.mark.parametrize("seed", range(4))
def test_the_paper_s_bound_is_never_above_the_exact_one(seed):
    torch.manual_seed(seed)
    (model, guide), x = second_version(spread=seed), rows(4)
    exact = terms_of(model, guide, x, 3, {}, 4000)["elbo"]
    paper = terms_of(model, guide, x, 3, {"z": KL(analytic=True)}, 4000)["elbo"]
    assert (paper < exact + 0.02).all()


def test_exact_is_pyro_s_bound():
    (model, guide), x = second_version(), rows(5)
    torch.manual_seed(4)
    loss, _ = ELBO(model, guide)(x)
    torch.manual_seed(4)
    expected = TraceEnum_ELBO(max_plate_nesting=1).differentiable_loss(model, guide, x)
    torch.testing.assert_close(loss * len(x), expected)


def test_the_first_version_has_four_terms():
    model, _ = second_version()
    guide = MeanFieldCodes(MLP(P, K, (5,)), MLP(P, 2 * (D + W), (5,)), code=D)
    x = rows(5)
    torch.manual_seed(5)
    draws = ELBO(model, guide).draw(Batch(x))
    z, w = (draws.guide_trace.nodes[name]["value"] for name in ("z", "w"))
    terms = terms_of(model, guide, x, 5, {"z": KL(analytic=True), "w": KL(analytic=True)}, 1)
    q_y = guide.classifier(x).softmax(-1)
    _, _, divergence = by_hand(model, guide, x, z, w)
    torch.testing.assert_close(terms["kl[z]"], (q_y * divergence).sum(-1))
    torch.testing.assert_close(terms["kl[y]"], math.log(K) - torch.special.entr(q_y).sum(-1))
    loc, raw = guide.joint_encoder(x)[:, 2 * D :].chunk(2, -1)
    w_prior = kl_divergence(Normal(loc, deviation(raw)), Normal(0.0, 1.0)).sum(-1)
    torch.testing.assert_close(terms["kl[w]"], w_prior)
    logits = model.decoder(z)
    pixels = -torch.nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="none")
    torch.testing.assert_close(terms["reconstruction"], pixels.sum(-1))


@pytest.mark.parametrize("version", [1, 2])
def test_consistency_violation_is_the_entropy_of_the_prior_s_posterior(version):
    model, guide = second_version()
    if version == 1:
        guide = MeanFieldCodes(MLP(P, K, (5,)), MLP(P, 2 * (D + W), (5,)), code=D)
    x = rows(5)
    objective = ELBO(model, guide, particles=3)
    torch.manual_seed(6)
    draws = objective.draw(Batch(x))
    z, w = (draws.guide_trace.nodes[name]["value"] for name in ("z", "w"))
    hidden, last = model.heads.layers
    heads = last(hidden(w).tanh()).reshape(3, 5, K, 2 * D)
    parts = Normal(heads[..., :D], deviation(heads[..., D:]))
    posterior = parts.log_prob(z.unsqueeze(-2)).sum(-1).softmax(-1)
    expected = torch.special.entr(posterior).sum(-1).mean(0)
    torch.testing.assert_close(ConsistencyViolation()(draws), expected)


def gradients(model, guide, kl, x, penalties=None):
    objective = ELBO(model, guide, kl, penalties=penalties)
    objective.zero_grad()
    torch.manual_seed(7)
    loss, terms = objective(x)
    loss.backward()
    return loss.detach(), terms, [p.grad.clone() for p in objective.parameters()]


def test_below_the_floor_y_pushes_nothing_and_log_k_switches_it_off():
    (model, guide), x = second_version(spread=0.3), rows(5)
    _, terms, plain = gradients(model, guide, {}, x)
    below = terms["kl[y]"].mean().item() - 1e-6
    _, _, same = gradients(model, guide, {"y": KL(floor=below)}, x)
    _, _, floored = gradients(model, guide, {"y": KL(floor=below + 1e-3)}, x)
    _, _, off = gradients(model, guide, {"y": KL(floor=math.log(K))}, x)
    _, _, weightless = gradients(model, guide, {"y": KL(weight=0.0)}, x)
    torch.testing.assert_close(same, plain)
    torch.testing.assert_close(floored, weightless)
    torch.testing.assert_close(off, weightless)
    assert any((a - b).abs().max() > 1e-6 for a, b in zip(plain, off, strict=True))


def test_eta_weighs_the_y_prior():
    (model, guide), x = second_version(), rows(5)
    plain, terms, _ = gradients(model, guide, {}, x)
    weighed, _, _ = gradients(model, guide, {"y": KL(weight=0.3)}, x)
    torch.testing.assert_close(plain - weighed, 0.7 * terms["kl[y]"].mean())


def test_each_remedy_off_is_the_plain_objective_to_the_last_bit():
    (model, guide), x = second_version(spread=30.0), rows(5)  # so far apart that p(y | z) is 0
    plain = gradients(model, guide, {}, x)
    idle = {name: KL(weight=1.0, floor=0.0) for name in ("y", "z", "w")}
    none = {"consistency": ConsistencyViolation(weight=0.0)}
    for found in (gradients(model, guide, idle, x), gradients(model, guide, {}, x, none)):
        torch.testing.assert_close(found[0], plain[0], rtol=0, atol=0)
        torch.testing.assert_close(found[2], plain[2], rtol=0, atol=0)


def test_learnt_weights_are_the_prior_of_y():
    torch.manual_seed(8)
    model = DilokthanakulGMVAE(
        MLP(D, P, (4,)), code=D, second_code=W, clusters=K, hidden=(5,), learn_weights=True
    )
    with torch.no_grad():
        model.heads.layers[-1].bias.normal_(std=3.0)
        model.logits.normal_()
    guide, x = CodesThenCluster(MLP(P, 2 * (D + W), (5,)), model), rows(5)
    z, w = drawn(guide, x, 1, seed=9)
    _, log_n, _ = by_hand(model, guide, x, z, w)
    log_pi = model.logits.log_softmax(-1)
    log_q = (log_n + log_pi).log_softmax(-1)
    terms = terms_of(model, guide, x, 9, {}, 1)
    torch.testing.assert_close(terms["kl[y]"], (log_q.exp() * (log_q - log_pi)).sum(-1))
    torch.manual_seed(9)
    loss, _ = ELBO(model, guide)(x)
    torch.manual_seed(9)
    expected = TraceEnum_ELBO(max_plate_nesting=1).differentiable_loss(model, guide, x)
    torch.testing.assert_close(loss * len(x), expected)
    loss.backward()
    assert (model.logits.grad.abs() > 0).all()
