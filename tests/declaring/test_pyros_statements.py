"""Factors and observed sites on both sides, masks, scales, deterministic sites and subsamples.

Each has Pyro's meaning: the loss and its gradient are those of Pyro's ELBO on the same draws.
"""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceEnum_ELBO
from torch import nn

from priorzoo.inference import ELBO, KL, Batch, check_pair, draw_pair, evaluate, importance_bound
from priorzoo.models import data_plate

pytestmark = pytest.mark.usefixtures("double")
ENUMERATE = {"enumerate": "parallel"}
B, N, K = 5, 12, 3


def some(x):
    """A mask of rows."""
    return True if x is None else x > -0.2


def none(x):
    return False


def whole(x):
    return torch.tensor(True) if x is None else torch.ones_like(x).bool()


def by_row(x):
    """A scale of rows."""
    return 1.0 if x is None else 0.5 + x.sigmoid()


def always(scale):
    return lambda x: scale


class Program(nn.Module):
    def __init__(self, story):
        super().__init__()
        self.story = story
        self.a, self.b = nn.Parameter(torch.tensor(0.4)), nn.Parameter(torch.tensor(-0.3))
        self.c = nn.Parameter(torch.tensor([0.2, -0.5, 0.7]))

    def forward(self, x=None, size=None):
        self.story(self, x, size)


def model(p, x, size):
    with data_plate(x, size):
        z = pyro.sample("z", dist.Normal(0.0, p.a.exp()))
        pyro.sample("x", dist.Normal(z, p.b.exp()), obs=x)


def guide(p, x, size):
    with data_plate(x, size):
        return pyro.sample("z", dist.Normal(p.a * x, p.b.exp()))


def reparameterised_factor(p, x, size):
    with data_plate(x, size):
        z = pyro.sample("z", dist.Normal(p.a * x, p.b.exp()))
        pyro.factor("f", p.c[0] * z.square(), has_rsample=True)


def scored_factor(p, x, size):
    with data_plate(x, size):
        z = pyro.sample("z", dist.Normal(p.a * x, p.b.exp()))
        pyro.factor("f", p.c[0] * z, has_rsample=False)


def global_factor(p, x, size):
    z = guide(p, x, size)
    pyro.factor("f", (p.c[0] * z).sum(-1, keepdim=True), has_rsample=True)


def observed_real(p, x, size):
    with data_plate(x, size):
        z = pyro.sample("z", dist.Normal(p.a * x, p.b.exp()))
        pyro.sample("t", dist.Normal(z, p.c[0].exp()), obs=x)


def observed_binary(p, x, size):
    with data_plate(x, size):
        z = pyro.sample("z", dist.Normal(p.a * x, p.b.exp()))
        pyro.sample("t", dist.Bernoulli(logits=p.c[0] * z), obs=(x > 0).to(x))


def observed_under_the_datas_name(p, x, size):
    with data_plate(x, size):
        z = pyro.sample("z", dist.Normal(p.a * x, p.b.exp()))
        pyro.sample("x", dist.Normal(z, 2.0), obs=x)


def clustered(p, x, size):
    with data_plate(x, size):
        y = pyro.sample("y", dist.Categorical(logits=p.c))
        z = pyro.sample("z", dist.Normal(p.c[y], p.a.exp()))
        pyro.factor("g", p.c[y] * p.b)
        pyro.sample("x", dist.Normal(z, p.b.exp()), obs=x)


def factor_of_a_cluster(p, x, size):
    with data_plate(x, size):
        y = pyro.sample("y", dist.Categorical(logits=x.unsqueeze(-1) * p.c), infer=ENUMERATE)
        z = pyro.sample("z", dist.Normal(p.a * x + p.c[y], p.b.exp()))
        pyro.factor("f", p.c[y] * z, has_rsample=True)


def sites_only_with_data(p, x, size):
    with data_plate(x, size):
        z = pyro.sample("z", dist.Normal(0.0, p.a.exp()))
        pyro.sample("x", dist.Normal(z, p.b.exp()), obs=x)
        if x is not None:
            pyro.sample("t", dist.Bernoulli(logits=p.c[0] * z), obs=(x > 0).to(x))
            pyro.factor("f", p.c[1] * z * x)


