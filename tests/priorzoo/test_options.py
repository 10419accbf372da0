"""Options that commands share: settings in files, paths, seeds, and data found from anywhere."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from priorzoo.benchmarks.data.sets import load
from priorzoo.benchmarks.papers import RECIPES
from priorzoo.benchmarks.recipes.changes import apply, written
from priorzoo.cli import main as cli
from priorzoo.cli import options, train
from priorzoo.cli.options import Parser, quoted
from priorzoo.cli.settings import as_yaml, read_file, read_words
from priorzoo.inference import Stream

SMALL = ["--steps", "4", "--every", "2", "--train", "150", "--validation", "0"]
SMALL += ["--encoder.hidden", "[8]", "--decoder.hidden", "[8]"]


def fail(capsys, *words):
    assert cli.main([str(word) for word in words]) == 2
    [line] = capsys.readouterr().err.splitlines()
    return line


# Settings in files


def read_back(base, recipe, folder):
    file = folder / "settings.yaml"
    file.write_text(as_yaml(recipe))
    return apply(base, read_file(file))


def test_the_settings_of_every_recipe_are_read_back(tmp_path):
    for name, recipe in RECIPES.items():
        assert written(read_back(recipe, recipe, tmp_path)) == written(recipe), name


OVERRIDDEN = {
    "digits-gmvae": [
        "--data mnist --train 100 --epochs 2.5",
        "--optimiser SGD --optimiser.lr 1e-3 --optimiser.momentum 0.9 --schedule StepLR "
        "--schedule.step_size 3",
        "--kl.z.weight.start 0 --kl.z.weight.end 1 --kl.z.weight.steps 5 --kl.z.floor 0.5",
        "--model VAE --guide Code --likelihood Gaussian --objective ELBO",
        "--on_nonfinite rollback --clip 3 --n_init 3 --patience 3 --validation 5",
    ],
    "vade": ["--stages []", "--optimiser.lr 2e-3 --schedule null"],
    "m2": ["--kl {}", "--kl.y.weight 0.5"],
    "digits-nggp": ["--moves {}", "--model.start 1"],
    "digits-factorial": ["--stages [] --optimiser.rate 0.02"],
}


def test_overridden_settings_are_read_back_over_the_recipe(tmp_path):
    for name, overrides in OVERRIDDEN.items():
        for words in overrides:
            made = apply(RECIPES[name], read_words(words.split(), []))
            again = read_back(RECIPES[name], made, tmp_path)
            assert written(again) == written(made), (name, words)


OWN = """
import pyro
import pyro.distributions as dist
import torch
from torch import nn

from priorzoo.models import data_plate
from priorzoo.models.contract import Sizes


class Own(nn.Module):
    def __init__(self, decoder, code: int = 3, names=("a", "b"), inner: nn.Module | None = None):
        super().__init__()
        self.decoder, self.code = decoder, code

    @staticmethod
    def networks(rows, code):
        return {"decoder": Sizes(code, rows)}

    def forward(self, x=None, size=None):
        with data_plate(x, size):
            z = pyro.sample("z", dist.Normal(torch.zeros(self.code), 1.0).to_event(1))
            return pyro.sample("x", dist.Normal(self.decoder(z), 1.0).to_event(1), obs=x)
