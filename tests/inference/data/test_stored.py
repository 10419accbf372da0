"""Rows in files beside the same rows in memory."""

import re
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from priorzoo.guides import ClusterThenCode, Code
from priorzoo.inference import (
    Batch,
    Pixels,
    StoredRows,
    Training,
    cluster_probabilities,
    codes,
    evaluate,
    fit,
    reconstructions,
)
from priorzoo.models import GMVAE, MLP, VAE, Gaussian, Poisson

ROWS, WIDTH = 130, 4


@pytest.fixture
def rows() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(ROWS, WIDTH)).astype(np.float32)


@pytest.fixture(params=["npy", "parquet", "lists", "folder", "zarr"])
def stored(request, rows, tmp_path) -> Path:
    """The rows in a file or folder, with numbers of rows and labels beside them."""
    beside = {"number": np.arange(ROWS), "label": np.arange(ROWS) % 3}
    if request.param == "npy":
        for name, values in {"x": rows, **beside}.items():
            np.save(tmp_path / f"{name}.npy", values)
        return tmp_path / "x.npy"
    if request.param == "zarr":
        zarr = pytest.importorskip("zarr", reason="needs zarr")
        for name, values in {"x": rows, **beside}.items():
            chunks = (11, *values.shape[1:])
            zarr.create_array(tmp_path / f"{name}.zarr", data=values, chunks=chunks)
        return tmp_path / "x.zarr"
    columns = {f"c{i}": rows[:, i] for i in range(WIDTH)}
    if request.param == "lists":
        columns = {"x": pa.FixedSizeListArray.from_arrays(rows.ravel(), WIDTH)}
    table = pa.table(columns | beside)
    if request.param != "folder":
        pq.write_table(table, tmp_path / "rows.parquet", row_group_size=50)
        return tmp_path / "rows.parquet"
    folder = tmp_path / "rows"
    folder.mkdir()
    for part, start in enumerate(range(0, ROWS, 60)):
        pq.write_table(table.slice(start, 60), folder / f"part-{part}.parquet", row_group_size=25)
    return folder


def _opened(path: Path, beside: bool = False, **how: object) -> StoredRows:
    """The rows, with ``label`` as labels of y and ``number`` as context if asked for."""
    end = path.suffix if path.suffix in (".npy", ".zarr") else ""
    if beside:
        return StoredRows(
            path, labels={"y": "label" + end}, context={"number": "number" + end}, **how
        )
    if end:
        return StoredRows(path, **how)
    names = pq.read_schema(path if path.is_file() else next(iter(path.iterdir()))).names
    columns = [name for name in names if name not in ("number", "label")]
    return StoredRows(path, columns=columns, **how)


def _pass(data: StoredRows) -> list:
    passes = data.passes()
    return [next(passes) for _ in range(len(data))]


@pytest.mark.parametrize(("buffer", "batch_size"), [(16, 7), (40, 13), (1000, 50), (3, 1)])
def test_every_row_comes_once_in_a_pass_and_passes_differ(stored, rows, buffer, batch_size):
    data = _opened(stored, buffer=buffer, batch_size=batch_size)
    passes = data.passes()
    orders = []
    for _ in range(2):
        given = [next(passes) for _ in range(len(data))]
        numbers = torch.cat([part.numbers for part in given])
        assert sorted(numbers.tolist()) == list(range(ROWS))
        x = torch.cat([part.batch.x for part in given])
        torch.testing.assert_close(x, torch.from_numpy(rows)[numbers], rtol=0, atol=0)
        assert [len(part.numbers) for part in given[:-1]] == [batch_size] * (len(data) - 1)
        orders.append(numbers.tolist())
    assert orders[0] != orders[1] != sorted(orders[1])
    assert orders[0] == torch.cat([part.numbers for part in _pass(data)]).tolist()


def test_labels_and_context_stay_with_their_rows(stored):
    for part in _pass(_opened(stored, beside=True, buffer=20)):
        assert part.batch.context["number"].tolist() == part.numbers.tolist()
        assert part.batch.labels["y"].tolist() == (part.numbers % 3).tolist()


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_position_goes_on_with_the_same_batches(stored, workers):
    data = _opened(stored, buffer=30, batch_size=11, workers=workers)
    passes = data.passes()
    for _ in range(29):  # into the third pass
        state = passes.state()
        expected = next(passes)
        again = data.passes()
        again.restore(state)
        assert next(again).numbers.tolist() == expected.numbers.tolist()


