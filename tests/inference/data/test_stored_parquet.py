"""What is in memory while Parquet files are read, and what their columns become."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from priorzoo.inference import StoredRows
from priorzoo.inference.data.stored import opening
from priorzoo.inference.data.stored.files import Part
from priorzoo.inference.data.stored.parquet import ParquetFile

WIDTH = 8


def _written(path: Path, rows: int, **how: object) -> Path:
    draw = np.random.default_rng(0)
    columns = {f"c{i}": draw.normal(size=rows).astype(np.float32) for i in range(WIDTH)}
    columns["label"] = draw.integers(0, 3, rows)
    pq.write_table(pa.table(columns), path, **how)
    return path


@pytest.fixture
def most(monkeypatch) -> Iterator[Callable[..., int]]:
    """Bytes that pyarrow has at most, in passes that begin as those of a training do."""
    before, pool = pa.default_memory_pool(), pa.system_memory_pool()
    seen: list[int] = []

    class Watched(ParquetFile):
        def _tensors(self, rows: pa.RecordBatch) -> Part:
            seen.append(pool.bytes_allocated())
            return super()._tensors(rows)

    def passed(path: Path, buffer: int, workers: int = 1) -> int:
        seen.clear()
        how = {"buffer": buffer, "batch_size": 500, "workers": workers}
        rows = StoredRows(path, labels={"y": "label"}, **how)
        rows.first(2)
        next(rows.in_order(1000))
        passes = rows.passes()
        for _ in range(3 * len(rows)):
            next(passes)
        return max(seen)

    monkeypatch.setitem(opening.KINDS, ".parquet", Watched)
    pa.set_memory_pool(pool)
    yield passed
    pa.set_memory_pool(before)


@pytest.mark.parametrize("workers", [0, 1])
def test_one_row_group_is_open_at_a_time_however_many_there_are(most, tmp_path, workers):
    """Each holds pages and dictionaries, and one that is left would keep them."""
    found = []
    for groups in (1, 7):
        path = _written(tmp_path / f"{groups}.parquet", groups * 10_000, row_group_size=10_000)
        found.append(most(path, buffer=4000, workers=workers))
    assert found[1] <= 1.15 * found[0]


def test_files_of_a_folder_share_what_is_open(most, tmp_path):
    for number in range(5):
        _written(tmp_path / f"{number}.parquet", 8000, row_group_size=8000)
    alone = most(tmp_path / "0.parquet", buffer=3000)
    assert most(tmp_path, buffer=3000) <= 1.15 * alone


def test_a_row_group_is_never_in_memory_whole(most, tmp_path):
    how = {"use_dictionary": False, "data_page_size": 2**13, "row_group_size": 10**6}
    path = _written(tmp_path / "one.parquet", 100_000, **how)
    assert pq.ParquetFile(path).num_row_groups == 1
    assert most(path, buffer=4000) < 100_000 * (WIDTH * 4 + 8) / 8


@pytest.mark.parametrize("group", [3, 7, 100])
def test_columns_of_each_type_become_their_numbers(tmp_path, group):
    """With NaN where there is none, whether or not the row groups beside have all."""
    words = ["left out", None] * 10
    given = {
        "bits": pa.array([True, False, True, True] * 5),
        "missing_bits": pa.array([True, None, *[False] * 18]),
        "bytes": pa.array(range(20), pa.uint8()),
        "missing": pa.array([None, *range(1, 20)], pa.int64()),
        "half": pa.array(np.arange(20, dtype=np.float16)),
        "floats": pa.array([None, 0.5] * 10, pa.float32()),
        "coded": pa.array([5, 6, 7, 8] * 5, pa.int32()).dictionary_encode(),
    }
    table = pa.table(given | {"words": words})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=group)
    rows = StoredRows(tmp_path / "x.parquet", columns=list(given), buffer=16)
    x = next(rows.in_order(20)).batch.x
    each = [table[name].to_pylist() for name in given]
    expected = np.array([[np.nan if v is None else float(v) for v in one] for one in each]).T
    torch.testing.assert_close(x.double(), torch.from_numpy(expected), equal_nan=True)
    lists = pa.table({"x": [[1.0, float(i)] for i in range(20)], "w": [[True, False]] * 20})
    pq.write_table(lists, tmp_path / "lists.parquet", row_group_size=group)
    found = StoredRows(tmp_path / "lists.parquet", context={"w": "w"}, buffer=16)
    batch = next(found.in_order(20)).batch
    assert batch.x[:, 1].tolist() == list(range(20))
    assert batch.context["w"].tolist() == [[True, False]] * 20


def test_lists_that_are_longer_in_a_later_row_group_are_refused(tmp_path):
    pq.write_table(
        pa.table({"a": [[1.0]] * 4 + [[1.0, 2.0]] * 4}), tmp_path / "x.parquet", row_group_size=4
    )
    with pytest.raises(ValueError, match="one length in column 'a'"):
        list(StoredRows(tmp_path / "x.parquet").in_order(8))


def test_a_file_that_is_damaged_in_the_middle_is_named(tmp_path):
    path = _written(tmp_path / "x.parquet", 1000, row_group_size=500)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle - 4000 : middle + 4000] = bytes(8000)
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"Parquet file at .*x\.parquet but got"):
        list(StoredRows(path).in_order(1000))
