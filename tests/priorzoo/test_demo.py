"""The demo, with rows that were made before in place of its trainings."""

import os
import re
from pathlib import Path

import pytest

from priorzoo.benchmarks.grid import runner
from priorzoo.benchmarks.grid.shared import ROWS
from priorzoo.benchmarks.papers.alpaydin1998 import PAPER
from priorzoo.benchmarks.report.table import Cell, Table
from priorzoo.benchmarks.rows.files import append_row
from priorzoo.cli import main as cli
from priorzoo.cli.demo import as_text
from priorzoo.cli.main import COMMANDS

ROOT = Path(__file__).parents[2]


def made(cell):
    """A row as a training leaves it."""
    scores = {"accuracy_hungarian": 0.5, "nmi": 0.4, "used_clusters": 10.0}
    return {
        **cell.origin(),
        **{"recipe": cell.recipe, "seed": cell.seed, "command": cell.command, "steps": 4},
        **{"terms": {"elbo": 30.0}, "metrics": scores, "k-means": scores},
        **{"seconds": 2.0, "device": "cpu", "history": None, "figures": [], "settings": {}},
    }


@pytest.fixture
def grids(monkeypatch):
    """What the demo asks of the grid, whose trainings are left out."""
    asked = []

    def run_grid(cells, out, *, jobs):
        asked.append((len(cells), jobs, os.environ.get("OMP_NUM_THREADS")))
        for cell in cells:
            append_row(made(cell), out / ROWS)
        return len(cells), 0

    monkeypatch.setattr(runner, "run_grid", run_grid)
    monkeypatch.setattr(os, "environ", {**os.environ})
    os.environ.pop("OMP_NUM_THREADS", None)
    return asked


def test_it_prints_the_model_one_table_a_page_and_what_to_try_next(grids, tmp_path, capsys):
    out = tmp_path / "demo"
    assert cli.main(["demo", "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert grids == [(len(PAPER.lines), 2, "1")]
    assert 'y = pyro.sample("y"' in said.out
    lines = said.out.splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith("line "))
    titles = [re.split(r"  +", line)[0] for line in lines[head + 1 : head + 1 + len(PAPER.lines)]]
    assert titles == [line.title for line in PAPER.lines]
    page = Path(re.search(r"^page: (.*)$", said.out, re.M)[1]).read_text("utf-8")
    assert all(line.title in page for line in PAPER.lines)
    assert "k-means" in page
    for line in re.findall(r"^(?:next:)? +priorzoo (\w+)", said.err, re.M):
        assert line in COMMANDS
    assert "next: priorzoo train" in said.err
    assert "clusterings" in said.err  # what is waited for, also where there is no terminal


def test_failures_are_told(grids, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(runner, "run_grid", lambda cells, out, *, jobs: (1, 2))
    assert cli.main(["demo", "--out", str(tmp_path)]) == 1
    assert "2 of 5 failed" in capsys.readouterr().err


def test_make_demo_runs_it_on_one_thread():
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(r"^demo: .*\n\tOMP_NUM_THREADS=1 \S+/priorzoo demo$", makefile, re.M)


def test_columns_are_aligned():
    rows = ((Cell("a"), Cell("0.5"), Cell("7")), (Cell("long"), Cell("0.25"), Cell("7")))
    assert as_text(Table(("line", "NMI", "steps"), rows)) == [
        "line  NMI",
        "a     0.5",
        "long  0.25",
    ]
