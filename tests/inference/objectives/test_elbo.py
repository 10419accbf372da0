"""The objective against Pyro's own, against sums written out, and against closed forms."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceEnum_ELBO
from torch import nn
from torch.distributions import kl_divergence

from priorzoo.inference import ELBO, KL, Linear, Training, descend
from priorzoo.inference.sites import is_local, is_scored, latent_sites
from priorzoo.models import data_plate
from priorzoo.models.distributions.gaussian import deviation, diagonal_normal

pytestmark = pytest.mark.usefixtures("double")
ENUMERATE = {"enumerate": "parallel"}
B, N = 4, 10


def seeded(run, *args):
    torch.manual_seed(1)
    return run(*args)


def gradients(loss, *modules):
    """By name, of every parameter that is learnt."""
    named = {f"{i}.{n}": p for i, m in enumerate(modules) for n, p in m.named_parameters()}
    learnt = {name: p for name, p in named.items() if p.requires_grad}
    found = torch.autograd.grad(
        loss, list(learnt.values()), retain_graph=True, allow_unused=True, materialize_grads=True
    )
    return dict(zip(learnt, found, strict=True))


def stock(model, guide, x, size, particles=1):
    sites = poutine.trace(guide).get_trace(x).nodes.values()
    summed = any(site.get("infer", {}).get("enumerate") for site in sites)
    kind = TraceEnum_ELBO if summed else Trace_ELBO
    pyros = kind(max_plate_nesting=1, num_particles=particles, vectorize_particles=particles > 1)
    torch.manual_seed(1)
    return pyros.differentiable_loss(model, guide, x, size)


def enumerated(guide, x, size=None):
    """The guide's trace with every cluster, on the draws of the seed."""
    return seeded(poutine.trace(poutine.enum(guide, first_available_dim=-2)).get_trace, x, size)


@pytest.mark.parametrize("particles", [1, 3])
def test_equals_pyros_on_the_same_draws(entry, particles):
    """N times the loss is TraceEnum_ELBO's, in value and gradient, for a batch of N data."""
    (model, guide), x = entry.pair(), entry.rows(B)
    loss, _ = seeded(ELBO(model, guide, particles=particles), x, N)
    expected = stock(model, guide, x, N, particles)
    torch.testing.assert_close(loss * N, expected, rtol=1e-10, atol=0)
    sites = latent_sites(poutine.trace(guide).get_trace(x)).values()
    if particles > 1 and any(is_local(site) and is_scored(site) for site in sites):
        return  # particles are then each other's baseline, which Pyro's are not
    torch.testing.assert_close(
        gradients(loss * N, model, guide), gradients(expected, model, guide), rtol=1e-8, atol=1e-10
    )


@pytest.mark.parametrize("name", ["m2", "m2-layer", "gmvae-weights"])
def test_clusters_are_summed_out(zoo, name):
    """The bound is the sum of K programs with y held at k, each weighted by q(y = k | x)."""
    (model, guide), x = zoo[name].pair(), zoo[name].rows(B)
    terms = seeded(ELBO(model, guide).terms, x)
    z = enumerated(guide, x).nodes["z"]["value"]
    q_y = guide.classifier(x).softmax(-1)
    bound = torch.zeros(B)
    for k in range(model.clusters):
        values = {"y": torch.full((B,), k), "z": z[k]}
        drawn = poutine.trace(poutine.condition(guide, values)).get_trace(x)
        told = poutine.trace(poutine.condition(model, values)).get_trace(x)
        drawn.compute_log_prob()
        told.compute_log_prob()
        for trace, sign, sites in ((told, 1, "xyz"), (drawn, -1, "yz")):
            for site in sites:
                bound = bound + sign * q_y[:, k] * trace.nodes[site]["log_prob"]
    torch.testing.assert_close(terms["elbo"], bound)


