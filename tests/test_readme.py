"""What the README shows a newcomer works as it stands there."""

import re
from pathlib import Path

import pyro
import pytest

from priorzoo.benchmarks.papers import RECIPES
from priorzoo.cli import main as cli

TEXT = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.S)


def test_a_model_of_ones_own_takes_at_most_25_lines_and_trains():
    declaration, training, loop = BLOCKS
    code = [line for line in (declaration + training).splitlines() if line.strip()]
    assert len(code) <= 25
    names = {}
    exec(declaration + training + loop, names)
    assert names["clusters"].shape == (1000, 5)
    assert names["history"][-1]["elbo"] > names["history"][0]["elbo"]
    assert set(names["terms"]) == {"reconstruction", "kl[y]", "kl[z]", "elbo", "objective"}
    assert not pyro.get_param_store().keys()


def test_the_same_model_trains_from_the_command_line_by_its_import_path(
    tmp_path, monkeypatch, capsys
):
    (tmp_path / "mine.py").write_text(BLOCKS[0])
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    command = re.search(r"priorzoo (train digits-gmvae --model mine\S+)", TEXT)[1]
    assert cli.main([*command.split(), "--steps", "20", "--out", "run"]) == 0
    assert cli.main(["evaluate", "run"]) == 0
    assert "kl[y]" in capsys.readouterr().out


@pytest.mark.parametrize("line", re.findall(r"^priorzoo (.*?)(?: +#.*)?$", TEXT, re.M))
def test_the_commands_name_recipes_and_options_that_exist(line, tmp_path, monkeypatch, capsys):
    command, *words = line.split()
    assert command in cli.COMMANDS
    if command == "train" and "mine." not in line:
        assert words[0] in RECIPES
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit) as stop:
            cli.main([command, *words, "--print_config"])
        assert stop.value.code == 0
