"""Checkpoints of others, or of a failing disk: whole, or refused in one line."""

import os

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.optim.lr_scheduler import StepLR

from priorzoo.guides import Code
from priorzoo.inference import Training
from priorzoo.inference.training.checkpoints import is_state, load_state, save_state
from priorzoo.inference.training.comparing import resume
from priorzoo.models import MLP, VAE

P, D, N = 6, 2, 20
STATE = {
    "numbers": torch.arange(12.0).reshape(3, 4),
    "inner": {1: torch.tensor(3.0), "none": torch.zeros(0, 3), "half": torch.ones(2).bfloat16()},
    "plain": [1, 2.5, None, True, "x", [torch.tensor([True])]],
}


def test_a_state_comes_back(tmp_path):
    save_state(tmp_path / "some", STATE)
    found = load_state(tmp_path / "some")
    assert is_state(tmp_path / "some")
    torch.testing.assert_close(found["inner"], STATE["inner"], rtol=0, atol=0)
    assert found["plain"][:5] == STATE["plain"][:5]


def test_every_flipped_bit_is_refused(tmp_path):
    """Every 31st bit of head and payload; without the checksum those of the payload pass."""
    save_state(tmp_path / "some", STATE)
    data = (tmp_path / "some").read_bytes()
    for bit in range(0, 8 * len(data), 31):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        (tmp_path / "some").write_bytes(flipped)
        with pytest.raises(ValueError, match="Expected"):
            load_state(tmp_path / "some")


def test_a_state_without_its_checksum_is_refused(tmp_path):
    save_state(tmp_path / "some", {"x": torch.ones(2)})
    tensors = load_file(tmp_path / "some")
    text = '{"format": %d, "state": {"items": [["x", {"tensor": "/x"}]]}}'
    for number, message in ((1, "older priorzoo"), (2, "checksum"), (9, "upgrade")):
        save_file(tensors, tmp_path / "some", {"state": text % number})
        with pytest.raises(ValueError, match=message):
            load_state(tmp_path / "some")


@pytest.mark.parametrize(
    "state",
    ["[" * 100_000, "3", "[]", '{"format": -1, "state": 1}', '{"format": "2", "state": 1}', "{"],
)
def test_a_state_that_is_none_is_refused(tmp_path, state):
    save_file({"x": torch.ones(2)}, tmp_path / "some", {"state": state})
    with pytest.raises(ValueError, match="Expected"):
        load_state(tmp_path / "some")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
def test_only_regular_files_are_opened(tmp_path, make):
    make(tmp_path / "some")
    assert not is_state(tmp_path / "some")
    with pytest.raises(ValueError, match="regular file"):
        load_state(tmp_path / "some")


# States of trainings


@pytest.fixture
def training():
    """A function that makes a training, with an optimiser that keeps moments, and a schedule."""
    x = torch.rand(N, P).round()

    def made():
        torch.manual_seed(0)
        pair = VAE(MLP(D, P, (3,)), code=D), Code(MLP(P, 2 * D, (3,)))
        schedule = {"schedule": lambda optimiser: StepLR(optimiser, 2)}
        return Training(*pair, x, batch_size=5, validation=x, patience=9, **schedule)

    return made


def change(state, path, value):
    *path, last = path
    for key in path:
        state = state[key]
    state[last] = value(state[last]) if callable(value) else value


CHANGES = {
    "step below zero": (["step"], -1),
    "step as text": (["step"], "3"),
    "seconds": (["seconds"], -1.0),
    "stopped": (["stopped"], 1),
    "a shape": (["objective", "model.decoder.layers.0.weight"], torch.ones(2, 2)),
    "a type": (["objective", "model.decoder.layers.0.weight"], lambda x: x.long()),
    "a name": (["objective"], lambda x: dict(list(x.items())[1:])),
    "NaN": (["objective", "model.decoder.layers.0.bias"], lambda x: x / 0 - x / 0),
    "infinite": (["optimiser", "state", 0, "exp_avg"], lambda x: x / 0),
    "moment": (["optimiser", "state", 0, "exp_avg"], torch.ones(7)),
    "parameter": (["optimiser", "state"], {99: {}}),
    "rate": (["optimiser", "param_groups", 0, "lr"], "fast"),
    "groups": (["optimiser", "param_groups"], []),
    "schedule": (["schedule"], {}),
    "no schedule": (["schedule"], None),
    "order": (["batches", "order"], torch.zeros(N, dtype=torch.int64)),
    "outside": (["batches", "order"], torch.arange(N) + 1),
    "place": (["batches", "place"], -1),
    "random": (["random"], lambda x: [x[0][:7]]),
    "random numbers": (["random"], lambda x: [torch.zeros_like(x[0])]),
    "clock": (["clock"], torch.ones(3)),
    "sums": (["sums", "sums"], torch.ones(9)),
    "count": (["sums", "count"], -3),
    "best": (["best"], [1.0, 2]),
    "best bound": (["best"], [float("nan"), 0, {}]),
    "best parameters": (["best", 2], {"x": torch.ones(1)}),
    "latest": (["latest"], {"x": torch.ones(1)}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_state_of_another_training_is_refused(training, tmp_path, name):
    """By a name, and before anything of the present one is changed."""
    first = training()
    first.run(6)
    save_state(tmp_path / "some", first.state())
    state = load_state(tmp_path / "some")
    change(state, *CHANGES[name])
    save_state(tmp_path / "some", state)
    with pytest.raises(ValueError, match=r"Expected .*some") as caught:
        resume(training(), load_state(tmp_path / "some"), tmp_path / "some")
    assert "\n" not in str(caught.value)


def test_a_state_of_the_same_training_goes_on(training, tmp_path):
    whole, first, second = training(), training(), training()
    whole.run(10)
    first.run(6)
    save_state(tmp_path / "some", first.state())
    resume(second, load_state(tmp_path / "some"), tmp_path / "some")
    second.run_to(10)
    torch.testing.assert_close(second.model.state_dict(), whole.model.state_dict(), rtol=0, atol=0)
