"""The training loop: what it draws, what it keeps, and what it refuses."""

import random
from contextlib import nullcontext
from functools import partial

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from priorzoo.inference import (
    ELBO,
    Training,
    check_data,
    check_pair,
    descend,
    evaluate,
    fit,
    load,
    save,
)
from priorzoo.models import data_plate

P, D, K = 6, 2, 3


def made(entry, seed=0):
    """The pair, with the same parameters each time."""
    torch.manual_seed(seed)
    return entry.pair()


def numbers(*modules):
    return [module.state_dict() for module in modules]


def assert_same(left, right):
    torch.testing.assert_close(left, right, rtol=0, atol=0)


def adam(rate):
    return lambda parameters: torch.optim.Adam(parameters, lr=rate)


def without_seconds(rows):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def sgd(rate):
    return lambda parameters: torch.optim.SGD(parameters, lr=rate)


# Random streams


def test_interleaved_trainings_give_what_each_gives_alone(zoo):
    """Two pairs, one with dynamic binarisation, run on by turns in portions: bit for bit."""
    settings = {
        "gmvae": {"seed": 3, "batch_size": 4, "every": 1},
        "vae": {"seed": 4, "batch_size": 3, "every": 1, "transform": torch.bernoulli},
    }
    x = zoo["vae"].rows(10)
    data = {"gmvae": x, "vae": 0.2 + 0.6 * x}

    def begin(name):
        return Training(*made(zoo[name]), data[name], **settings[name])

    alone = {name: begin(name) for name in settings}
    for training in alone.values():
        training.run(steps=12)
    together = {name: begin(name) for name in settings}
    for portion in (1, 4, 2, 5):
        for training in together.values():
            torch.randn(3)  # the caller draws as well
            training.run(steps=portion)
    for name in settings:
        assert_same(together[name].objective.state_dict(), alone[name].objective.state_dict())
        assert without_seconds(together[name].history) == without_seconds(alone[name].history)


def test_the_callers_random_state_is_untouched(zoo, tmp_path):
    model, guide = zoo["gmvae"].pair()
    x = zoo["gmvae"].rows(10)
    torch.manual_seed(5)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    uses = {
        "check_pair": lambda: check_pair(model, guide),
        "check_data": lambda: check_data(model, x),
        "fit": lambda: fit(model, guide, x, steps=3, validation=x),
        "transform": lambda: fit(
            model, guide, x, steps=1, transform=lambda rows: torch.bernoulli(0.5 * rows)
        ),
        "loader": lambda: fit(model, guide, DataLoader(x, 4, shuffle=True), steps=3, size=10),
        "evaluate": lambda: evaluate(model, guide, x, importance_samples=3),
        "save": lambda: save(tmp_path, model, guide),
        "load": lambda: load(tmp_path),
    }
    for name, use in uses.items():
        use()
        assert torch.equal(torch.get_rng_state(), before[0]), name
        assert random.getstate() == before[1], name
        assert (np.random.get_state()[1] == before[2]).all(), name


def test_the_seed_decides(zoo):
    x = zoo["gmvae"].rows(10)
    runs = []
    for seed in (1, 1, 2):
        pair = made(zoo["gmvae"])
        torch.randn(seed)
        fit(*pair, x, steps=5, batch_size=4, seed=seed)
        runs.append(torch.cat([p.flatten() for m in pair for p in m.parameters()]))
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_validation_does_not_disturb_the_training(zoo):
    x, held_out = zoo["gmvae"].rows(10), zoo["gmvae"].rows(7)
    without, beside = made(zoo["gmvae"]), made(zoo["gmvae"])
    expected = fit(*without, x, epochs=3, batch_size=4)
    rows = fit(*beside, x, epochs=3, batch_size=4, validation=held_out)
    trained = [row for row in rows if row["split"] == "train"]
    assert without_seconds(trained) == without_seconds(expected)
    assert_same(numbers(*beside), numbers(*without))


# Batches


def seen(pair, data, epochs, change=lambda x: x, **settings):
    """The batches that a training takes, before a change by its transform."""
    batches = []

    def transform(x):
        batches.append(x)
        return change(x)

    training = Training(*pair, data, transform=transform, **settings)
    batches.clear()  # of the check at the start
    training.run(epochs=epochs)
    return batches