"""


def test_a_model_of_the_user_is_read_back(tmp_path, monkeypatch, capsys):
    (tmp_path / "own_story.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    words = ["--model", "own_story.Own", "--model.code", "4", "--model.names", "[x, 1]"]
    words += ["--model.inner", "torch.nn.Tanh", "--guide", "Code"]
    printed = []
    for more in (words, ["--config", str(tmp_path / "a.yaml"), "--trust", "own_story"]):
        with pytest.raises(SystemExit):
            cli.main(["train", "digits-vae", *more, "--print_config"])
        printed.append(capsys.readouterr().out)
        (tmp_path / "a.yaml").write_text(printed[-1])
    first, again = map(yaml.safe_load, printed)
    assert first == again
    assert first["model"]["class_path"] == "own_story.Own"
    assert first["model"]["init_args"]["names"] == ["x", 1]


# Paths


@pytest.mark.parametrize(
    "told", ["--a FILE", "--a DIR", "RUN", "FOLDER ...", "RUNS ...", "--a FILE  there [~/x]"]
)
def test_the_home_folder_is_read_in_every_path(told, monkeypatch, tmp_path):
    def command():
        pass

    command.__doc__ = f"Some.\n\n    usage: some\n\n      {told}\n    "
    monkeypatch.setenv("HOME", str(tmp_path))
    words = [] if "[" in told else ["--a"] * told.startswith("--") + ["~/x"]
    named = vars(Parser("some", command).parse(words))
    [found] = [value for name, value in named.items() if name != "help"]
    assert (found[0] if isinstance(found, list) else found) == tmp_path / "x"


def test_no_option_takes_a_path_that_is_not_read_so():
    """Options for places are declared as files or folders, whose kind says that they are paths."""
    from priorzoo.cli import bench, listing, runs, train

    commands = [bench.bench_command, bench.report_command, listing.list_command]
    commands += [runs.evaluate_command, runs.plot_command, runs.sample_command]
    commands += [train.train_command, *bench.measurements().values()]
    for command in commands:
        for action in Parser("some", command)._actions:
            if action.dest in ("out", "rows", "data_root", "config", "update", "figures", "run"):
                assert action.type.__name__ == "path", (command, action.dest)


def test_a_home_that_is_not_there_is_one_line(capsys):
    said = fail(capsys, "train", "digits-vae", "--out", "~no-such-user-here/x")
    assert "expected a path but got '~no-such-user-here/x'" in said
    fail(capsys, "train", "digits-vae", "--data", "~no-such-user-here/x.npz")


# Seeds


@pytest.mark.parametrize("number", [0, 7, -1, 2**32 - 1, 2**32, 2**64 + 5, -(10**30), 10**999])
def test_a_seed_is_any_whole_number(number):
    assert options.seed(str(number)) == number % 2**32
    assert Parser("train", train.train_command).parse([f"--seed={number}"]).seed == number % 2**32


@pytest.mark.parametrize("text", ["1.5", "x", "", "1e3", "0x1", "1" * 5000])
def test_other_seeds_are_refused_in_one_line(text, capsys, tmp_path):
    said = fail(capsys, "train", "digits-vae", f"--seed={text}", "--out", tmp_path / "run")
    assert "expected a whole number" in said
    assert not (tmp_path / "run").exists()
    (tmp_path / "a.yaml").write_text(f"seed: '{text}'\n")
    said = fail(capsys, "train", "digits-vae", "--config", tmp_path / "a.yaml")
    assert "expected a whole number" in said


@pytest.mark.parametrize("seeds", ["0:4294967298", "4294967296", "-1", "0:999999999999999999999"])
def test_other_seeds_of_a_grid_are_refused_in_one_line(seeds, capsys, tmp_path):
    words = "bench", "digits-vae", f"--seeds={seeds}", "--out", tmp_path / "out"
    assert "Expected" in fail(capsys, *words)


def test_seeds_that_torch_has_not_are_refused():
    for seed in (-(2**63), 2**64 - 1, np.int64(3)):
        Stream(seed)
    for seed in (-(2**63) - 1, 2**64, 1.5, "a", None):
        with pytest.raises(ValueError, match="as seed but got"):
            Stream(seed)


# Data from anywhere


def test_the_largest_seed_trains_and_a_run_finds_its_data_from_anywhere(
    tmp_path, monkeypatch, capsys
):
    """Also with a relative data root, and with another file of that name where it is evaluated."""
    there, elsewhere = tmp_path / "there", tmp_path / "elsewhere"
    for folder in (there, elsewhere):
        folder.mkdir()
        digits = load("digits", train=150, validation=0)
        arrays = {"x_train": digits.x_train, "x_test": digits.x_test[:50]}
        arrays |= {"y_train": digits.y_train, "y_test": digits.y_test[:50]}
        scale = 1 if folder == there else 2
        arrays = {k: v.numpy() * (scale if k[0] == "x" else 1) for k, v in arrays.items()}
        np.savez(folder / "a.npz", **arrays)
    monkeypatch.chdir(there)
    monkeypatch.setenv("HOME", str(tmp_path))
    words = ["train", "digits-gmvae", *SMALL, "--data", "a.npz", "--data-root", "."]
    words += ["--seed", str(2**32 - 1), "--out", "~/run", "--rows", "~/rows.jsonl"]
    assert cli.main(words) == 0
    row = json.loads((tmp_path / "rows.jsonl").read_text())
    assert str(tmp_path) not in json.dumps(row)
    monkeypatch.chdir(elsewhere)
    capsys.readouterr()
    assert cli.main(["evaluate", "~/run", "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["terms"] == row["terms"]
    assert "not the data" not in said.err
    assert cli.main(["sample", "~/run", "--n", "3", "--out", "~/new/folder/a.npz"]) == 0
    assert (tmp_path / "new/folder/a.npz").is_file()
    (there / "a.npz").unlink()  # then the file of that name here is read, and told apart
    assert cli.main(["evaluate", "~/run"]) == 0
    assert "not the data" in capsys.readouterr().err


def test_paths_in_commands_to_copy_are_quoted():
    assert quoted(Path("runs/my run/$1")) == "'runs/my run/$1'"
    assert quoted(Path("runs/a")) == "runs/a"
