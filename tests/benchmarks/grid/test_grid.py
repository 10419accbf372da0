"""Grids: what is planned, what is refused, and that nothing finished is lost or done twice."""

import json
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace

import pytest

from priorzoo.benchmarks.grid import runner as grid
from priorzoo.benchmarks.grid.cells import Cell, lengthened
from priorzoo.benchmarks.grid.clusterings import CLUSTERINGS, NEEDS
from priorzoo.benchmarks.grid.planning import plan, read_seeds, read_sets
from priorzoo.benchmarks.papers import PAPERS, RECIPES
from priorzoo.benchmarks.papers.paper import BUDGETS, Line, Measure, Paper
from priorzoo.cli import main as cli

TINY = {"encoder.hidden": [8], "decoder.hidden": [8], "train": 200, "validation": 0}
SETS = [f"{name}={value}" for name, value in TINY.items()]


def tiny(recipe="digits-vae", seed=0, steps=4, **changes):
    return Cell(recipe, seed, changes={**TINY, "steps": steps, **changes})


def rows(out):
    return [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]


def timeless(row):
    return {k: v for k, v in row.items() if k not in ("seconds", "peak_mib")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, quick_processes):
    """Two cells that train, one that cannot, and a baseline."""
    out = tmp_path_factory.mktemp("grid")
    cells = [
        tiny(),
        tiny(seed=1),
        tiny("digits-gmvae", data="no-such-file.npz"),
        Cell("k-means", length=500, changes={"data": "digits", "components": 10}),
    ]
    assert grid.run_grid(cells, out, jobs=2, progress=False) == (4, 1)
    return out, cells


def test_each_cell_has_one_row_and_a_failure_stops_no_other(finished):
    out, cells = finished
    found = {(row["recipe"], row["seed"]): row for row in rows(out)}
    assert set(found) == {("digits-vae", 0), ("digits-vae", 1), ("k-means", 0)}
    one = found["digits-vae", 0]
    assert one["cell"] == cells[0].key
    assert one["steps"] == 4
    assert one["changes"]["encoder.hidden"] == [8]
    assert one["settings"]["encoder"]["init_args"]["hidden"] == [8]
    assert one["peak_mib"] > 10
    assert (out / one["history"]).read_text().count("\n") >= 1
    assert all((out / path).is_file() for path in one["figures"])
    assert one["figures"]
    assert not found["digits-vae", 1]["figures"]
    assert found["k-means", 0]["metrics"]["accuracy_majority"] > 0.5
    (failure,) = [json.loads(line) for line in (out / "failures.jsonl").read_text().splitlines()]
    assert failure["recipe"] == "digits-gmvae"
    assert "no-such-file.npz" in failure["error"]


def test_a_second_run_does_what_is_missing_alone(finished):
    out, cells = finished
    before = rows(out)
    assert grid.run_grid(cells[:2], out, progress=False) == (0, 0)
    assert rows(out) == before


def test_a_cell_gives_the_same_row_but_for_time(finished, tmp_path):
    out, cells = finished
    assert grid.run_grid(cells[:1], tmp_path / "again", jobs=2, progress=False) == (1, 0)
    (again,) = rows(tmp_path / "again")
    one = next(row for row in rows(out) if (row["recipe"], row["seed"]) == ("digits-vae", 0))
    assert timeless(again) == timeless(one)


@pytest.mark.slow
def test_kill_and_restart_make_each_cell_once(tmp_path):
    """The runner is killed with a cell half-way and a row half-written."""
    out = tmp_path / "out"
    words = ["digits-vae", "--set", *SETS, "steps=150", "every=10", "--seeds", "0:4"]
    command = [sys.executable, "-m", "priorzoo", "bench", *words, "--jobs", "2"]
    command += ["--out", str(out)]
    runner = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    path = out / "rows.jsonl"
    deadline = time.monotonic() + 120
    while not (path.is_file() and path.read_bytes().count(b"\n") >= 1):
        assert runner.poll() is None, runner.stdout.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    runner.send_signal(signal.SIGKILL)
    runner.communicate()
    before = rows(out)
    assert 1 <= len(before) < 4
    with path.open("a") as file:
        file.write('{"format": 1, "cell": "torn')
    again = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert again.returncode == 0, again.stderr
    after = rows(out)
    assert after[: len(before)] == before
    assert Counter(row["seed"] for row in after) == {0: 1, 1: 1, 2: 1, 3: 1}
    assert len({row["cell"] for row in after}) == 1


