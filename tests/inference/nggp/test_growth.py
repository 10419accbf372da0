"""Births, merges and deaths of clusters, and the model whose clusters they are."""

import math

import numpy as np
import pyro
import pytest
import torch
from scipy.stats import kstest
from torch.distributions import kl_divergence

from priorzoo.guides.nggp import CollapsedCode
from priorzoo.inference import (
    ELBO,
    KL,
    Training,
    check_pair,
    cluster_probabilities,
    evaluate,
    load,
    save,
)
from priorzoo.inference.batch import Batch
from priorzoo.inference.data.repeats import repeats
from priorzoo.inference.nggp.collapsed_bound import Codes, CollapsedBound, Mixture
from priorzoo.inference.nggp.growth import (
    Standing,
    births,
    deaths,
    grow,
    grow_model,
    merges,
    move_clusters,
    splits,
)
from priorzoo.inference.nggp.objective import Collapsed
from priorzoo.models import MLP, Gaussian
from priorzoo.models.nggp.code_families import FAMILIES
from priorzoo.models.nggp.law import NGGP
from priorzoo.models.nggp.mixture import NGGPMixture

CENTRES = torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 3.0], [0.0, -3.0]])


def codes(count, rows=800):
    z = CENTRES[torch.arange(rows) % count] + 0.3 * torch.randn(rows, 2)
    return Codes(z, torch.full_like(z, 0.1))


def mixture(*centres, room=8, scale=0.5):
    loc = torch.zeros(room, 2)
    loc[: len(centres)] = torch.tensor(centres)
    return Mixture(loc, torch.full((room, 2), scale), torch.arange(room) < len(centres))


def collapsed_bound():
    return CollapsedBound(NGGP(1.0, 0.25), 1.0, 400)


def accepted(move, start, data):
    """Of each proposal, whether other rows of the same clusters accept it."""
    j, order = collapsed_bound(), torch.randperm(len(data.mean))
    now, held = (j.assigned(start, data.part(order[first::2])) for first in (0, 1))
    stand = Standing.of(j, now, held)
    return [stand.after(j, new) is not None for new in move(j, now)]


def test_a_cluster_that_holds_two_is_split_and_one_that_holds_one_is_not():
    start = collapsed_bound().refit(mixture([0.0, 0.0], scale=3.0), codes(2))
    assert accepted(splits, start, codes(2)) == [True]
    start = collapsed_bound().refit(mixture([3.0, 0.0], [-3.0, 0.0]), codes(2))
    assert not any(accepted(splits, start, codes(2)))


def test_a_cluster_is_born_where_rows_are_explained_badly_and_only_there():
    start = collapsed_bound().refit(mixture([3.0, 0.0], [-3.0, 0.0]), codes(2))
    assert any(accepted(births, start, codes(3)))
    assert not any(accepted(births, start, codes(2)))


def test_clusters_that_share_their_rows_merge_and_others_do_not():
    same = collapsed_bound().refit(mixture([3.1, 0.0], [2.9, 0.0], [-3.0, 0.0]), codes(2))
    assert accepted(merges, same, codes(2))[0]
    apart = collapsed_bound().refit(mixture([3.0, 0.0], [-3.0, 0.0]), codes(2))
    assert not any(accepted(merges, apart, codes(2)))


def test_a_cluster_without_rows_dies_and_one_with_rows_does_not():
    start = collapsed_bound().refit(mixture([3.0, 0.0], [-3.0, 0.0], [30.0, 30.0]), codes(2))
    assert accepted(deaths, start, codes(2)) == [True, False, False]


@pytest.mark.parametrize(("start", "count"), [(1, 4), (3, 1)])
def test_grows_and_shrinks_to_the_clusters_there_are(count, start):
    begun = mixture(*torch.randn(start, 2).tolist())
    found, _ = grow(collapsed_bound(), begun, codes(count, 200), codes(count, 200))
    assert found.active.sum() == count
    gap = torch.cdist(found.loc[found.active], CENTRES[:count]).amin(-1)
    assert gap.max() < 0.2


