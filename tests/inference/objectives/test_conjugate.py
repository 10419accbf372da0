import copy

import numpy as np
import pyro
import pytest
import torch
from sklearn.mixture import BayesianGaussianMixture
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from priorzoo.guides import Code, FactorialCode
from priorzoo.inference import (
    ELBO,
    ConjugateAdam,
    ConjugateELBO,
    Pretraining,
    RobbinsMonro,
    Together,
    cluster_probabilities,
    descend,
)
from priorzoo.inference.batch import Batch
from priorzoo.models import (
    MLP,
    VAE,
    Dirichlet,
    FactorialMixture,
    Gamma,
    Gaussian,
    Natural,
    NormalGamma,
    conjugate,
    data_plate,
)
from priorzoo.models.distributions.expected import Component

N = 1000


def build(code=4, clusters=(3, 2), inputs=6, **settings):
    model = FactorialMixture(MLP(code, inputs, (8,)), code=code, clusters=clusters, **settings)
    return model, FactorialCode(MLP(inputs, 2 * code, (5,)), code, clusters)


def fixed(code, clusters, **settings):
    """A pair that hands x on as the code, with a standard deviation of 0.01."""
    decoder, encoder = MLP(code, code, ()), MLP(code, 2 * code, ())
    for network in (decoder, encoder):
        nn.init.eye_(network.layers[0].weight)
        network.requires_grad_(False)
    encoder.layers[0].bias[code:] = -30
    model = FactorialMixture(decoder, Gaussian(1.0), code, clusters, **settings)
    return model, FactorialCode(encoder, code, clusters, pseudo=3)


def prior_terms(objective, x):
    """The bound without the reconstruction, which alone is drawn."""
    terms = {name: term.mean() for name, term in objective.terms(x, len(x)).items()}
    return (terms["elbo"] - terms["reconstruction"]).item()


@pytest.mark.usefixtures("double")
def test_natural_gradient_is_that_written_by_hand():
    """Eq. (13) of the paper, its pseudo-counts of the Dirichlet, and (new - old) / rho."""
    model, guide = build()
    objective = ConjugateELBO(model, guide)
    x = torch.bernoulli(torch.full((20, 6), 0.4))
    for name, gradient in objective.natural_gradients(Batch(x, N)).items():
        objective.get_parameter(name).grad = gradient
    encoded = guide.encoder(x)
    for i, (weights, components) in enumerate(zip(guide.weights, guide.components, strict=True), 1):
        m, s, a, b = NormalGamma.usual(components)
        mu, variance = encoded[:, 2 * i - 2 : 2 * i], encoded[:, 4:][:, 2 * i - 2 : 2 * i]
        mu, variance = mu[:, None], nn.functional.softplus(variance[:, None]) + 1e-4
        (c,) = Dirichlet.usual(weights)
        score = (
            a.digamma()
            - b.log()
            - np.log(2 * np.pi)
            - 1 / s
            - a / b * ((mu - m).square() + variance)
        )
        gamma = (score.sum(-1) / 2 + c.digamma() - c.sum().digamma()).softmax(-1)
        n = N / 20 * gamma.sum(0)
        first = N / 20 * (gamma[..., None] * mu).sum(0)
        second = N / 20 * (gamma[..., None] * (mu.square() + variance)).sum(0)
        counts = n[:, None].expand_as(first)
        optimum = torch.stack(
            [0.01 + counts / 2 - 0.5, -(0.01 + second / 2), first, -(1 + counts) / 2], -1
        )
        torch.testing.assert_close(components.grad, components - optimum)
        torch.testing.assert_close(weights.grad, weights - n)
        old = components.detach().clone()
        RobbinsMonro([components], rate=0.3).step()
        torch.testing.assert_close((components - old) / 0.3, optimum - old)


