import json

import pytest
import torch

from priorzoo.benchmarks.scores import growing


def test_blobs_are_separated_clusters_and_the_same_under_one_seed():
    rows = growing.blobs(8, seed=3)
    assert rows.x_train.shape == (2_000, 16)
    assert torch.bincount(torch.cat([rows.y_train, rows.y_test])).tolist() == [375] * 8
    within = [rows.x_train[rows.y_train == k].std(0).mean().item() for k in range(8)]
    assert within == pytest.approx([0.35] * 8, abs=0.05)
    torch.testing.assert_close(growing.blobs(8, seed=3).x_test, rows.x_test)


def test_a_short_training_from_five_clusters_finds_eight_and_keeps_its_row(tmp_path, capsys):
    rows = tmp_path / "rows.jsonl"
    growing.main(["blobs:8", "--steps", "250", "--rows", str(rows)])
    row = json.loads(rows.read_text())
    assert "ari" in capsys.readouterr().out
    assert row["command"] == ("python -m priorzoo.benchmarks.scores.growing blobs:8 --steps 250")
    history = [entry for entry in row["moves"] if entry["split"] == "train"]
    assert [(entry["step"], entry["clusters"]) for entry in history] == [(200, 5), (250, 8)]
    (moved,) = [entry for entry in row["moves"] if entry["split"] == "moves"]
    assert (moved["step"], moved["clusters"]) == (200, 8)
    assert moved["births"] + moved["splits"] - moved["deaths"] - moved["merges"] == 3
    assert row["metrics"]["active_clusters"] == 8
    assert row["metrics"]["ari"] > 0.9


def test_a_source_that_has_a_recipe_is_refused(capsys):
    with pytest.raises(SystemExit):
        growing.main(["mnist"])
    assert "Expected blobs:K but got 'mnist'" in capsys.readouterr().err