def test_few_held_out_codes_create_no_cluster():
    """With 25 codes of each cluster, some new component fits some of the held-out ones better."""
    centres = 3 * torch.randn(8, 4)

    def drawn():
        z = centres[torch.arange(200) % 8] + 0.3 * torch.randn(200, 4)
        return Codes(z, torch.full_like(z, 0.17))

    data, held, kind = drawn(), drawn(), FAMILIES["full"]
    fitted = kind.match(*data, torch.eye(8)[torch.arange(200) % 8])
    loc, scale = (part[torch.arange(12).clamp(max=7)] for part in fitted)
    bound = CollapsedBound(NGGP(1.0, 0.25), 1.0, 400, 0.3, kind)
    start = bound.refit(Mixture(loc, scale, torch.arange(12) < 8), data)
    now, judge = (bound.assigned(start, part) for part in (data, held))
    stand = Standing.of(bound, now, judge)
    more = [new for move in (births, splits) for new in move(bound, now)]
    gains = [bound.gain(judge, bound.assigned(bound.refit(new, data), held)) for new in more]
    assert len(more) > 8
    assert any(bound.margin * gain.moved + 1 / 400 < gain.nats for gain in gains)
    assert not any(stand.after(bound, new) for new in more)


def test_a_full_house_stays_as_it_is():
    start = collapsed_bound().refit(mixture([0.0, 0.0], room=1, scale=3.0), codes(2))
    now = collapsed_bound().assigned(start, codes(2))
    assert not list(splits(collapsed_bound(), now))
    assert not list(births(collapsed_bound(), now))


@pytest.mark.usefixtures("double")
def test_the_bound_rises_with_each_assignment_and_is_the_sum_written_out():
    data, start = codes(2, 400), mixture([3.0, 0.0], [-3.0, 0.0])
    data = Codes(*(part.double() for part in data))
    start = Mixture(start.loc.double(), start.scale.double(), start.active)
    j = collapsed_bound()
    values = [j.value(start, data, j.assign(start, data, rounds)) for rounds in (0, 1, 4)]
    assert values[0] <= values[1] + 1e-6
    assert values[1] <= values[2] + 1e-6
    q = torch.zeros(400, 9, dtype=torch.float64)
    q[torch.arange(400), torch.arange(400) % 2] = 1
    fits = FAMILIES["gaussian"].expected_log(data.mean, data.spread, start.loc[:2], start.scale[:2])
    own = fits[torch.arange(400), torch.arange(400) % 2].mean()
    prior = j.law.log_probability(torch.tensor([200.0, 200.0])) / 400
    assert j.value(start, data, q) == pytest.approx((own + prior).item(), abs=1e-6)


def pair(law="normal", family="gaussian", gradient="pathwise", **sizes):
    sizes = {"code": 2, "clusters": 6, "start": 3} | sizes
    model = NGGPMixture(MLP(2, 5, (8,)), Gaussian(0.7), family=family, **sizes)
    return model, CollapsedCode(MLP(5, 2 * model.kind.width, (8,)), model, law, gradient)


PAIRS = [
    ("normal", "gaussian", "pathwise"),
    ("log-concave", "gaussian", "pathwise"),
    ("log-concave", "full", "pathwise"),
    ("log-concave", "dirichlet", "pathwise"),
    ("normal", "dirichlet", "rsvi"),
]


@pytest.mark.parametrize(("law", "family", "gradient"), PAIRS)
def test_is_a_pair_that_trains_saves_and_loads(law, family, gradient, tmp_path):
    model, guide = pair(law, family, gradient)
    x = torch.randn(60, 5)
    check_pair(model, guide, x)
    training = Training(model, guide, x, objective=Collapsed(model, guide), batch_size=20, every=3)
    first, *_, last = training.run(steps=45)
    assert last["elbo"] > first["elbo"]
    assert {"clusters", "occupied", "alone", "log u"} <= set(last)
    grow_model(model, guide, x[:30], x[30:], 60)
    save(tmp_path, model, guide)
    assert evaluate(*load(tmp_path), x) == evaluate(model, guide, x)
    q = cluster_probabilities(model, guide, x)
    torch.testing.assert_close(cluster_probabilities(model, guide, x), q)  # v is at its mean
    assert q.shape == (60, 7)
    assert (q[:, :-1][:, ~model.active] == 0).all()
    assert not dict(pyro.get_param_store())


