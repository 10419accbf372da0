"""Processes that share each batch: their training is that of one process, and they end together."""

import json
import math
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from priorzoo.inference import processes as processes_
from priorzoo.inference.batch import Batch
from priorzoo.inference.processes import ALONE, joined
from priorzoo.inference.shares import Share
from priorzoo.inference.training.execution import choose
from priorzoo.inference.whole_draws import WholeDraws

SCRIPT = Path(__file__).with_name("together.py")
spec = spec_from_file_location("together", SCRIPT)
together = module_from_spec(spec)
spec.loader.exec_module(together)
STEPS = 1_500  # of a training that is broken off
ISSUED = ["gmvae", "factorial", "nggp", "nonparametric", "m2+labels"]


def free_port():
    """A port below those of outgoing connections, which could take it meanwhile."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as free, suppress(OSError):
            free.bind(("127.0.0.1", port))
            return port


def begin(count, command, **streams):
    """A command in so many processes, which find each other as under torchrun."""
    port = free_port()
    told = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    started = []
    for rank in range(count):
        own = os.environ | told | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        own["OMP_NUM_THREADS"] = "1"
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen([sys.executable, *command], env=own, **streams))
    return started


def trained(tmp_path, kind, names, count=2):
    """What processes of each of these trainings have in the end, the first of them first."""
    started = begin(count, [SCRIPT, tmp_path / "shared", kind, *names])
    for process in started:
        _, said = process.communicate(timeout=570)
        assert process.returncode == 0, said
    files = (tmp_path / f"shared-{rank}.pt" for rank in range(count))
    return [torch.load(file, weights_only=False) for file in files]


def assert_same(one, many, held=True):
    """Parameters to 1e-9; terms to the accuracy of the quadratures in some of them."""
    for each in many:
        torch.testing.assert_close(dict(each["state"]), dict(one["state"]), rtol=0, atol=1e-9)
    for each in many if held else many[:1]:  # the first alone has metrics in its history
        for row, expected in zip(each["history"], one["history"], strict=True):
            assert row.keys() == expected.keys()
            for name, value in expected.items():
                said = value is None or isinstance(value, str)
                assert row[name] == (value if said else pytest.approx(value, 1e-6))
    for each in many[1:]:
        for name, value in each["state"].items():
            assert torch.equal(value, many[0]["state"][name]), name
    if held:
        torch.testing.assert_close(many[0]["held"], one["held"], rtol=1e-6, atol=1e-6)
        assert all(map(torch.equal, many[0]["random"], one["random"]))


@pytest.fixture
def _one_thread(double):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("_one_thread")
def test_two_processes_of_half_a_batch_take_the_steps_of_one_with_the_whole(tmp_path):
    """For a few steps; the slow tests take 50 with all pairs."""
    found = trained(tmp_path, "few", ISSUED)
    for name in ISSUED:
        one = together.result(together.train(name, steps=together.FEW))
        assert_same(one, [each[name] for each in found])


@pytest.mark.slow
@pytest.mark.usefixtures("_one_thread")
@pytest.mark.parametrize(("count", "kind"), [(2, "eager"), (3, "eager"), (2, "adam")])
def test_so_do_all_pairs_of_the_catalogue(count, kind, tmp_path):
    names, how = [*together.catalogue(), "m2+labels"], {}
    if kind == "adam":
        how["optimiser"] = together.ADAM
    found = trained(tmp_path, kind, names, count)
    for name in names:
        assert_same(together.result(together.train(name, **how)), [each[name] for each in found])


@pytest.mark.slow
@pytest.mark.usefixtures("_one_thread")
def test_so_do_compiled_steps(tmp_path):
    found = trained(tmp_path, "compiled", ISSUED)
    for name in ISSUED:
        one = together.result(together.train(name, step="compiled"))
        assert_same(one, [each[name] for each in found])


@pytest.mark.slow
@pytest.mark.usefixtures("_one_thread")
def test_so_do_recipes_with_moves_stages_and_starts(tmp_path):
    names = ["moves", "stages", "starts", "memory", "average", "labels"]
    found = trained(tmp_path, "recipes", names)
    for name in names:
        one = together.train_recipe(name, tmp_path / "one")
        assert_same(one, [each[name] for each in found], held=False)
        told = found[0][name]["result"]
        assert told["processes"] == 2
        assert "processes" not in one["result"]
        torch.testing.assert_close(told["terms"], one["result"]["terms"], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(told["metrics"], one["result"]["metrics"], rtol=0, atol=1e-6)
        files = [
            sorted(p.name for p in (tmp_path / of / name).iterdir()) for of in ("one", "shared")
        ]
        assert files[0] == files[1]


@pytest.mark.parametrize(("whole", "count"), [(100, 2), (7, 3), (1, 2), (2, 4), (99, 4)])
def test_shares_are_even_and_add_up_to_the_batch(whole, count):
    shares = [Share.of(whole, rank, count, "") for rank in range(count)]
    rows = torch.arange(whole)
    own = [share.own(rows)[: share.count] for share in shares]
    assert torch.equal(torch.cat(own), rows)
    assert math.isclose(sum(share.weight for share in shares), 1)
    counts = [share.count for share in shares]
    assert max(counts) - min(counts) <= 1
    batch = Batch(torch.randn(whole, 3), 500, {"y": rows}, {"exposure": rows / 2})
    for share in shares:
        part = batch.part(share)
        assert (len(part.x), part.rows, part.data) == (max(share.count, 1), whole, 500)
        assert torch.equal(part.labels["y"], share.own(rows))
        assert part.layout != batch.layout


DRAWS = {
    "rsample": lambda x: torch.distributions.Normal(x, x.exp()).rsample(),
    "rand": lambda x: torch.rand(x.shape),
    "randn of numbers": lambda x: torch.randn(*x.shape, 2),
    "rand_like": torch.rand_like,
    "randint": lambda x: torch.randint(0, 9, x.shape),
    "normal of a size": lambda x: torch.normal(0.0, 1.0, x.shape),
    "exponential": lambda x: torch.empty_like(x).exponential_(),
    "bernoulli": lambda x: torch.bernoulli(x.sigmoid()),
    "bernoulli in place": lambda x: torch.empty_like(x).bernoulli_(x.sigmoid()),
    "normal": lambda x: torch.normal(x, x.exp()),
    "gamma": lambda x: torch._standard_gamma(x.exp()),
    "poisson": lambda x: torch.poisson(x.exp()),
    "categorical": lambda x: torch.distributions.Categorical(logits=x).sample(),
    "dropout": lambda x: functional.dropout(x, 0.3, True),
    "dropout of channels": lambda x: functional.dropout1d(x.unsqueeze(0), 0.3, True)[0],
    "module": lambda x: nn.Dropout(0.3)(x),
}


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize(("whole", "count"), [(10, 2), (7, 2), (1, 2)])
def test_draws_of_all_shares_are_those_of_the_batch(name, whole, count, monkeypatch):
    x, draw = torch.randn(whole, 11), DRAWS[name]
    torch.manual_seed(5)
    expected, after = draw(x), torch.get_rng_state()
    monkeypatch.setattr(Share, "every", lambda share, values, dim=0: x_of(values, x))
    found = []
    for rank in range(count):
        share = Share.of(whole, rank, count, "")
        torch.manual_seed(5)
        with WholeDraws(share):
            found.append(draw(share.own(x))[: share.count])
        assert torch.equal(torch.get_rng_state(), after)
    torch.testing.assert_close(torch.cat(found), expected, rtol=0, atol=0)


def x_of(values, x):
    """The parameters of all rows, as processes would tell each other: a function of x by row."""
    for function in (lambda v: v, torch.sigmoid, torch.exp, lambda v: v.softmax(-1)):
        for whole in (function(x), function(x).unsqueeze(0)):
            fits = whole.dim() == values.dim()
            if fits and any(torch.allclose(values[..., :1, :], w) for w in whole.split(1, -2)):
                return whole
    raise AssertionError(values)


def test_processes_are_not_captured_and_one_alone_shares_nothing():
    assert choose("auto", torch.device("cuda"), True, True) == "compiled"
    with pytest.raises(ValueError, match="Expected one process for step='cudagraph'"):
        choose("cudagraph", torch.device("cuda"), True, True)
    assert ALONE.share(5) is None
    assert ALONE.most(3, 0) == [3, 0]
    assert ALONE.by_first(lambda: 7) == 7


def test_a_lost_process_is_told_in_one_line(monkeypatch):
    for name, value in {"WORLD_SIZE": "2", "RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    calls = {"init_process_group": None, "get_rank": 1, "get_world_size": 2, "barrier": None}
    for name, value in calls.items():
        monkeypatch.setattr(processes_.distributed, name, lambda *_, v=value, **__: v)
    monkeypatch.setattr(processes_.distributed, "destroy_process_group", lambda: None)
    world = type("World", (), {"WORLD": type("Group", (), {"group_name": "0"})})
    monkeypatch.setattr(processes_.distributed, "group", world)
    lost = "[gloo/transport/tcp/pair.cc:538] Connection closed by peer [127.0.0.1]:1\nTrace"
    with (
        pytest.raises(ConnectionError, match=r"process 1 has lost another \(.*peer.*\)\.$"),
        joined(),
    ):
        raise RuntimeError(lost)
    with pytest.raises(RuntimeError, match="mat1 and mat2"), joined():
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    with pytest.raises(SystemExit) as stop, joined():
        raise KeyboardInterrupt(signal.SIGTERM)
    assert stop.value.code == 128 + signal.SIGTERM


TINY = ["--encoder.hidden", "[8]", "--decoder.hidden", "[8]", "--train", "200"]
TINY += ["--steps", str(STEPS), "--every", "100"]
TRAIN = ["-m", "priorzoo", "train", "digits-gmvae", *TINY, "--device", "cpu", "--out"]


def wait_for_rows(folder, started, rows=4):
    deadline, path = time.monotonic() + 240, folder / "history.jsonl"
    while not path.is_file() or path.read_text().count("\n") < rows:
        assert all(each.poll() is None for each in started), [e.communicate() for e in started]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def assert_finished(folder, count):
    started = begin(count, [*TRAIN, str(folder), "--resume"])
    for each in started:
        _, said = each.communicate(timeout=400)
        assert each.returncode == 0, said
    result = json.loads((folder / "result.json").read_text())
    assert result["steps"] == STEPS
    assert result.get("processes", 1) == count
    rows = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    steps = [row["step"] for row in rows if row["split"] == "train"]
    assert steps == list(range(100, STEPS + 1, 100))
    assert not list(folder.glob("checkpoint*"))
    return [row["elbo"] for row in rows if row["split"] == "valid"][-1]


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_other_and_one_or_two_go_on(victim, tmp_path):
    folder = tmp_path / "run"
    started = begin(2, [*TRAIN, str(folder)])
    wait_for_rows(folder, started)
    started[victim].kill()
    killed, other = time.monotonic(), started[1 - victim]
    _, said = other.communicate(timeout=60)
    started[victim].communicate()
    assert time.monotonic() - killed < 10
    assert other.returncode == 2
    (line,) = [line for line in said.splitlines() if line.startswith("priorzoo train")]
    assert re.search(rf"process {1 - victim} has lost another .* go on with: priorzoo train", line)
    assert (folder / "checkpoint.safetensors").is_file()
    shutil.copytree(folder, tmp_path / "copy")
    bounds = [assert_finished(folder, 1), assert_finished(tmp_path / "copy", 2)]
    assert math.isclose(*bounds, rel_tol=0.02)  # float32: they part by rounding


@pytest.mark.slow
def test_a_signal_to_one_process_ends_all_at_the_same_step(tmp_path):
    folder = tmp_path / "run"
    started = begin(2, [*TRAIN, str(folder)])
    wait_for_rows(folder, started)
    started[1].send_signal(signal.SIGTERM)
    said = [each.communicate(timeout=60)[1] for each in started]
    assert [each.returncode for each in started] == [128 + signal.SIGTERM] * 2
    assert "stopped by SIGTERM; go on with" in said[0]
    assert "stopped" not in said[1]
    assert_finished(folder, 2)


@pytest.mark.slow
def test_an_error_of_the_first_ends_all_with_one_line(tmp_path):
    (tmp_path / "letter.txt").touch()
    started = begin(2, [*TRAIN, str(tmp_path)])
    said = [each.communicate(timeout=120)[1] for each in started]
    assert [each.returncode for each in started] == [2, 2]
    assert "holds other files" in said[0]
    assert "error" not in said[1]