def _pair(clusters: bool = False):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if not clusters:
            return VAE(MLP(2, WIDTH, (8,)), Gaussian(), code=2), Code(MLP(WIDTH, 4, (8,)))
        model = GMVAE(MLP(2, WIDTH, (8,)), Gaussian(), code=2, clusters=3)
        return model, ClusterThenCode(MLP(WIDTH, 3, (8,)), MLP(WIDTH, 4, (8,), clusters=3))


@pytest.mark.parametrize("stored", ["npy", "folder", "zarr"], indirect=True)
def test_scores_and_predictions_are_those_of_rows_in_memory(stored, rows):
    model, guide = _pair(clusters=True)
    data, x = _opened(stored, buffer=20), torch.from_numpy(rows)
    how = {"importance_samples": 3, "batch_size": 40}
    assert evaluate(model, guide, data, **how) == evaluate(model, guide, x, **how)

    def noisy(rows: torch.Tensor) -> torch.Tensor:
        return rows + torch.randn_like(rows)

    how["transform"] = noisy
    assert evaluate(model, guide, data, **how) == evaluate(model, guide, x, **how)
    for predict in (cluster_probabilities, codes, reconstructions):
        found, expected = (predict(model, guide, each, batch_size=40) for each in (data, x))
        assert torch.equal(found, expected)


@pytest.mark.parametrize("stored", ["npy", "folder", "zarr"], indirect=True)
def test_a_resumed_training_is_equal_to_the_bit(stored):
    held = _opened(stored, buffer=50)

    def training() -> Training:
        label = "label" + stored.suffix.replace(".parquet", "")
        columns = [f"c{i}" for i in range(WIDTH)] if stored.name == "rows" else None
        data = StoredRows(stored, columns=columns, labels={"y": label}, buffer=30, batch_size=20)
        model, guide = _pair(clusters=True)
        return Training(model, guide, data, validation=held, every=3)

    whole = training()
    whole.run(12)
    first = training()
    first.run(5)
    second = training()
    second.restore(first.state())
    second.run(7)
    for one, other in zip(whole.objective.parameters(), second.objective.parameters(), strict=True):
        assert torch.equal(one, other)
    assert [row["split"] for row in whole.history[:2]] == ["train", "valid"]


def test_labels_of_batches_are_clamped():
    """A batch with labels trains as the same rows with labels in memory do."""
    x, y = torch.randn(20, WIDTH), torch.arange(20) % 3
    found = []
    for data, how in (([Batch(x, labels={"y": y})], {"size": 20}), (x, {"labels": {"y": y}})):
        model, guide = _pair(clusters=True)
        with torch.random.fork_rng():
            history = fit(model, guide, data, batch_size=20, steps=1, **how)
        found.append(history[0]["kl[y]"])
    assert found[0] == pytest.approx(found[1])


@pytest.mark.parametrize("stored", ["npy", "folder"], indirect=True)
def test_a_bad_value_is_named_with_its_file_and_row(stored, rows):
    file = stored if stored.is_file() else stored / "part-1.parquet"
    if stored.is_file():
        rows[70, 2] = np.nan
        np.save(stored, rows)
        row = 70
    else:
        table = pq.read_table(file)
        column = table["c2"].to_numpy().copy()
        column[10] = np.inf
        table = table.set_column(2, "c2", pa.array(column))
        pq.write_table(table, file, row_group_size=25)
        row = 10
    model, guide = _pair()
    message = rf"{file.name}, row {row}: .*column 2"
    with pytest.raises(ValueError, match=message):
        fit(model, guide, _opened(stored, buffer=20), epochs=1)
    with pytest.raises(ValueError, match=message):
        codes(model, guide, _opened(stored, buffer=20))
    with pytest.raises(ValueError, match=message):
        evaluate(model, guide, _opened(stored, buffer=20))


