"""Gaps, densities of rivals and tables of rows, against other ways to compute them."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import multivariate_normal
from sklearn.datasets import load_wine

from priorzoo.benchmarks.report.clustered import clustering_tables
from priorzoo.cli.main import main
from priorzoo.comparisons.rivals import Filled, Rival
from priorzoo.comparisons.tables import with_gaps

MIXTURE = "mean imputation, GaussianMixture"


@pytest.mark.parametrize("share", [0.0, 0.2, 0.9])
def test_a_share_of_the_cells_is_removed_and_no_row_is_empty(share):
    x = np.arange(4000.0).reshape(1000, 4)
    frame = pd.DataFrame(x, columns=list("abcd")).assign(d=[str(v) for v in x[:, 3]])
    for made in (with_gaps(x, share, 1), with_gaps(frame, share, 1)):
        gone = pd.isna(made)
        assert np.asarray(gone).mean() == pytest.approx(share, abs=0.2 if share > 0.5 else 0.03)
        assert not np.asarray(gone).all(1).any()
    assert with_gaps(x, share, 1) is not x
    np.testing.assert_array_equal(with_gaps(x, share, 1), with_gaps(x, share, 1))


def test_missing_cells_of_rivals_are_means_and_modes():
    frame = pd.DataFrame({"a": [1.0, np.nan, 3.0], "b": ["x", "x", None]})
    filled = Filled(frame)
    np.testing.assert_allclose(filled.whole(frame)[1], [0.0, 1.0])
    assert filled.categories(frame)[2, 0] == "x"


def test_densities_of_rivals_are_marginals_in_the_units_of_the_table():
    X = load_wine().data[:, :3]
    rival = Rival(MIXTURE, 1, 0)
    rival.fit(X)
    whole = multivariate_normal(X.mean(0), np.cov(X.T, bias=True)).logpdf(X).mean()
    assert rival.score(X) == pytest.approx(whole, abs=0.01)
    gaps = X.copy()
    gaps[:, 1] = np.nan
    kept = X[:, [0, 2]]
    marginal = multivariate_normal(kept.mean(0), np.cov(kept.T, bias=True)).logpdf(kept).mean()
    assert rival.score(gaps) == pytest.approx(marginal, abs=0.01)


def test_tables_of_rows_have_means_over_seeds_and_over_tables():
    rows = [
        {"table": table, "missing": 0.2, "seed": seed, "method": "a", "ari": ari, "nats": None}
        for table, seed, ari in (("one", 0, 0.2), ("one", 1, 0.4), ("two", 0, 0.9))
    ]
    ari, nats = clustering_tables(rows)
    cells = {row[0].text: row[2].text for row in ari.rows}
    assert cells["one"].startswith("0.300 ± 0.14")
    assert cells["mean over tables"] == "0.600"
    assert not nats.rows
    assert "mean over tables of all methods" not in cells


def test_methods_of_some_tables_are_compared_on_these():
    found = {("one", "a"): 0.2, ("one", "b"): 0.3, ("two", "a"): 0.9}
    rows = [
        {"table": table, "missing": 0.0, "seed": 0, "method": method, "ari": ari, "nats": None}
        for (table, method), ari in found.items()
    ]
    lines = {
        row[0].text: [cell.text for cell in row[2:]] for row in clustering_tables(rows)[0].rows
    }
    assert lines["mean over tables"] == ["0.550", "0.300"]
    assert lines["mean over tables of all methods"] == ["0.200", "0.300"]


@pytest.mark.slow
def test_a_table_is_compared_by_the_command_line(tmp_path, capsys):
    file = tmp_path / "rows.jsonl"
    command = ["bench", "tables", "--tables", "wine", "--missing", "0.2", "--seeds", "0:1"]
    assert main([*command, "--rows", str(file)]) == 0
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [row["method"] for row in rows][:2] == ["priorzoo", MIXTURE]
    assert rows[0]["ari"] > 0.5
    assert rows[0]["nats"] > rows[1]["nats"] - 2
    assert main([*command, "--rows", str(file)]) == 0
    assert len(file.read_text().splitlines()) == len(rows)  # nothing is left to do
    capsys.readouterr()
    assert main(["bench", "tables", "--tables", "whine"]) == 2
    assert "wine, penguins" in capsys.readouterr().err
