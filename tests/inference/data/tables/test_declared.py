"""Types that a column declares, and files and arrays of unusual form."""

import anndata
import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from scipy import sparse

from priorzoo.benchmarks.data.tables import load_table
from priorzoo.inference.data.tables.reading import read_table

N = 30
AGES = np.random.default_rng(0).normal(50, 10, N)
LEVELS = ["low", "mid", "high"]


def kinds(table):
    return {column.name: (column.kind, column.categories) for column in table.schema.columns}


def test_missing_cells_of_nullable_types_of_pandas():
    frame = pd.DataFrame(
        {"age": AGES, "wet": [True, False, None] * 10, "city": ["a", "b", "c"] * 10}
    )
    frame.loc[0, "city"] = None
    plain = read_table(frame)
    for nullable in (frame.convert_dtypes(), frame.convert_dtypes(dtype_backend="pyarrow")):
        table = read_table(nullable)
        assert table.schema == plain.schema
        assert torch.equal(table.rows, plain.rows)
        assert torch.equal(table.observed, plain.observed)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_an_order_that_is_declared_is_kept(library):
    values = ["high", "low", "mid"] * 10
    if library == "pandas":
        size = pd.Categorical(values, categories=[*LEVELS, "huge"], ordered=True)
        table = read_table(pd.DataFrame({"age": AGES, "size": size}))
    else:
        size = pl.Series(values, dtype=pl.Enum([*LEVELS, "huge"]))
        table = read_table(pl.DataFrame({"age": AGES, "size": size}))
    assert kinds(table)["size"] == ("ordinal", (*LEVELS, "huge"))
    assert table.rows[:3, 1].tolist() == [2, 0, 1]
    again = read_table({"age": AGES, "size": values}, schema=table.schema)
    assert torch.equal(again.rows, table.rows)


def test_numbers_that_are_declared_as_categories_are_names():
    codes = np.array([7, 10, 9] * 10)
    frame = pd.DataFrame({"age": AGES, "code": pd.Categorical(codes)})
    table = read_table(frame)
    assert kinds(table)["code"] == ("categorical", ("7", "9", "10"))
    again = read_table({"age": AGES, "code": codes}, schema=table.schema)  # as a file has them
    assert torch.equal(again.rows, table.rows)
    told = read_table(frame, columns="code=gaussian")
    assert kinds(told)["code"] == ("real", ())
    assert told.schema.columns[1].high == 10
    assert torch.equal(read_table(frame, schema=told.schema).rows, told.rows)


def cells(**obs):
    counts = np.random.default_rng(0).poisson(3, (N, 4)).astype(np.float32)
    return anndata.AnnData(counts, obs=pd.DataFrame(obs, index=[f"cell{i}" for i in range(N)]))


@pytest.mark.parametrize("categories", [False, True])
def test_batches_that_are_named_by_numbers_are_no_quantity(categories):
    names = ["1", "2", "3"] * 10
    data = cells(batch=pd.Categorical(names) if categories else names)
    table = read_table(data, columns="batch=covariate")
    assert torch.equal(table.covariates, torch.eye(3).repeat(10, 1))
    other = cells(batch=["9"] * N)
    with pytest.raises(ValueError, match=r"got '9' in row 0; correct the cell, or train again"):
        read_table(other, schema=table.schema)


def test_an_annotated_matrix_to_predict_needs_no_labels_but_its_covariates():
    told = "kind=label,batch=covariate"
    data = cells(kind=["a", "b"] * 15, batch=["x", "y", "z"] * 10)
    table = read_table(data, columns=told)
    del data.obs["kind"]
    again = read_table(data, schema=table.schema)
    assert again.labels is None
    assert torch.equal(again.covariates, table.covariates)
    del data.obs["batch"]
    with pytest.raises(ValueError, match=r"there is no batch; add it\.$"):
        read_table(data, schema=table.schema)


def test_a_sparse_annotated_matrix_that_is_still_in_its_file(tmp_path):
    data = cells()
    data.X = sparse.csr_matrix(data.X)
    data.write_h5ad(tmp_path / "a.h5ad")
    backed = anndata.read_h5ad(tmp_path / "a.h5ad", backed="r")
    assert torch.equal(read_table(backed).rows, read_table(data).rows)
    backed.file.close()


def test_tensors_that_numpy_does_not_know():
    x = torch.randn(N, 3)
    half = read_table(x.bfloat16())
    assert torch.equal(half.rows, read_table(x.bfloat16().float()).rows)
    assert torch.equal(read_table(x.to_sparse()).rows, read_table(x).rows)


