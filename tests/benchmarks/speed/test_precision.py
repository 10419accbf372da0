import math

import pytest

from priorzoo.benchmarks.rows.files import RESULTS, read_rows
from priorzoo.cli import main as cli


def check(rows):
    """Closed forms to the last digits, estimates to 4.5 standard errors and torch's own 5e-4.

    Of ``torch.polygamma``, in derivatives, there are only nine digits.
    """
    for row in rows:
        for precision, digit in (("float32", 6e-8), ("float64", 1e-9)):
            found, exact = row[precision], row["exact"]
            if "spread" in found:
                limit = 4.5 * found["spread"] + 5e-4 * abs(exact)
            else:  # quadratures have errors of their own, of 1e-8 of a term
                limit = (20 if row["method"] == "derivative" else 2) * digit * abs(exact)
                limit = max(limit, 1e-7 * abs(exact)) if "logit" in row["quantity"] else limit
            assert found["mean"] == pytest.approx(exact, abs=limit), row


def test_the_tables_are_printed_and_the_rows_are_kept(tmp_path, capsys):
    file = tmp_path / "rows" / "precision.jsonl"
    words = ["--draws", "500", "--shapes", "0.05,10000", "--rows", str(file)]
    assert cli.main(["bench", "precision", *words]) == 0
    rows = read_rows(file)
    check(rows)
    lines = [line for line in capsys.readouterr().out.splitlines() if line]
    assert len(lines) == 2 * (len(rows) // 2 + 2)


def test_committed_rows_are_precise():
    rows = read_rows(RESULTS / "precision")
    check(rows)
    shapes = {row["shape"] for row in rows}
    assert (min(shapes), max(shapes)) == (1e-3, 1e5)
    assert all(math.isfinite(row[name]["mean"]) for row in rows for name in ("float32", "float64"))
