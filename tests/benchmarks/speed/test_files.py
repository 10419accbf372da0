"""Files that are measured hold what they say, and both ways of reading them train."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from priorzoo.benchmarks.rows.files import read_folder
from priorzoo.benchmarks.speed.files import timed, written
from priorzoo.cli.main import main


@pytest.mark.parametrize("form", ["parquet", "bytes"])
def test_a_training_is_measured_on_files_and_in_memory(form, tmp_path):
    path = written(tmp_path, form, 1500)
    shape = pq.read_table(path).shape if form == "parquet" else np.load(path).shape
    assert shape == (1500, 20 if form == "parquet" else 784)
    for where in ("files", "reading", "memory"):
        found = timed(form, str(path), where, 3)
        assert found["rows_per_second"] > 0
        assert found["peak_mib"] >= 0


@pytest.mark.slow
def test_bench_speed_files_writes_rows_that_reports_read(tmp_path):
    words = ["--formats", "parquet", "--sizes", "1500", "--steps", "2", "--rounds", "1"]
    assert main(["bench", "speed-files", *words, "--rows", str(tmp_path / "rows.jsonl")]) == 0
    rows = read_folder(tmp_path)
    assert [row["from"] for row in rows] == ["files", "reading", "memory"]
    assert all(len(row["rows_per_second"]) == 1 for row in rows)