def test_bytes_are_text(tmp_path):
    table = read_table({"age": AGES, "city": np.array([b"Oslo", "Köln".encode()] * 15)})
    assert kinds(table)["city"][1] == ("Köln", "Oslo")
    np.savez(tmp_path / "a.npz", x=AGES[:, None], y=np.array([b"b", b"a"] * 15))
    assert read_table(tmp_path / "a.npz").schema.classes == ("a", "b")


def test_endings_in_capitals(tmp_path):
    (tmp_path / "A.TSV").write_text("a\tb\n" + "1.5\tx\n2.5\ty\n3.5\ty\n")
    assert list(kinds(read_table(tmp_path / "A.TSV"))) == ["a", "b"]


FILES = {
    "a quote": (
        'a,b\n1.5,x\n2.5,"y\n3.5,x\n4.5,y\n',
        r'closing quote \("\) in column \'b\'.*row 1 goes',
    ),
    "a minus sign": (
        "a,b\n" + "\u22121.5,2.5\n\u22122.5,1\n3,7\n",
        r"no other signs in column 'a'.*row 0",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_files_that_would_be_read_wrongly_are_refused(name, tmp_path):
    text, message = FILES[name]
    (tmp_path / "a.csv").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message) as refused:
        read_table(tmp_path / "a.csv")
    assert "\n" not in str(refused.value)


def test_quotes_within_cells_are_read(tmp_path):
    text = 'a,b\n1.5,5" disk\n2.5,"x\ny"\n3.5,"x\ny"\n'
    (tmp_path / "a.csv").write_text(text.replace('5" disk', "disk"), encoding="utf-8")
    assert kinds(read_table(tmp_path / "a.csv"))["b"] == ("binary", ("disk", "x\ny"))


@pytest.mark.parametrize("setting", [{"layer": "raw"}, {"size": (8, 8)}, {"mode": "L"}])
def test_settings_of_other_sources_are_refused(setting, tmp_path):
    np.save(tmp_path / "a.npy", AGES[:, None])
    for source in (AGES[:, None], tmp_path / "a.npy"):
        with pytest.raises(
            ValueError, match=rf"for {next(iter(setting))} but got .*; leave it out"
        ):
            read_table(source, **setting)


def test_parts_of_other_columns(tmp_path):
    np.savez(tmp_path / "a.npz", x_train=np.zeros((5, 3)), x_test=np.zeros((5, 2)))
    with pytest.raises(ValueError, match=r"one shape but got \(5, 3\) and \(5, 2\)"):
        read_table(tmp_path / "a.npz")


def test_complex_numbers_of_an_array():
    with pytest.raises(ValueError, match=r"numbers or text in column 'x0'.*complex128"):
        read_table(AGES[:, None] * 1j)


def test_classes_of_an_array_to_predict(tmp_path):
    np.savez(tmp_path / "a.npz", x=AGES[:, None], y=["b", "a", "-1"] * 10)
    table = read_table(tmp_path / "a.npz")
    assert table.schema.classes == ("a", "b")
    assert table.labels[:3].tolist() == [1, 0, -1]
    np.savez(tmp_path / "b.npz", x=AGES[:, None], y=["", "a", "c"] * 10)
    with pytest.raises(ValueError, match=r"labels y of the training, a, b, in .* got 'c' in row 2"):
        read_table(tmp_path / "b.npz", schema=table.schema)


def test_one_row_is_too_few_to_train_on(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((1, 4, 4), dtype=np.uint8))
    with pytest.raises(
        ValueError, match=r"at least 2 rows in .*a\.npy, one to hold out, but got 1"
    ):
        load_table(str(tmp_path / "a.npy"), {})


def test_whole_numbers_that_floats_do_not_hold_are_names(tmp_path):
    ids = 2**53 + np.arange(N) * 7 % 31
    (tmp_path / "a.csv").write_text(
        "id,shop,age\n"
        + "".join(f"{i},{2**60 + i % 2},{a}\n" for i, a in zip(ids, AGES, strict=True))
    )
    table = read_table(tmp_path / "a.csv")
    assert kinds(table)["id"][0] == "ignore"
    assert table.names == tuple(map(str, ids.tolist()))
    assert kinds(table)["shop"] == ("binary", (str(2**60), str(2**60 + 1)))
    told = read_table({"a": ids.astype(np.uint64), "age": AGES}, columns="a=gaussian")
    assert kinds(told)["a"][0] == "real"
