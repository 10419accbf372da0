"""Files that are measured hold what they say, and both ways of reading them train."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from priorzoo.benchmarks.speed.files import timed, written


@pytest.mark.parametrize("form", ["parquet", "bytes"])
def test_a_training_is_measured_on_files_and_in_memory(form, tmp_path):
    path = written(tmp_path, form, 1500)
    shape = pq.read_table(path).shape if form == "parquet" else np.load(path).shape
    assert shape == (1500, 20 if form == "parquet" else 784)
    for where in ("files", "memory"):
        found = timed(form, str(path), where, 3)
        assert found["rows_per_second"] > 0
        assert found["peak_mib"] >= 0