@pytest.mark.usefixtures("double")
def test_natural_gradient_is_the_ordinary_one_divided_by_the_fisher_information():
    """The Hessian of the log-normaliser times lambda* - lambda is the gradient of the bound."""
    model, guide = build(code=1, clusters=2)
    x = torch.bernoulli(torch.full((20, 6), 0.4))
    (_, _), (components, optimum) = ConjugateELBO(model, guide).optima(Batch(x, N))
    (code,) = codes(guide, x)
    gamma = guide.logits(1, code).softmax(-1).detach()
    prior = model.priors(2, 1)[1]

    def bound(natural):
        parts = Component.of(NormalGamma.expected_statistics(natural), torch.float64)
        loc, variance = code.base_dist.loc.detach(), code.base_dist.variance.detach()
        score = parts.expected_log_prob(loc[:, None], variance[:, None]).sum(-1)
        return N / 20 * (gamma * score).sum() - NormalGamma.kl(natural, prior).sum()

    ordinary = torch.autograd.grad(bound(components), components)[0]
    for k in range(2):
        fisher = torch.autograd.functional.hessian(
            NormalGamma.log_normaliser, components[k, 0].detach()
        )
        expected = torch.linalg.solve(fisher, ordinary[k, 0])
        torch.testing.assert_close((optimum - components)[k, 0], expected)


