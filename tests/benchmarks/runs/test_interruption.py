"""Signals: a checkpoint soon, one line, the right status, and a run that goes on bit-equal."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from priorzoo.benchmarks.papers import RECIPES
from priorzoo.benchmarks.recipes.recipe import part
from priorzoo.benchmarks.runs import interruption, keeping, reading
from priorzoo.benchmarks.runs import run as runs
from priorzoo.benchmarks.runs.interruption import Deferred, handling, holding_back
from priorzoo.cli import main as cli
from priorzoo.inference.training import loop
from priorzoo.inference.training.checkpoints import load_state
from priorzoo.inference.training.execution import Steps
from priorzoo.models import MLP

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
RECIPE = replace(
    RECIPES["digits-gmvae"],
    encoder=part(MLP, hidden=[8]),
    decoder=part(MLP, hidden=[8]),
    train=300,
    validation=50,
    steps=12,
    every=6,
)
WORDS = ["train", "digits-vae", "--encoder.hidden", "[8]", "--decoder.hidden", "[8]"]


def train(folder, recipe=RECIPE, **how):
    run, _ = runs.train("x", recipe, folder, device="cpu", **how)
    history = [{k: v for k, v in row.items() if k != "seconds"} for row in run.history]
    return (folder / "model.safetensors").read_bytes(), history, run.result["terms"]


@pytest.fixture(autouse=True)
def signals_of_a_terminal():
    """Python's own handlers: tests in the background ignore SIGINT, and under nohup SIGHUP."""
    own = [signal.default_int_handler, signal.SIG_DFL, signal.SIG_DFL]
    before = [signal.signal(*pair) for pair in zip(SIGNALS, own, strict=True)]
    yield
    for number, handler in zip(SIGNALS, before, strict=True):
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return train(tmp_path_factory.mktemp("whole") / "run")


def at_step(monkeypatch, step, act):
    """Act in the midst of a step."""
    taken = []
    take = Steps.__call__

    def count(self):
        take(self)
        taken.append(None)
        if len(taken) == step:
            act()

    monkeypatch.setattr(Steps, "__call__", count)
    return taken


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("step", [1, 4, 6, 11, 12])
def test_a_signal_loses_no_step(number, step, whole, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    before = [signal.getsignal(one) for one in SIGNALS]
    with monkeypatch.context() as patched:
        taken = at_step(patched, step, lambda: os.kill(os.getpid(), number))
        with pytest.raises(KeyboardInterrupt) as caught:
            train(folder)
    assert caught.value.args == (number,)
    assert [signal.getsignal(one) for one in SIGNALS] == before
    assert load_state(folder / "checkpoint.safetensors")["training"]["step"] == len(taken) == step
    with monkeypatch.context() as patched:
        taken = at_step(patched, 0, lambda: None)
        assert train(folder, resume=True) == whole
    assert len(taken) == 12 - step


@pytest.mark.parametrize("grace", [0.1, 30.0])
def test_a_signal_in_a_long_validation_loses_no_step(grace, whole, tmp_path, monkeypatch):
    """It may end within the time of grace, or is broken off and done again."""
    folder, ended = tmp_path / "run", []
    evaluate = loop.evaluate

    def be_long(*given, **how):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.5)
        ended.append(None)
        return evaluate(*given, **how)

    with monkeypatch.context() as patched:
        patched.setattr(interruption, "GRACE", grace)
        patched.setattr(loop, "evaluate", be_long)
        begun = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            train(folder)
        assert time.monotonic() - begun < 25
    assert len(ended) == (grace > 1)
    state = load_state(folder / "checkpoint.safetensors")
    assert state["training"]["step"] == 6
    assert state["rows"] == (2 if ended else 0)
    assert train(folder, resume=True) == whole


def test_a_second_ctrl_c_ends_at_once(tmp_path, monkeypatch):
    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("the second did not end the step")

    at_step(monkeypatch, 8, twice)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run")
    assert load_state(tmp_path / "run" / "checkpoint.safetensors")["training"]["step"] == 6


def test_a_signal_that_is_ignored_stays_ignored():
    """As SIGHUP is under nohup, and SIGINT in a background job of a shell."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with handling(), Deferred() as deferred:
            os.kill(os.getpid(), signal.SIGHUP)
            assert deferred.wanted is None
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_process_that_is_started_leaves_ctrl_c_to_its_parent():
    """Also while it imports: both are in the group that a terminal sends SIGINT to."""
    program = "import os, signal; os.kill(os.getpid(), signal.SIGINT); print('alive')"
    with holding_back():
        child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert child.stdout == "alive\n"
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()


def test_a_full_disk_at_a_signal_leaves_the_handlers_as_they_were(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    before = [signal.getsignal(one) for one in SIGNALS]
    at_step(monkeypatch, 8, lambda: os.kill(os.getpid(), signal.SIGINT))
    save = keeping.Checkpoints.save
    saved = []
    monkeypatch.setattr(
        keeping.Checkpoints,
        "save",
        lambda s, p: full() if len(saved) > 1 else saved.append(save(s, p)),
    )
    with pytest.raises(OSError, match="No space"):
        train(tmp_path / "run")
    assert [signal.getsignal(one) for one in SIGNALS] == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_the_command_says_in_one_line_how_to_go_on(tmp_path):
    """A real process; its status is 128 + the signal, and what it says can be typed."""
    out, number = tmp_path / "a run", signal.SIGTERM
    words = [*WORDS, "--steps", "1000000", "--every", "1000000", "--out", str(out)]
    command = [sys.executable, "-m", "priorzoo", *words]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (out / "checkpoint.safetensors").is_file() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1)
    begun = time.monotonic()
    process.send_signal(number)
    said = process.communicate(timeout=60)
    assert time.monotonic() - begun < 10
    assert process.returncode == 128 + number
    (line,) = said[1].splitlines()
    assert f"stopped by {number.name}; go on with: priorzoo train digits-vae" in line
    state = load_state(out / "checkpoint.safetensors")
    assert state["training"]["step"] > 0
    again = shlex.split(line.partition("go on with: ")[2])
    assert again[1:] == [*words, "--resume"]
    assert not (out / "run.lock").exists()


def test_a_signal_before_the_first_step_says_that_nothing_was_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(reading, "read_data", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
    assert cli.main([*WORDS, "--out", str(tmp_path / "run")]) == 128 + signal.SIGTERM
    said = capsys.readouterr().err
    assert said == "priorzoo train: stopped by SIGTERM; nothing had been kept; start it again\n"


def test_a_signal_while_scoring_keeps_the_training(tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patched:
        patched.setattr(runs, "score", lambda *_, **__: os.kill(os.getpid(), signal.SIGINT))
        words = [*WORDS, "--steps", "3", "--out", str(tmp_path / "run")]
        assert cli.main(words) == 128 + signal.SIGINT
    assert re.search(r"stopped by SIGINT; go on with: .* --resume\n$", capsys.readouterr().err)
    monkeypatch.setattr(Steps, "__call__", lambda self: pytest.fail("a step was taken again"))
    assert cli.main([*words, "--resume"]) == 0
