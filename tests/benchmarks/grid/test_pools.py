"""Where the workers of a grid run: what each pool must do, and Ray beside the processes."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace

import pytest

from priorzoo.benchmarks.grid import runner as grid
from priorzoo.benchmarks.grid.cells import Cell
from priorzoo.benchmarks.grid.on_ray import Ray
from priorzoo.benchmarks.rows.files import read_rows
from priorzoo.cli import main as cli

TINY = {"encoder.hidden": [8], "decoder.hidden": [8], "train": 200, "validation": 0}
CELLS = [Cell("digits-vae", seed, changes={**TINY, "steps": 4}) for seed in range(3)]


class InOrder:
    """A pool without processes: each cell is asked for once more, and the second fails."""

    def __init__(self):
        self.started, self.most, self.closed = [], 0, False

    @contextmanager
    def open(self, place, jobs):
        self.place, self.jobs, self.cells = place, jobs, []
        yield self
        self.closed = True

    @property
    def room(self):
        return self.jobs is None or len(self.cells) < self.jobs

    @property
    def running(self):
        return len(self.cells)

    def start(self, cell):
        self.cells.append(cell)
        self.started.append(cell.seed)
        self.most = max(self.most, len(self.cells))

    def ended(self, seconds):
        if self.cells:
            cell = self.cells.pop(0)
            row = {"recipe": cell.recipe, "seed": cell.seed, "steps": 4, **cell.origin()}
            again = self.started.count(cell.seed) == 1
            made = cell.failure("broke") if cell.seed == 1 else row
            yield cell, None if again else made


@pytest.mark.parametrize("jobs", [None, 1, 2])
def test_a_grid_takes_what_its_pool_makes(jobs, tmp_path):
    pool = InOrder()
    given = {"jobs": jobs, "progress": False, "root": "data", "device": "cpu", "pool": pool}
    assert grid.run_grid(CELLS, tmp_path, **given) == (3, 1)
    assert Counter(pool.started) == {0: 2, 1: 2, 2: 2}
    assert pool.most == (jobs or 3)
    assert pool.closed
    assert (pool.place.out, pool.place.root, pool.place.device) == (tmp_path, "data", "cpu")
    assert [row["seed"] for row in read_rows(tmp_path / "rows.jsonl")] in ([0, 2], [2, 0])
    assert [row["seed"] for row in read_rows(tmp_path / "failures.jsonl")] == [1]
    assert grid.run_grid([CELLS[0]], tmp_path, **given) == (0, 0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--cpus", "2"], "Expected --cpus with --runner ray alone"),
        (["--gpus", "0.5"], "Expected --gpus with --runner ray alone"),
        (["--address", "auto"], "Expected --address with --runner ray alone"),
        (["--runner", "ray", "--cpus", "0"], "at least one CPU"),
        (["--runner", "ray", "--gpus", "-1"], "no negative number of GPUs"),
        (["--runner", "slurm"], "invalid choice: 'slurm'"),
    ],
)
def test_settings_of_ray_are_checked_before_anything_is_written(words, message, tmp_path, capsys):
    out = tmp_path / "out"
    assert cli.main(["bench", "digits-vae", *words, "--out", str(out)]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_a_cell_that_no_node_has_room_for_is_refused():
    nodes = [{"Alive": True, "Resources": {"CPU": 8.0}}]
    nodes += [{"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}}]
    Ray(cpus=8)._check_nodes(nodes)
    for pool in (Ray(cpus=9), Ray(gpus=0.5)):
        with pytest.raises(ValueError, match="the largest have 8 and 0; give smaller"):
            pool._check_nodes(nodes)


def test_a_cluster_that_is_not_there_is_told_in_one_line(tmp_path, capsys):
    """Without the minutes that Ray would try for."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["bench", "digits-vae", "--runner", "ray", "--out", str(tmp_path)]
    assert cli.main([*words, "--address", f"127.0.0.1:{port}"]) == 2
    said = capsys.readouterr().err.strip()
    assert said.count("\n") == 0
    assert f"Expected a Ray cluster at 127.0.0.1:{port} but found none" in said


def without_time(out):
    rows = read_rows(out / "rows.jsonl")
    drop = ("seconds", "peak_mib")
    return {row["seed"]: {k: v for k, v in row.items() if k not in drop} for row in rows}


def files(out):
    return {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_rows_on_ray_are_those_of_processes_and_a_killed_worker_loses_none(tmp_path):
    cells = [replace(cell, changes={**cell.changes, "steps": 600, "every": 50}) for cell in CELLS]
    cells.append(Cell("digits-vae", 0, changes={**TINY, "data": "no-such-file.npz"}))
    assert grid.run_grid(cells, tmp_path / "processes", jobs=2, progress=False) == (4, 1)
    out = tmp_path / "ray"
    words = ["digits-vae", "--runner", "ray", "--seeds", "0:3", "--budget", "standard"]
    sets = [f"{name}={json.dumps(value)}" for name, value in cells[0].changes.items()]
    command = [sys.executable, "-m", "priorzoo", "bench", *words, "--out", str(out), "--set", *sets]
    runner = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline, killed = time.monotonic() + 900, None
    while killed is None:  # the first worker that has a checkpoint beyond its first step
        assert runner.poll() is None, runner.communicate()
        assert time.monotonic() < deadline
        for history in out.glob("runs/*/history.jsonl"):
            lock = history.parent.with_suffix(".lock")
            if history.read_text().count("\n") > 2 and lock.is_file():
                killed = int(re.match(r"process (\d+)", lock.read_text())[1])
        time.sleep(0.02)
    os.kill(killed, signal.SIGKILL)
    said = runner.communicate(timeout=900)  # much longer than it takes on an idle machine
    assert runner.returncode == 0, said
    assert "3 of 3 cells have a row" in said[0]
    assert "3 were run" in said[0]
    rows = read_rows(out / "rows.jsonl")
    assert Counter(row["seed"] for row in rows) == {0: 1, 1: 1, 2: 1}
    assert without_time(out) == without_time(tmp_path / "processes")
    assert files(out) == files(tmp_path / "processes") - {"failures.jsonl"} - {
        f"runs/{cells[3].name}.json"
    }


@pytest.mark.slow
def test_a_signal_ends_a_grid_on_ray_with_a_checkpoint_of_each_cell(tmp_path):
    out = tmp_path / "out"
    sets = [f"{name}={json.dumps(value)}" for name, value in TINY.items()]
    words = ["digits-vae", "--runner", "ray", "--seeds", "0:2", "--out", str(out), "--set", *sets]
    command = [sys.executable, "-m", "priorzoo", "bench", *words, "steps=1000000", "every=1000000"]
    runner = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 240
    while len(list(out.glob("runs/*/checkpoint.safetensors"))) < 2:
        assert runner.poll() is None, runner.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    before = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/checkpoint.safetensors")}
    time.sleep(1)
    runner.send_signal(signal.SIGTERM)
    _, said = runner.communicate(timeout=60)
    assert runner.returncode == 128 + signal.SIGTERM, said
    assert "stopped by SIGTERM; the same command goes on" in said
    assert all(path.stat().st_mtime_ns > time for path, time in before.items())
    assert not list(out.glob("runs/*.lock"))
    assert (out / "rows.jsonl").read_text() == ""