def test_sizes_follow_the_batches():
    """After many steps they are the mean probabilities of all data, which one step would be."""
    model, guide = pair("normal")
    x = torch.randn(50, 5)
    objective = Collapsed(model, guide, rate=1.0)
    with torch.no_grad():
        _, terms, carry = objective.loss(Batch(x, 500))
    assert model.mean[0].item() == pytest.approx(0.98 / 3, abs=0.05)
    pending = carry["responsibilities"]
    objective.commit(carry)
    torch.testing.assert_close(model.mean, pending[:, :-1].mean(0))
    expected = 1 - (1 - pending[:, :-1]).log().mean(0).mul(500).exp()
    torch.testing.assert_close(model.occupancy(500).occupied, expected, rtol=1e-4, atol=1e-4)
    assert model.counted == 500
    assert terms["clusters"] == 3


def test_samples_come_from_the_clusters_there_are_by_their_sizes():
    """n_k - sigma for each, and alpha (u + tau)^sigma for a new one, given u."""
    model, _ = pair(code=1)
    model.decoder = MLP(1, 5, ())
    model.observe(torch.tensor([[0.6, 0.3, 0.1, 0.0, 0.0, 0.0, 0.0]]).repeat(50, 1).round())
    model.mean.copy_(torch.tensor([0.6, 0.3, 0.1, 0.0, 0.0, 0.0]))
    model.variance.zero_()
    model.log_empty.copy_(torch.tensor([-50.0, -50.0, -50.0, 0.0, 0.0, 0.0]))
    v = torch.tensor(2.0)
    found = model.log_prior(v, 101).exp()
    new = (math.exp(2.0) + 1) ** 0.25
    expected = torch.tensor([60 - 0.25, 30 - 0.25, 10 - 0.25, 0.0, 0.0, 0.0, new])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_few_samples_have_the_cluster_probabilities_of_one_more_datum():
    """Given u, by the means of n_k - sigma, whatever the number of samples."""
    model, _ = pair(code=2)
    model.observe(torch.rand(100, 7).softmax(-1), data=5_000)
    drawn = pyro.poutine.trace(model).get_trace(size=3).nodes
    new = (drawn["v"]["value"].exp() + 1) ** 0.25
    weights = torch.cat([5_000 * model.mean[:3] - 0.25, torch.zeros(3), new.reshape(1)])
    expected = (weights / weights.sum()).expand(3, 7)
    torch.testing.assert_close(drawn["y"]["fn"].probs.expand(3, 7), expected, rtol=1e-4, atol=1e-6)
    assert drawn["x"]["value"].shape == (3, 5)


LAWS = [(1.0, 1e-9, 1.0), (1.0, 0.25, 1.0), (5.0, 0.1, 1.0), (1.4, 0.4, 0.7), (1.0, 0.9, 1.0)]


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("process", [*LAWS, (0.3, 0.6, 0.0)])
@pytest.mark.parametrize("others", [0, 1, 5, 60, 400])
@pytest.mark.parametrize("certain", [True, False])
def test_samples_have_the_predictive_probabilities_of_the_partition(process, others, certain):
    """On average over v, by quadrature: of three clusters with a sure datum each, and others.

    E[n_k - sigma] V(n + 1, K) / V(n, K) and V(n + 1, K + 1) / V(n, K), as K is certain.
    """
    alpha, sigma, tau = process
    model, _ = pair(clusters=4, concentration=alpha, discount=sigma, tilt=tau)
    q = torch.eye(5)[:3]
    more = (3 * torch.rand(others, 3)).softmax(-1)
    if certain:
        more = torch.nn.functional.one_hot(more.argmax(-1), 3).to(q)
    model.observe(torch.cat([q, torch.nn.functional.pad(more, (0, 2))]), data=3 + others)
    law = pyro.poutine.trace(model).get_trace(size=2).nodes["v"]["fn"]
    parts, shares = law.component_distribution, law.mixture_distribution.probs

    def probability(k):
        by_part = parts.expect(lambda v: model.log_predictive(v).softmax(-1)[..., k])
        return (shares * by_part).sum().item()

    process, n = model.law, torch.tensor(3.0 + others)
    ratio = [process.log_share(n + 1, 3.0 + j) - process.log_share(n, 3.0) for j in (0, 1)]
    sizes = 1 + more.sum(0)
    expected = [*((sizes - sigma) * ratio[0].exp()).tolist(), 0.0, ratio[1].exp().item()]
    assert sum(expected) == pytest.approx(1, abs=1e-8)
    assert [probability(k) for k in range(5)] == pytest.approx(expected, rel=1e-5)