def test_each_pass_takes_every_row_once_in_a_new_order(zoo):
    """Ten rows by fours: batches of 4, 4 and 2, a permutation of the rows in each pass."""
    x = torch.arange(10.0).unsqueeze(1).expand(-1, P)
    batches = seen(zoo["vae"].pair(), x, 2, lambda x: (x > 4).float(), batch_size=4)
    assert [len(batch) for batch in batches] == [4, 4, 2] * 2
    first, second = (torch.cat(batches[i : i + 3])[:, 0].tolist() for i in (0, 3))
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second


@pytest.mark.parametrize(
    "batches",
    [
        lambda x: DataLoader(TensorDataset(x), batch_size=4),
        lambda x: DataLoader(x, batch_size=4),
        lambda x: list(x.split(4)),
        lambda x: [(part,) for part in x.split(4)],
        lambda x: [{"x": part} for part in x.split(4)],
    ],
)
def test_an_iterable_of_batches_is_taken_in_its_order(zoo, batches):
    """A loader, or a list, of rows alone or by name; again and again, a pass its length."""
    x = zoo["vae"].rows(10)
    taken = seen(zoo["vae"].pair(), batches(x), 2, size=50)
    assert_same(taken, [*x.split(4)] * 2)


@pytest.mark.parametrize(
    "beside", [lambda x: (x, torch.zeros(len(x))), lambda x: {"rows": x}, lambda x: []]
)
def test_a_tensor_without_a_name_beside_the_rows_is_refused(zoo, beside):
    """Nothing says whether it is a label, an exposure or a covariate; it is not dropped."""
    batches = [beside(part) for part in zoo["vae"].rows(10).split(4)]
    with pytest.raises(ValueError, match=r"but got .*give each tensor beside the rows a name"):
        fit(*zoo["vae"].pair(), batches, steps=1, size=10)


def test_rows_of_another_precision_are_those_of_the_networks(zoo):
    """Pixels that NumPy keeps as float64 train, validate and predict as float32 ones do."""
    x = zoo["vae"].rows(10)
    results = []
    for rows in (x, x.double()):
        torch.manual_seed(0)
        pair = zoo["vae"].pair()
        history = fit(*pair, rows, steps=4, batch_size=4, validation=rows)
        results.append([row["elbo"] for row in history] + [evaluate(*pair, rows)["elbo"]])
    assert results[0] == results[1]


def test_the_size_of_the_data_is_told_by_the_caller():
    """A global site enters a batch of 4 as 1/50 of its KL where the data are said to be 50."""

    class Centre(nn.Module):
        def __init__(self):
            super().__init__()
            self.loc = nn.Parameter(torch.ones(P))

        def forward(self, x=None, size=None):
            mu = pyro.sample("mu", dist.Normal(torch.zeros(P), 1.0).to_event(1))
            with data_plate(x, size):
                return pyro.sample("x", dist.Normal(mu, 1.0).to_event(1), obs=x)

    class Around(Centre):
        def forward(self, x, size=None):
            pyro.sample("mu", dist.Delta(self.loc, event_dim=1))
            with data_plate(x, size):
                pass

    x = torch.zeros(4, P)
    (row,) = fit(Centre(), Around(), [x], steps=1, size=50)
    expected = -dist.Normal(0.0, 1.0).log_prob(torch.ones(P)).sum().item()
    assert row["kl[mu]"] == pytest.approx(expected / 50)
    held_out = evaluate(Centre(), Around(), torch.zeros(7, P), batch_size=3)
    assert held_out["kl[mu]"] == pytest.approx(expected / 7)


def test_batches_that_run_out_are_refused(zoo):
    """A generator has one pass in it; a loop that waits for the second would never end."""

    class Once:
        asked = 0

        def __iter__(self):
            return self

        def __next__(self):
            self.asked += 1
            assert self.asked < 20
            if self.asked > 3:
                raise StopIteration
            return zoo["vae"].rows(4)

    with pytest.raises(ValueError, match="batches"):
        fit(*zoo["vae"].pair(), Once(), steps=10, size=12)


def test_dynamic_binarisation_is_fresh_in_each_pass(zoo):
    """Of grey rows: new binary ones in every pass, with the grey values as their mean."""
    grey = torch.rand(1, P).expand(1000, -1)
    batches = []

    def binarise(x):
        batches.append(torch.bernoulli(x))
        return batches[-1]

    training = Training(*zoo["vae"].pair(), grey, transform=binarise, batch_size=1000)
    batches.clear()
    training.run(epochs=3)
    assert not torch.equal(batches[0], batches[1])
    assert not torch.equal(batches[1], batches[2])
    error = (torch.cat(batches).mean(0) - grey[0]) / (grey[0] * (1 - grey[0]) / 3000).sqrt()
    assert error.abs().max() < 4


