"""Schedules by the step and by the validation bound, stopped in the middle and taken up again."""

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR, ReduceLROnPlateau

from priorzoo.guides import Code
from priorzoo.inference import Training
from priorzoo.inference.training.checkpoints import load_state, save_state
from priorzoo.models import MLP, VAE

P, D, STEPS = 5, 2, 12


def one_cycle(optimiser):
    return OneCycleLR(optimiser, max_lr=0.05, total_steps=STEPS)


def warm_up(optimiser):
    return LambdaLR(optimiser, lambda step: min(1.0, (step + 1) / 8))


def plateau(optimiser):
    """A bound must rise by two nats, so that this one soon gives up."""
    return ReduceLROnPlateau(optimiser, factor=0.5, patience=1, threshold=2, threshold_mode="abs")


def training(schedule, **settings):
    torch.manual_seed(0)
    pair = VAE(MLP(D, P, (6,)), code=D), Code(MLP(P, 2 * D, (6,)))
    x = torch.rand(20, P).round()
    rates = []
    unit = "epoch" if schedule is plateau else "step"
    made = Training(
        *pair,
        x,
        optimiser=lambda parameters: torch.optim.Adam(parameters, lr=0.02),
        schedule=schedule,
        schedule_unit=unit,
        batch_size=8,
        every=2,
        validation=x[:7] if schedule is plateau else None,
        record=lambda row: rates.append((row["step"], made.optimiser.param_groups[0]["lr"])),
        **settings,
    )
    return made, rates


def ended(one):
    """All that a training has come to, but the time that it took."""
    numbers = [one.objective.state_dict(), one.optimiser.state_dict()["state"]]
    return numbers, one.optimiser.param_groups[0]["lr"], one.stream.state


def in_memory(state, _):
    return state


def on_disk(state, folder):
    save_state(folder / "state.safetensors", state)
    return load_state(folder / "state.safetensors")


class KilledError(Exception):
    pass


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize("step", ["eager", "compiled"])
@pytest.mark.parametrize("schedule", [one_cycle, warm_up, plateau])
def test_a_training_taken_up_again_is_the_one_without_a_break(schedule, step, tmp_path):
    """Stopped in the middle of a pass: by a portion's end, with the state kept in memory, or by a
    kill, with the state in a file.
    """
    whole, rates = training(schedule, step=step)
    whole.run(STEPS)
    for killed in (False, True):
        first, before = training(schedule, step=step)
        first.checkpoint = stop_at(first, 8) if killed else None
        if killed:
            with pytest.raises(KilledError):
                first.run(STEPS)
        else:
            first.run(8)
        second, after = training(schedule, step=step)
        second.restore((on_disk if killed else in_memory)(first.state(), tmp_path))
        second.run(STEPS - 8)
        torch.testing.assert_close(ended(second), ended(whole), rtol=0, atol=0)
        assert before + after == rates
        bounds = [
            [(row["step"], row["split"], row["elbo"]) for row in rows]
            for rows in (first.history + second.history, whole.history)
        ]
        assert bounds[0] == bounds[1]


def stop_at(one, step):
    def checkpoint():
        if one.step == step:
            raise KilledError

    return checkpoint


def test_the_rates_are_those_of_the_schedules():
    """Read after every second step: warm-up by its formula, one-cycle by torch alone; the plateau
    halves where two rows in a row were no better by the threshold.
    """
    made, rates = training(warm_up)
    made.run(STEPS)
    expected = [(s, 0.02 * min(1, (s + 1) / 8)) for s in range(2, 13, 2)]
    torch.testing.assert_close(torch.tensor(rates), torch.tensor(expected))
    made, rates = training(one_cycle)
    made.run(STEPS - 1)
    alone = torch.optim.Adam([torch.nn.Parameter(torch.zeros(()))], lr=0.02)
    schedule, expected = one_cycle(alone), []
    for step in range(1, STEPS):
        alone.step()
        schedule.step()
        expected.append((step, alone.param_groups[0]["lr"]))
    torch.testing.assert_close(torch.tensor(rates[:-1]), torch.tensor(expected[1::2]))
    made, rates = training(plateau)
    made.run(STEPS)
    alone = torch.optim.Adam([torch.nn.Parameter(torch.zeros(()))], lr=0.02)
    schedule = plateau(alone)
    for row in made.history:
        if row["split"] == "valid":
            schedule.step(-row["elbo"])
    assert made.optimiser.param_groups[0]["lr"] == alone.param_groups[0]["lr"] < 0.02


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"schedule_unit": "batch"}, "schedule_unit among"),
        ({"schedule": lambda o: ReduceLROnPlateau(o)}, "validation rows with ReduceLROnPlateau"),
    ],
)
def test_what_cannot_be_followed_is_refused(settings, message):
    x, pair = torch.rand(20, P).round(), (VAE(MLP(D, P, ()), code=D), Code(MLP(P, 2 * D, ())))
    with pytest.raises(ValueError, match=message):
        Training(*pair, x, **settings)