@pytest.mark.usefixtures("double")
def test_v_of_samples_is_drawn_from_its_density():
    """Kolmogorov and Smirnov: a distribution function by trapezoids of the two laws' formula."""
    model, _ = pair(concentration=1.0, discount=0.9)
    model.observe(torch.eye(7)[[0, 0, 1]], data=3)
    law = pyro.poutine.trace(model).get_trace(size=2).nodes["v"]["fn"]
    v = torch.linspace(-12, 12, 20_001)
    rate = v.exp() + 1
    density = (4 * v - (4 - 0.9 * 2) * rate.log() - (rate**0.9 - 1) / 0.9).exp()
    density = density * (3 - 0.9 * 2 + rate**0.9)
    cdf = torch.cumulative_trapezoid(density, v)
    cdf = torch.cat([torch.zeros(1), cdf / cdf[-1]]).numpy()
    drawn = law.sample((20_000,)).numpy()
    assert kstest(drawn, lambda x: np.interp(x, v.numpy(), cdf)).pvalue > 1e-3
    at = torch.tensor([-1.0, 0.5, 2.0])
    expected = torch.tensor(np.interp(at, v, density / torch.trapezoid(density, v))).log()
    torch.testing.assert_close(law.log_prob(at), expected, rtol=0, atol=1e-5)


@pytest.mark.usefixtures("double")
def test_a_birth_or_death_elsewhere_changes_a_datum_s_bound_by_the_prior_weights_alone():
    """A cluster of few data far off: the predictive law's normaliser, the same for all rows."""
    model, guide = pair("normal")
    x = torch.randn(20, 5)

    def score():
        torch.manual_seed(1)
        terms = ELBO(model, guide).terms(x, 300)
        torch.manual_seed(1)
        v = pyro.poutine.trace(guide).get_trace(x, 300).nodes["v"]["value"]
        return terms["elbo"] + terms["kl[v]"], model.log_prior(v, 300).logsumexp(-1)

    before, weights = score()
    loc, scale = (part[:-1].detach().clone() for part in model.components())
    loc[3] = 50.0
    model.set_components(loc, scale, torch.arange(6) < 4)
    model.mean[3], model.log_empty[3] = 0.01, -0.01
    after, more = score()
    assert more > weights + 1e-3
    torch.testing.assert_close(after - before, (weights - more).expand(20), rtol=0, atol=1e-6)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("family", FAMILIES)
def test_the_divergence_is_that_of_the_best_cluster_probabilities(family):
    """KL of y and z together: -log sum_k p(k) exp(E[log p(z | k)]) - H[q(z)], for no other q(y)."""
    model, guide = pair("normal", family)
    x = torch.randn(20, 5)
    torch.manual_seed(1)
    terms = ELBO(model, guide, {"z": KL(analytic=True)}).terms(x, 300)
    torch.manual_seed(1)
    v = pyro.poutine.trace(guide).get_trace(x, 300).nodes["v"]["value"]
    q = model.kind.distribution(*model.kind.posterior(guide.encoder(x)))
    loc, scale = model.components()
    parts = [model.kind.component(loc[k], scale[k]).expand((20,)) for k in range(7)]
    fits = torch.stack([-kl_divergence(q, part) - q.entropy() for part in parts], -1)
    told = model.log_prior(v, 300).log_softmax(-1)
    expected = -(told + fits).logsumexp(-1) - q.entropy()
    torch.testing.assert_close(terms["kl[y]"] + terms["kl[z]"], expected)