def sites_observed_only_with_data(p, x, size):
    with data_plate(x, size):
        z = pyro.sample("z", dist.Normal(0.0, p.a.exp()))
        for name, loc in (("x", z), ("t", p.c[0] * z), ("s", p.c[1] * z)):
            pyro.sample(name, dist.Normal(loc, p.b.exp()), obs=x)


def partly_observed(p, x, size):
    with data_plate(x, size):
        z = pyro.sample("z", dist.Normal(0.0, p.a.exp()))
        pyro.sample("x", dist.Normal(z, p.b.exp()), obs=x, obs_mask=None if x is None else some(x))


def with_the_rest(p, x, size):
    with data_plate(x, size):
        z = pyro.sample("z", dist.Normal(p.a * x, p.b.exp()))
        with poutine.mask(mask=~some(x)):
            pyro.sample("x_unobserved", dist.Normal(p.c[0] * z, p.c[1].exp()))


def deterministic_model(p, x, size):
    with data_plate(x, size):
        y = pyro.sample("y", dist.Categorical(logits=p.c))
        z = pyro.sample("z", dist.Normal(p.c[y], p.a.exp()))
        mean = pyro.deterministic("mean", z * p.c[y], event_dim=0)
        pyro.deterministic("whole", z)
        pyro.sample("x", dist.Normal(mean, p.b.exp()), obs=x)


def deterministic_guide(p, x, size):
    with data_plate(x, size):
        y = pyro.sample("y", dist.Categorical(logits=x.unsqueeze(-1) * p.c), infer=ENUMERATE)
        loc = pyro.deterministic("mean", p.a * x + p.c[y], event_dim=0)
        pyro.sample("z", dist.Normal(loc, p.b.exp()))


def scaled(of_model, of_guide):
    """Sites at these scales, numbers or tensors."""

    def told(p, x, size):
        with data_plate(x, size):
            with poutine.scale(scale=of_model(x)):
                z = pyro.sample("z", dist.Normal(0.0, p.a.exp()))
            pyro.sample("x", dist.Normal(z, p.b.exp()), obs=x)

    def guessed(p, x, size):
        with poutine.scale(scale=of_guide(x)):
            guide(p, x, size)

    return told, guessed


def masked(of_model, of_guide):
    def told(p, x, size):
        with data_plate(x, size), poutine.mask(mask=of_model(x)):
            z = pyro.sample("z", dist.Normal(0.0, p.a.exp()))
            pyro.sample("x", dist.Normal(z, p.b.exp()), obs=x)

    def guessed(p, x, size):
        with poutine.mask(mask=of_guide(x)):
            guide(p, x, size)

    return told, guessed


def masked_distributions():
    def told(p, x, size):
        with data_plate(x, size):
            z = pyro.sample("z", dist.Normal(0.0, p.a.exp()).mask(some(x)))
            pyro.sample("x", dist.Normal(z, p.b.exp()).mask(some(x)), obs=x)

    def guessed(p, x, size):
        with data_plate(x, size):
            pyro.sample("z", dist.Normal(p.a * x, p.b.exp()).mask(some(x)))

    return told, guessed


