import json

import pytest
import torch

from priorzoo.benchmarks.data.sets import load
from priorzoo.cli import main as cli


def test_blobs_are_separated_clusters_and_the_same_under_one_seed():
    rows = load("blobs:8", seed=3)
    assert rows.x_train.shape == (2_000, 16)
    assert rows.x_test.shape == (1_000, 16)
    assert torch.bincount(torch.cat([rows.y_train, rows.y_test])).tolist() == [375] * 8
    within = [rows.x_train[rows.y_train == k].std(0).mean().item() for k in range(8)]
    assert within == pytest.approx([0.35] * 8, abs=0.05)
    torch.testing.assert_close(load("blobs", seed=3).x_test, rows.x_test)
    assert len(load("blobs:20").y_train.unique()) == 20


def test_a_short_training_from_five_clusters_finds_eight_and_keeps_its_row(tmp_path, capsys):
    rows = tmp_path / "rows.jsonl"
    words = ["train", "nggp-blobs", "--steps", "250"]
    places = ["--rows", str(rows), "--out", str(tmp_path / "run")]
    assert cli.main([*words, *places]) == 0
    row = json.loads(rows.read_text())
    assert "ari" in capsys.readouterr().out
    assert row["command"] == "priorzoo train nggp-blobs --steps 250"
    lines = (tmp_path / "run" / "history.jsonl").read_text().splitlines()
    history = [json.loads(line) for line in lines]
    trained = [entry for entry in history if entry["split"] == "train"]
    assert [(entry["step"], entry["clusters"]) for entry in trained] == [(200, 5), (250, 8)]
    (moved,) = [entry for entry in history if entry["split"] == "moves"]
    assert (moved["step"], moved["clusters"]) == (200, 8)
    assert moved["births"] + moved["splits"] - moved["deaths"] - moved["merges"] == 3
    assert row["metrics"]["active_clusters"] == 8
    assert row["metrics"]["ari"] > 0.9


@pytest.mark.parametrize("name", ["blobs:many", "blobs:0", "blobs:"])
def test_a_number_of_clusters_that_is_none_is_refused(name):
    with pytest.raises(ValueError, match=r"Expected 1 to 1000 clusters, as in blobs:8, but got"):
        load(name)