def test_clusters_of_shares_are_found_and_their_concentrations():
    """From one cluster three Dirichlet ones, of which the codes are sharp draws."""
    shapes = torch.tensor([[20.0, 2.0, 2.0], [2.0, 20.0, 2.0], [6.0, 6.0, 30.0]])
    kind = FAMILIES["dirichlet"]

    def drawn():
        shape = 1_000 * torch.distributions.Dirichlet(shapes).sample((300,)).flatten(0, 1)
        total = shape.sum(-1, keepdim=True)
        return Codes(shape / total, total.rsqrt().expand_as(shape))

    even = torch.full((8, 3), 1 / 3)
    j = CollapsedBound(NGGP(1.0, 0.25), 1.0, 900, 0.1, kind)
    found, _ = grow(j, Mixture(even, even, torch.arange(8) < 1), drawn(), drawn())
    there = (found.loc / found.scale.square())[found.active]
    assert len(there) == 3
    nearest = torch.cdist(shapes.log(), there.log()).min(-1)
    assert sorted(nearest.indices.tolist()) == [0, 1, 2]
    assert nearest.values.max() < 0.4  # of log concentrations


def learning(sizes, concentration=2.0, discount=0.3):
    """A model that learns its law, whose state is these sizes for certain."""
    room = len(sizes)
    model = NGGPMixture(
        MLP(2, 5, (8,)),
        Gaussian(0.7),
        code=2,
        clusters=room,
        start=room,
        concentration=concentration,
        discount=discount,
        learn_law=True,
    )
    guide = CollapsedCode(MLP(5, 4, (8,)), model)
    share = torch.as_tensor(sizes, dtype=model.mean.dtype) / sum(sizes)
    model.mean.copy_(share)
    model.variance.zero_()
    model.log_empty.fill_(-30.0)
    return model, guide


@pytest.mark.usefixtures("double")
def test_the_law_s_gradient_is_that_of_the_partition_s_probability():
    """Through the loss of a batch, per datum; by central differences of the law's own formula."""
    sizes = [50.0, 30.0, 12.0, 5.0, 3.0]
    model, guide = learning(sizes)
    loss, terms = Collapsed(model, guide)(torch.randn(8, 5), 100)
    loss.backward()
    step = 1e-5
    for i in range(2):
        ends = []
        for sign in (1, -1):
            numbers = model.law_numbers.detach().clone()
            numbers[i] += sign * step
            law = NGGP(numbers[0].exp(), numbers[1].sigmoid())
            ends.append(law.log_probability(torch.tensor(sizes)).item())
        expected = -(ends[0] - ends[1]) / (2 * step) / 100
        assert model.law_numbers.grad[i].item() == pytest.approx(expected, rel=1e-5)
    assert (terms["concentration"], terms["discount"]) == (
        pytest.approx(2.0),
        pytest.approx(0.3),
    )


@pytest.mark.usefixtures("double")
def test_without_discount_the_concentration_s_gradient_is_the_surplus_of_clusters():
    """d log p / d log alpha = K - sum_i alpha / (alpha + i), of the Dirichlet process."""
    model, guide = learning([70.0, 20.0, 6.0, 4.0], concentration=1.5, discount=1e-9)
    loss, _ = Collapsed(model, guide)(torch.randn(8, 5), 100)
    loss.backward()
    expected = 4 - sum(1.5 / (1.5 + i) for i in range(100))
    assert model.law_numbers.grad[0].item() == pytest.approx(-expected / 100, rel=1e-4)


@pytest.mark.usefixtures("double")
def test_the_law_s_gradient_is_the_collapsed_bound_s_where_sizes_are_uncertain():
    model, guide = learning([50.0, 30.0, 12.0])
    model.observe(torch.rand(40, 4).softmax(-1))
    loss, _ = Collapsed(model, guide)(torch.randn(8, 5), 60)
    loss.backward()
    numbers, step = model.law_numbers.detach().clone(), 1e-5
    with torch.no_grad():
        for i in range(2):
            ends = []
            for sign in (1, -1):
                model.law_numbers.copy_(numbers)
                model.law_numbers[i] += sign * step
                ends.append(model.log_evidence(60).item())
            expected = -(ends[0] - ends[1]) / (2 * step) / 60
            assert model.law_numbers.grad[i].item() == pytest.approx(expected, rel=1e-4)