def subsampled():
    """Two of six parts of each row, another two at each step; the guide draws which."""

    def told(p, x, size):
        with data_plate(x, size):
            z = pyro.sample("z", dist.Normal(0.0, p.a.exp()))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)
            with pyro.plate("parts", 6, subsample_size=2, dim=-2) as index:
                w = pyro.sample("w", dist.Normal(z, 1.0))
                parts = None if x is None else x * index.unsqueeze(-1)
                pyro.sample("part", dist.Normal(w, p.b.exp()), obs=parts)

    def guessed(p, x, size):
        with data_plate(x, size):
            pyro.sample("z", dist.Normal(p.a * x, p.b.exp()))
            with pyro.plate("parts", 6, subsample_size=2, dim=-2) as index:
                pyro.sample("w", dist.Normal(p.c[index // 2].unsqueeze(-1) * x, p.b.exp()))

    return told, guessed


def subsampled_globals():
    def told(p, x, size):
        with pyro.plate("topics", 6, subsample_size=2, dim=-2):
            g = pyro.sample("g", dist.Normal(0.0, p.a.exp()))
        with data_plate(x, size):
            pyro.sample("x", dist.Normal(g.mean(-2, keepdim=True), p.b.exp()), obs=x)

    def guessed(p, x, size):
        with pyro.plate("topics", 6, subsample_size=2, dim=-2) as index:
            pyro.sample("g", dist.Normal(p.c[index // 2].unsqueeze(-1), p.b.exp()))

    return told, guessed


def wide_against_narrow():
    """A global vector as an event in the guide and as a plate in the model."""

    def told(p, x, size):
        with pyro.plate("components", K, dim=-1):
            g = pyro.sample("g", dist.Normal(0.0, p.a.exp()))
        with data_plate(x, size):
            pyro.sample("x", dist.Normal(g.sum(-1, keepdim=True), p.b.exp()), obs=x)

    def guessed(p, x, size):
        pyro.sample("g", dist.Normal(p.c, p.b.exp()).to_event(1))

    return told, guessed


PAIRS = {
    "factor-reparameterised": (model, reparameterised_factor),
    "factor-scored": (model, scored_factor),
    "factor-global": (model, global_factor),
    "factor-of-a-cluster": (clustered, factor_of_a_cluster),
    "observed-real": (model, observed_real),
    "observed-binary": (model, observed_binary),
    "observed-x": (model, observed_under_the_datas_name),
    "only-with-data": (sites_only_with_data, guide),
    "observed-with-data": (sites_observed_only_with_data, guide),
    "obs-mask": (partly_observed, with_the_rest),
    "deterministic": (deterministic_model, deterministic_guide),
    "scale-of-the-guide": scaled(always(1.0), always(0.3)),
    "scale-of-the-model": scaled(always(0.3), always(1.0)),
    "scale-of-both": scaled(always(0.3), always(0.3)),
    "scale-by-row": scaled(by_row, lambda x: 2 - by_row(x)),
    "mask-of-the-guide": masked(whole, some),
    "mask-of-both": masked(some, some),
    "mask-of-all": masked(some, none),
    "mask-of-distributions": masked_distributions(),
    "subsample": subsampled(),
    "subsample-global": subsampled_globals(),
    "plate-against-event": wide_against_narrow(),
}
# Pyro's Trace_ELBO leaves sites that only the guide has out of the cost of a score.
OF_TRACE_ENUM = ("factor-of-a-cluster", "deterministic", "factor-scored", "observed-binary")
ONE_PARTICLE = ("plate-against-event",)  # its event has no place for particles in Pyro either
every = pytest.mark.parametrize("name", PAIRS)


def made(name):
    torch.manual_seed(0)
    return *(Program(story) for story in PAIRS[name]), torch.randn(B)


def gradients(loss, *modules):
    named = [p for module in modules for p in module.parameters()]
    return torch.autograd.grad(loss, named, allow_unused=True, materialize_grads=True)


@every
@pytest.mark.parametrize("particles", [1, 3])
def test_equals_pyros_on_the_same_draws(name, particles):
    own, ours, x = made(name)
    if particles > 1 and name in ONE_PARTICLE:
        particles = 1
    torch.manual_seed(1)
    loss, _ = ELBO(own, ours, particles=particles)(x, N)
    kind = TraceEnum_ELBO if name in OF_TRACE_ENUM else Trace_ELBO
    settings = {"num_particles": particles, "vectorize_particles": particles > 1}
    torch.manual_seed(1)
    with pyro.validation_enabled(False):
        pyros = kind(max_plate_nesting=2 if "subsample" in name else 1, **settings)
        expected = pyros.differentiable_loss(own, ours, x, N)
    torch.testing.assert_close(loss * N, expected, rtol=1e-10, atol=0)
    torch.testing.assert_close(
        gradients(loss * N, own, ours), gradients(expected, own, ours), rtol=1e-10, atol=1e-10
    )


@every
def test_it_is_a_pair(name):
    own, ours, x = made(name)
    check_pair(own, ours)
    check_pair(own, ours, x)
    evaluate(own, ours, x)


@every
@pytest.mark.usefixtures("recorded")
def test_it_trains_compiled_as_eagerly(name, trained_both_ways):
    _, history = trained_both_ways(
        lambda: made(name)[:2], made(name)[2], steps=6, every=3, batch_size=B
    )
    assert len(history) == 2


@pytest.mark.parametrize(
    "name",
    [
        "factor-reparameterised",
        "factor-scored",
        "observed-real",
        "observed-binary",
        "observed-x",
        "only-with-data",
        "observed-with-data",
        "obs-mask",
        "scale-by-row",
        "mask-of-both",
        "mask-of-distributions",
    ],
)
def test_importance_weights_have_all_terms(name):
    """log p - log q of all sites of both programs, for each row of a mini-batch."""
    own, ours, x = made(name)
    torch.manual_seed(1)
    draws = draw_pair(own, ours, Batch(x, N))
    guessed = draws.guide_trace
    latent = {n: s["value"] for n, s in guessed.nodes.items() if n in ("z", "x_unobserved")}
    told = poutine.trace(poutine.condition(own, latent)).get_trace(x)
    torch.manual_seed(1)
    guessed = poutine.trace(ours).get_trace(x)
    expected = torch.zeros(B)
    for trace, sign in ((told, 1), (guessed, -1)):
        trace.compute_log_prob()
        sites = [s for n, s in trace.nodes.items() if s["type"] == "sample" and n != "data"]
        expected = expected + sign * sum(site["log_prob"] for site in sites)
    torch.testing.assert_close(draws.log_weights(), expected.unsqueeze(0))


def test_importance_weights_of_a_factor_of_a_cluster():
    """log sum_y p(x, y, z_y) / (q(z_y | x, y) exp f(y, z_y))."""
    own, ours, x = made("factor-of-a-cluster")
    draws = draw_pair(own, ours, Batch(x), 2)
    z = draws.guide_trace.nodes["z"]["value"]  # (K, 2, B)
    y = torch.arange(K).reshape(K, 1, 1)
    log_p = own.c.log_softmax(-1)[y] + dist.Normal(own.c[y], own.a.exp()).log_prob(z)
    log_p = log_p + own.c[y] * own.b + dist.Normal(z, own.b.exp()).log_prob(x)
    log_q = dist.Normal(ours.a * x + ours.c[y], ours.b.exp()).log_prob(z) + ours.c[y] * z
    torch.testing.assert_close(draws.log_weights(), (log_p - log_q).logsumexp(0))


def test_a_global_factor_has_no_importance_bound():
    own, ours, x = made("factor-global")
    with pytest.raises(ValueError, match=r"\['f'\] belong to the whole data set"):
        importance_bound(own, ours, x, 2)


def test_a_subsample_has_no_importance_bound():
    own, ours, x = made("subsample")
    with pytest.raises(ValueError, match=r"all 6 members of plate 'parts' .* subsample of 2"):
        importance_bound(own, ours, x, 2)


@pytest.mark.parametrize("name", ["scale-of-the-guide", "mask-of-the-guide"])
def test_a_closed_form_is_for_equal_scales_and_masks(name):
    """With others the KL is not a multiple of one divergence, and is estimated at the draw."""
    own, ours, x = made(name)
    torch.manual_seed(1)
    plain = ELBO(own, ours).terms(x)
    torch.manual_seed(1)
    found = ELBO(own, ours, kl={"z": KL(analytic=True)}).terms(x)
    torch.testing.assert_close(found, plain)


def test_deterministic_sites_are_no_terms():
    own, ours, x = made("deterministic")
    assert set(ELBO(own, ours).terms(x)) == {"kl[y]", "kl[z]", "reconstruction", "elbo"}


def test_a_partly_observed_x_has_its_reconstruction():
    own, ours, x = made("obs-mask")
    terms = ELBO(own, ours).terms(x)
    assert set(terms) == {"kl[z]", "kl[x_unobserved]", "reconstruction", "elbo"}
    assert ((terms["reconstruction"] != 0) == some(x)).all()
