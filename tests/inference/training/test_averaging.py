"""The moving average of parameters: beside torch's own, a sum by hand, and across interruptions."""

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from priorzoo.guides import CodeThenCluster
from priorzoo.inference import Training, evaluate
from priorzoo.inference.training.averaging import MovingAverage
from priorzoo.inference.training.checkpoints import load_state, save_state
from priorzoo.inference.training.comparing import resume
from priorzoo.models import GMVAE, MLP

N, P, D = 50, 6, 2
STEPS = 14  # more than a pass


def trained(steps=0, **settings):
    torch.manual_seed(0)
    x = torch.rand(N, P).round()
    model = GMVAE(MLP(D, P, [4]), code=D, clusters=3)
    how = {"batch_size": 8, "every": 4, "validation": x[:9]}
    how["optimiser"] = lambda parameters: torch.optim.Adam(parameters, lr=0.02)
    training = Training(model, CodeThenCluster(MLP(P, 2 * D, [4]), model), x, **how | settings)
    if steps:
        training.run(steps)
    return training


def parameters(training):
    return [p.detach().clone() for p in training.objective.parameters()]


def path(steps, **settings):
    """The parameters after each step of a training without an average."""
    training = trained(**settings)
    found = []
    for _ in range(steps):
        training.run(1)
        found.append(parameters(training))
    return found


def same(one, other, **how):
    torch.testing.assert_close(one, other, **{"rtol": 0, "atol": 0} | how)


@pytest.mark.parametrize("step", ["eager", pytest.param("compiled", marks=pytest.mark.slow)])
def test_what_is_left_is_the_weighted_sum_of_the_parameters_after_each_step(double, step):
    """The weights of a small number of steps, then those of the decay, and never the draws."""
    training = trained(STEPS, average=0.4, step=step)
    every = path(STEPS)
    weights = [1.0]
    for t in range(1, STEPS):
        decay = min(0.4, t / (9 + t))
        weights = [decay * weight for weight in weights] + [1 - decay]
    assert sum(weights) == pytest.approx(1)
    expected = [
        sum(w * p for w, p in zip(weights, one, strict=True)) for one in zip(*every, strict=True)
    ]
    same(parameters(training), expected, rtol=1e-9, atol=1e-9)


def test_a_short_average_is_that_of_torch():
    """With a decay of 0.05 the first steps do not count less."""
    module = nn.Linear(3, 2)
    own, theirs = (
        MovingAverage(module, 0.05),
        AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(0.05)),
    )
    for _ in range(5):
        with torch.no_grad():
            module.weight.add_(torch.randn(2, 3))
        own.take()
        theirs.update_parameters(module)
    with own.in_place():
        same(list(module.parameters()), list(theirs.module.parameters()))


def test_training_itself_does_not_see_the_average():
    """Neither its steps nor those after a row or a call of run: only what is evaluated differs."""
    averaged, plain = trained(average=0.9), trained()
    for steps in (5, 4):
        averaged.run(steps)
        plain.run(steps)
        rows = [
            [row["elbo"] for row in each.history if row["split"] == "train"]
            for each in (averaged, plain)
        ]
        assert rows[0] == rows[1]
    assert averaged.history != plain.history
    same(list(averaged.leaving.latest.values()), list(plain.objective.state_dict().values()))


def test_held_out_rows_are_scored_with_the_averages_and_the_best_are_kept():
    training = trained(12, average=0.8, patience=9)
    rows = [row["elbo"] for row in training.history if row["split"] == "valid"]
    terms = evaluate(training.model, training.guide, training.validation.x, seed=training.seed)
    assert terms["elbo"] == pytest.approx(max(rows))


@pytest.mark.parametrize("first", ["6", "8", "end"])
def test_a_training_that_goes_on_has_the_same_averages_to_the_bit(tmp_path, first):
    """Broken off at a row of the history, between two, or after the end."""
    whole, broken = trained(STEPS, average=0.9), trained(average=0.9, due=lambda: True)
    broken.pause = lambda: save_state(tmp_path / str(broken.step), broken.state())
    broken.run(STEPS)
    save_state(tmp_path / "end", broken.state())
    state = tmp_path / first
    again = trained(average=0.9)
    resume(again, load_state(state), state)
    for last in (STEPS, STEPS + 3):
        for each in (again, whole):
            each.run_to(last)
        same(parameters(again), parameters(whole))


@pytest.mark.parametrize("wrong", [{"steps": -1}, {"values": {}}, {"steps": 0}, {"more": 1}])
def test_averages_of_another_training_are_refused(tmp_path, wrong):
    state = trained(5, average=0.9).state()
    state["average"] = state["average"] | wrong
    save_state(tmp_path / "some", state)
    with pytest.raises(ValueError, match=r"Expected .*average.*some|average.*some"):
        resume(trained(average=0.9), load_state(tmp_path / "some"), tmp_path / "some")


def test_an_average_begins_anew_where_parameters_were_moved():
    """It is not between the places of a component before and after."""
    training = trained(6, average=0.9)
    training.run_to(7)
    moved = trained(6, average=0.9)
    moved.moved()
    moved.run_to(7)
    same(parameters(moved), path(7)[-1])
    assert not torch.equal(parameters(moved)[0], parameters(training)[0])


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("settings", [{"average": 0.9}, {"patience": 9}])
def test_a_training_goes_on_from_parameters_that_were_moved_between_two_calls(settings, told):
    """Where the averages or the best were in place, the latest are not put back over the moved."""
    training = trained(8, optimiser=lambda p: torch.optim.SGD(p, lr=0.0), **settings)
    assert training.leaving.latest
    with torch.no_grad():
        training.model.loc.add_(1.0)
    before, seen = parameters(training), []
    training.pause = lambda: seen.append(parameters(training))
    if told:
        training.moved()
    training.run(1)
    same(seen[-1], before)


@pytest.mark.parametrize("average", [0.0, 1.0, 2.0, float("nan")])
def test_averages_of_nothing_are_refused(average):
    with pytest.raises(ValueError, match="Expected an average between 0 and 1"):
        trained(average=average)