def test_the_law_learns_what_partitions_it_was_drawn_from(tmp_path):
    """Many clusters of few data against few of many: sigma and alpha part as they train."""
    found = []
    for sizes in ([340.0, 330.0, 330.0], [400.0, 200.0, 100.0, 50.0] + [10.0] * 25):
        model, guide = learning(sizes)
        objective = Collapsed(model, guide, rate=1e-12)
        before = model.log_evidence(1_000).item()
        training = Training(
            model,
            guide,
            torch.randn(1_000, 5),
            objective=objective,
            optimiser=lambda p: torch.optim.Adam(p, lr=0.02),
            every=50,
        )
        training.run(steps=100)
        assert model.log_evidence(1_000).item() > before + 0.1
        found.append((float(model.law.concentration), float(model.law.discount)))
    assert found[0][0] < 2.0 < found[1][0]
    save(tmp_path, model, guide)
    assert load(tmp_path)[0].law.discount == model.law.discount


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="Expected 1 to 6 clusters at the start but got 7"):
        pair(start=7)
    with pytest.raises(ValueError, match="Expected concentration > 0, 0 <= discount < 1"):
        pair(discount=0.0, tilt=0.0)
    with pytest.raises(ValueError, match=r"Expected law among .* but got 'gamma'"):
        pair("gamma")
    with pytest.raises(ValueError, match=r"Expected family among .* but got 'gamma'"):
        pair(family="gamma")
    with pytest.raises(ValueError, match=r"Expected gradient among .* but got 'guess'"):
        pair(gradient="guess")
    with pytest.raises(ValueError, match="Expected discount > 0 to learn it"):
        pair(discount=0.0, learn_law=True)


def test_moves_see_what_the_encoder_is_told():
    """As of an encoder whose input has the covariates."""
    ends, rows, beside, start = [], codes(3).mean, torch.ones(800, 1), torch.randn(6, 2)
    for covariates in (1, 0):
        encoder = MLP(2 + (not covariates), 4, (), covariates=covariates)
        decoder = MLP(2, 2 + (not covariates), (), covariates=covariates)
        model = NGGPMixture(decoder, Gaussian(), code=2, clusters=6, start=2)
        guide = CollapsedCode(encoder, model)
        encoder.layers[0].weight.data.copy_(torch.eye(4, 3))
        encoder.layers[0].bias.data.zero_()
        model.loc.data.copy_(start)
        told = {"covariates": beside} if covariates else {}
        x = rows if covariates else torch.cat([rows, beside], 1)
        moved = move_clusters(model, guide, x, seed=0, context=told)
        ends.append((moved, model.loc.detach().clone(), model.active.clone()))
    torch.testing.assert_close(*ends, rtol=1e-3, atol=1e-3)


def test_a_row_of_weight_w_moves_clusters_as_w_rows_do():
    rows, start = codes(3).mean, torch.randn(6, 2)
    one, other = torch.randint(0, 4, (2, 400))
    ends = []
    for weighted in (True, False):
        model = NGGPMixture(MLP(2, 2, ()), Gaussian(), code=2, clusters=6, start=2)
        guide = CollapsedCode(MLP(2, 4, ()), model)
        guide.encoder.layers[0].weight.data.copy_(torch.eye(4, 2))
        guide.encoder.layers[0].bias.data.zero_()
        model.loc.data.copy_(start)
        halves = rows[:400], rows[400:]
        told = [{"weights": one.float()}, {"weights": other.float()}]
        if not weighted:
            halves = rows[:400].repeat_interleave(one, 0), rows[400:].repeat_interleave(other, 0)
            told = [None, None]
        kept = grow_model(model, guide, *halves, 800, context=told[0], held_context=told[1])
        ends.append((kept, model.loc.detach().clone(), model.active.clone(), model.mean.clone()))
    torch.testing.assert_close(*ends)
    assert sum(ends[0][0].values())


def test_fractions_of_a_row_are_rounded_up_or_down_and_add_up():
    weights = 3 * torch.rand(500)
    copies = repeats(weights).bincount(minlength=500)
    assert ((copies - weights).abs() < 1.01).all()
    assert copies.sum() == round(float(weights.sum()))
