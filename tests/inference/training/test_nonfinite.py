"""Steps with NaN or infinity: named, skipped without a trace, or undone with a smaller rate."""

import copy
import re

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, lr_scheduler
from torch.utils._python_dispatch import TorchDispatchMode

from priorzoo.inference import ELBO, Training, fit
from priorzoo.inference.objectives.contract import Loss
from priorzoo.inference.training import compiled
from priorzoo.inference.training.nonfinite import rates_of, scale_rates
from priorzoo.inference.training.optimisers import ConjugateAdam
from priorzoo.models import data_plate
from priorzoo.models.distributions.exponential import Natural

N, P, D, MARKED = 12, 4, 2, 7


class Model(nn.Module):
    def __init__(self, scale=1.0):
        super().__init__()
        self.decoder, self.scale = nn.Linear(D, P), scale

    def forward(self, x=None, size=None):
        with data_plate(x, size):
            z = pyro.sample("z", dist.Normal(torch.zeros(D), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), self.scale).to_event(1), obs=x)


class Guide(nn.Module):
    """Rows that begin with 9 give a NaN ``value``, or a finite value with a NaN ``gradient``."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.norm, self.encoder = kind, nn.BatchNorm1d(P), nn.Linear(P, D)
        self.root = nn.Parameter(torch.ones(()))

    def forward(self, x, size=None):
        usual = (x[:, :1] < 5).float()
        if self.kind == "value":
            loc = self.encoder(self.norm(x)) + 0 * usual.log()
        else:
            loc = self.encoder(self.norm(x)) + (self.root * usual).sqrt()
        with data_plate(x, size):
            pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))


def pair(kind):
    torch.manual_seed(0)
    return Model(), Guide(kind)


def rows(marked=True):
    x = torch.randn(N, P, generator=torch.Generator().manual_seed(0))
    x[:, 0] = x[:, 0].clamp(max=4)
    if marked:
        x[MARKED, 0] = 9
    return x


def adam(rate=0.01):
    return lambda parameters: Adam(parameters, lr=rate)


def begin(kind="value", step="eager", x=None, **settings):
    """A training, and the list of the batches that it takes."""
    x = rows() if x is None else x
    how = {"batch_size": 3, "optimiser": adam(), "step": step, "every": 8}
    training, seen = Training(*pair(kind), x, **how | settings), []

    def note(x):
        seen.append(x)
        return x

    training.batches.transform = note
    return training, seen


def bad(seen):
    """The numbers of the steps whose batch has the marked row."""
    return [i for i, x in enumerate(seen, 1) if (x[:, 0] == 9).any()]


@pytest.fixture(params=["eager", "compiled"])
def step(request, monkeypatch):
    """A recorded graph is run as it is, since inductor would take seconds."""
    monkeypatch.setattr(compiled, "lower", lambda graph, *_: graph)
    return request.param


def everything(training):
    """Parameters, buffers and the optimiser's state."""
    held = training.objective.state_dict() | {"optimiser": training.optimiser.state_dict()}
    return copy.deepcopy(held)


def same(left, right):
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return torch.equal(left, right) if isinstance(left, torch.Tensor) else left == right


# Named


NAMED = {
    "value": r"kl\[z\] of site 'z', reconstruction of site 'x', and the gradients? of .* became",
    "gradient": r"but the gradient of guide\.root became",
}


@pytest.mark.parametrize("kind", NAMED)
def test_the_batch_the_term_the_site_and_the_parameter_are_named(kind, step):
    """Though the row of the history is the mean of two passes."""
    training, seen = begin(kind, step)
    with pytest.raises(FloatingPointError, match=NAMED[kind]) as error:
        training.run(16)
    assert len(seen) == 8
    number, batch, epoch, listed = re.search(
        r"step (\d+) \(batch (\d+) of pass (\d+), rows ([^)]*)\)", str(error.value)
    ).groups()
    assert int(number) == bad(seen)[0]
    assert 4 * (int(epoch) - 1) + int(batch) == int(number)
    names = {int(row) for row in re.findall(r"\d+", listed)}
    assert MARKED in names
    taken = training.batches.data[sorted(names)]
    assert set(taken[:, 1].tolist()) == set(seen[int(number) - 1][:, 1].tolist())


