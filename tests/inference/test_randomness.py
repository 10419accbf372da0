"""Random states of the CPU and of GPUs that are not there."""

import pytest
import torch

from priorzoo.inference.randomness import Stream, random_states, set_random_states


@pytest.fixture
def mac(monkeypatch):
    """The GPU of a Mac as torch shows it: one random state, and none for each device."""
    held = {"state": torch.tensor([1, 2], dtype=torch.uint8)}
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda: held["state"].clone())
    monkeypatch.setattr(torch.mps, "set_rng_state", lambda state: held.update(state=state))
    return held


def test_a_random_state_is_that_of_the_cpu_and_of_each_gpu(mac):
    devices = [torch.device("cpu"), torch.device("mps")]
    states = random_states(devices)
    drawn = torch.rand(3)
    mac["state"] = torch.tensor([9, 9], dtype=torch.uint8)
    set_random_states(states, devices)
    assert torch.equal(torch.rand(3), drawn)
    assert mac["state"].tolist() == [1, 2]
    assert len(random_states([torch.device("cpu")])) == 1


def test_a_stream_replaces_the_state_of_its_gpu_and_gives_it_back(mac, monkeypatch):
    stream = Stream(0)
    stream.device = torch.device("mps")
    stream.state = [stream.state[0], torch.tensor([7, 7], dtype=torch.uint8)]
    with stream:
        assert mac["state"].tolist() == [7, 7]
        mac["state"] = torch.tensor([8, 8], dtype=torch.uint8)
    assert mac["state"].tolist() == [1, 2]
    with stream:
        assert mac["state"].tolist() == [8, 8]