def test_a_cluster_below_its_code_is_summed_out():
    """With q(z|x) p(y|z), the loss is log q(z) - log p(x|z) - log sum_y pi_y N(z; y) at the draw.

    The exact posterior of y leaves the prior's mixture and nothing else.
    """
    logits, loc, scale = torch.randn(3), torch.randn(3, 2), torch.rand(3, 2) + 0.5
    decoder, encoder = nn.Linear(2, 5), nn.Linear(5, 4)

    def model(x, size=None):
        with data_plate(x, size):
            y = pyro.sample("y", dist.Categorical(logits=logits))
            z = pyro.sample("z", dist.Normal(loc[y], scale[y]).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=decoder(z)).to_event(1), obs=x)

    def guide(x, size=None):
        with data_plate(x, size):
            z = pyro.sample("z", diagonal_normal(encoder(x)))
            parts = dist.Normal(loc, scale).to_event(1).log_prob(z.unsqueeze(-2))
            pyro.sample("y", dist.Categorical(logits=logits + parts), infer=ENUMERATE)

    x = torch.bernoulli(torch.full((B, 5), 0.5))
    loss, _ = seeded(ELBO(model, guide), x)
    z = enumerated(guide, x).nodes["z"]["value"]
    prior = dist.MixtureSameFamily(
        dist.Categorical(logits=logits), dist.Normal(loc, scale).to_event(1)
    )
    pixels = dist.Bernoulli(logits=decoder(z)).to_event(1)
    log_q = diagonal_normal(encoder(x)).log_prob(z)
    torch.testing.assert_close(loss, (log_q - pixels.log_prob(x) - prior.log_prob(z)).mean())


def test_independent_clusters_are_summed_out():
    """Two that both move x: each KL by its own sum, the reconstruction by the double one."""
    shifts, ours, theirs = (torch.randn(3, 2), torch.randn(4, 2)), torch.randn(3), torch.randn(4)
    first, second = nn.Linear(2, 3), nn.Linear(2, 4)

    def model(x, size=None):
        with data_plate(x, size):
            a = pyro.sample("a", dist.Categorical(logits=ours))
            b = pyro.sample("b", dist.Categorical(logits=theirs))
            loc = shifts[0][a] + shifts[1][b]
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)

    def guide(x, size=None):
        with data_plate(x, size):
            pyro.sample("a", dist.Categorical(logits=first(x)), infer=ENUMERATE)
            pyro.sample("b", dist.Categorical(logits=second(x)), infer=ENUMERATE)

    x = torch.randn(B, 2)
    terms = ELBO(model, guide).terms(x)
    q_a, q_b = (dist.Categorical(logits=net(x)) for net in (first, second))
    expected = torch.zeros(B)
    for a in range(3):
        for b in range(4):
            pixels = dist.Normal(shifts[0][a] + shifts[1][b], 1.0).to_event(1)
            expected = expected + q_a.probs[:, a] * q_b.probs[:, b] * pixels.log_prob(x)
    torch.testing.assert_close(terms["reconstruction"], expected)
    torch.testing.assert_close(terms["kl[a]"], kl_divergence(q_a, dist.Categorical(logits=ours)))
    torch.testing.assert_close(terms["kl[b]"], kl_divergence(q_b, dist.Categorical(logits=theirs)))


def test_many_independent_clusters_cost_a_sum():
    """Twenty of ten values each: 200 terms, where the product has more than memory holds."""
    nets = nn.ModuleList([nn.Linear(2, 10) for _ in range(20)])
    means = torch.randn(20, 10, 2)

    def model(x, size=None):
        with data_plate(x, size):
            for i in range(20):
                y = pyro.sample(f"y_{i}", dist.Categorical(logits=torch.zeros(10)))
                part = dist.Normal(means[i][y], 1.0).to_event(1)
                pyro.sample("x" if i == 0 else f"x_{i}", part, obs=x)

    def guide(x, size=None):
        with data_plate(x, size):
            for i, net in enumerate(nets):
                pyro.sample(f"y_{i}", dist.Categorical(logits=net(x)), infer=ENUMERATE)

    x = torch.randn(B, 2)
    expected = torch.zeros(B)
    for net, mean in zip(nets, means, strict=True):
        q = dist.Categorical(logits=net(x))
        pixels = dist.Normal(mean, 1.0).to_event(1).log_prob(x.unsqueeze(1))
        expected = expected + (q.probs * pixels).sum(-1) - math.log(10) + q.entropy()
    torch.testing.assert_close(ELBO(model, guide).terms(x)["elbo"], expected)


