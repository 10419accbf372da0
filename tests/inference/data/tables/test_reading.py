import anndata
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet
from scipy import sparse
from torch.utils.data import DataLoader

from priorzoo.guides import Code
from priorzoo.inference import fit
from priorzoo.inference.data.tables.frames import SparseRows, frame_of
from priorzoo.inference.data.tables.reading import read_table
from priorzoo.inference.data.tables.schema import Schema, infer_schema
from priorzoo.models import MLP, VAE


@pytest.fixture
def people():
    """A table of 60 rows with a column of each kind and some missing cells."""
    rng, n = np.random.default_rng(0), 60
    columns = {
        "id": [f"p{i}" for i in range(n)],
        "age": rng.normal(50, 10, n),
        "income": np.exp(rng.normal(9, 1.5, n)),
        "visits": rng.poisson(2, n),
        "city": rng.choice(["Oslo", "Rome", "Bern"], n),
        "smoker": rng.choice(["no", "yes"], n),
        "rating": np.tile([1, 2, 3, 4, 5], n // 5),
        "zero": np.zeros(n),
        "species": rng.choice(["cat", "dog"], n),
    }
    frame = pd.DataFrame(columns)
    frame.loc[3, "age"] = None
    frame.loc[4, "city"] = None
    return frame


def written(people, kind, folder):
    table = pa.Table.from_pandas(people, preserve_index=False)
    if kind == "pandas":
        return people
    if kind == "polars":
        return pl.from_arrow(table)
    if kind == "lazy":
        return pl.from_arrow(table).lazy()
    if kind == "pyarrow":
        return table
    if kind == "mapping":
        return {name: people[name].to_list() for name in people}
    path = folder / f"people{kind}"
    if kind == ".parquet":
        parquet.write_table(table, path)
    else:
        people.to_csv(path, sep="\t" if kind == ".tsv" else ";", index=False, na_rep="NA")
    return path


KINDS = ["pandas", "polars", "lazy", "pyarrow", "mapping", ".csv", ".tsv", ".parquet"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_source_gives_the_same_rows(people, kind, tmp_path):
    table = read_table(written(people, kind, tmp_path), columns="species=label")
    age, income = people["age"].to_numpy(), people["income"].to_numpy()
    expected = {
        "age": (age - np.nanmean(age)) / np.nanstd(age),
        "income": income / np.exp(np.log(income).mean()),
        "visits": people["visits"].to_numpy(),
        "city": people["city"].map({"Bern": 0, "Oslo": 1, "Rome": 2}).to_numpy(),
        "smoker": people["smoker"].map({"no": 0, "yes": 1}).to_numpy(),
        "rating": people["rating"].to_numpy() - 1,
    }
    assert [column.name for column in table.schema.data] == list(expected)
    wanted = np.stack(list(expected.values()), 1)
    np.testing.assert_allclose(
        table.rows.where(table.observed, torch.nan), wanted, rtol=1e-5, atol=1e-6
    )
    assert (~table.observed).nonzero().tolist() == [[3, 0], [4, 3]]
    assert table.labels.tolist() == people["species"].map({"cat": 0, "dog": 1}).to_list()
    assert table.names == tuple(people["id"])
    assert table.schema.notes == (
        "left out: id (all values differ, as in an identifier)",
        "left out: zero (it is constant)",
    )


def test_kinds_and_likelihoods_are_inferred(people):
    found = {column.name: column for column in infer_schema(frame_of(people)).columns}
    assert {name: (c.kind, c.likelihood) for name, c in found.items() if c.is_data} == {
        "age": ("real", "gaussian"),
        "income": ("positive", "log-normal"),
        "visits": ("count", "negative-binomial"),
        "city": ("categorical", "categorical"),
        "smoker": ("binary", "bernoulli"),
        "rating": ("ordinal", "ordinal"),
        "species": ("binary", "bernoulli"),
    }
    assert found["age"].missing == pytest.approx(1 / 60)
    assert (found["rating"].low, found["rating"].high) == (1, 5)


def test_what_is_said_goes_before_what_is_inferred(people):
    said = 'age=student-t,visits=poisson,"city"=covariate,rating=covariate,income=exposure,'
    table = read_table(people.drop(index=4), columns=f"{said}species=ignore,s*=categorical")
    kinds = {column.name: column.likelihood or column.kind for column in table.schema.columns}
    assert kinds["age"] == "student-t"
    assert kinds["visits"] == "poisson"
    assert kinds["smoker"] == "categorical"
    assert kinds["species"] == "ignore"
    assert table.covariates.shape == (59, 4)  # three cities and a number
    torch.testing.assert_close(table.covariates[:, :3].sum(1), torch.ones(59))
    torch.testing.assert_close(table.exposure.median(), torch.tensor(1.0))
    age = people["age"].drop(index=4).to_numpy()
    first, middle, third = np.nanquantile(age, (0.25, 0.5, 0.75))
    scaled = (age - middle) / (third - first) * 1.349
    at = [column.name for column in table.schema.data].index("age")
    np.testing.assert_allclose(table.rows[5:, at], scaled[5:], rtol=1e-4)


def test_the_order_of_ordinal_categories_can_be_said():
    sizes = ["small", "large", "medium", "small"]
    table = read_table({"size": sizes}, columns="size=ordinal:small<medium<large")
    assert table.schema.data[0].categories == ("small", "medium", "large")
    assert table.rows.squeeze().tolist() == [0, 2, 1, 0]


def test_decoding_undoes_scaling_and_codes(people):
    table = read_table(people)
    back = table.schema.decode(table.rows)
    for name in ("age", "income", "visits", "rating"):
        whole = people[name].notna()
        np.testing.assert_allclose(back[name][whole], people[name][whole], rtol=1e-5)
    assert back["smoker"].tolist() == people["smoker"].to_list()


def test_densities_of_scaled_rows_become_densities_in_the_units_of_the_table(people):
    """By finite differences: the volume of a scaled cell is the table's times 1 / scale."""
    table = read_table(people[["age", "income", "visits"]].dropna())
    near = table.schema.decode(table.rows[:1] + torch.tensor([[0.5, 0.5, 0.0]]))
    at = table.schema.decode(table.rows[:1])
    volume = np.prod([(near[name] - at[name]) / 0.5 for name in ("age", "income")])
    np.testing.assert_allclose(table.schema.log_scale(None, 1), np.log(volume), rtol=1e-4)
    observed = torch.tensor([[True, False, True]])
    scale = table.schema.data[0].scale
    np.testing.assert_allclose(table.schema.log_scale(observed, 1), np.log(scale))


def test_a_schema_is_written_and_read(people):
    schema = read_table(people, columns="city=covariate,city=ignore").schema
    assert Schema.from_json(schema.to_json()) == schema
    with pytest.raises(ValueError, match="schema of a table but it is damaged"):
        Schema.from_json("{}")


def test_columns_of_rows_to_predict_are_found_by_name(people):
    table = read_table(people, columns="species=label")
    other = people[list(reversed(people.columns))].assign(extra=1).drop(columns=["species", "id"])
    again = read_table(other.iloc[5:], schema=table.schema)
    torch.testing.assert_close(again.rows, table.rows[5:])
    assert again.labels is None


def test_columns_without_names_are_found_by_their_place():
    x = np.random.default_rng(0).normal(size=(50, 3))
    schema = read_table(pd.DataFrame(x, columns=["a", "b", "c"])).schema
    torch.testing.assert_close(
        read_table(x, schema=schema).rows, read_table(torch.from_numpy(x)).rows
    )


def test_sparse_counts_have_the_totals_of_their_rows_as_exposure():
    counts = np.random.default_rng(0).poisson(0.3, (2_100, 60))
    counts[:, 0] = np.arange(2_100) % 2  # binary alone, a count among others
    counts[:, 1] += 1
    table = read_table(sparse.csr_array(counts))
    assert {column.likelihood for column in table.schema.data} == {"negative-binomial"}
    np.testing.assert_array_equal(table.rows, counts)
    totals = counts.sum(1)
    np.testing.assert_allclose(table.exposure, totals / np.median(totals), rtol=1e-6)
    again = read_table(sparse.csc_matrix(counts[:5]), schema=table.schema)
    torch.testing.assert_close(again.exposure, table.exposure[:5])


@pytest.mark.parametrize("file", [False, True])
@pytest.mark.parametrize("layer", [None, "raw"])
def test_anndata(layer, file, tmp_path):
    counts = np.random.default_rng(0).poisson(1.0, (40, 60)).astype(np.float32)
    obs = pd.DataFrame({"kind": ["T", "B"] * 20, "batch": ["1a", "2a", "2a", "1a"] * 10})
    obs.index = [f"cell{i}" for i in range(40)]
    data = anndata.AnnData(sparse.csr_matrix(counts), obs=obs, layers={"raw": counts + 1})
    if file:
        data.write_h5ad(tmp_path / "cells.h5ad")
        data = tmp_path / "cells.h5ad"
    table = read_table(data, layer=layer, columns="kind=label,batch=covariate")
    np.testing.assert_array_equal(table.rows, counts + (layer is not None))
    assert table.schema.class_names == ("B", "T")
    assert table.labels.tolist() == [1, 0] * 20
    assert table.covariates.shape == (40, 2)
    assert table.names[:2] == ("cell0", "cell1")
    again = read_table(data, layer=layer, schema=table.schema)
    torch.testing.assert_close(again.covariates, table.covariates)


def test_a_layer_that_is_not_there_is_refused():
    data = anndata.AnnData(np.ones((3, 2), dtype=np.float32))
    with pytest.raises(ValueError, match="Expected a layer 'raw' in the AnnData but it has none"):
        read_table(data, layer="raw")


def test_arrays_of_files(tmp_path):
    x = np.random.default_rng(0).normal(size=(20, 3))
    np.savez(tmp_path / "a.npz", x_train=x[:15], x_test=x[15:], y_train=[0] * 15, y_test=[1] * 5)
    np.savez(tmp_path / "b.npz", x=x, y=np.array(["u", "v"] * 10))
    np.save(tmp_path / "c.npy", x)
    tables = [read_table(tmp_path / name) for name in ("a.npz", "b.npz", "c.npy")]
    torch.testing.assert_close(tables[0].rows, tables[1].rows)
    torch.testing.assert_close(tables[0].rows, tables[2].rows)
    assert tables[0].labels.tolist() == [0] * 15 + [1] * 5
    assert tables[1].labels.tolist() == [0, 1] * 10
    assert tables[1].schema.class_names == ("u", "v")


def test_a_masked_array_has_missing_cells():
    x = np.ma.masked_equal(np.arange(12.0).reshape(6, 2) ** 1.5, 0)
    table = read_table(x)
    assert (~table.observed).nonzero().tolist() == [[0, 0]]


def test_columns_are_shown_a_line_each(people):
    lines = read_table(people, columns="species=label").schema.lines()
    rows = {line.split()[0]: " ".join(line.split()[1:]) for line in lines}
    assert rows["column"] == "kind range missing likelihood scaling"
    assert rows["city"] == "categorical Bern, Oslo, Rome 1.7 % categorical"
    assert rows["rating"] == "ordinal 1, 2, 3, 4, 5 0 % ordinal"
    assert rows["species"] == "label cat, dog 0 %"
    assert rows["zero"] == "ignore 0 0 % it is constant: 0"
    assert rows["age"].startswith("real 26.7 to 69.6 1.7 % gaussian less ")


def test_many_alike_columns_are_shown_in_one_line():
    counts = np.random.default_rng(0).poisson(2.0, (30, 60))
    lines = read_table(sparse.csr_array(counts)).schema.lines()
    assert [" ".join(line.split()) for line in lines[1:]] == [
        f"x0 ... x59 (60) count 0 to {counts.max()} 0 % negative-binomial",
        "(total of a row) exposure",
    ]


def test_rows_of_a_sparse_matrix_are_made_dense_as_batches_need_them():
    counts = np.random.default_rng(0).poisson(0.5, (50, 4))
    rows = SparseRows(sparse.csc_matrix(counts))
    model, guide = VAE(MLP(2, 4, [8]), code=2), Code(MLP(4, 4, [8]))
    loader = DataLoader(rows, batch_size=20)
    np.testing.assert_array_equal(torch.cat(list(loader)), counts)
    np.testing.assert_array_equal(rows[7], counts[7])
    history = fit(model, guide, SparseRows(sparse.csr_array(counts > 0)), epochs=1)
    assert np.isfinite(history[-1]["elbo"])
