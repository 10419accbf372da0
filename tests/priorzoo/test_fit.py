import csv
import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from pyarrow import parquet

from priorzoo.benchmarks.rows.files import read_rows
from priorzoo.benchmarks.runs.opening import open_run
from priorzoo.benchmarks.tables.choosing import MODELS, model_for, recipe_for
from priorzoo.benchmarks.tables.predicting import schema_of
from priorzoo.cli import main as cli
from priorzoo.inference import cluster_probabilities, codes, evaluate, read_table

SHORT = ["--steps", "40", "--optimiser.lr", "0.01"]


def people():
    """120 rows of two groups, with a column of each kind and missing cells."""
    rng, n = np.random.default_rng(0), 120
    group = np.arange(n) % 2
    frame = pd.DataFrame(
        {
            "id": [f"=p{i}" for i in range(n)],
            "age": 5_000 + 100 * rng.normal(3 * group, 1),
            "visits": rng.poisson(2 + 8 * group),
            "city": np.where(rng.random(n) < 0.9, np.array(["Oslo", "Rome"])[group], "Bern"),
            "size": np.exp(rng.normal(group, 1.5)),
            "kind": np.array(["a", "b"])[group],
        }
    )
    frame.loc[3, "age"] = None
    frame.loc[4, "city"] = None
    return frame


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A folder with a table and a run on it, and what the command printed."""
    folder = tmp_path_factory.mktemp("fit")
    people().to_csv(folder / "people.csv", index=False)
    printed = run(
        "fit", folder / "people.csv", "--columns", "kind=label", "--clusters", 2, *SHORT,
        "--model.code", 2, "--out", folder / "run", "--rows", folder / "rows.jsonl",
    )  # fmt: skip
    return folder, printed


def run(*words):
    """What a command prints, once it has succeeded."""
    import contextlib
    import io

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main([str(word) for word in words])
    assert code == 0, err.getvalue()
    return out.getvalue()


def records(path):
    """The rows of a CSV file."""
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def refused(capsys, *words):
    """The line on the error stream of a command that refuses its input."""
    assert cli.main([str(word) for word in words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_fit_says_what_it_reads_and_chooses(fitted):
    _, printed = fitted
    assert "left out" not in printed  # the table says it
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    assert "id ignore 0 % all values differ, as in an identifier" in lines
    assert "rows 120, of which 12 are test and 12 validation rows" in lines
    wanted = "Gaussian of 1 columns, NegativeBinomial of 1 columns, Categorical of 1 columns"
    assert f"likelihood {wanted}, LogNormal of 1 columns" in lines


def test_the_result_is_appended_to_a_file_of_rows(fitted):
    folder, _ = fitted
    (row,) = read_rows(folder / "rows.jsonl")
    assert row["recipe"] == "digits-gmvae"
    assert row["changes"] | {"model.clusters": 2, "steps": 40, "model.code": 2} == row["changes"]
    assert row["command"].startswith("priorzoo fit ")
    assert row["terms"] == open_run(folder / "run").result["terms"]


def test_scores_are_in_the_units_of_the_table(fitted, capsys):
    """The density of a column in other units is another; its log differs by that of the scale."""
    folder, _ = fitted
    assert cli.main(["evaluate", str(folder / "run"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["terms"]
    kept = open_run(folder / "run")
    dataset_rows = read_table(folder / "people.csv", columns="kind=label")
    order = torch.randperm(120, generator=torch.Generator().manual_seed(0))[-12:]
    test = dataset_rows.take(order)
    terms = evaluate(kept.model, kept.guide, test.rows, context=test.context, seed=0)
    scales = [column.scale for column in test.schema.data]
    logs = (test.observed * torch.tensor(scales).log()).sum(1).mean().item()
    assert found["elbo"] == pytest.approx(terms["elbo"] - logs, abs=1e-3)
    assert found["kl[z]"] == pytest.approx(terms["kl[z]"], abs=1e-4)
    assert kept.result["terms"]["elbo"] == pytest.approx(found["elbo"], abs=1e-3)


def test_predictions_of_rows(fitted):
    folder, _ = fitted
    printed = run("predict", folder / "run", folder / "people.csv", "--out", folder / "c.csv")
    assert "120 rows" in printed
    rows = records(folder / "c.csv")
    frame = people()
    assert [row["row"] for row in rows] == [f"'{name}" for name in frame["id"]]
    p = np.array([[float(row["p_0"]), float(row["p_1"])] for row in rows])
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-5)
    assert [int(row["cluster"]) for row in rows] == p.argmax(1).tolist()
    assert {"code_0", "code_1", "map_0", "map_1", "log_p", "outlier"} <= rows[0].keys()
    known = frame["age"].notna().to_numpy()
    ages = np.array([float(row["imputed_age"]) for row in rows])
    np.testing.assert_allclose(ages[known], frame["age"][known], rtol=1e-6)
    assert 4_000 < ages[3] < 6_000
    cities = [row["imputed_city"] for row in rows]
    assert cities[:4] == frame["city"].to_list()[:4]
    assert cities[4] in ("Bern", "Oslo", "Rome")
    doubts = [float(row["doubt_age"]) for row in rows]
    assert [i for i, doubt in enumerate(doubts) if doubt > 0] == [3]
    assert 10 < doubts[3] < 1_000  # the column's standard deviation is 180
    assert "imputed_visits" not in rows[0]


def test_new_rows_are_matched_by_name_and_placed_beside_those_of_the_training(fitted):
    folder, _ = fitted
    frame = people()
    frame.loc[0, "age"] = 9e5
    frame[list(reversed(frame.columns))].drop(columns=["kind", "id"]).to_parquet(
        folder / "other.parquet", index=False
    )
    run("predict", folder / "run", folder / "other.parquet", "--out", folder / "o.parquet")
    run("predict", folder / "run", folder / "people.csv", "--out", folder / "c.parquet")
    other, first = (
        parquet.read_table(folder / name).to_pydict() for name in ("o.parquet", "c.parquet")
    )
    assert other["outlier"][0] == 1
    assert other["row"][:2] == ["0", "1"]
    for name in ("p_0", "map_0", "code_1"):
        np.testing.assert_allclose(other[name][1:], first[name][1:], atol=1e-5)


def test_bad_rows_to_predict_are_refused_in_one_line(fitted, capsys):
    folder, _ = fitted
    frame = people()
    changes = {
        "unseen": (frame.assign(city="Paris"), "got 'Paris' in row 0"),
        "missing": (frame.drop(columns="age"), "there is no age; add it"),
        "renamed": (frame.rename(columns={"age": "Age"}), "no age; rename 'Age', or add it"),
        "count": (frame.assign(visits=-1), "got -1 in row 0"),
        "text": (frame.assign(age="x"), "or train again with --columns age=categorical"),
        "fraction": (frame.assign(visits=0.5), "or train again with --columns visits=student-t"),
        "none": (frame.iloc[:0], "at least one row"),
        "class": (frame.assign(kind="c"), "class of the training rows in column 'kind'"),
    }
    for name, (bad, message) in changes.items():
        bad.to_csv(folder / f"{name}.csv", index=False)
        line = refused(capsys, "predict", folder / "run", folder / f"{name}.csv")
        assert line.startswith("priorzoo predict: error: Expected")
        assert message in line
        again = refused(capsys, "describe", folder / "run", "--data", folder / f"{name}.csv")
        assert again == line.replace("priorzoo predict", "priorzoo describe")


def test_clusters_are_described_as_text_table_and_page(fitted):
    folder, _ = fitted
    printed = run("describe", folder / "run", "--out", folder / "described")
    assert "cluster 0: " in printed
    assert "cluster 1: " in printed
    assert "labels: " in printed
    page = (folder / "described" / "index.html").read_text("utf-8")
    assert "Clusters of people.csv" in page
    assert len(records(folder / "described" / "clusters.csv")) == 2
    traits = records(folder / "described" / "traits.csv")
    assert {trait["column"] for trait in traits} <= {"age", "visits", "city", "size"}


def predicted(file, given):
    """The outputs of an exported file."""
    if file.suffix == ".pt2":
        return [each.numpy() for each in torch.export.load(file).module()(*given.values())]
    import onnxruntime

    session = onnxruntime.InferenceSession(file)
    return session.run(None, {name: value.numpy() for name, value in given.items()})


@pytest.mark.parametrize("ending", [".pt2", pytest.param(".onnx", marks=pytest.mark.slow)])
def test_exported_predictions_of_incomplete_rows_are_those_of_the_run(ending, fitted):
    folder, _ = fitted
    file = folder / f"model{ending}"
    printed = run("export", folder / "run", file)
    assert "x, observed -> probabilities, codes, reconstruction" in printed
    kept = open_run(folder / "run")
    table = read_table(folder / "people.csv", schema=schema_of(kept))
    for rows in (1, 7, 120):
        some = table.take(torch.arange(rows))
        found = predicted(file, {"x": some.rows, **some.context})
        q = cluster_probabilities(kept.model, kept.guide, some.rows, context=some.context)
        z = codes(kept.model, kept.guide, some.rows, context=some.context)
        np.testing.assert_allclose(found[0], q, atol=1e-5)
        np.testing.assert_allclose(found[1], z, atol=1e-5)


def test_a_run_on_a_table_is_a_run_like_others(fitted, capsys):
    folder, _ = fitted
    kept = open_run(folder / "run")
    assert {p.name for p in (folder / "run").iterdir()} >= {"config.json", "table.json"}
    words = ["fit", folder / "people.csv", "--columns", "kind=label", "--clusters", "2", *SHORT]
    words += ["--model.code", "2", "--out", folder / "run"]
    assert "already holds files" in refused(capsys, *words)
    printed = run(*words, "--resume")
    assert f"{kept.result['terms']['elbo']:.3f}" in printed
    line = refused(capsys, *words, "--resume", "--batch_size", "7")
    assert "batch_size differ" in line
    frame = people()
    frame.loc[0, "age"] = 1.0
    frame.to_csv(folder / "changed.csv", index=False)
    capsys.readouterr()
    assert cli.main(["evaluate", str(folder / "run"), "--data", str(folder / "changed.csv")]) == 0
    assert "not the data of the run" in capsys.readouterr().err


def test_a_folder_of_images(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(60):
        place = tmp_path / "images" / ("a" if i % 2 else "b")
        place.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 60, (6, 6), dtype=np.uint8) + np.uint8(150 * (i % 2))
        Image.fromarray(pixels).save(place / f"{i}.png")
    out = tmp_path / "run"
    printed = run("fit", tmp_path / "images", "--clusters", 2, *SHORT, "--out", out)
    assert "60 images of 6 x 6, 2 classes" in printed
    run("predict", out, tmp_path / "images", "--out", tmp_path / "c.csv")
    assert "a/1.png," in (tmp_path / "c.csv").read_text()
    run("describe", out)
    assert (out / "description" / "index.html").read_text().count("data:image/png") >= 2


def test_an_open_number_of_clusters_of_counts(tmp_path):
    import anndata

    counts = np.random.default_rng(0).poisson(1.0, (60, 55)).astype(np.float32)
    counts[:30, :10] += 8
    obs = pd.DataFrame({"kind": ["T", "B"] * 30, "batch": ["1a"] * 20 + ["2a"] * 40})
    obs.index = [f"cell{i}" for i in range(60)]
    data = anndata.AnnData(counts, obs=obs)
    data.write_h5ad(tmp_path / "cells.h5ad")
    words = ["fit", tmp_path / "cells.h5ad", "--columns", "kind=label,batch=covariate"]
    words += ["--model", "nggp"]
    printed = run(*words, *SHORT, "--out", tmp_path / "run")
    assert "(total of a row)" in printed
    run("predict", tmp_path / "run", tmp_path / "cells.h5ad", "--out", tmp_path / "c.csv")
    first = records(tmp_path / "c.csv")[0]
    assert first["row"] == "cell0"
    assert "p_new" in first
    assert np.isfinite(float(first["log_p"]))
    assert "cluster" in run("describe", tmp_path / "run")


REFUSED = {
    "no file": ([], "arguments are required: file"),
    "another model": (["{}", "--model", "gmva"], "Unknown model 'gmva'; did you mean 'gmvae'?"),
    "another option": (["{}", "--colums", "a=real"], "did you mean '--columns'"),
    "no clusters": (["{}", "--clusters", "0"], "clusters of at least 1 but got 0"),
    "another column": (["{}", "--columns", "aeg=real"], "did you mean 'age'?"),
    "a size of none": (["{}", "--size", "big"], "Expected a size such as 32x32"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_calls_are_refused_in_one_line(name, tmp_path, capsys):
    people().to_csv(tmp_path / "people.csv", index=False)
    words, message = REFUSED[name]
    line = refused(capsys, "fit", *(word.format(tmp_path / "people.csv") for word in words))
    assert message in line


def test_the_number_of_clusters_is_found_where_there_are_cells_enough():
    small, large = (read_table(np.random.default_rng(0).normal(size=(n, 10))) for n in (60, 2_000))
    assert model_for(small, None) == "gmvae"
    assert model_for(large, None) == "nggp"
    assert model_for(large, 5) == "gmvae"


@pytest.mark.parametrize("model", MODELS)
def test_every_model_has_a_recipe_for_a_table(model):
    table = read_table(people().drop(columns="id"), columns="kind=label")
    recipe = recipe_for(table, "people.csv", model)
    assert recipe.validation == 12
    assert recipe.model.init_args["code"] >= 1


def test_runs_without_clusters_cannot_be_described(tmp_path, capsys):
    people().to_csv(tmp_path / "people.csv", index=False)
    out = tmp_path / "run"
    run("fit", tmp_path / "people.csv", "--model", "vae", *SHORT, "--out", out)
    assert "a run with clusters but VAE has none" in refused(capsys, "describe", out)
    run("predict", out, tmp_path / "people.csv", "--out", tmp_path / "c.csv")
    assert "cluster" not in (tmp_path / "c.csv").read_text().splitlines()[0].split(",")
