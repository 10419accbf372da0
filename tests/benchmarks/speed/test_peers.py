"""The same pairs in JAX and NumPyro have the losses and take the steps of the zoo's."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def errors(*words):
    """What the program says of each, in a process of its own."""
    program = Path(__file__).with_name("beside_peers.py")
    command = [sys.executable, program, *words]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def check(found):
    for words, error in found.items():
        assert error["loss"] < 1e-12, words
        assert error.get("steps", 0) < 1e-9, words


def test_the_loss_of_the_gmvae_in_jax_is_ours():
    check(errors("loss gmvae"))


@pytest.mark.slow
def test_losses_of_numpyro_and_three_steps_in_jax_are_ours():
    check(errors("jax vae", "jax gmvae", "jax digits-factorial", "numpyro vae", "numpyro gmvae"))


@pytest.mark.slow
def test_convolutions_in_jax_are_ours():
    check(errors("jax factorial"))


@pytest.mark.slow
def test_both_are_timed():
    """Of ten steps in one call, and one more."""
    (found,) = errors("arms vae").values()
    assert list(found) == ["jax", "numpyro"]