def test_a_row_that_was_made_and_not_written_is_not_made_again(finished, tmp_path):
    out, cells = finished
    copy = tmp_path / "out"
    (copy / "runs").mkdir(parents=True)
    (copy / "rows.jsonl").touch()
    kept = out / "runs" / f"{cells[0].name}.json"
    (copy / "runs" / kept.name).write_bytes(kept.read_bytes())
    grid.run_grid(cells[:1], copy, progress=False)
    (row,) = rows(copy)
    made = {(r["cell"], r["seed"]): r for r in rows(out)}  # in the order in which they finished
    assert row == made[cells[0].key, 0]
    assert not (copy / "runs" / cells[0].name).exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["digits-vea"], "Unknown recipe or paper 'digits-vea'"),
        ([], "Expected recipes, papers or all"),
        (["digits-vae", "--seeds", "3:3"], "Expected a range with at least one seed"),
        (["digits-vae", "--seeds", "three"], "Expected --seeds such as 0:5"),
        (["digits-vae", "--set", "code=4"], "Unknown option '--code'"),
        (["digits-vae", "--set", "model.codes=4"], "codes"),
        (["digits-vae", "--set", "steps="], "Expected --set key=a,b"),
        (["digits-vae", "--set", "steps=1", "steps=2"], "each key once"),
        (["k-means", "--set", "cluster=4"], "cluster"),
        (["digits-vae", "--jobs", "0"], "Expected at least one job"),
        (["digits-vae", "--budget", "long"], "long"),
        (["digits-vae", "--shard", "0/2"], "Expected --shard such as 3/16"),
        (["digits-vae", "--shard", "3/2"], "from 1/16 to 16/16, but got '3/2'"),
        (["digits-vae", "--shard", "1"], "Expected --shard such as 3/16"),
    ],
)
def test_bad_input_is_refused_and_nothing_written(words, message, tmp_path, capsys):
    out = tmp_path / "out"
    assert cli.main(["bench", *words, "--out", str(out)]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_a_folder_of_other_settings_or_an_older_format_is_left_alone(finished, tmp_path):
    out, cells = finished
    before = (out / "rows.jsonl").read_bytes()
    other = replace(cells[0], budget="quick")
    with pytest.raises(ValueError, match="Expected rows of the same settings"):
        grid.run_grid([other], out)
    longer = replace(cells[3], length=400)
    with pytest.raises(ValueError, match="choose another --out"):
        grid.run_grid([longer], out)
    assert (out / "rows.jsonl").read_bytes() == before
    old = tmp_path / "old"
    old.mkdir()
    (old / "rows.jsonl").write_text('{"recipe": "vae"}\n')
    with pytest.raises(ValueError, match="line 1"):
        grid.run_grid(cells, old)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match="holds something else"):
        grid.run_grid(cells, foreign)
    assert [path.name for path in foreign.iterdir()] == ["letter.txt"]


def test_a_plan_is_the_product_of_settings_and_seeds():
    cells = plan(["digits-gmvae"], [0, 1], {"model.clusters": [4, 6], "steps": [2]}, "quick")
    assert [(c.changes["model.clusters"], c.seed) for c in cells] == [
        (4, 0), (4, 1), (6, 0), (6, 1),
    ]  # fmt: skip
    assert len({cell.key for cell in cells}) == 2
    assert cells[0].resolved().model.init_args["clusters"] == 4


def test_what_a_recipe_says_itself_is_no_change():
    sets = {"model.clusters": [3, 10], "precision": ["bf16"], "steps": [7]}
    three, ten = plan(["digits-gmvae"], [0], sets, "quick")
    assert three.changes == {"model.clusters": 3, "precision": "bf16", "steps": 7}
    assert ten.changes == {"precision": "bf16", "steps": 7}
    k_means, own = plan(["k-means"], [0], {"clusters": [4, 10]}, "quick")
    assert (k_means.changes, own.changes) == ({"clusters": 4}, {})


def test_settings_of_trainings_leave_the_clusterings_of_a_paper_as_they_are():
    """A clustering has no steps; one that is asked for alone refuses them."""
    sets = {"step": ["eager", "compiled"], "data": ["digits"]}
    cells = plan(["alpaydin1998"], [0], sets, "quick")
    beside, *trained = (dict(cell.changes) for cell in cells)
    assert beside == {"data": "digits"}  # once
    assert [c.get("step", "eager") for c in trained] == ["eager", "compiled"] * 4
    with pytest.raises(ValueError, match="Unknown option '--step'"):
        plan(["k-means", "lda"], [0], sets, "quick")
    with pytest.raises(ValueError, match="Unknown option '--stepp'"):
        plan(["alpaydin1998"], [0], {"stepp": ["eager"]}, "quick")


def test_a_length_that_is_asked_for_counts_beside_the_budget_s():
    own = RECIPES["digits-gmvae"].steps
    line = Line("a", "digits-gmvae", {"quick": 7})
    (cell,) = plan(["mine"], [0], {"steps": [own]}, "quick", [Paper("mine", "", "", (line,))])
    assert (dict(cell.changes), cell.resolved().steps) == ({"steps": own}, own)


