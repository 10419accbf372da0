"""What ``import priorzoo`` and the command cost and need, and what help and listings say."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest

import priorzoo
from priorzoo import guides, inference, models
from priorzoo.benchmarks.papers import RECIPES
from priorzoo.cli import main as cli
from priorzoo.cli.scores import print_scores
from priorzoo.cli.train import run_folder

OWN = """
import pyro
import pyro.distributions as dist
import torch
from torch import nn

from priorzoo.models import data_plate


class Story(nn.Module):
    def __init__(self, decoder, likelihood, code=3, spread=1.0):
        super().__init__()
        self.decoder, self.likelihood, self.code, self.spread = decoder, likelihood, code, spread
        self.register_buffer("origin", torch.zeros(code))

    def forward(self, x=None, size=None):
        with data_plate(x, size):
            z = pyro.sample("z", dist.Normal(self.origin, self.spread).to_event(1))
            return pyro.sample("x", self.likelihood(self.decoder(z)), obs=x)


class Full(nn.Module):
    def __init__(self, net: nn.Module, code):
        super().__init__()
        self.net, self.code = net, code

    def forward(self, x, size=None):
        with data_plate(x, size):
            loc, flat = self.net(x).split([self.code, self.code**2], -1)
            tril = flat.unflatten(-1, (self.code, self.code)).tril(-1) + torch.eye(self.code)
            pyro.sample("z", dist.MultivariateNormal(loc, scale_tril=tril))
"""
EXTRAS = ("PIL", "anndata", "jinja2", "matplotlib", "narwhals", "pyarrow", "scipy", "sklearn")
EXTRAS += ("torchvision", "zuko")
WITHOUT_EXTRAS = f"""
import importlib, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {EXTRAS}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
for floor in ("models", "guides", "inference", "benchmarks"):
    importlib.import_module(f"priorzoo.{{floor}}")