# History


def test_a_row_is_the_mean_of_its_steps(zoo):
    """Seven steps, three a pass: a row at the end of each pass, the mean of what its steps gave."""
    x = zoo["gmvae"].rows(10)
    kept = []
    rows = fit(*made(zoo["gmvae"]), x, steps=7, batch_size=4, record=kept.append)
    single = fit(*made(zoo["gmvae"]), x, steps=7, batch_size=4, every=1)
    assert kept == rows
    assert [row["step"] for row in rows] == [3, 6, 7]
    assert [row["epoch"] for row in rows] == [1, 2, 7 / 3]
    names = {"reconstruction", "kl[y]", "kl[z]", "elbo", "objective"}
    for row, first, last in zip(rows, (0, 3, 6), (3, 6, 7), strict=True):
        assert set(row) == {"step", "epoch", "split", "seconds"} | names
        assert row["split"] == "train"
        for name in names:
            steps = [part[name] for part in single[first:last]]
            assert row[name] == pytest.approx(sum(steps) / len(steps), rel=1e-5)


def test_the_loop_is_five_lines_of_ones_own(zoo):
    """``descend`` on the batches, one after the other, is the whole training."""
    x = zoo["gmvae"].rows(10)
    pair, ours = made(zoo["gmvae"]), made(zoo["gmvae"])
    rows = fit(*pair, x, epochs=1, batch_size=4, seed=6)
    objective = ELBO(*ours)
    learnt = [p for p in objective.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(learnt, lr=1e-3)
    torch.manual_seed(6)
    terms = [descend(objective, optimiser, x[i], 10) for i in torch.randperm(10).split(4)]
    assert_same(numbers(*ours), numbers(*pair))
    assert rows[0]["elbo"] == pytest.approx(sum(t["elbo"].item() for t in terms) / 3, rel=1e-5)


def test_early_stopping_puts_the_best_back(zoo):
    """On five rows the validation bound turns; the parameters are those of its best row."""
    x, held_out = zoo["vae"].rows(5), zoo["vae"].rows(50)
    model, guide = zoo["vae"].pair()
    rows = fit(
        model,
        guide,
        x,
        steps=1000,
        every=10,
        optimiser=adam(0.05),
        validation=held_out,
        patience=3,
        seed=8,
    )
    bounds = [row["elbo"] for row in rows if row["split"] == "valid"]
    assert len(bounds) < 100
    assert len(bounds) - 1 - bounds.index(max(bounds)) == 3
    assert evaluate(model, guide, held_out, seed=8)["elbo"] == max(bounds)


def test_the_best_is_put_back_where_patience_lasts_to_the_end(zoo):
    """Ended by its length, the parameters are those of the best row; run on, those of the last."""
    x, held_out = zoo["vae"].rows(5), zoo["vae"].rows(50)
    settings = {"every": 10, "optimiser": adam(0.05), "validation": held_out, "seed": 8}
    whole, parts = (Training(*made(zoo["vae"]), x, patience=1000, **settings) for _ in range(2))
    for training, portions in ((whole, [200]), (parts, [70, 130])):
        for steps in portions:
            training.run(steps)
            bounds = [row["elbo"] for row in training.history if row["split"] == "valid"]
            assert bounds[-1] < max(bounds)
            found = evaluate(training.model, training.guide, held_out, seed=8)
            assert found["elbo"] == max(bounds)
    assert without_seconds(parts.history) == without_seconds(whole.history)


# The step


def test_validation_rows_go_where_the_parameters_are(zoo):
    """As do the batches; on the device that stores nothing, since there may be no other."""
    model, guide = (module.to("meta") for module in zoo["vae"].pair())
    x = zoo["vae"].rows(5)
    assert Training(model, guide, x, validation=x).validation.x.device.type == "meta"


def test_a_clock_follows_the_rows_in_a_loop_of_ones_own(zoo, monkeypatch):
    """Where it is not on their device, a schedule is a copy from the host in each step."""
    objective = ELBO(*zoo["vae"].pair())
    objective.model.to("meta")
    objective.guide.to("meta")
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # knows no such device
    optimiser = torch.optim.SGD(objective.parameters(), lr=0.1)
    descend(objective, optimiser, zoo["vae"].rows(5).to("meta"))
    assert objective.clock.step.device.type == "meta"


def test_the_gradient_is_cut_to_its_norm(zoo):
    """Under plain gradient descent of step size 1 the parameters move by just so much."""
    x = zoo["gmvae"].rows(10)

    def moved(clip):
        pair = made(zoo["gmvae"])
        before = torch.cat([p.detach().flatten().clone() for m in pair for p in m.parameters()])
        fit(*pair, x, steps=1, optimiser=sgd(1.0), clip=clip)
        after = torch.cat([p.detach().flatten() for m in pair for p in m.parameters()])
        return after - before

    free = moved(None)
    assert free.norm() > 0.5
    torch.testing.assert_close(moved(0.25), free * (0.25 / free.norm()), rtol=1e-4, atol=1e-6)
    assert torch.equal(moved(1e6), free)


def test_the_learning_rate_is_adams(zoo):
    x, ends = zoo["gmvae"].rows(10), []
    for how in ({"lr": 0.02}, {"optimiser": partial(torch.optim.Adam, lr=0.02)}, {}):
        pair = made(zoo["gmvae"])
        fit(*pair, x, steps=2, **how)
        ends.append(torch.cat([p.detach().flatten() for m in pair for p in m.parameters()]))
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])
    for bad in ({"lr": 0.1, "optimiser": torch.optim.SGD}, {"lr": 0.0}, {"lr": float("nan")}):
        with pytest.raises(ValueError, match="lr"):
            fit(*made(zoo["gmvae"]), x, steps=1, **bad)


