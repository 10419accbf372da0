"""The time of moves is measured where there are clusters to keep, and its rows become a table."""

import pytest
import torch

from priorzoo.benchmarks.report.measured import move_table
from priorzoo.benchmarks.report.table import to_markdown
from priorzoo.benchmarks.rows.files import read_rows
from priorzoo.benchmarks.speed.moves import planted
from priorzoo.cli import main as cli
from priorzoo.models.nggp.code_families import FAMILIES


@pytest.mark.parametrize("family", FAMILIES)
def test_planted_codes_are_of_the_clusters_of_their_mixture(family):
    bound, mixture, codes, held = planted(family, 4, 200)
    assert mixture.active.sum() == 4
    for part in (codes, held):
        owner = bound.assign(mixture, part).argmax(-1)
        assert (owner == torch.arange(200) % 4).double().mean() > 0.95


def test_bench_speed_moves_writes_rows_and_the_table_has_the_ratio(tmp_path):
    path = tmp_path / "moves.jsonl"
    words = ["bench", "speed-moves", "--clusters", "2,3", "--sizes", "100", "--rows", str(path)]
    for commit in (["--commit", "abc"], []):
        assert cli.main([*words, *commit]) == 0
    rows = read_rows(path)
    found = [(row["clusters"], row["commit"]) for row in rows]
    assert found == [(2, "abc"), (3, "abc"), (2, None), (3, None)]
    assert all(row["kind"] == "speed-moves" and row["seconds"] > 0 for row in rows)
    assert rows[0]["command"].endswith("speed-moves --clusters 2,3 --sizes 100 --commit abc")
    table = move_table(rows)
    assert table.head[3:] == ("seconds at abc", "seconds", "times faster")
    ratios = [line[-1].value for line in table.rows]
    expected = [rows[i]["seconds"] / rows[i + 2]["seconds"] for i in (0, 1)]
    assert ratios == pytest.approx(expected)
    assert "| full | 2 | 100 |" in to_markdown(table)
    (line,) = move_table(rows[:1]).rows
    assert line[-1].value == rows[0]["seconds"]
    assert move_table(rows[:3]).rows[1][-1].text == "–"