def test_of_an_iterable_the_batch_is_named_by_its_number():
    batches = list(rows().split(3))
    with pytest.raises(FloatingPointError, match=r"at step 3 \(batch 3 of pass 1\);"):
        fit(*pair("value"), batches, size=N, steps=9, every=9)


def test_a_gradient_whose_norm_overflows_is_found():
    """Its square is infinite, so that Adam would never move the parameter again."""
    model, guide = Model(scale=1e-8), Guide("value")
    with pytest.raises(FloatingPointError, match=r"gradients of model\.decoder\.weight"):
        fit(model, guide, 1e4 * rows(marked=False), steps=2)


# Skipped


@pytest.mark.parametrize("kind", NAMED)
def test_a_skipped_step_leaves_no_trace(kind, step):
    """Also where it is the first, for which Adam has no state yet."""
    firsts = set()
    for seed in (0, 14):
        training, seen = begin(kind, step, on_nonfinite="skip", seed=seed, every=1)
        for _ in range(6):
            before = everything(training)
            training.run(1)
            left = same(everything(training), before)
            assert left == (len(seen) in bad(seen)), (seed, len(seen))
        firsts.add(1 in bad(seen))
        done = [row for row in training.history if row["split"] == "nonfinite"]
        assert [row["step"] for row in done] == bad(seen)
        assert {(row["done"], row["lost"]) for row in done} == {("skip", 1)}
    assert firsts == {True, False}


def test_means_are_those_of_the_steps_that_were_not_skipped(step):
    each, seen = begin(step=step, on_nonfinite="skip", every=1)
    each.run(8)
    together, _ = begin(step=step, on_nonfinite="skip")
    [told, row] = together.run(8)
    single = [one for one in each.history if one["split"] == "train"]
    assert len(single) == 8 - len(bad(seen)) == 6
    assert row["elbo"] == pytest.approx(sum(one["elbo"] for one in single) / 6, rel=1e-6)
    assert (told["lost"], told["step"]) == (2, 8)
    assert f"step {bad(seen)[0]} (" in told["said"]
    assert same(everything(together), everything(each))


class Replacing(Guide):
    """A program that replaces a buffer, and an optimiser whose state is a plain number."""

    def __init__(self, kind):
        super().__init__(kind)
        self.register_buffer("mean", torch.zeros(P))

    def forward(self, x, size=None):
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.mean(0)
        return super().forward(x, size)


class Counting(SGD):
    def step(self, closure=None):
        for group in self.param_groups:
            group["taken"] = group.get("taken", 0) + 1
        return super().step(closure)


def test_replaced_buffers_and_plain_numbers_of_an_optimiser_are_put_back():
    torch.manual_seed(0)
    how = {"on_nonfinite": "skip", "every": 1, "batch_size": 3}
    optimiser = {"optimiser": lambda p: Counting(p, lr=0.01)}
    training = Training(Model(), Replacing("value"), rows(), **how, **optimiser)
    training.run(9)
    skipped = sum(row["split"] == "nonfinite" for row in training.history)
    assert skipped in (2, 3)
    assert training.optimiser.param_groups[0]["taken"] == 9 - skipped
    assert training.guide.mean.isfinite().all()


def test_a_training_that_skips_all_steps_ends():
    x = rows().fill_(9.0)
    with pytest.raises(FloatingPointError, match="all of the last 100 steps were skipped"):
        begin(x=x, on_nonfinite="skip", every=50)[0].run(1000)


