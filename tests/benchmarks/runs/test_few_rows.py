"""Few rows, odd numbers of rows and constant columns: what is trained is also drawn."""

from dataclasses import replace

import numpy as np
import pytest

from priorzoo.benchmarks.charts import run_charts
from priorzoo.benchmarks.papers import RECIPES
from priorzoo.benchmarks.scores import registry
from priorzoo.cli import main as cli

NETS = ["--encoder.hidden", "[8]", "--decoder.hidden", "[8]"]
RUN = ["--steps", "3", "--every", "3", *NETS]


def few(path, count, tests=3, constant=False):
    draw = np.random.default_rng(0)
    x = np.ones((count + tests, 8, 8)) if constant else draw.random((count + tests, 8, 8)).round()
    y = np.arange(count + tests) % 10
    labels = {"y_train": y[:count], "y_test": np.resize(y[:count], tests)}
    np.savez(path, x_train=x[:count], x_test=x[count:], **labels)
    return str(path)


@pytest.fixture
def short(monkeypatch):
    """The recipes with stages of three steps."""
    for name in ("digits-vade", "digits-nonparametric"):
        recipe = RECIPES[name]
        stages = tuple(replace(s, steps=3) if s.begin is None else s for s in recipe.stages)
        monkeypatch.setitem(RECIPES, name, replace(recipe, stages=stages))


@pytest.mark.parametrize(
    ("recipe", "count", "constant"),
    [
        ("digits-vade", 1, False),
        ("digits-vade", 12, True),
        ("digits-nonparametric", 3, False),
    ],
)
def test_fewer_rows_than_clusters_train_and_draw(recipe, count, constant, short, tmp_path, capsys):
    path, out = few(tmp_path / "few.npz", count, constant=constant), tmp_path / "run"
    assert cli.main(["train", recipe, *RUN, "--data", path, "--out", str(out)]) == 0
    assert "warning: no" not in capsys.readouterr().err
    assert (out / "result.json").is_file()
    assert (out / "figures" / "samples.png").is_file()


def test_a_single_row_leaves_none_to_judge_moves_by_and_the_old_run_stays(tmp_path, capsys):
    out = tmp_path / "run"
    out.mkdir()
    old = '{"settings": "of an old run"}'
    (out / "result.json").write_text(old)
    words = ["train", "digits-nggp", *RUN, "--out", str(out), "--overwrite"]
    assert cli.main([*words, "--data", few(tmp_path / "one.npz", 1)]) == 2
    assert "Expected at least two rows" in capsys.readouterr().err
    assert (out / "result.json").read_text() == old


def test_a_chart_or_a_baseline_that_fails_does_not_end_a_training(
    short, tmp_path, monkeypatch, capsys
):
    """Of three charts the middle one and what comes after the last fail; the others are there."""

    def fail(*_):
        raise RuntimeError("cannot be made\nat all")

    def some(model, run, dataset, x, y):
        made = dict(run_charts.default_charts(model, run, dataset, x, y))
        yield "terms", made["terms"]
        yield "plane", fail
        yield "usage", made["usage"]
        fail()

    monkeypatch.setattr(run_charts, "charts", some)
    monkeypatch.setattr(registry, "k_means_scores", fail)
    path, out = few(tmp_path / "few.npz", 30), tmp_path / "run"
    assert cli.main(["train", "digits-vade", *RUN, "--data", path, "--out", str(out)]) == 0
    said = capsys.readouterr().err.splitlines()
    assert "warning: no chart 'plane': cannot be made" in said
    assert "warning: no further charts: cannot be made" in said
    assert "warning: no baseline of the stage: cannot be made" in said
    assert {p.stem for p in (out / "figures").iterdir()} == {"terms", "usage"}
    assert (out / "result.json").is_file()
