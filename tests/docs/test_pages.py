"""The code on the pages runs as it stands there, block after block."""

import csv
import math
import random
import re
import shlex
from pathlib import Path

import pytest

from priorzoo import guides, models
from priorzoo.benchmarks.charts import run_charts
from priorzoo.cli import main as cli

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {path.stem: path.read_text("utf-8") for path in sorted(DOCS.glob("*.md"))}
IN_PYTHON = [page for page, text in PAGES.items() if "```python" in text]
IN_SHELL = [page for page, text in PAGES.items() if re.search(r"^```\npriorzoo ", text, re.M)]
PIECES = {"compiled", "running"}  # one compiles, one shows pieces of a program
WHOLE = {"index", "first-steps"}  # whose Python runs among their commands
NOT_HERE = ("--download", "author2020", "bench speed", "--budget paper", "runs/grid")
EXPECTED = {  # names that a page's blocks leave, and what is true of them
    "data": lambda names: names["table"].rows.shape == (100, 3),
    "declare": lambda names: names["probabilities"].shape == (600, 3),
    "declaring": lambda names: {"elbo", "reconstruction", "kl[z]"} <= set(names["terms"]),
    "estimators": lambda names: names["clusters"].shape == (178,),
    "first-steps": lambda names: names["clusterer"].labels_.shape == (178,),
    "index": lambda names: names["clusters"].shape == (178,),
    "scale": lambda names: names["clusters"].shape == (5000, 3),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with a table of people in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    chance = random.Random(0)
    with Path("people.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", "kind", "age", "visits", "income"])
        for place in range(60):
            age, visits = chance.gauss(50, 10), chance.randint(0, 4)
            table.writerow([f"p{place}", "ab"[place % 2], age, visits, chance.gauss(0, 1)])
    return tmp_path


def run_python(code, names):
    exec(compile(code, "block", "exec"), names)
    history = names.get("history", [])
    assert all(math.isfinite(row["elbo"]) for row in history)


@pytest.mark.parametrize("page", [page for page in IN_PYTHON if page not in PIECES | WHOLE])
def test_python_on_a_page_runs(page, blocks, folder, hurried):
    names = {}
    for language, code in blocks(page):
        if language == "python":
            run_python(code, names)
    assert EXPECTED.get(page, lambda _: True)(names)


@pytest.mark.docs
def test_eager_and_compiled_steps_of_the_page_have_the_same_bound(blocks, folder):
    names = {}
    for language, code in blocks("compiled"):
        if language == "python":
            run_python(code, names)
    assert names["bounds"]["compiled"] == pytest.approx(names["bounds"]["eager"], rel=1e-4)


def shortened(command):
    """The words of a command for a few steps, of one seed and two cells."""
    _, *words = shlex.split(command)
    if words[0] in {"train", "fit"}:
        words += ["--steps", "4"]
    if words[0] == "train":
        words += ["--every", "4"]
    if words[0] == "bench" and "--set" in words:
        place = words.index("--set") + 1
        name, _, values = words[place].partition("=")
        words[place : place + 1] = [f"{name}={','.join(values.split(',')[:2])}", "steps=4"]
        words[words.index("--seeds") + 1] = "0:1"
    return words


@pytest.mark.docs
@pytest.mark.parametrize("page", IN_SHELL)
def test_commands_on_a_page_run_in_their_order(page, blocks, folder, hurried, monkeypatch, capsys):
    monkeypatch.setattr(run_charts, "draw_run", lambda *_: [])
    names, first = {}, None
    for language, code in blocks(page):
        if language == "python" and page not in PIECES:
            run_python(code, names)
            first = first or code
        for line in code.splitlines() if not language else ():
            if not line.startswith("priorzoo ") or any(word in line for word in NOT_HERE):
                continue
            if "mine." in line:
                Path("mine.py").write_text(first)
            assert cli.main(shortened(line)) == 0, (line, capsys.readouterr().err)
            capsys.readouterr()
    if page in WHOLE:
        assert EXPECTED[page](names)


def test_pages_name_programs_that_exist():
    text = PAGES["catalogue"]
    named = {name for name in re.findall(r"`([A-Z]\w+)`", text) if name != "RESULTS"}
    assert len(named) > 20
    assert named <= {*models.__all__, *guides.__all__}
