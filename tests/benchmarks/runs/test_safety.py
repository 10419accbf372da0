"""Run folders of others: nothing waits or is written through links, and ranges are checked."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest

from priorzoo.benchmarks.papers import RECIPES
from priorzoo.benchmarks.recipes.recipe import part
from priorzoo.benchmarks.rows.locks import locked
from priorzoo.benchmarks.runs import run as runs
from priorzoo.benchmarks.runs.folder import Checkpoints, check_free, clear, is_run
from priorzoo.benchmarks.runs.opening import open_run
from priorzoo.inference.saving import replace_file
from priorzoo.inference.training.checkpoints import load_state, pack, save_state
from priorzoo.models import MLP

CHECKPOINT = "checkpoint.safetensors"
STATE = {"settings": "{}", "data": {}, "stage": 0, "rows": 0, "before": 0, "spent": 0.0}
STATE |= {"training": {}}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("stage", -1),
        ("stage", "0"),
        ("rows", -1),
        ("rows", True),
        ("before", -5),
        ("before", 1.5),
        ("spent", float("nan")),
        ("spent", -1.0),
        ("settings", 3),
        ("data", ["x"]),
        ("starts", [1]),
        ("stage", None),
    ],
)
def test_a_state_out_of_range_is_refused(tmp_path, name, value):
    save_state(tmp_path / CHECKPOINT, STATE | {name: value})
    with pytest.raises(ValueError, match=f"(?s){name}.*{CHECKPOINT}; train again"):
        Checkpoints(tmp_path).load()


@pytest.mark.parametrize("stage", [1, 7])
def test_a_stage_that_the_recipe_does_not_have_is_refused(tmp_path, stage):
    """Also where the checkpoint is whole, and its checksum is right."""
    arrays = {"x_train": np.eye(9, 6, dtype="float32"), "x_test": np.eye(6, dtype="float32")}
    np.savez(tmp_path / "own.npz", **arrays)
    small = {"encoder": part(MLP, hidden=[4]), "decoder": part(MLP, hidden=[4])}
    small |= {"data": str(tmp_path / "own.npz"), "train": None, "binarise": "none", "steps": 1}
    recipe, run = replace(RECIPES["digits-gmvae"], **small, validation=0), tmp_path / "run"

    def full(*_):
        raise OSError("full")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(runs, "save", full)
        with pytest.raises(OSError, match="full"):
            runs.train("x", recipe, run, device="cpu")
    state = load_state(run / CHECKPOINT)
    save_state(run / CHECKPOINT, state | {"stage": stage})
    with pytest.raises(ValueError, match="from 0 to 0 or null at stage but got"):
        runs.train("x", recipe, run, device="cpu", resume=True)
    save_state(run / CHECKPOINT, state)
    runs.train("x", recipe, run, device="cpu", resume=True)


@pytest.mark.parametrize("name", ["config.json", "result.json", "history.jsonl", CHECKPOINT])
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.symlink("/dev/zero", path)])
def test_no_look_at_a_folder_waits_or_has_no_end(tmp_path, name, make):
    make(tmp_path / name)
    assert not is_run(tmp_path)
    with pytest.raises(FileExistsError, match="other files"):
        check_free(tmp_path, overwrite=True)
    with pytest.raises((ValueError, FileNotFoundError), match="Expected"):
        open_run(tmp_path, "cpu")
    if name == CHECKPOINT:
        with pytest.raises(ValueError, match="regular file"):
            Checkpoints(tmp_path).load()


def test_what_a_run_removes_is_never_waited_for(tmp_path):
    (tmp_path / "figures").mkdir()
    for name in ("figures/a.png", ".tmpabcdef"):
        os.mkfifo(tmp_path / name)
    clear(tmp_path)
    assert (tmp_path / "figures" / "a.png").is_fifo()


def test_nothing_is_written_through_links(tmp_path):
    (tmp_path / "victim").write_text("untouched")
    run = tmp_path / "run"
    run.mkdir()
    for name in ("run.lock", "config.json.part", "config.json", f"{CHECKPOINT}.part"):
        (run / name).symlink_to(tmp_path / "victim")
    replace_file(run / "config.json", lambda part: part.write_text("{}"))
    Checkpoints(run).save(pack(STATE))
    with pytest.raises(ValueError, match="is a link"), locked(run / "run.lock"):
        pass
    assert (tmp_path / "victim").read_text() == "untouched"
    assert json.loads((run / "config.json").read_text()) == {}


def test_a_lock_that_is_a_fifo_is_refused(tmp_path):
    os.mkfifo(tmp_path / "run.lock")
    with pytest.raises(ValueError, match="FIFO"), locked(tmp_path / "run.lock"):
        pass