def test_bytes_of_which_some_make_bad_values_are_checked_in_each_batch(tmp_path):
    """0 and 255 make the counts 0 and 1; the bytes between them make none."""
    x = np.tile(np.array([0, 255], np.uint8), (90, WIDTH // 2))
    np.save(tmp_path / "x.npy", x)
    model = VAE(MLP(2, WIDTH, (8,)), Poisson(), code=2)
    guide = Code(MLP(WIDTH, 4, (8,)))
    how = {"transform": Pixels(), "epochs": 1}
    assert fit(model, guide, StoredRows(tmp_path / "x.npy", batch_size=20), **how)
    x[71, 1] = 128
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(ValueError, match=r"x.npy, row 71: .*column 1"):
        fit(model, guide, StoredRows(tmp_path / "x.npy", batch_size=20), **how)


@pytest.mark.skipif(sys.platform != "linux", reason="reads memory from /proc")
@pytest.mark.parametrize("by_columns", [False, True])
def test_arrays_that_were_read_do_not_stay_in_memory(tmp_path, by_columns):
    """As pages of a memory map do, which count as the process's until others need the memory."""
    how = {"dtype": np.uint8, "shape": (1_500_000, 100), "fortran_order": by_columns}
    np.lib.format.open_memmap(tmp_path / "x.npy", "w+", **how)[:] = 1
    rows = StoredRows(tmp_path / "x.npy", batch_size=30_000, buffer=75_000, workers=0)
    before = _resident()
    for _ in rows:
        pass
    assert _resident() - before < 60  # of 150


@pytest.mark.parametrize("dtype", [np.uint8, ">f4", np.int64])
def test_rows_of_arrays_by_columns_are_those_of_arrays_by_rows(tmp_path, dtype):
    x = np.arange(60, dtype=dtype).reshape(10, 3, 2)
    np.save(tmp_path / "x.npy", np.asfortranarray(x))
    found = next(StoredRows(tmp_path / "x.npy", buffer=16).in_order(10)).batch.x
    assert found.tolist() == x.tolist()


def _resident() -> float:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) / 1000


def test_files_that_cannot_be_read_are_refused(tmp_path):
    np.save(tmp_path / "words.npy", np.array(["a", "b"]))
    np.save(tmp_path / "one.npy", np.ones(3))
    np.save(tmp_path / "x.npy", np.ones((3, 2)))
    np.save(tmp_path / "few.npy", np.ones(2))
    (tmp_path / "torn.zarr").mkdir()
    (tmp_path / "torn.npy").write_bytes(b"\x93NUMPY\x01")
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 PAR1")
    (tmp_path / "x.csv").write_text("1,2")
    pq.write_table(pa.table({"a": [1.0], "b": ["word"]}), tmp_path / "t.parquet")
    pq.write_table(pa.table({"a": pa.array([], pa.float32())}), tmp_path / "none.parquet")
    pq.write_table(pa.table({"a": [[1.0], [1.0, 2.0]]}), tmp_path / "ragged.parquet")
    for name, how, message in (
        ("words.npy", {}, "numbers"),
        ("one.npy", {}, "rows"),
        ("torn.npy", {}, "array file"),
        ("torn.zarr", {}, "Zarr array"),
        ("torn.parquet", {}, "Parquet file"),
        ("x.csv", {}, "convert"),
        ("t.parquet", {}, "column 'b'"),
        ("t.parquet", {"columns": ["c"]}, "columns c"),
        ("t.parquet", {"columns": []}, "columns of x"),
        ("none.parquet", {}, "at least one row"),
        ("ragged.parquet", {}, "one length"),
        ("x.npy", {"context": {"w": "few.npy"}}, "each of 3 rows"),
        ("x.npy", {"buffer": 0}, "positive buffer"),
        ("x.npy", {"columns": ["a"]}, "columns of a Parquet"),
    ):
        with pytest.raises(ValueError, match=message):
            next(StoredRows(tmp_path / name, **how).passes())
    with pytest.raises(FileNotFoundError):
        StoredRows(tmp_path / "missing.npy")
    np.save(tmp_path / "wide.npy", np.ones((3, 5)))
    with pytest.raises(ValueError, match="same columns"):
        StoredRows([tmp_path / "x.npy", tmp_path / "wide.npy"])


def test_labels_beside_files_are_named_there(tmp_path, rows):
    np.save(tmp_path / "x.npy", rows)
    model, guide = _pair()
    with pytest.raises(ValueError, match="name their columns"):
        fit(model, guide, StoredRows(tmp_path / "x.npy"), labels={"y": rows[:, 0]}, epochs=1)
    with pytest.raises(ValueError, match="columns of the context"):
        codes(model, guide, StoredRows(tmp_path / "x.npy"), context={"w": torch.ones(ROWS)})