def test_the_step_size_follows_its_schedule_by_passes(zoo):
    """Halved after each pass of three steps, as the parameters' moves in one direction show."""
    rates = []

    class Recorded(torch.optim.SGD):
        def step(self, closure=None):
            rates.append(self.param_groups[0]["lr"])
            return super().step(closure)

    fit(
        *zoo["vae"].pair(),
        zoo["vae"].rows(10),
        epochs=3,
        batch_size=4,
        optimiser=lambda parameters: Recorded(parameters, lr=0.1),
        schedule=lambda optimiser: torch.optim.lr_scheduler.StepLR(optimiser, 1, gamma=0.5),
    )
    assert rates == pytest.approx([0.1] * 3 + [0.05] * 3 + [0.025] * 3)


def test_half_precision_stays_close(entry):
    """bf16 linear maps and convolutions, but no parameters or terms: within five per cent."""
    x = entry.rows(50)
    full, half = made(entry), made(entry)
    expected = fit(*full, x, steps=5)
    rows = fit(*half, x, steps=5, precision="bf16")
    assert rows[-1]["elbo"] == pytest.approx(expected[-1]["elbo"], rel=0.05)
    assert rows[-1]["elbo"] != expected[-1]["elbo"]
    assert {p.dtype for m in half for p in m.parameters()} <= {torch.float32, torch.float64}


@pytest.mark.parametrize("name", ["vae", "gmvae"])
def test_nan_ends_the_training(zoo, name):
    """A step size that blows up: an error that names the terms and the step, at the next row."""
    pair, x = zoo[name].pair(), zoo[name].rows(10)
    with pytest.raises(FloatingPointError, match=r"kl\[z\] of site 'z'.* became .* at step 2 "):
        fit(*pair, x, steps=100, every=5, optimiser=sgd(1e30))


def test_the_checks_before_a_training_leave_the_networks_alone(zoo):
    """The averages of a batch norm are those of the data, not of the rows of a check."""
    model, guide = zoo["vae"].pair()
    model.decoder = nn.Sequential(model.decoder, nn.BatchNorm1d(P))
    guide.encoder = nn.Sequential(nn.BatchNorm1d(P), guide.encoder)
    x = zoo["vae"].rows(10)
    Training(model, guide, x)
    for norm in (model.decoder[1], guide.encoder[0]):
        assert (norm.running_mean == 0).all()
        assert norm.training


def test_what_a_training_calls_may_be_set_before_it_runs(zoo):
    """As by a recipe's run, which needs the training to say what shall be called."""
    rows, saved = [], []
    training = Training(*zoo["vae"].pair(), zoo["vae"].rows(20), batch_size=10, every=1)
    training.record, training.checkpoint = rows.append, lambda: saved.append(training.step)
    training.run(3)
    assert rows == training.history
    assert saved == [1, 2, 3]


# Refusals