@pytest.mark.parametrize("length", [2, 3])
def test_a_chain_of_clusters_is_summed_out(length):
    """y_1 -> y_2 -> ...: every term's expectation, with all the sums written out."""
    K = 3
    starts, moves = torch.randn(K), torch.randn(length, K, K)
    means = torch.randn(K, 2)
    nets = nn.ModuleList([nn.Linear(2, K * K) for _ in range(length)])

    def model(x, size=None):
        with data_plate(x, size):
            y = pyro.sample("y_0", dist.Categorical(logits=starts))
            for i in range(1, length):
                y = pyro.sample(f"y_{i}", dist.Categorical(logits=moves[i][y]))
            pyro.sample("x", dist.Normal(means[y], 1.0).to_event(1), obs=x)

    def table(i, x):
        return nets[i](x).reshape(-1, K, K).log_softmax(-1)

    def guide(x, size=None):
        with data_plate(x, size):
            y = torch.zeros(len(x), dtype=torch.int64)
            for i in range(length):
                logits = table(i, x)[torch.arange(len(x)), y]
                y = pyro.sample(f"y_{i}", dist.Categorical(logits=logits), infer=ENUMERATE)

    x = torch.randn(B, 2)
    terms = ELBO(model, guide).terms(x)
    expected = {name: torch.zeros(B) for name in terms}
    for path in torch.cartesian_prod(*[torch.arange(K)] * length):
        log_q = [table(i, x)[:, path[i - 1] if i else 0, path[i]] for i in range(length)]
        log_p = [starts.log_softmax(-1)[path[0]]]
        log_p += [moves[i].log_softmax(-1)[path[i - 1], path[i]] for i in range(1, length)]
        weight = sum(log_q).exp()
        pixels = dist.Normal(means[path[-1]], 1.0).to_event(1).log_prob(x)
        expected["reconstruction"] += weight * pixels
        expected["elbo"] += weight * (pixels + sum(log_p) - sum(log_q))
        for i in range(length):
            expected[f"kl[y_{i}]"] += weight * (log_q[i] - log_p[i])
    torch.testing.assert_close(terms, expected)


