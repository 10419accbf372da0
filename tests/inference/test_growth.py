"""Births, merges and deaths of clusters, and the model whose clusters they are."""

import math

import pyro
import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from priorzoo.guides.collapsed import CollapsedCode
from priorzoo.inference import (
    ELBO,
    Training,
    check_pair,
    cluster_probabilities,
    evaluate,
    load,
    save,
)
from priorzoo.inference.collapsed import Collapsed
from priorzoo.inference.growth import births, deaths, grow, grow_model, merges, splits
from priorzoo.inference.judging import Codes, Judge, Mixture
from priorzoo.models import MLP, Gaussian
from priorzoo.models.code_families import FAMILIES
from priorzoo.models.nggp_law import NGGP
from priorzoo.models.nggp_mixture import NGGPMixture

CENTRES = torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 3.0], [0.0, -3.0]])


def codes(count, rows=800):
    z = CENTRES[torch.arange(rows) % count] + 0.3 * torch.randn(rows, 2)
    return Codes(z, torch.full_like(z, 0.1))


def mixture(*centres, room=8, scale=0.5):
    loc = torch.zeros(room, 2)
    loc[: len(centres)] = torch.tensor(centres)
    return Mixture(loc, torch.full((room, 2), scale), torch.arange(room) < len(centres))


def judge():
    return Judge(NGGP(1.0, 0.25), 1.0, 400)


def accepted(move, start, data):
    """Of each proposal, whether other rows of the same clusters accept it."""
    j, order = judge(), torch.randperm(len(data.mean))
    data, held = data.part(order[::2]), data.part(order[1::2])
    return [j.accepts(start, j.refit(new, data), held) for new in move(j, start, data)]


def test_a_cluster_that_holds_two_is_split_and_one_that_holds_one_is_not():
    start = judge().refit(mixture([0.0, 0.0], scale=3.0), codes(2))
    assert accepted(splits, start, codes(2)) == [True]
    start = judge().refit(mixture([3.0, 0.0], [-3.0, 0.0]), codes(2))
    assert not any(accepted(splits, start, codes(2)))


def test_a_cluster_is_born_where_rows_are_explained_badly_and_only_there():
    start = judge().refit(mixture([3.0, 0.0], [-3.0, 0.0]), codes(2))
    assert any(accepted(births, start, codes(3)))
    assert not any(accepted(births, start, codes(2)))


def test_clusters_that_share_their_rows_merge_and_others_do_not():
    same = judge().refit(mixture([3.1, 0.0], [2.9, 0.0], [-3.0, 0.0]), codes(2))
    assert accepted(merges, same, codes(2))[0]
    apart = judge().refit(mixture([3.0, 0.0], [-3.0, 0.0]), codes(2))
    assert not any(accepted(merges, apart, codes(2)))


def test_a_cluster_without_rows_dies_and_one_with_rows_does_not():
    start = judge().refit(mixture([3.0, 0.0], [-3.0, 0.0], [30.0, 30.0]), codes(2))
    assert accepted(deaths, start, codes(2)) == [True, False, False]


@pytest.mark.parametrize(("start", "count"), [(1, 4), (3, 1)])
def test_grows_and_shrinks_to_the_clusters_there_are(count, start):
    begun = mixture(*torch.randn(start, 2).tolist())
    found, _ = grow(judge(), begun, codes(count, 200), codes(count, 200))
    assert found.active.sum() == count
    gap = torch.cdist(found.loc[found.active], CENTRES[:count]).amin(-1)
    assert gap.max() < 0.2


def test_a_full_house_stays_as_it_is():
    start = judge().refit(mixture([0.0, 0.0], room=1, scale=3.0), codes(2))
    assert not list(splits(judge(), start, codes(2)))
    assert not list(births(judge(), start, codes(2)))


@pytest.mark.usefixtures("double")
def test_the_bound_rises_with_each_assignment_and_is_the_sum_written_out():
    data, start = codes(2, 400), mixture([3.0, 0.0], [-3.0, 0.0])
    data = Codes(*(part.double() for part in data))
    start = Mixture(start.loc.double(), start.scale.double(), start.active)
    j = judge()
    values = [j.bound(start, data, j.assign(start, data, rounds)) for rounds in (0, 1, 4)]
    assert values[0] <= values[1] + 1e-6
    assert values[1] <= values[2] + 1e-6
    q = torch.zeros(400, 9, dtype=torch.float64)
    q[torch.arange(400), torch.arange(400) % 2] = 1
    fits = FAMILIES["gaussian"].expected_log(data.mean, data.spread, start.loc[:2], start.scale[:2])
    own = fits[torch.arange(400), torch.arange(400) % 2].mean()
    prior = j.law.log_probability(torch.tensor([200.0, 200.0])) / 400
    assert j.bound(start, data, q) == pytest.approx((own + prior).item(), abs=1e-6)


def pair(law="normal", **sizes):
    sizes = {"code": 2, "clusters": 6, "start": 3} | sizes
    model = NGGPMixture(MLP(2, 5, (8,)), Gaussian(0.7), **sizes)
    return model, CollapsedCode(MLP(5, 4, (8,)), model, law)


@pytest.mark.parametrize("law", ["normal", "log-concave"])
def test_is_a_pair_that_trains_saves_and_loads(law, tmp_path):
    model, guide = pair(law)
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
    assert q.shape == (60, 7)
    assert (q[:, :-1][:, ~model.active] == 0).all()
    assert not dict(pyro.get_param_store())


def test_sizes_follow_the_batches():
    """After many steps they are the mean probabilities of all data, which one step would be."""
    model, guide = pair("normal")
    x = torch.randn(50, 5)
    objective = Collapsed(model, guide, rate=1.0)
    with torch.no_grad():
        _, terms = objective(x, 500)
    assert model.mean[0].item() == pytest.approx(0.98 / 3, abs=0.05)
    pending = objective.clock.pending
    objective.clock.tick()
    torch.testing.assert_close(model.mean, pending[:, :-1].mean(0))
    expected = 1 - (1 - pending[:, :-1]).log().mean(0).mul(500).exp()
    torch.testing.assert_close(model.occupancy(500).occupied, expected, rtol=1e-4, atol=1e-4)
    assert objective.clock.pending is None
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
    model.place(loc, scale, torch.arange(6) < 4)
    model.mean[3], model.log_empty[3] = 0.01, -0.01
    after, more = score()
    assert more > weights + 1e-3
    torch.testing.assert_close(after - before, (weights - more).expand(20), rtol=0, atol=1e-6)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("law", ["normal", "log-concave"])
def test_traces_to_one_graph_without_host_synchronisation(law):
    model, guide = pair(law)
    objective, x = ELBO(model, guide), torch.randn(8, 5)
    parameters = dict(objective.named_parameters())

    def loss(parameters, x):
        return torch.func.functional_call(objective, parameters, (x, 100))

    step = torch.func.grad_and_value(loss, has_aux=True)
    graph = make_fx(step)(parameters, x)
    calls = {str(n.target).split(".")[1] for n in graph.graph.nodes if "aten" in str(n.target)}
    assert not calls & {"_local_scalar_dense", "nonzero", "masked_select"}
    torch.manual_seed(1)
    found = graph(parameters, x)
    torch.manual_seed(1)
    torch.testing.assert_close(found, step(parameters, x))


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="Expected 1 to 6 clusters at the start but got 7"):
        pair(start=7)
    with pytest.raises(ValueError, match="Expected concentration > 0, 0 <= discount < 1"):
        pair(discount=0.0, tilt=0.0)
    with pytest.raises(ValueError, match=r"Expected law among .* but got 'gamma'"):
        pair("gamma")