class Largest(TorchDispatchMode):
    """The greatest number of elements of any tensor that an operation makes, copies or not."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, torch.Tensor):
                held = leaf.untyped_storage().nbytes() // leaf.element_size()
                self.elements = max(self.elements, held)
        return made


def test_a_step_holds_nothing_for_each_datum_component_and_dimension():
    """B = 40, K = 60, D = 30: B K + 4 K D = 9,600 may be, but not B K D or B K K = 72,000."""
    model, guide = build(code=30, clusters=60)
    objective = ConjugateELBO(model, guide)
    optimiser = ConjugateAdam(objective.parameters())
    with Largest() as largest:
        descend(objective, optimiser, torch.bernoulli(torch.full((40, 6), 0.5)), N)
    assert 4 * 60 * 30 <= largest.elements < 20_000


def codes(guide, x):
    from priorzoo.models.distributions.gaussian import diagonal_normal

    return guide.split(diagonal_normal(guide.encoder(x)))


class Precision(nn.Module):
    """x ~ N(0, 1 / alpha), alpha ~ Gamma(2, 3) with posterior Gamma(2 + N / 2, 3 + sum x^2 / 2)."""

    def __init__(self):
        super().__init__()
        self.register_buffer("natural", Gamma.natural(torch.tensor(2.0), torch.tensor(3.0)))

    def forward(self, x=None, size=None):
        log_alpha, alpha = conjugate(("alpha",), Gamma, self.natural, torch.ones(())).unbind(-1)
        with data_plate(x, size):
            x_of = Component(torch.zeros(1), alpha.float(), log_alpha.float()).to_event(1)
            return pyro.sample("x", x_of, obs=x)


class PrecisionGuide(nn.Module):
    def __init__(self):
        super().__init__()
        self.natural = Natural(Gamma.natural(torch.tensor(1.0), torch.tensor(1.0)))

    def forward(self, x, size=None):
        conjugate(("alpha",), Gamma, self.natural, torch.ones(()))


def test_another_conjugate_model_needs_no_update_of_its_own():
    """One full step finds the exact posterior, and the bound is then the evidence."""
    objective, x = ConjugateELBO(Precision(), PrecisionGuide()), torch.randn(30, 1) * 2
    optimiser = ConjugateAdam(objective.parameters(), rate=1.0)
    descend(objective, optimiser, x)
    a, b = Gamma.usual(objective.guide.natural)
    torch.testing.assert_close(a.item(), 2 + 15.0)
    torch.testing.assert_close(
        b.item(), 3 + x.double().square().sum().item() / 2, rtol=1e-6, atol=0
    )
    a, b, prior = a.detach(), b.detach(), torch.tensor([2.0, 3.0]).double()
    evidence = (
        prior[0] * prior[1].log() - prior[0].lgamma() + a.lgamma() - a * b.log()
    ) - 15 * np.log(2 * np.pi)
    terms = objective.terms(x)
    torch.testing.assert_close(terms["elbo"].mean().double() * 30, evidence, rtol=1e-5, atol=1e-4)


@pytest.mark.usefixtures("double")
def test_full_steps_never_lower_the_bound():
    x = torch.randn(200, 4) + 3 * torch.randint(2, (200, 1))
    objective = ConjugateELBO(*fixed(4, (4, 3)))
    optimiser = ConjugateAdam(objective.parameters(), rate=1.0, forgetting=0.0)
    bounds = [prior_terms(objective, x)]
    for _ in range(40):
        descend(objective, optimiser, x)
        bounds.append(prior_terms(objective, x))
    assert bounds[-1] > bounds[0] + 0.5
    assert min(np.diff(bounds)) > -1e-10


def three_clusters(count):
    centres = torch.tensor([-4.0, 0.0, 3.0])
    return (centres[torch.randint(3, (count,))] + torch.randn(count))[:, None]


@pytest.mark.usefixtures("double")
def test_full_steps_end_where_scikit_learn_does():
    """In one dimension: in more, it takes a Wishart's log determinant for diagonal precisions too.

    Its regularisation stands for the variance of the codes, 1e-4, in all but the responsibilities.
    """
    x = three_clusters(300)
    model, guide = fixed(1, 3, concentration=2.0, mean=0.5, count=0.7, shape=1.5, rate=0.8)
    twin = BayesianGaussianMixture(
        n_components=3,
        covariance_type="diag",
        tol=1e-12,
        max_iter=5000,
        reg_covar=1e-4,
        weight_concentration_prior_type="dirichlet_distribution",
        weight_concentration_prior=2.0,
        mean_precision_prior=0.7,
        mean_prior=[0.5],
        degrees_of_freedom_prior=3.0,
        covariance_prior=[1.6],
        random_state=0,
    ).fit(x.numpy())
    objective = ConjugateELBO(model, guide)
    guide.components[0].data = NormalGamma.natural(
        torch.tensor([-3.0, 0.2, 2.0])[:, None], *torch.tensor([10.0, 5.0, 5.0])
    )
    optimiser = ConjugateAdam(objective.parameters(), rate=1.0, forgetting=0.0)
    for _ in range(300):
        descend(objective, optimiser, x)
    order = np.argsort(twin.means_[:, 0])
    found = cluster_probabilities(model, guide, x, "r_1").numpy()
    np.testing.assert_allclose(found, twin.predict_proba(x.numpy())[:, order], atol=1e-3)
    (c,) = Dirichlet.usual(guide.weights[0].detach())
    np.testing.assert_allclose((c / c.sum()).numpy(), twin.weights_[order], atol=1e-3)
    m, *_ = NormalGamma.usual(guide.components[0].detach())
    np.testing.assert_allclose(m[:, 0].numpy(), twin.means_[order, 0], atol=1e-3)


def test_small_steps_on_batches_come_near():
    x = three_clusters(600)
    full, part = (ConjugateELBO(*fixed(1, 3)) for _ in range(2))
    part.load_state_dict(full.state_dict())
    optimiser = ConjugateAdam(full.parameters(), rate=1.0, forgetting=0.0)
    for _ in range(200):
        descend(full, optimiser, x)
    optimiser = ConjugateAdam(part.parameters(), rate=None, delay=5.0, forgetting=0.7)
    for _ in range(40):
        for rows in x[torch.randperm(600)].split(100):
            descend(part, optimiser, rows, 600)
    assert abs(prior_terms(full, x) - prior_terms(part, x)) < 0.05


def test_networks_move_first():
    """The natural step is that of responsibilities under the new encoder and the old globals."""
    objective = ConjugateELBO(*build())
    x = torch.bernoulli(torch.full((20, 6), 0.4))
    before = copy.deepcopy(objective)
    optimiser = ConjugateAdam(objective.parameters(), lr=0.1, rate=0.5)
    descend(objective, optimiser, x, N)
    moved = copy.deepcopy(objective)
    for new, old in zip(moved.parameters(), before.parameters(), strict=True):
        if isinstance(new, Natural):
            new.data = old.data
    (natural, optimum), *_ = moved.optima(Batch(x, N))
    found = objective.guide.weights[0]
    torch.testing.assert_close(found.data, (natural + 0.5 * (optimum - natural)).data)
    (_, stale), *_ = before.optima(Batch(x, N))
    assert not torch.allclose(stale, optimum)


def test_networks_are_trained_by_the_bound_with_the_globals_held():
    objective = ConjugateELBO(*build())
    x = torch.bernoulli(torch.full((20, 6), 0.4))
    objective(x, N)[0].backward()
    for parameter in objective.parameters():
        moved = parameter.grad is not None and bool((parameter.grad != 0).any())
        assert moved != isinstance(parameter, Natural)


def test_bound_is_the_mean_of_pyros_draws():
    """The averaged bound is what the drawn one is on average over globals and codes."""
    model, guide = build(code=2, clusters=3, shape=3.0, rate=3.0)
    x = torch.bernoulli(torch.full((10, 6), 0.4))
    exact, drawn = ConjugateELBO(model, guide, particles=2000), ELBO(model, guide)
    values = torch.stack([drawn.terms(x)["elbo"].mean() for _ in range(800)]).detach()
    error = values.std() / len(values) ** 0.5
    assert (exact.terms(x)["elbo"].mean() - values.mean()).abs() < 5 * error
    assert error < 0.1


def test_rate_follows_robbins_and_monro():
    natural = Natural(torch.zeros(1).double())
    optimiser = RobbinsMonro([natural], rate=0.5, delay=10.0, forgetting=0.7)
    steps = []
    for _ in range(3):
        natural.grad = -torch.ones(1).double()
        before = natural.item()
        optimiser.step()
        steps.append(natural.item() - before)
    assert steps == pytest.approx([0.5 * (1 + t / 10) ** -0.7 for t in range(3)])
    plain = RobbinsMonro([natural], rate=None, delay=10.0, forgetting=0.7)
    natural.grad = -torch.ones(1).double()
    before = natural.item()
    plain.step()
    assert natural.item() - before == pytest.approx(10**-0.7)


def test_state_is_that_of_one_optimiser():
    """A copy that is loaded goes on as the original does, at the same place of the schedule."""
    objective = ConjugateELBO(*build())
    x = torch.bernoulli(torch.full((20, 6), 0.4))
    optimiser = ConjugateAdam(objective.parameters(), lr=0.01, rate=0.5, delay=2.0)
    for _ in range(5):
        descend(objective, optimiser, x, N)
    again = copy.deepcopy(objective)
    other = ConjugateAdam(again.parameters(), lr=0.01, rate=0.5, delay=2.0)
    other.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    for both in ((objective, optimiser), (again, other)):
        torch.manual_seed(1)
        for _ in range(3):
            descend(*both, x, N)
    torch.testing.assert_close(again.state_dict(), objective.state_dict(), rtol=0, atol=0)


def test_schedules_reach_both_parts():
    objective = ConjugateELBO(*build())
    optimiser = ConjugateAdam(objective.parameters(), lr=0.01, rate=0.5)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda epoch: 0.1)
    assert [part.param_groups[0]["lr"] for part in optimiser.parts] == pytest.approx([0.001, 0.05])
    assert schedule.get_last_lr() == pytest.approx([0.001, 0.05])


@pytest.mark.parametrize("clusters", [3, (3, 2)])
def test_ten_million_data_stay_finite_in_float32(clusters):
    """Components with nearly all of 1e7 pseudo-counts, and others at the prior."""
    objective = ConjugateELBO(*fixed(2, clusters))
    optimiser = ConjugateAdam(objective.parameters(), rate=1.0, forgetting=0.0)
    x = 5 + 0.02 * torch.randn(200, 2)
    for _ in range(30):
        terms = descend(objective, optimiser, x, 10_000_000)
    assert all(term.isfinite() for term in terms.values())
    guide = objective.guide
    counts = torch.cat([Dirichlet.usual(part.detach())[0] for part in guide.weights])
    assert counts.max() > 9e6
    assert counts.min() < 2
    parts = x.double().chunk(len(guide.weights), -1)
    for weights, components, rows in zip(guide.weights, guide.components, parts, strict=True):
        m, _, a, b = NormalGamma.usual(components.detach())
        (c,) = Dirichlet.usual(weights.detach())
        share = (c / c.sum())[:, None]
        mean = (share * m).sum(0)
        spread = (share * (b / a + (m - mean).square())).sum(0)
        torch.testing.assert_close(mean, rows.mean(0), rtol=1e-4, atol=0)
        torch.testing.assert_close(spread, rows.var(0, correction=0) + 1e-4, rtol=0.02, atol=0)


def test_natural_step_traces_to_one_graph():
    """Nothing in it asks the device for a number."""
    objective = ConjugateELBO(*build())
    x = torch.bernoulli(torch.full((20, 6), 0.4))

    class Step(nn.Module):
        def __init__(self):
            super().__init__()
            self.objective = objective

        def forward(self, x):
            return [optimum for _, optimum in self.objective.optima(Batch(x, N))]

    program = Step()

    def step(parameters, x):
        return torch.func.functional_call(program, parameters, (x,))

    parameters = dict(program.named_parameters())
    graph = make_fx(step)(parameters, x)
    targets = {str(node.target) for node in graph.graph.nodes}
    assert not any("_local_scalar_dense" in t or "nonzero" in t for t in targets)
    for rows in (x, 1 - x):
        torch.testing.assert_close(graph(parameters, rows), step(parameters, rows))


def test_refusals():
    model = VAE(MLP(2, 6, ()), code=2)
    with pytest.raises(ValueError, match="use ELBO"):
        ConjugateELBO(model, Code(MLP(6, 4, ())))
    with pytest.raises(ValueError, match="use Adam"):
        ConjugateAdam(model.parameters())
    for wrong in ({"rate": 1.5}, {"rate": 0.0}, {"delay": 0.0}, {"forgetting": -1.0}):
        with pytest.raises(ValueError, match="Expected"):
            RobbinsMonro([Natural(torch.zeros(1))], **wrong)
    with pytest.raises(ValueError, match="share equally"):
        FactorialMixture(nn.Identity(), code=5, clusters=(2, 2))
    one, two = (torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1) for _ in range(2))
    assert len(Together(one, two).param_groups) == 2


@pytest.mark.usefixtures("double")
def test_pretraining_has_a_standard_normal_prior():
    """The bound of a VAE with the same networks, whose loss leaves the globals alone."""
    model, guide = build()
    objective = Pretraining(model, guide)
    x = torch.bernoulli(torch.full((20, 6), 0.4))
    with torch.random.fork_rng():
        loss, terms = objective(x, N)
    loss.backward()
    twin = VAE(model.decoder, code=4)
    q = torch.distributions.Normal(*deviations(guide.encoder(x)))
    standard = torch.distributions.Normal(0.0, 1.0)
    expected = torch.distributions.kl_divergence(q, standard)
    torch.testing.assert_close(terms["kl[z_1]"], expected[:, :2].sum(-1))
    torch.testing.assert_close(terms["kl[z_2]"], expected[:, 2:].sum(-1))
    assert set(terms) == {"reconstruction", "kl[z_1]", "kl[z_2]", "elbo", "objective"}
    torch.testing.assert_close(-loss, terms["elbo"].mean())
    assert all(part.grad is None for part in (*guide.weights, *guide.components))
    bounds = [ELBO(twin, Code(guide.encoder)).terms(x)["elbo"].mean() for _ in range(300)]
    own = [objective.terms(x)["elbo"].mean() for _ in range(300)]
    bounds, own = torch.stack(bounds).detach(), torch.stack(own).detach()
    assert (bounds.mean() - own.mean()).abs() < 5 * (bounds.var() + own.var()).sqrt() / 300**0.5


def deviations(encoded):
    loc, raw = encoded.chunk(2, -1)
    return loc, (nn.functional.softplus(raw) + 1e-4).sqrt()