class HostReads(TorchDispatchMode):
    """Fails where a value of a tensor is read by the host."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert not re.search("local_scalar|item|nonzero|is_nonzero|equal.default", str(func)), func
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("policy", ["raise", "skip", "rollback"])
def test_nothing_is_read_by_the_host_between_two_rows(policy, step):
    """SGD with momentum, since Adam itself reads its count of steps on a CPU."""
    momentum = {"optimiser": lambda p: SGD(p, lr=1e-3, momentum=0.9)}
    training, _ = begin(step=step, on_nonfinite=policy, x=rows(marked=False), every=20, **momentum)
    with training.stream:
        for _ in range(2):  # these create the optimiser's state
            training.steps()
        for _ in range(6):
            batch = next(training.batches)
            with HostReads():
                training.steps._take(batch)


# Undone


class Pulled(ELBO):
    """Moves a parameter down by a learning rate a step; below -10.9 the loss is NaN."""

    def __init__(self, model, guide):
        super().__init__(model, guide)
        self.pulled = nn.Parameter(torch.zeros(()))

    def loss(self, batch):
        value, terms, carry = super().loss(batch)
        value = value + self.pulled + torch.where(self.pulled < -10.9, torch.nan, 0.0)
        return Loss(value, terms | {"objective": -value}, carry)


def pulled(rate=1.0, **settings):
    model, guide = pair("value")
    objective = Pulled(model, guide)

    def optimiser(parameters):
        others = [p for p in parameters if p is not objective.pulled]
        return SGD([{"params": [objective.pulled], "lr": rate}, {"params": others}], lr=1e-3)

    how = {"objective": objective, "optimiser": optimiser, "on_nonfinite": "rollback"}
    how |= {"batch_size": 3, "every": 4}
    return Training(model, guide, rows(marked=False), **how | settings)


def test_a_rollback_goes_on_from_the_last_row_with_half_the_rate(step):
    """Eight steps of 1, four of 1/2 and four of 1/4; the twelfth and fifteenth had failed."""
    training = pulled(step=step)
    history = training.run(16)
    back = [row for row in history if row["split"] == "nonfinite"]
    assert [(row["step"], row["done"], row["lost"]) for row in back] == [
        (8, "rollback", 4),
        (12, "rollback", 4),
    ]
    assert "objective" in back[0]["said"]
    assert "step 12 (batch 4 of pass 3" in back[0]["said"]
    assert training.objective.pulled.item() == -8 - 4 / 2 - 4 / 4
    assert rates_of(training.optimiser) == [0.25, 0.00025]
    assert [row["step"] for row in history if row["split"] == "train"] == [4, 8, 12, 16]


def test_a_training_goes_back_so_often_and_no_more():
    with pytest.raises(FloatingPointError, match="after 2 rollbacks but objective became NaN"):
        pulled(rate=100.0, rollbacks=2).run(20)
    training = pulled(rollbacks=0)
    with pytest.raises(FloatingPointError, match="after 0 rollbacks"):
        training.run(20)


def test_an_iterable_goes_on_with_its_next_batches():
    model, guide = pair("value")
    batches = list(rows().split(3))
    rates = {"on_nonfinite": "rollback", "rollbacks": 1, "every": 2, "optimiser": adam()}
    training = Training(model, guide, batches, size=N, **rates)
    history = training.run(4)
    assert [row["split"] for row in history] == ["train", "nonfinite", "train"]
    assert rates_of(training.optimiser) == [0.005]


@pytest.mark.parametrize("at", [5, 8, 9, 11, 14])
def test_a_training_that_is_resumed_goes_back_to_the_same_state(at):
    """Wherever it was interrupted: at a row, before a step fails, or after it was undone."""
    whole = pulled()
    whole.run(16)
    states, first = [], pulled()
    first.due = lambda: first.step == at
    first.pause = lambda: states.append((copy.deepcopy(first.state()), first.step))
    first.run(16)
    state = next(state for state, step in states if step == at)
    second = pulled()
    second.restore(state)
    second.run_to(16)
    assert same(everything(second), everything(whole))
    assert second.remedy.rollbacks == whole.remedy.rollbacks


def test_a_resumed_training_names_the_rows_of_earlier_passes():
    """The step that is skipped is before the interruption, two passes before the row."""
    how = {"on_nonfinite": "skip", "every": 12}
    whole, seen = begin(**how)
    first, _ = begin(**how)
    first.due, states = lambda: first.step == 6, []
    first.pause = lambda: states.append(copy.deepcopy(first.state()))
    expected = whole.run(12)[0]["said"]
    first.run(12)
    second, _ = begin(**how)
    second.restore(states[0])
    assert second.run_to(12)[0]["said"] == expected
    assert f"step {bad(seen)[0]} " in expected
    assert bad(seen)[0] <= 4


def test_a_state_that_is_not_finite_is_never_saved():
    training, saved = pulled(on_nonfinite="raise", every=40), []
    training.due = lambda: True
    training.pause = lambda: saved.append(training.objective.pulled.item())
    with pytest.raises(FloatingPointError, match="step 12 "):
        training.run(40)
    assert saved == [-1.0 - i for i in range(11)]


# Rates


SCHEDULES = {
    "none": lambda o: None,
    "step": lambda o: lr_scheduler.StepLR(o, 3, 0.5),
    "lambda": lambda o: lr_scheduler.LambdaLR(o, lambda t: 1 / (1 + t)),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, 20),
    "one cycle": lambda o: lr_scheduler.OneCycleLR(o, 1.0, total_steps=30),
    "cyclic": lambda o: lr_scheduler.CyclicLR(o, 0.1, 1.0, 5, cycle_momentum=False),
    "warm-up": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, 0.1, 1.0, 5), lr_scheduler.ExponentialLR(o, 0.9)], [5]
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("scaled_at", [2, 7])
def test_a_smaller_rate_stays_smaller_under_any_schedule(name, scaled_at):
    found = []
    for factor in (1.0, 0.25):
        optimiser = SGD([nn.Parameter(torch.zeros(()))], lr=1.0, momentum=0.9)
        schedule, rates = SCHEDULES[name](optimiser), []
        for t in range(20):
            if t == scaled_at:
                scale_rates(optimiser, schedule, factor)
            optimiser.step()
            rates += rates_of(optimiser)
            if schedule is not None:
                schedule.step()
        found.append(rates)
    usual, smaller = found
    assert smaller[:scaled_at] == usual[:scaled_at]
    expected = [0.25 * rate for rate in usual[scaled_at:]]
    assert smaller[scaled_at:] == pytest.approx(expected, rel=1e-9)


def test_a_resumed_training_takes_its_own_rate(zoo):
    """Where its schedule had come to, in proportion to the rates at the beginning."""
    x = rows(marked=False)
    how = {"schedule": lambda o: lr_scheduler.StepLR(o, 1, 0.1), "on_nonfinite": "skip"}
    first, _ = begin(x=x, optimiser=adam(0.01), **how)
    first.run(8)
    assert rates_of(first.optimiser) == pytest.approx([1e-4])
    for rate, expected in ((0.01, 1e-4), (0.005, 5e-5)):
        second, _ = begin(x=x, optimiser=adam(rate), clip=1.0, **how)
        second.restore(first.state())
        assert rates_of(second.optimiser) == pytest.approx([expected])
        second.run(4)
        assert rates_of(second.optimiser) == pytest.approx([expected / 10])
    third, _ = begin(x=x, optimiser=adam(0.0), **how)
    with pytest.raises(ValueError, match="rates above 0"):
        first.restore(third.state())


# The usual


def test_policies_change_nothing_where_all_is_finite(step):
    found = []
    for policy in ("raise", "skip", "rollback"):
        training, _ = begin(step=step, x=rows(marked=False), on_nonfinite=policy, clip=0.1)
        history = training.run(17)
        terms = [{k: v for k, v in row.items() if k != "seconds"} for row in history]
        found.append((everything(training), terms))
    assert all(same(one[0], found[0][0]) and one[1] == found[0][1] for one in found)


def test_other_policies_are_refused():
    for wrong in ({"on_nonfinite": "ignore"}, {"rollbacks": -1}, {"rollbacks": 1.5}):
        with pytest.raises(ValueError, match=r"Expected (on_nonfinite|rollbacks)"):
            begin(**wrong)


def test_a_copy_of_an_optimiser_of_several_parts_steps_by_itself():
    """Checks of a checkpoint let a copy take a step."""
    natural = Natural(torch.ones(2))
    own = ConjugateAdam([nn.Parameter(torch.ones(3)), natural], lr=0.1, rate=0.5)
    for group in copy.deepcopy(own).param_groups:
        assert all(p is not natural for p in group["params"])
    other = copy.deepcopy(own)
    for group in other.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.ones_like(parameter)
    other.step()
    changed = [bool((p != 1).all()) for group in other.param_groups for p in group["params"]]
    assert changed == [True, True]
    assert bool((natural == 1).all())