class Shifted(nn.Module):
    """A code for each datum around a global mean, beside a label that may be observed."""

    def __init__(self, labels=None, weight=1.0):
        super().__init__()
        self.labels, self.weight = labels, weight
        self.decoder, self.head = nn.Linear(2, 3), nn.Linear(2, 4)

    def forward(self, x=None, size=None):
        mu = pyro.sample("mu", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with data_plate(x, size):
            z = pyro.sample("z", dist.Normal(mu, 1.0).to_event(1))
            if self.labels is not None:
                with poutine.scale(scale=self.weight), poutine.mask(mask=self.labels >= 0):
                    known = self.labels.clamp(min=0)
                    pyro.sample("t", dist.Categorical(logits=self.head(z)), obs=known)
            return pyro.sample("x", dist.Normal(self.decoder(z), 1.0).to_event(1), obs=x)


class Around(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(3, 4)
        self.loc, self.log_scale = nn.Parameter(torch.randn(2)), nn.Parameter(torch.randn(2))

    def forward(self, x, size=None):
        pyro.sample("mu", dist.Normal(self.loc, self.log_scale.exp()).to_event(1))
        with data_plate(x, size):
            pyro.sample("z", diagonal_normal(self.encoder(x)))


@pytest.mark.parametrize("particles", [1, 3])
def test_a_global_site_counts_one_nth(particles):
    """Its KL, in closed form, divided by N whatever the batch; and the whole loss is Pyro's."""
    model, guide, x = Shifted(), Around(), torch.randn(B, 3)
    exact = ELBO(model, guide, kl={"mu": KL(analytic=True)}, particles=particles)
    _, terms = exact(x, N)
    var = (2 * guide.log_scale).exp()
    closed = 0.5 * (guide.loc**2 + var - 1 - var.log()).sum()
    torch.testing.assert_close(terms["kl[mu]"], closed / N)
    loss, _ = seeded(ELBO(model, guide, particles=particles), x, N)
    expected = stock(model, guide, x, N, particles)
    torch.testing.assert_close(loss * N, expected, rtol=1e-10, atol=0)


def test_a_global_cluster_is_summed_out():
    """One cluster for the whole data set: sum_k q(k) sum_n log p(x_n | k), and its KL over N."""
    means, logits = torch.randn(3, 2), torch.randn(3, requires_grad=True)

    def model(x, size=None):
        y = pyro.sample("y", dist.Categorical(logits=torch.zeros(3)))
        with data_plate(x, size):
            pyro.sample("x", dist.Normal(means[y], 1.0).to_event(1), obs=x)

    def guide(x, size=None):
        pyro.sample("y", dist.Categorical(logits=logits), infer=ENUMERATE)

    x, q = torch.randn(B, 2), dist.Categorical(logits=logits)
    terms = ELBO(model, guide).terms(x, N)
    pixels = dist.Normal(means, 1.0).to_event(1).log_prob(x.unsqueeze(1))
    torch.testing.assert_close(terms["reconstruction"], pixels @ q.probs)
    torch.testing.assert_close(terms["kl[y]"], (math.log(3) - q.entropy()) / N)


def test_other_observed_sites_with_mask_and_scale():
    """A label at half weight, known for two rows of four: its term, and the loss of Pyro."""
    labels = torch.tensor([2, -1, 0, -1])
    model, guide, x = Shifted(labels, weight=0.5), Around(), torch.randn(B, 3)
    loss, terms = seeded(ELBO(model, guide), x, N)
    z = enumerated(guide, x).nodes["z"]["value"]
    log_p = model.head(z).log_softmax(-1)
    expected = torch.stack([log_p[0, 2], torch.zeros(()), log_p[2, 0], torch.zeros(())]) / 2
    torch.testing.assert_close(terms["log p(t)"], expected)
    torch.testing.assert_close(loss * N, stock(model, guide, x, N), rtol=1e-10, atol=0)


def test_analytic_kl_is_the_closed_form(zoo):
    """Of a VAE at once and without noise; the estimate at the draw has it as its mean."""
    (model, guide), x = zoo["vae"].pair(), zoo["vae"].rows(B)
    loc, raw = guide.encoder(x).chunk(2, -1)
    var = deviation(raw) ** 2
    closed = 0.5 * (loc**2 + var - 1 - var.log()).sum(-1)
    at_once = ELBO(model, guide, kl={"z": KL(analytic=True)}).terms(x)["kl[z]"]
    torch.testing.assert_close(at_once, closed)
    draws = torch.stack([ELBO(model, guide).terms(x)["kl[z]"] for _ in range(400)])
    error = draws.mean(0) - closed
    assert (error.abs() < 4 * draws.std(0) / 20).all()


def test_analytic_kl_below_a_cluster(zoo):
    """Of a GMVAE: sum_k q(y = k | x) KL(q(z | x, k) || p(z | k))."""
    (model, guide), x = zoo["gmvae"].pair(), zoo["gmvae"].rows(B)
    terms = ELBO(model, guide, kl={"z": KL(analytic=True)}, particles=2).terms(x)
    closed = torch.zeros(B)
    for k, q_k in enumerate(guide.classifier(x).softmax(-1).T):
        q = diagonal_normal(guide.conditional_encoder(x, torch.tensor(k)))
        var, prior = q.base_dist.variance, deviation(model.raw[k]) ** 2
        gap = (q.mean - model.loc[k]) ** 2
        closed = closed + q_k * 0.5 * ((var + gap) / prior - 1 + (prior / var).log()).sum(-1)
    torch.testing.assert_close(terms["kl[z]"], closed)


def test_below_its_floor_a_kl_has_no_gradient(zoo):
    """The floor is added to the loss as a constant, and the gradient is of the rest alone."""
    (model, guide), x = zoo["gmvae"].pair(), zoo["gmvae"].rows(B)
    loss, terms = seeded(ELBO(model, guide, kl={"z": KL(floor=1e3)}), x)
    rest = -terms["reconstruction"].mean() + terms["kl[y]"].mean()
    torch.testing.assert_close(loss, rest + 1e3)
    torch.testing.assert_close(
        gradients(loss, model, guide), gradients(rest, model, guide), rtol=0, atol=0
    )


def test_above_its_floor_a_kl_is_untouched(zoo):
    (model, guide), x = zoo["gmvae"].pair(), zoo["gmvae"].rows(B)
    plain, terms = seeded(ELBO(model, guide), x)
    floor = 0.9 * terms["kl[z]"].mean().item()
    assert floor > 0
    loss, _ = seeded(ELBO(model, guide, kl={"z": KL(floor=floor)}), x)
    assert loss == plain
    torch.testing.assert_close(
        gradients(loss, model, guide), gradients(plain, model, guide), rtol=0, atol=0
    )


def test_weights_price_the_kls(zoo):
    """The loss is minus the reconstruction plus each site's beta times its KL; the ELBO is not."""
    (model, guide), x = zoo["gmvae"].pair(), zoo["gmvae"].rows(B)
    loss, terms = ELBO(model, guide, kl={"y": KL(weight=0.3), "z": KL(weight=2.0, floor=0.1)})(x)
    y, z, pixels = (terms[name].mean() for name in ("kl[y]", "kl[z]", "reconstruction"))
    torch.testing.assert_close(loss, 0.3 * y + 2 * z.clamp(min=0.1) - pixels)
    torch.testing.assert_close(terms["objective"], -loss)
    torch.testing.assert_close(terms["elbo"].mean(), pixels - y - z)


@pytest.mark.parametrize(
    ("length", "steps"), [({"steps": 8}, 8), ({"epochs": 2}, 6), ({"fraction": 0.75}, 9)]
)
def test_a_weight_follows_its_schedule(zoo, length, steps):
    """In a training of 12 steps, 3 a pass: beta goes from 0 to 0.8 in so many steps and stays."""
    (model, guide), x = zoo["vae"].pair(), zoo["vae"].rows(6)
    objective = ELBO(model, guide, kl={"z": KL(weight=Linear(0.0, 0.8, **length))})
    training = Training(model, guide, x, objective=objective, batch_size=2, every=1)
    rows = training.run(steps=12)
    beta = [(row["reconstruction"] - row["objective"]) / row["kl[z]"] for row in rows]
    assert beta == pytest.approx([0.8 * min(step / steps, 1) for step in range(12)], abs=1e-12)
    assert all(row["elbo"] == pytest.approx(row["reconstruction"] - row["kl[z]"]) for row in rows)


@pytest.mark.parametrize("length", [{"epochs": 2}, {"fraction": 0.5}])
def test_a_schedule_of_unknown_length_is_refused_in_a_loop_of_ones_own(zoo, length):
    """Until the clock is told; not by an end after one step. Both lengths are then six steps."""
    model, guide = zoo["vae"].pair()
    objective, x = ELBO(model, guide, kl={"z": KL(Linear(0.0, 1.0, **length))}), zoo["vae"].rows(6)
    with pytest.raises(ValueError, match=r"objective\.clock\.restart"):
        objective(x)
    objective.clock.restart(epoch=3, total=12)
    optimiser = torch.optim.SGD(objective.parameters(), lr=0.0)
    for step in range(8):
        terms = descend(objective, optimiser, x)
        beta = (terms["reconstruction"] - terms["objective"]) / terms["kl[z]"]
        assert beta.item() == pytest.approx(min(step / 6, 1), abs=1e-9)


@pytest.mark.parametrize("extreme", [1e5, math.inf])
def test_a_saturated_cluster_is_finite(zoo, extreme):
    """With q(y = 0 | x) exactly 1 the other clusters add 0 log 0 = 0, and nothing is NaN."""
    (model, guide), x = zoo["gmvae"].pair(), zoo["gmvae"].rows(B)
    guide.classifier = nn.Linear(x.shape[1], 3)
    with torch.no_grad():
        guide.classifier.weight.zero_()
        guide.classifier.bias.copy_(torch.tensor([0.0, -extreme, -extreme]))
    loss, terms = seeded(ELBO(model, guide), x)
    z = enumerated(guide, x).nodes["z"]["value"]
    pixels = model.likelihood(model.decoder(z[0])).log_prob(x)
    torch.testing.assert_close(terms["reconstruction"], pixels)
    torch.testing.assert_close(terms["kl[y]"], torch.full((B,), math.log(3)))
    assert loss.isfinite()
    assert all(g.isfinite().all() for g in gradients(loss, model, guide).values())


@pytest.mark.parametrize("name", ["m2", "gmvae"])
def test_an_undefined_cluster_is_seen(zoo, name):
    """Where q(y | x) is NaN so is the loss, and not 0, the best bound there could be."""
    (model, guide), x = zoo[name].pair(), zoo[name].rows(B)
    nn.init.constant_(guide.classifier.layers[0].bias, math.nan)
    loss, terms = ELBO(model, guide)(x)
    assert loss.isnan()
    assert terms["elbo"].isnan().all()


def test_a_policy_must_name_a_site(zoo):
    model, guide = zoo["vae"].pair()
    with pytest.raises(ValueError, match="'w'"):
        ELBO(model, guide, kl={"w": KL(weight=0.5)})(zoo["vae"].rows(B))
