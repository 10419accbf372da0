"""What a run's folder survives: kills, full disks, other processes, other data."""

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from priorzoo.benchmarks.data import sets
from priorzoo.benchmarks.data.fingerprints import differing, fingerprint
from priorzoo.benchmarks.papers import RECIPES
from priorzoo.benchmarks.recipes.recipe import part
from priorzoo.benchmarks.rows.locks import locked
from priorzoo.benchmarks.runs import run as runs
from priorzoo.benchmarks.runs import scoring
from priorzoo.benchmarks.runs.folder import Checkpoints, check_free, clear
from priorzoo.cli import main as cli
from priorzoo.inference.training.checkpoints import pack
from priorzoo.inference.training.execution import Steps
from priorzoo.models import MLP

SMALL = replace(
    RECIPES["digits-gmvae"],
    encoder=part(MLP, hidden=[8]),
    decoder=part(MLP, hidden=[8]),
    train=300,
    validation=50,
    patience=2,
    steps=12,
    every=4,
)
WORDS = ["--encoder.hidden", "[8]", "--decoder.hidden", "[8]", "--steps", "12", "--every", "6"]


def train(folder, recipe=SMALL, **how):
    return runs.train("x", recipe, folder, device="cpu", **how)[0]


def left(folder):
    """All that a run leaves, but for the time it took."""
    history = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    for row in history:
        row.pop("seconds", None)
    result = json.loads((folder / "result.json").read_text())
    del result["seconds"]
    names = sorted(path.name for path in folder.iterdir())
    return (folder / "model.safetensors").read_bytes(), history, result, names


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(folder)
    return left(folder)


def fail(error):
    """A function that fails, whatever it is given."""

    def failing(*_, **__):
        raise error

    return failing


@pytest.mark.parametrize(
    ("module", "place"),
    [(runs, "save"), (runs, "score"), (scoring, "degeneracy"), (runs, "replace_file")],
)
def test_nothing_is_lost_between_the_last_step_and_the_result(
    module, place, whole, tmp_path, monkeypatch
):
    folder = tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr(module, place, fail(OSError("full")))
        with pytest.raises(OSError, match="full"):
            train(folder)
    with monkeypatch.context() as patched:
        patched.setattr(Steps, "__call__", lambda self: pytest.fail("a step was taken again"))
        train(folder, resume=True)
    assert left(folder) == whole