def test_a_paper_s_lines_keep_their_own_settings_and_lengths():
    line = Line("a", "digits-gmvae", {"quick": 7, "paper": 70}, {"model.clusters": 3})
    paper = Paper("mine", "Mine", "me", (line, replace(line, recipe="not yet")))
    (cell,) = plan(["mine"], [0], {}, "quick", [paper])
    recipe = cell.resolved()
    assert (recipe.steps, recipe.model.init_args["clusters"]) == (7, 3)
    with pytest.raises(ValueError, match="Expected lines of mine"):
        plan(["mine"], [0], {}, "standard", [paper])


def test_no_paper_has_the_name_of_a_recipe():
    assert not {paper.name for paper in PAPERS} & {*RECIPES, *CLUSTERINGS, "all"}


def test_stages_keep_their_share_of_a_training():
    short = lengthened(RECIPES["factorial"], 20)
    assert (short.steps, [stage.steps for stage in short.stages]) == (20, [10, 2])
    epochs = lengthened(RECIPES["vade"], 2)
    assert (epochs.steps, epochs.epochs, epochs.stages[0].epochs) == (None, 2, 1)


def test_a_cell_s_hash_is_of_what_is_trained():
    """Not of the seed, of the budget that asks for it, or of how its length was said."""
    one = Cell("gmvae", length=100)
    same = [replace(one, seed=3), replace(one, budget="quick")]
    same.append(Cell("gmvae", changes={"steps": 100, "every": 7}))
    assert {cell.key for cell in same} == {one.key}
    assert Cell("vade").key == Cell("vade", length=20).key
    other = [replace(one, length=101), replace(one, changes={"precision": "bf16"}), Cell("m2")]
    assert len({cell.key for cell in [one, *other]}) == 4


def test_a_row_of_train_is_one_of_a_grid(tmp_path):
    words = "digits-gmvae --precision bf16 --model.code=5 --model.clusters 10 --steps 4"
    rows_file = tmp_path / "rows.jsonl"
    where = ["--out", str(tmp_path / "run"), "--rows", str(rows_file), "--seed", "2"]
    assert cli.main(["train", *words.split(), *where]) == 0
    (row,) = [json.loads(line) for line in rows_file.read_text().splitlines()]
    changes = {"precision": "bf16", "model.code": 5, "steps": 4}
    assert row["changes"] == changes
    assert row["cell"] == Cell("digits-gmvae", changes=changes).key
    assert (row["format"], row["history"], row["figures"]) == (2, None, [])
    assert Line("", "digits-gmvae", {}, {"model.code": 5}).fits(row)
    assert not Line("", "digits-gmvae", {}).fits(row)


def test_importance_samples_may_be_asked_for():
    """In place of those of the line, and as a part of the command."""
    (cell,) = plan(["sb-vae"], [0], {}, "quick")
    assert (cell.importance, "importance" in cell.command) == (100, False)
    (cell,) = plan(["sb-vae"], [0], {}, "quick", importance=7)
    assert cell.importance == 7
    assert cell.command == "priorzoo bench sb-vae --budget quick --importance-samples 7"
    with pytest.raises(ValueError, match="--importance-samples"):
        plan(["sb-vae"], [0], {}, "quick", importance=-1)


def test_the_command_of_a_cell_makes_the_same_cell():
    changes = {"encoder.hidden": [400, 200], "kl.z.weight": {"start": 0.0, "end": 1.0, "steps": 9}}
    (cell,) = plan(["gmvae"], [0], {k: [v] for k, v in changes.items()}, "quick")
    _, _, name, *_, first, second = shlex.split(cell.command)
    (again,) = plan([name], [0], read_sets([first, second]), "quick")
    assert (again, again.key) == (cell, cell.key)


def test_every_line_of_every_paper_can_be_planned():
    for budget in BUDGETS:
        cells = plan(["all"], [0], {}, budget)
        assert len(cells) > 20
    planned = {cell.recipe for cell in plan(["all"], [0], {}, "quick")}
    assert set(CLUSTERINGS) - set(NEEDS) <= planned
    assert not set(NEEDS) & planned
    assert {cell.recipe for cell in plan(["mcconville2021"], [0], {}, "quick")} == {"n2d"}
    lines = [line for paper in PAPERS for line in paper.lines if not line.optional]
    missing = {line.recipe for line in lines} - planned
    assert all(name.startswith("nggp") for name in missing)


def test_seeds_and_sets_are_read():
    assert read_seeds("2:4") == [2, 3]
    assert read_sets(["a=1", "b=[1,2],[3]"]) == {"a": [1], "b": [[1, 2], [3]]}


def test_a_measure_finds_its_figure():
    row = {"terms": {"elbo": -3.0}, "stages": {"mixture": {"metrics": {"nmi": 0.5}}}}
    negative = Measure("-ELBO", ("terms", "elbo"), {100: 4.0}, sign=-1)
    assert negative.of(row) == 3.0
    assert (negative.published_at(100), negative.published_at(200)) == (4.0, None)
    assert Measure("NMI", ("stages", "mixture", "metrics", "nmi")).of(row) == 0.5
    assert Measure("x", ("metrics", "x")).of(row) is None
