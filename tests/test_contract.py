"""What every pair of the catalogue promises."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Predictive, Trace_ELBO, TraceEnum_ELBO
from torch.fx.experimental.proxy_tensor import make_fx

from priorzoo.inference import ELBO, check_pair, evaluate, fit, load, save
from priorzoo.inference.batch import Batch
from priorzoo.inference.pairs import run_pair
from priorzoo.inference.sites import is_enumerated, is_local, latent_sites, sample_sites

B, N = 4, 10
SYNCHRONISING = {"_local_scalar_dense", "nonzero", "masked_select"}


def enumerates(guide, x):
    drawn = poutine.trace(poutine.enum(guide, first_available_dim=-2)).get_trace(x)
    return any(map(is_enumerated, latent_sites(drawn).values()))


def rows_of(trace, first, last, points=True):
    """What a guide drew, for rows ``first`` to ``last`` alone."""
    part = poutine.Trace()
    for name, site in latent_sites(trace).items():
        if not points and isinstance(site["fn"], dist.Delta):
            continue  # computed again, and perhaps rounded otherwise than in the larger batch
        value, dim = site["value"], -1 - len(site["fn"].event_shape)
        if is_local(site) and value.shape[dim] > 1:  # 1 where it is enumerated
            value = value.narrow(dim, first, last - first)
        part.add_node(name, **site | {"value": value})
    return part


def test_is_a_pair(entry):
    model, guide = entry.pair()
    check_pair(model, guide)
    check_pair(model, guide, entry.rows(B))


def test_samples_without_data(entry):
    """N rows from the prior: one value of x and of each local site a row, within its support."""
    model = entry.model()
    sites = dict(sample_sites(poutine.trace(model).get_trace(size=N)))
    x = model(size=N)
    assert x.shape == entry.rows(N).shape
    assert (x[0] != x[1:]).any()
    assert set(sites) == {"x", *latent_sites(poutine.trace(entry.guide(model)).get_trace(x))}
    for site in sites.values():
        plates = (N,) if is_local(site) else ()
        assert site["value"].shape == (*plates, *site["fn"].event_shape)
        assert site["fn"].support.check(site["value"]).all()
    assert sites["x"]["fn"].support.check(entry.rows(N)).all()


def test_log_probabilities_have_one_value_a_row(entry):
    (model, guide), x = entry.pair(), entry.rows(B)
    drawn = poutine.trace(guide).get_trace(x)
    told = poutine.trace(poutine.replay(model, trace=drawn)).get_trace(x)
    for trace in (drawn, told):
        trace.compute_log_prob()
        for _, site in sample_sites(trace):
            assert site["log_prob"].shape == ((B,) if is_local(site) else ())
            assert site["log_prob"].isfinite().all()


def test_every_parameter_gets_a_gradient(entry):
    model, guide = entry.pair()
    objective = ELBO(model, guide, penalties=entry.penalties())
    objective(entry.rows(50))[0].backward()
    learnt = {name: p.grad for name, p in objective.named_parameters() if p.requires_grad}
    assert learnt
    for name, gradient in learnt.items():
        assert gradient is not None, name
        assert gradient.isfinite().all(), name
        assert (gradient != 0).any(), name


@pytest.mark.usefixtures("double")
def test_missing_cells_have_no_influence(entry):
    """Terms and gradients are the same whatever x holds there, and those of x if none is missing.

    One row is all missing: its bound is that of the prior.
    """
    model, guide = entry.pair()
    objective = ELBO(model, guide, penalties=entry.penalties())
    x, other = entry.rows(B), entry.rows(B)
    observed = torch.rand(x.shape) < 0.5
    observed[0] = False

    def found(rows, **context):
        with torch.random.fork_rng():
            value, terms = objective(rows, context=context)
        learnt = [p for p in objective.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(value, learnt, allow_unused=True)
        return terms, [g for g in gradients if g is not None]

    expected = found(x, observed=observed)
    assert all(gradient.isfinite().all() for gradient in expected[1])
    mixed = torch.where(observed, x, other)
    mixed[0, 0] = torch.nan
    torch.testing.assert_close(found(mixed, observed=observed), expected)
    torch.testing.assert_close(found(x, observed=torch.ones_like(observed)), found(x))
    kept = evaluate(model, guide, mixed, context={"observed": observed})
    assert kept == evaluate(model, guide, x, context={"observed": observed})


@pytest.mark.usefixtures("double")
def test_batches_add_up(entry):
    """Over any partition, batches scaled to N data have the value of all at once as their mean.

    The draws are those of all at once, cut into the same batches. A factor over the batch as a
    whole is left out: rows apart are not coupled, and its value is another one.
    """
    (model, guide), x = entry.pair(), entry.rows(N)
    model = poutine.block(model, hide=list(entry.batchwise))
    drawn, told = run_pair(model, guide, Batch(x))
    terms = ELBO(model, poutine.replay(guide, trace=rows_of(drawn, 0, N, points=False))).terms(x)
    expected = {name: term.mean() for name, term in terms.items()}
    found = dict.fromkeys(expected, 0.0)
    log_p = 0.0
    for first, last in ((0, 1), (1, 4), (4, N)):
        part, share = rows_of(drawn, first, last), (last - first) / N
        batch = x[first:last]
        drawn_part = rows_of(drawn, first, last, points=False)
        replayed = poutine.replay(guide, trace=drawn_part)
        for name, term in ELBO(model, replayed).terms(batch, N).items():
            found[name] = found[name] + share * term.mean()
        held = poutine.trace(poutine.replay(model, trace=part)).get_trace(batch, N)
        log_p = log_p + share * held.log_prob_sum()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(log_p, told.log_prob_sum())


@pytest.mark.usefixtures("double")
def test_a_row_of_weight_w_is_w_rows(entry):
    """Loss and gradients on the same draws, repeated with the rows."""
    pair = entry.pair()
    model, guide = poutine.block(pair[0], hide=list(entry.batchwise)), pair[1]
    learnt = [p for module in pair for p in module.parameters() if p.requires_grad]
    x, times = entry.rows(B), torch.tensor([2, 0, 1, 4])
    data = int(times.sum())
    with torch.no_grad():
        drawn = rows_of(run_pair(model, guide, Batch(x))[0], 0, B, points=False)
    many = rows_of(drawn, 0, B)
    for site in many.nodes.values():
        value, dim = site["value"], -1 - len(site["fn"].event_shape)
        if is_local(site) and value.shape[dim] > 1:
            site["value"] = value.repeat_interleave(times, dim)
    ends = []
    for rows, trace, context in (
        (x, drawn, {"weights": times * B / data}),
        (x.repeat_interleave(times, 0), many, {}),
    ):
        value, terms = ELBO(model, poutine.replay(guide, trace=trace))(rows, data, context=context)
        gradients = torch.autograd.grad(value, learnt, allow_unused=True)
        means = {name: term.mean() for name, term in terms.items()}
        ends.append((means, [g for g in gradients if g is not None]))
    torch.testing.assert_close(*ends)


def test_saved_and_loaded_to_the_last_bit(entry, tmp_path):
    (model, guide), x = entry.pair(), entry.rows(B)
    save(tmp_path, model, guide)
    again = load(tmp_path)
    assert evaluate(*again, x) == evaluate(model, guide, x)
    for old, new in zip((model, guide), again, strict=True):
        assert type(new) is type(old)
        torch.testing.assert_close(new.state_dict(), old.state_dict(), rtol=0, atol=0)


def test_trains_under_plain_pyro(entry):
    """SVI with Pyro's own ELBO, optimiser and parameter store: the loss falls."""
    (model, guide), x = entry.pair(), entry.rows(20)
    kind = TraceEnum_ELBO if enumerates(guide, x) else Trace_ELBO

    def registered(name, program):
        def run(x):
            pyro.module(name, program)
            return program(x)

        return run

    svi = SVI(
        registered("model", model),
        registered("guide", guide),
        pyro.optim.Adam({"lr": 0.02}),
        kind(max_plate_nesting=1),
    )
    try:
        losses = [svi.step(x) for _ in range(30)]
    finally:
        pyro.clear_param_store()
    assert sum(losses[-5:]) < sum(losses[:5])