from priorzoo.cli.main import main
assert main(["list"]) == main(["list", "guides", "--model", "gmvae"]) == 0
assert main(["train", "gmvae", "--help"]) == 0
assert main(["report", "."]) == 2
"""


def python(program):
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)


def test_neither_the_package_nor_its_help_import_torch():
    program = "import sys, priorzoo; from priorzoo.cli.main import main; main([]); "
    program += "main(['--version']); priorzoo.__version__; print('torch' in sys.modules)"
    run = python(program)
    assert run.stdout.splitlines()[-2:] == [f"priorzoo {priorzoo.__version__}", "False"], run.stderr


def test_every_public_name_of_the_floors_is_one_of_the_package():
    for floor in (models, guides, inference):
        for name in floor.__all__:
            assert getattr(priorzoo, name) is getattr(floor, name)
            assert name in dir(priorzoo)
    with pytest.raises(AttributeError, match="no attribute 'GMVEA'"):
        _ = priorzoo.GMVEA


def test_the_floors_and_the_command_work_without_the_extras():
    run = python(WITHOUT_EXTRAS)
    assert run.returncode == 0, run.stderr
    said = "jinja2 is not installed; run: pip install 'priorzoo[benchmarks]'"
    assert f"priorzoo report: error: {said}" in run.stderr.splitlines()


@pytest.mark.parametrize("recipe", RECIPES)
def test_help_is_short_and_shows_the_values_of_the_recipe(recipe, capsys):
    assert cli.main(["train", recipe, "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 60
    assert max(map(len, lines)) <= 100
    text = "\n".join(lines)
    for option in ("--data-root", "--seed", "--out", "--step", "--precision", "--device"):
        assert f"  {option} " in text
    for name, value in RECIPES[recipe].model.init_args.items():
        assert f"  --model.{name.replace('_', '-')} {value}" in text


def test_all_help_has_types_and_the_help_of_a_changed_recipe_its_values(capsys):
    assert cli.main(["train", "gmvae", "--model.clusters", "7", "--help-all"]) == 0
    text = capsys.readouterr().out
    assert "--model.clusters 7  (int)" in text
    assert "--binarise dynamic  (one of 'none', 'static', 'dynamic')" in text
    assert re.search(r"--guide ClusterThenCode\n +one of .*\bClusterThenFlow\b", text)


def test_a_model_and_a_guide_of_ones_own_with_a_network_that_no_class_declares(
    tmp_path, monkeypatch, capsys
):
    (tmp_path / "ownpair.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert cli.main(["list", "guides", "--model", "ownpair.Story"]) == 0
    listed = capsys.readouterr().out
    assert re.search(r"^Code ", listed, re.M)
    assert "ClusterThenCode" not in listed
    pair = [
        "--model",
        "ownpair.Story",
        "--guide",
        "ownpair.Full",
        "--model.spread",
        "1.5",
        "--model.code",
        "3",
    ]
    net = ["--guide.net.class_path", "MLP", "--guide.net.init_args.hidden", "[16]"]
    net += ["--guide.net.init_args.inputs", "64", "--guide.net.init_args.outputs", "12"]
    assert cli.main(["train", "digits-vae", *pair, *net, "--steps", "4", "--out", "run"]) == 0
    chosen = json.loads((tmp_path / "run" / "result.json").read_text())["settings"]
    assert chosen["model"]["init_args"]["spread"] == 1.5
    assert chosen["guide"]["init_args"]["net"]["init_args"]["hidden"] == [16]


def test_run_folders_say_what_differs_and_are_free(tmp_path, monkeypatch):
    def folder(changes, resume=False, overwrite=False):
        return run_folder("gmvae", changes, 0, resume, overwrite).as_posix()

    monkeypatch.chdir(tmp_path)
    assert folder({}) == folder({}, resume=True) == "runs/gmvae-seed0"
    assert folder({"model.clusters": 16}) == "runs/gmvae-clusters16-seed0"
    assert folder({"data": "some/where/mine.npz"}) == "runs/gmvae-datamine-seed0"
    assert folder({"encoder.hidden": [64, 32]}) == "runs/gmvae-hidden64-32-seed0"
    assert len(folder({f"kl.z{i}.analytic": True for i in range(20)})) < 100
    for name, file in (("gmvae-seed0", "result.json"), ("gmvae-seed0-2", "checkpoint.safetensors")):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / file).touch()
    assert folder({}) == "runs/gmvae-seed0-3"
    assert folder({}, resume=True) == "runs/gmvae-seed0-2"
    assert folder({}, overwrite=True) == "runs/gmvae-seed0"


def test_a_second_run_has_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["train", "digits-vae", "--steps", "2", "--encoder.hidden", "[8]"]
    assert cli.main(words) == cli.main(words) == 0
    made = {path.name for path in (tmp_path / "runs").iterdir()}
    assert made == {"digits-vae-hidden8-steps2-seed0", "digits-vae-hidden8-steps2-seed0-2"}


def test_commands_explain_their_scores_and_say_what_comes_next(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", "digits-gmvae", "--steps", "2", "--out", "run"]) == 0
    said = capsys.readouterr()
    assert re.search(
        r"^ +effective_clusters +[\d.]+  1 if q\(y given x\) says nothing", said.out, re.M
    )
    assert re.search(r"^ +tail_occupancy +[\d.]+  share of the rows", said.out, re.M)
    assert re.search(r"^ +kl\[z\] +[\d.]+  KL divergence", said.out, re.M)
    assert "next: priorzoo evaluate run" in said.err
    assert cli.main(["sample", "run", "--n", "3", "--out", "new/folder/some.npz"]) == 0
    assert np.load("new/folder/some.npz")["x"].shape == (3, 64)


def test_list_data_tells_the_format_of_a_file_of_ones_own(capsys):
    assert cli.main(["list", "data"]) == 0
    line = re.search(r"^FILE.npz +(.*)$", capsys.readouterr().out, re.M)[1]
    for name in ("x_train (N, ...)", "x_test (M, ...)", "y_train (N,)", "integers"):
        assert name in line


def test_the_speed_of_a_step_is_told_without_lines_of_the_profiler():
    words = "bench speed --recipes vae --sizes small --rounds 1 --steps 1 --arms eager"
    command = [sys.executable, "-m", "priorzoo", *words.split(), "--device", "cpu"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0
    assert run.stderr == ""
    title, blank, *table = run.stdout.splitlines()
    assert (title, blank) == ("A training step", "")
    assert len(table) == 3
    assert all(line.startswith("|") for line in table)


def test_a_bound_above_zero_is_explained(capsys):
    print_scores({"terms": {"reconstruction": 5.0, "elbo": 3.0}, "metrics": {}})
    first, elbo, _ = capsys.readouterr().out.splitlines()
    assert "nats per datum" in first
    assert elbo.split()[:2] == ["elbo", "3.000"]
    assert "density" in elbo
