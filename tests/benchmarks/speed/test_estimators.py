import math

import pytest

from priorzoo.benchmarks.rows.files import RESULTS, read_rows
from priorzoo.cli import main as cli


def test_the_table_is_printed_and_its_rows_are_kept(tmp_path, capsys):
    rows = tmp_path / "rows" / "gradients.jsonl"
    assert cli.main(["bench", "estimators", "--draws", "2000", "--rows", str(rows)]) == 0
    kept = read_rows(rows.parent)
    assert len(capsys.readouterr().out.splitlines()) == len(kept) + 2
    for row in kept:
        error = math.sqrt(row["variance"] / row["draws"])
        assert row["estimate"] == pytest.approx(row["gradient"], abs=5 * error)


def test_committed_rows_are_unbiased_and_baselines_reduce_the_variance():
    rows = read_rows(RESULTS / "estimators")
    for row in rows:
        error = math.sqrt(row["variance"] / row["draws"])
        assert row["estimate"] == pytest.approx(row["gradient"], abs=4.5 * error)
    plain, *baselines = [row["variance"] for row in rows if "q(v)" in row["expectation"]]
    assert len(baselines) == 2
    assert max(baselines) < plain / 10