def test_works_with_predictive(entry):
    model, guide = entry.pair()
    prior = Predictive(model, num_samples=5)(size=B)
    posterior = Predictive(model, guide=guide, num_samples=5)(entry.rows(B))
    together = Predictive(model, num_samples=5, parallel=True)(size=B)
    sites = dict(sample_sites(poutine.trace(model).get_trace(size=B)))
    assert set(sites) <= set(prior)
    assert set(sites) - {"x"} <= set(posterior)
    for found in (prior, posterior, together):
        for name in set(sites) & set(found):
            assert found[name].reshape(5, *sites[name]["value"].shape).isfinite().all()


def test_the_parameter_store_stays_empty(entry, tmp_path):
    (model, guide), x = entry.pair(), entry.rows(B)
    fit(model, guide, x, steps=2)
    evaluate(model, guide, x, importance_samples=entry.importance)
    save(tmp_path, model, guide)
    load(tmp_path)
    assert not dict(pyro.get_param_store())


@pytest.mark.usefixtures("double")
def test_traces_to_one_graph(entry):
    """Loss and gradients as one aten graph that never asks the device for a number.

    It gives what the program gives on the same draws, for the rows it was traced with and others.
    """
    (model, guide), x = entry.pair(), entry.rows(B)
    objective = ELBO(model, guide)
    parameters = dict(objective.named_parameters())

    def loss(parameters, x):
        return torch.func.functional_call(objective, parameters, (x, N))

    step = torch.func.grad_and_value(loss, has_aux=True)
    graph = make_fx(step)(parameters, x)
    calls = {
        str(node.target).split(".")[1] for node in graph.graph.nodes if "aten" in str(node.target)
    }
    assert calls
    assert not calls & SYNCHRONISING
    for rows in (x, entry.rows(B)):
        torch.manual_seed(1)
        found = graph(parameters, rows)
        torch.manual_seed(1)
        torch.testing.assert_close(found, step(parameters, rows))
