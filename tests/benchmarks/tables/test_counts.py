"""Simulated counts of two batches: what is planted, and the rows and table of ``bench counts``."""

import pytest
import torch

from priorzoo.benchmarks.report.measured import counts_table
from priorzoo.benchmarks.report.table import to_markdown
from priorzoo.benchmarks.rows.files import read_rows
from priorzoo.benchmarks.tables import counts
from priorzoo.cli import main as cli


def test_clusters_batches_and_exposures_are_planted_independently():
    data = counts.simulate(6_000, 0)
    again = counts.simulate(6_000, 0)
    assert torch.equal(data.x, again.x)
    shares = data.cluster.bincount() / 6_000
    torch.testing.assert_close(shares, torch.tensor(counts.SHARES), rtol=0, atol=0.02)
    for k in range(len(counts.SHARES)):
        chosen = data.cluster == k
        assert data.batch[chosen].double().mean().item() == pytest.approx(0.5, abs=0.06)
        assert data.exposure[chosen].log().mean().item() == pytest.approx(0, abs=0.06)
    rate, many = data.x.sum(-1) / data.exposure, data.exposure > 1.5
    assert (data.x[many].sum() / data.exposure[many].sum()).item() == pytest.approx(
        rate.mean().item(), rel=0.1
    )


def test_bench_counts_writes_rows_and_their_table(tmp_path, monkeypatch):
    monkeypatch.setattr(counts, "PRETRAINING", 3)
    path = tmp_path / "counts.jsonl"
    words = ["bench", "counts", "--seeds", "5", "--sizes", "60", "--steps", "4"]
    assert cli.main([*words, "--rows", str(path)]) == 0
    rows = read_rows(path)
    assert [(row["seed"], row["covariate"]) for row in rows] == [(5, True), (5, False)]
    assert all(row["planted"] == 6 and -1 <= row["ari"] <= 1 for row in rows)
    table = counts_table(rows)
    assert [line[0].text for line in table.rows] == ["yes", "no"]
    assert "| yes | 60 | 4 | 1 | 6 |" in to_markdown(table)
