"""Data sets in folders of files beside the same rows in a .npz file."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from priorzoo.benchmarks.data import folders
from priorzoo.benchmarks.data.fingerprints import fingerprint
from priorzoo.benchmarks.data.sets import load
from priorzoo.benchmarks.papers import RECIPES
from priorzoo.benchmarks.recipes.changes import apply
from priorzoo.benchmarks.runs.opening import open_run
from priorzoo.benchmarks.runs.reading import read_data
from priorzoo.benchmarks.runs.run import train
from priorzoo.cli.main import main


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    x = draw.random((240, 12)).round().astype(np.float32)
    y = draw.integers(0, 3, 240)
    return {"x_train": x[:200], "y_train": y[:200], "x_test": x[200:], "y_test": y[200:]}


def _write(folder, arrays, kind) -> None:
    folder.mkdir()
    if kind == "npy":
        for name, values in arrays.items():
            np.save(folder / f"{name}.npy", values)
        return
    if kind == "zarr":
        zarr = pytest.importorskip("zarr", reason="needs zarr")
        for name, values in arrays.items():
            chunks = (64, *values.shape[1:])
            zarr.create_array(folder / f"{name}.zarr", data=values, chunks=chunks)
        return
    for part in ("train", "test"):
        columns = {f"c{i}": column for i, column in enumerate(arrays[f"x_{part}"].T)}
        table = pa.table(columns | {"y": arrays[f"y_{part}"]})
        if kind == "parquet":
            pq.write_table(table, folder / f"{part}.parquet", row_group_size=64)
            continue
        (folder / part).mkdir()
        for start in range(0, len(table), 90):
            pq.write_table(table.slice(start, 90), folder / part / f"{start:03}.parquet")


@pytest.mark.parametrize("kind", ["npy", "parquet", "folders", "zarr"])
def test_a_folder_holds_what_the_archive_holds(arrays, kind, tmp_path):
    np.savez(tmp_path / "rows.npz", **arrays)
    _write(tmp_path / "rows", arrays, kind)
    one = load(str(tmp_path / "rows.npz"), validation=30)
    other = load(str(tmp_path / "rows"), validation=30)
    assert other.stored.size == len(one.x_train) == 170
    stored = next(other.stored.in_order(170)).batch
    assert torch.equal(stored.x, one.x_train)
    assert not stored.labels
    for name in ("x_valid", "x_test", "y_test", "shape"):
        found, expected = getattr(other, name), getattr(one, name)
        assert found == expected if name == "shape" else torch.equal(found, expected)
    assert {*map(tuple, other.x_train.tolist())} <= {*map(tuple, arrays["x_train"].tolist())}


@pytest.mark.parametrize("kind", ["npy", "parquet", "zarr"])
def test_other_values_have_another_fingerprint(arrays, kind, tmp_path):
    _write(tmp_path / "rows", arrays, kind)
    before = fingerprint(load(str(tmp_path / "rows")))
    arrays["x_train"][150, 3] = 1 - arrays["x_train"][150, 3]
    _write(tmp_path / "others", arrays, kind)
    after = fingerprint(load(str(tmp_path / "others")))
    assert before["x_train"] != after["x_train"]
    assert before["x_test"] == after["x_test"]


def test_a_large_file_has_the_fingerprint_of_its_footer_too(arrays, tmp_path, monkeypatch):
    """Its statistics change with a value between the blocks that are read."""
    monkeypatch.setattr(folders, "WHOLE", 0)
    monkeypatch.setattr(folders, "BLOCKS", 2)
    monkeypatch.setattr(folders, "BLOCK", 16)
    found = []
    for number, value in enumerate((1.0, 1.0, 2.0)):
        arrays["x_train"][100, 3] = value
        _write(tmp_path / f"{number}", arrays, "parquet")
        found.append(fingerprint(load(str(tmp_path / f"{number}")))["x_train"])
    assert found[0] == found[1] != found[2]


def test_a_recipe_trains_resumes_and_is_scored(arrays, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    _write(tmp_path / "rows", arrays, "parquet")
    words = ["train", "digits-gmvae", "--data", "rows", "--binarise", "dynamic"]
    words += ["--likelihood", "Bernoulli", "--model.clusters", "3", "--validation", "20"]
    words += ["--steps", "12", "--every", "4", "--out", "run"]
    assert main(words) in (0, None)
    assert main(["evaluate", "run"]) in (0, None)
    assert "accuracy_majority" in capsys.readouterr().out
    run = open_run(tmp_path / "run")
    assert read_data(run.settings, seed=0).stored.size == 180
    recipe = apply(RECIPES["digits-gmvae"], {"data": "rows", "labelled": 6, "steps": 2})
    with pytest.raises(ValueError, match="read from files"):
        train("digits-gmvae", recipe, tmp_path / "labelled")


def test_folders_without_rows_are_refused(arrays, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"train\.parquet"):
        load(str(tmp_path / "empty"))
    _write(tmp_path / "rows", arrays, "npy")
    for how in ({"train": 20}, {"binarise": "static"}):
        with pytest.raises(ValueError, match="all rows of the files"):
            load(str(tmp_path / "rows"), **how)


def test_a_folder_with_the_name_of_a_data_set_hides_it_nowhere(arrays, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _write(tmp_path / "digits", arrays, "npy")
    (tmp_path / "pinwheel" / "a").mkdir(parents=True)
    (tmp_path / "pinwheel" / "a" / "1.png").touch()
    settings = {"binarise": "none", "train": None, "validation": 0}
    for name, width in {"digits": 64, "pinwheel": 2}.items():
        assert read_data({"data": name, **settings}, seed=0).x_test.shape[1] == width
    for name in ("./digits", "digits/"):
        found = read_data({"data": name, **settings}, seed=0)
        assert found.stored is not None
        assert found.x_test.shape == (40, 12)
