"""``priorzoo bench infogan``: rows of InfoGAN and of runs, their table and their figure."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from priorzoo.benchmarks.papers import RECIPES
from priorzoo.benchmarks.recipes.changes import apply
from priorzoo.benchmarks.report.drawn import samples_table
from priorzoo.benchmarks.rows.files import read_rows
from priorzoo.benchmarks.runs.run import train
from priorzoo.cli import main as cli
from priorzoo.inference import Stream


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Noisy copies of two images of 8 x 8 pixels."""
    with Stream(0):
        kinds = (torch.rand(2, 64) > 0.5).float()
        y = torch.arange(120) % 2
        x = (kinds[y] + 0.1 * torch.randn(120, 64)).clamp(0, 1).reshape(-1, 8, 8).numpy()
    path = tmp_path_factory.mktemp("images") / "two.npz"
    parts = {"x_train": x[:100], "y_train": y[:100].numpy()}
    np.savez(path, **parts, x_test=x[100:], y_test=y[100:].numpy())
    return str(path)


def test_infogan_and_a_run_beside_it_are_judged_alike(images, tmp_path, capsys):
    small = {"encoder.hidden": [8], "decoder.hidden": [8], "steps": 4, "train": 80}
    recipe = apply(RECIPES["digits-nggp"], {"data": images, "validation": 0, **small})
    recipe = replace(recipe, stages=())
    train("digits-nggp", recipe, tmp_path / "run", seed=4, device="cpu", command="priorzoo train")
    words = ["bench", "infogan", "--data", images, "--channels", "2", "--batch-size", "8"]
    words += ["--samples", "6", "--out", str(tmp_path / "gan"), "--rows", str(tmp_path / "rows")]
    assert cli.main([*words, "--steps", "3"]) == 0
    more = ["--beside", str(tmp_path / "run"), "--figures", str(tmp_path)]
    assert cli.main([*words, "--steps", "5", *more]) == 0
    assert "step 5:" in capsys.readouterr().out
    first, again, run = read_rows(tmp_path / "rows")
    assert (first["steps"], again["steps"], run["steps"]) == (3, 5, 4)
    assert (first["recipe"], run["recipe"], run["seed"]) == ("infogan", "digits-nggp", 4)
    assert first["seconds"] >= 0
    assert again["seconds"] is None  # of a training in two parts
    assert len(first["metrics"]) == len(run["metrics"]) == 8
    assert first["metrics"]["clusters"] == 10
    assert run["metrics"]["clusters"] == run["metrics"]["used_clusters"] <= 5
    assert (tmp_path / "samples.png").stat().st_size > 0
    table = samples_table([first, again, run])
    assert len(table.rows) == 3
    assert "of 6 samples" in table.notes[0]
    assert table.rows[2][0].commands[0].startswith("priorzoo train")


def test_points_have_no_categories_to_draw(capsys):
    assert cli.main(["bench", "infogan", "--data", "pinwheel", "--steps", "1"]) == 2
    assert "Expected grey images with labels" in capsys.readouterr().err