def test_the_scores_of_a_finished_run_can_be_repeated(whole, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    train(folder)
    monkeypatch.setattr(Steps, "__call__", lambda self: pytest.fail("a step was taken again"))
    train(folder, resume=True)
    assert left(folder) == whole


def test_no_second_process_trains_in_a_folder(whole, tmp_path, capsys):
    """Not to resume, not to overwrite, not in an empty folder; and the line says who does."""
    folder = tmp_path / "run"
    train(folder)
    before = left(folder)
    for words in (["--resume"], ["--overwrite"], []):
        with locked(folder / "run.lock"):
            out = ["--out", str(folder)]
            assert cli.main(["train", "digits-gmvae", *WORDS, *out, *words]) == 2
        said = capsys.readouterr().err
        assert f"process {os.getpid()} on" in said
        assert len(said.splitlines()) == 1
    assert left(folder) == before
    (folder / "run.lock").write_text("process 1 on a machine that was switched off")
    train(folder, overwrite=True)
    assert left(folder) == whole


def test_a_folder_that_another_made_in_the_meantime_is_left_to_it(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    prepare = runs.registry.prepare

    def be_slow(*given):
        monkeypatch.setattr(runs.registry, "prepare", prepare)
        train(folder)

    monkeypatch.setattr(runs.registry, "prepare", be_slow)
    with pytest.raises(FileExistsError, match="already holds files"):
        train(folder)


@pytest.fixture
def own(tmp_path):
    """A data set in a file, and a function that writes it anew with one array changed."""
    generator = np.random.default_rng(0)
    arrays = {"x_train": generator.random((40, 6)), "x_test": generator.random((9, 6))}

    def write(**changed):
        np.savez(tmp_path / "own.npz", **{**arrays, **changed})

    write()
    return arrays, write, replace(SMALL, data=str(tmp_path / "own.npz"), train=30, validation=10)


def changes(arrays):
    x, x_test = arrays["x_train"], arrays["x_test"]
    return {
        "values": {"x_train": np.where(np.arange(6) == 2, x**2, x)},
        "one value": {"x_test": np.vstack([x_test[:8], x_test[8:] ** 2])},
        "more": {"x_train": np.vstack([x[:5], x])},
        "fewer": {"x_train": x[:20]},
        "fewer to test": {"x_test": x_test[:5]},
        "wider": {"x_train": np.hstack([x, x]), "x_test": np.hstack([x_test, x_test])},
    }


@pytest.mark.parametrize("kind", ["values", "one value", "more", "fewer", "fewer to test", "wider"])
@pytest.mark.parametrize("finished", [False, True])
def test_a_run_does_not_go_on_with_other_data(kind, finished, own, tmp_path, monkeypatch):
    arrays, write, recipe = own
    folder = tmp_path / "run"
    with monkeypatch.context() as patched:
        if not finished:
            patched.setattr(runs, "_finish", fail(OSError("full")))
        try:
            train(folder, recipe)
        except OSError:
            assert not finished
    changed = changes(arrays)[kind]
    write(**changed)
    with pytest.raises(ValueError, match=r"data of the run in .*run") as caught:
        train(folder, recipe, resume=True)
    named = "their sum at most" if kind == "fewer" else f"{next(iter(changed))} was float32"
    assert named in str(caught.value) or "x_valid was float32" in str(caught.value)
    write()
    train(folder, recipe, resume=True)


def test_evaluation_on_other_data_says_so(own, tmp_path, capsys):
    arrays, write, recipe = own
    folder = tmp_path / "run"
    train(folder, recipe)
    assert cli.main(["evaluate", str(folder)]) == 0
    assert "not the data of the run" not in capsys.readouterr().err
    write(**changes(arrays)["fewer to test"])
    assert cli.main(["evaluate", str(folder)]) == 0
    assert "x_test was float32 [9, 6]" in capsys.readouterr().err
    np.savez(tmp_path / "other.npz", **changes(arrays)["values"], x_test=arrays["x_test"][::-1])
    assert cli.main(["evaluate", str(folder), "--data", str(tmp_path / "other.npz")]) == 0
    assert "not the data of the run: x_test was" in capsys.readouterr().err
    write(**changes(arrays)["fewer"])
    assert cli.main(["evaluate", str(folder)]) == 2
    assert "have changed" in capsys.readouterr().err


def test_a_fingerprint_sees_type_shape_and_each_value():
    digits = sets.load("digits", train=20, validation=5)
    same = sets.load("digits", train=20, validation=5)
    assert differing(fingerprint(digits), fingerprint(same)) == []
    other = same.x_train.clone()
    other[3, 7] = torch.nextafter(other[3, 7], torch.tensor(2.0))
    assert other[3, 7] != same.x_train[3, 7]
    (said,) = differing(fingerprint(digits), fingerprint(replace(same, train=other)))
    assert said.startswith("x_train was float32 [20, 64] ")
    reshaped = replace(same, train=same.train.reshape(40, 32), y_test=None)
    assert len(differing(fingerprint(digits), fingerprint(reshaped))) == 2
    assert len(differing(fingerprint(digits), fingerprint(reshaped), "_test")) == 1


def interrupted(folder, monkeypatch, recipe=SMALL, step=7):
    """A run that a signal stopped after a step."""
    taken = []
    take = Steps.__call__

    def count(self):
        take(self)
        taken.append(self)
        if len(taken) == step:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(Steps, "__call__", count)
        with pytest.raises(KeyboardInterrupt) as caught:
            train(folder, recipe)
    assert caught.value.args == (signal.SIGTERM,)
    assert len(taken) == step


def test_a_history_is_never_cut_in_place(whole, tmp_path, monkeypatch):
    """A second kill while the history is taken up leaves the old one or the new one."""
    folder = tmp_path / "run"
    interrupted(folder, monkeypatch)
    with (folder / "history.jsonl").open("a") as file:
        file.write('{"split": "train"}\n{"torn')
    before = (folder / "history.jsonl").read_bytes()
    write_text = Path.write_text

    def fill(self, text, *_, **__):
        write_text(self, text[:9])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", fill)
        with pytest.raises(OSError, match="No space"):
            train(folder, resume=True)
    assert (folder / "history.jsonl").read_bytes() == before
    train(folder, resume=True)
    assert left(folder) == whole


def test_a_history_with_too_few_rows_is_refused_and_an_older_checkpoint_is_used(
    whole, tmp_path, monkeypatch, caplog
):
    folder = tmp_path / "run"
    interrupted(folder, monkeypatch, step=11)
    lines = (folder / "history.jsonl").read_text().splitlines(keepends=True)
    (folder / "history.jsonl").write_text("".join(lines[:1]))
    with pytest.raises(ValueError, match=r"at least 4 rows in .* got 1"):
        train(folder, resume=True)
    (folder / "history.jsonl").write_text("".join(lines))
    (folder / "checkpoint.safetensors").write_bytes(b"damaged")
    train(folder, resume=True)
    assert "Going on from the checkpoint before" in caplog.text
    assert left(folder) == whole


def test_a_folder_with_nothing_but_what_a_kill_left_is_free(whole, tmp_path):
    (tmp_path / "run.lock").touch()
    (tmp_path / "checkpoint.safetensors.part").write_bytes(b"torn")
    (tmp_path / ".tmpaB3dE6").touch()
    train(tmp_path)
    assert left(tmp_path) == whole


def test_starts_that_were_made_are_not_made_again(tmp_path, monkeypatch):
    recipe = replace(SMALL, n_init=4, init_steps=3)
    train(tmp_path / "whole", recipe)
    take, again = Steps.__call__, []

    def stop(self):
        take(self)
        again.append(1)
        if len(again) == 8:
            raise KeyboardInterrupt

    monkeypatch.setattr(Steps, "__call__", stop)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", recipe)
    again.clear()
    monkeypatch.setattr(Steps, "__call__", lambda self: again.append(1) or take(self))
    train(tmp_path / "run", recipe, resume=True)
    assert len(again) == 2 * 3 + 12  # of the third start, which was broken off, and the fourth
    assert left(tmp_path / "run") == left(tmp_path / "whole")


def test_the_last_checkpoints_are_kept(tmp_path):
    saved = Checkpoints(tmp_path, count=3)
    names = {f"checkpoint{age}.safetensors" for age in ("", "-1", "-2")}
    for step in range(5):
        state = {"settings": "{}", "data": {}, "stage": 0, "rows": 0, "spent": 1.0}
        saved.save(pack(state | {"before": step, "training": {"x": torch.ones(3)}}))
        found = {path.name for path in tmp_path.iterdir()}
        assert found <= names
        assert len(found) == min(step + 1, 3)
    assert saved.load()["before"] == 4
    (tmp_path / "checkpoint.safetensors").unlink()
    assert saved.load()["before"] == 3
    (tmp_path / "checkpoint-1.safetensors").write_bytes(b"")
    assert saved.load()["before"] == 2
    saved.remove()
    assert not list(tmp_path.iterdir())
    with pytest.raises(FileNotFoundError, match="nothing had been kept"):
        saved.load()


@pytest.mark.parametrize("given", [{"count": 0}, {"minutes": 0.0}, {"minutes": float("nan")}])
def test_checkpoints_that_cannot_be_are_refused(given, tmp_path):
    with pytest.raises(ValueError, match="at least one checkpoint and positive minutes"):
        Checkpoints(tmp_path, **given)


def test_a_checkpoint_is_saved_every_few_minutes(tmp_path, monkeypatch):
    """Also within an interval of the history, which changes nothing."""
    recipe = replace(SMALL, every=12, validation=0, patience=None)
    saved = []
    save = Checkpoints.save
    monkeypatch.setattr(Checkpoints, "save", lambda s, p: saved.append(1) or save(s, p))
    train(tmp_path / "a", recipe, checkpoint_minutes=1e-9)
    assert len(saved) == 1 + 12 + 1
    saved.clear()
    train(tmp_path / "b", recipe)
    assert len(saved) == 2
    assert left(tmp_path / "a") == left(tmp_path / "b")


def test_a_full_disk_ends_in_one_line_and_the_run_can_be_taken_up(tmp_path, capsys, monkeypatch):
    """The limit on the size of files is a real error of a real write, also of safetensors'."""
    resource = pytest.importorskip("resource")
    folder = tmp_path / "run"
    words = ["train", "digits-gmvae", *WORDS, "--out", str(folder)]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for most, more in ((100, []), (12_000, []), (12_000, ["--resume"])):
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
        try:
            assert cli.main([*words, *more]) == 2
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        said = capsys.readouterr()
        assert "File too large" in said.err
        assert len(said.err.splitlines()) == 1
        assert not [path for path in folder.iterdir() if path.suffix == ".part"]
    assert "--resume" in said.err
    assert cli.main([*words, "--resume"]) == 0
    assert cli.main(["train", "digits-gmvae", *WORDS, "--out", str(tmp_path / "whole")]) == 0
    assert left(folder) == left(tmp_path / "whole")


def test_overwriting_keeps_the_old_run_where_the_new_one_cannot_begin(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    train(folder)
    before = left(folder)
    with monkeypatch.context() as patched:
        patched.setattr(
            "priorzoo.inference.training.checkpoints.save_file",
            fail(OSError(28, "No space left on device")),
        )
        with pytest.raises(OSError, match="No space"):
            train(folder, overwrite=True, seed=1)
    assert left(folder) == before


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied"), OSError(30, "Read-only")]
)
def test_a_folder_that_may_not_be_written_stays_and_is_named(error, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    train(folder)
    before = left(folder)
    open_ = Path.open

    def refuse(self, mode="r", *given, **how):
        if mode != "r" and folder in self.parents:
            raise type(error)(*error.args, str(self))
        return open_(self, mode, *given, **how)

    monkeypatch.setattr(Path, "open", refuse)
    out = ["--out", str(folder), "--overwrite"]
    assert cli.main(["train", "digits-gmvae", *WORDS, *out]) == 2
    said = capsys.readouterr().err
    assert str(folder) in said
    assert len(said.splitlines()) == 1
    monkeypatch.undo()
    assert left(folder) == before


def test_overwriting_removes_what_a_run_wrote_and_nothing_else(tmp_path):
    folder = tmp_path / "run"
    words = ["train", "digits-gmvae", *WORDS, "--out", str(folder)]
    assert cli.main(words) == 0
    drawn = {path.name for path in (folder / "figures").iterdir()}
    assert "clusters.png" in drawn
    mine = {
        "notes.txt": "a",
        "figures/mine.png": "\x89PNG",
        "figures/a/b.txt": "c",
        "data/x.npz": "d",
    }
    for name, text in mine.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    shutil.copy(folder / "model.safetensors", folder / "memory.safetensors")
    (folder / "result.json.part").write_text("torn")
    (folder / ".tmpaB3dE6").write_bytes(b"\x08\0\0\0\0\0\0\0{")
    assert cli.main(["train", "digits-vae", *words[2:], "--overwrite"]) == 0
    assert {name: (folder / name).read_text() for name in mine} == mine
    assert not (folder / "memory.safetensors").exists()
    assert not (folder / "result.json.part").exists()
    assert not (folder / ".tmpaB3dE6").exists()
    assert not (folder / "figures" / "clusters.png").exists()
    clear(folder)
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert names == set(mine)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("config.json", '{"model_type": "bert", "architectures": []}'),
        ("config.json", "[1, 2]"),
        ("config.json", "no json"),
        ("history.jsonl", '{"prompt": "a"}\n'),
        ("result.json", '{"score": 1}'),
        ("checkpoint.safetensors", "weights"),
        ("model.safetensors", "weights"),
    ],
)
def test_a_folder_of_another_program_is_no_run(name, text, tmp_path):
    (tmp_path / name).write_text(text)
    (tmp_path / "model.safetensors").write_text("theirs")
    with pytest.raises(FileExistsError, match="holds other files"):
        check_free(tmp_path, overwrite=True)
