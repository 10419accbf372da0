"""What the README shows a newcomer works as it stands there, line after line."""

import re
import shlex
import tomllib
from pathlib import Path

import pyro
import pytest

from priorzoo.benchmarks.charts import run_charts
from priorzoo.benchmarks.papers import RECIPES
from priorzoo.cli import main as cli

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text("utf-8")
FENCED = re.findall(r"^```(python)?\n(.*?)^```", TEXT, re.S | re.M)
DATA, DECLARATION, TRAINING, LOOP, SWAP = [code for language, code in FENCED if language]
COMMANDS = [
    line.partition(" #")[0].strip()
    for language, code in FENCED
    if not language
    for line in code.splitlines()
]
PRIORZOO = [line for line in COMMANDS if line.startswith("priorzoo ")]


def test_it_is_short():
    assert len(TEXT.encode()) <= 6_000


def test_a_model_of_ones_own_takes_at_most_25_lines_and_trains():
    code = [line for line in (DECLARATION + TRAINING).splitlines() if line.strip()]
    assert len(code) <= 25
    names = {}
    exec(DECLARATION + TRAINING + LOOP + SWAP, names)
    assert names["clusters"].shape == (1000, 5)
    assert names["history"][-1]["elbo"] > names["history"][0]["elbo"]
    assert set(names["terms"]) == {"reconstruction", "kl[y]", "kl[z]", "elbo", "objective"}
    assert len(names["bounds"]) == 2
    assert min(names["bounds"]) > names["history"][0]["elbo"]
    assert not pyro.get_param_store().keys()


def test_the_same_model_trains_from_the_command_line_by_its_import_path(
    tmp_path, monkeypatch, capsys
):
    (tmp_path / "mine.py").write_text(DECLARATION)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    command = re.search(r"priorzoo (train digits-gmvae --model mine\S+)", TEXT)[1]
    assert cli.main([*command.split(), "--steps", "20", "--out", "run"]) == 0
    assert cli.main(["evaluate", "run", "--trust", "mine"]) == 0
    assert "kl[y]" in capsys.readouterr().out


@pytest.mark.parametrize("line", PRIORZOO)
def test_the_commands_name_recipes_and_options_that_exist(line, tmp_path, monkeypatch, capsys):
    _, command, *words = shlex.split(line)
    assert command in cli.COMMANDS
    if command == "train" and "mine." not in line and "--help" not in words:
        assert words[0] in RECIPES
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit) as stop:
            cli.main([command, *words, "--print_config"])
        assert stop.value.code == 0


def test_all_commands_are_checked_by_some_test():
    made, installed, *rest = (line for line in COMMANDS if not line.startswith("priorzoo "))
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
    assert {made.split()[1], installed.split()[1]} <= set(targets)
    (pip,) = rest
    extra = re.fullmatch(r"pip install '\.\[(\w+)\]'", pip)[1]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert extra in project["optional-dependencies"]


def shortened(line):
    """The words of a command, so few steps and runs that it takes seconds; nothing is fetched."""
    _, *words = shlex.split(line)
    if words[0] == "train" and not {"--epochs", "--help", "--download"} & set(words):
        words += ["--steps", "4", "--every", "4"]
    if words[0] == "fit":
        words += ["--steps", "4"]
    if words[0] == "bench":
        place = words.index("--set") + 1
        words[place : place + 1] = ["model.clusters=5", "steps=4"]  # a process takes seconds
        words[words.index("--seeds") + 1] = "0:1"
    return words


def test_every_line_runs_in_the_order_in_which_it_stands(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    names, draw = {}, run_charts.draw_run
    for language, code in FENCED:
        if language:
            exec(code, names)
            if code == DECLARATION:
                assert "Save it as `mine.py`:\n\n```python\n" + code in TEXT
                Path("mine.py").write_text(code)
            continue
        for line in code.splitlines():
            command = line.partition(" #")[0].strip()
            if not command.startswith("priorzoo ") or "--download" in command:
                continue  # checked above, without the network
            drawn = draw if command.startswith("priorzoo plot") else lambda *_: []
            monkeypatch.setattr(run_charts, "draw_run", drawn)
            before = set(tmp_path.rglob("*"))
            assert cli.main(shortened(command)) == 0, (command, capsys.readouterr().err)
            capsys.readouterr()
            for place in re.findall(r"--out (\S+)|(?:in|open) ([\w/]+/[\w.]+)", line):
                assert Path("".join(place)).exists(), line
                assert set(tmp_path.rglob("*")) - before, line
    assert list(Path("runs/digits/figures").glob("*.png"))
    assert Path("runs/digits/samples.png").is_file()


def test_links_and_pictures_are_there():
    for place in re.findall(r"\]\((?!http)([^)#]+)\)", TEXT):
        assert (ROOT / place).is_file(), place
    for document in (ROOT / "docs").glob("*.md"):
        for place in re.findall(r"\]\((?!http)([^)#]+)", document.read_text("utf-8")):
            assert (document.parent / place).is_file(), place
