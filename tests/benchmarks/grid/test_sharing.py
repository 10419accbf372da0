"""Several runners in one folder, signals, and cells that were trained and not yet told."""

import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from priorzoo.benchmarks.grid import cells as cells_
from priorzoo.benchmarks.grid import runner as grid
from priorzoo.benchmarks.grid.cells import Cell, work
from priorzoo.benchmarks.grid.places import Place
from priorzoo.benchmarks.grid.processes import Processes
from priorzoo.benchmarks.rows.locks import holder, locked
from priorzoo.inference.training.checkpoints import load_state
from priorzoo.inference.training.execution import Steps

TINY = {"encoder.hidden": [8], "decoder.hidden": [8], "train": 200, "validation": 0}
SETS = [f"{name}={value}" for name, value in TINY.items()]
CELLS = [Cell("digits-vae", seed, changes={**TINY, "steps": 4}) for seed in (1, 2)]


def bench(out, *words):
    command = [sys.executable, "-m", "priorzoo", "bench", "digits-vae", "--out", str(out)]
    command += ["--set", *SETS, *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(condition):
    deadline = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.usefixtures("quick_processes")
def test_what_another_process_runs_is_waited_for_and_a_stale_lock_is_not(tmp_path):
    out = tmp_path / "out"
    (out / "runs").mkdir(parents=True)
    (out / "rows.jsonl").touch()
    row = {"recipe": "digits-vae", "seed": 1, "steps": 4, **CELLS[0].origin()}
    (out / "runs" / f"{CELLS[1].name}.lock").write_text("process 1, which is gone")
    shared, place = grid.Shared(out), Place(out, None, "cpu")
    lock = locked(place.lock(CELLS[0]))
    lock.__enter__()
    running = Processes().open(place, 1)
    found = grid._finished(CELLS, shared, place, running.__enter__())
    cell, other = next(found)
    assert (cell, other["seed"]) == (CELLS[1], 2)
    assert grid.Shared(out).append(CELLS[0], row)
    assert next(found) == (CELLS[0], None)
    lock.__exit__(None, None, None)
    running.__exit__(None, None, None)
    assert not shared.append(CELLS[0], row)
    assert len((out / "rows.jsonl").read_text().splitlines()) == 1


def test_a_folder_with_nothing_but_what_a_kill_left_is_free(tmp_path):
    (tmp_path / "rows.lock").touch()
    (tmp_path / "rows.jsonl.part").write_text("torn")
    grid.check_folder(CELLS, tmp_path)
    (tmp_path / "letter.txt").touch()
    with pytest.raises(ValueError, match="holds something else"):
        grid.check_folder(CELLS, tmp_path)


def test_a_failure_is_not_tried_again_by_those_that_share(tmp_path):
    (tmp_path / "rows.jsonl").touch()
    old = CELLS[0].failure("yesterday's")
    assert grid.Shared(tmp_path).append(CELLS[0], old)
    first, second = grid.Shared(tmp_path), grid.Shared(tmp_path)
    assert first.state(CELLS[0]) == ""
    assert first.append(CELLS[0], CELLS[0].failure("a\ntoday's"))
    assert not second.append(CELLS[0], CELLS[0].failure("also today's"))
    assert (second.state(CELLS[0]), second.error(CELLS[0])) == ("failed", "today's")
    assert second.state(CELLS[1]) == ""


@pytest.mark.slow
def test_a_signal_ends_the_grid_and_its_workers_with_a_checkpoint_each(tmp_path):
    out, number = tmp_path / "out", signal.SIGTERM
    words = ["steps=1000000", "every=1000000", "--seeds", "0:2", "--jobs", "2"]
    runner = bench(out, *words)
    saved = "runs/*/checkpoint.safetensors"
    wait_for(lambda: len(list(out.glob(saved))) == 2 or runner.poll() is not None)
    time.sleep(1)
    runner.send_signal(number)
    _, said = runner.communicate(timeout=60)
    assert runner.returncode == 128 + number
    (line,) = said.splitlines()
    assert f"stopped by {number.name}; the same command goes on" in line
    assert all(not holder(path) for path in out.glob("**/*.lock"))
    assert [load_state(path)["training"]["step"] > 0 for path in out.glob(saved)] == [True] * 2
    assert (out / "rows.jsonl").read_text() == ""
    assert not (out / "failures.jsonl").exists()
    assert not list(out.glob("runs/*.json"))


def test_a_cell_that_was_trained_is_not_trained_again(tmp_path, monkeypatch):
    """Killed between its result and its row."""
    one = replace(CELLS[0], seed=0)
    with monkeypatch.context() as patched:
        patched.setattr(cells_, "_charts", lambda *_: pytest.exit("killed"))
        with pytest.raises(BaseException, match="killed"):
            work(one, tmp_path, None, "cpu")
    monkeypatch.setattr(Steps, "__call__", lambda self: pytest.fail("a step was taken again"))
    row = work(one, tmp_path, None, "cpu")
    monkeypatch.undo()
    again = work(one, tmp_path / "other", None, "cpu")
    for name in ("peak_mib", "seconds"):
        del row[name], again[name]
    assert row == again
