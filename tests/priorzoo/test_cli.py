import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from priorzoo.benchmarks.charts import run_charts
from priorzoo.benchmarks.data import sets as data
from priorzoo.benchmarks.runs.opening import open_run
from priorzoo.benchmarks.runs.scoring import score
from priorzoo.benchmarks.scores.run import Run
from priorzoo.cli import main as cli
from priorzoo.cli.options import repeatable
from priorzoo.models import data_plate

QUICK = ["--steps", "12", "--every", "6", "--encoder.hidden", "[8]", "--decoder.hidden", "[8]"]
FILES = {"config.json", "model.safetensors", "history.jsonl", "result.json", "figures"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder of a small and barely trained Gaussian-mixture VAE."""
    folder = tmp_path_factory.mktemp("runs") / "gmvae"
    assert cli.main(["train", "digits-gmvae", *QUICK, "--out", str(folder)]) == 0
    return folder


def fail(capsys, *words):
    """The one line that a command says of bad input, on the error stream, with status 2."""
    assert cli.main([str(word) for word in words]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    lines = [line for line in said.err.splitlines() if "step/s" not in line]  # but for progress
    assert len(lines) == 1
    return lines[0] + "\n"


def write(path, **arrays):
    np.savez(path, **arrays)
    return path


# Each command


def test_list_prints_each_shelf_and_all_of_them(capsys):
    assert cli.main(["list"]) == 0
    everything = capsys.readouterr().out
    for shelf, one in [
        ("models", "GMVAE"),
        ("guides", "Code"),
        ("recipes", "m2"),
        ("data", "mnist"),
    ]:
        assert cli.main(["list", shelf]) == 0
        listed = capsys.readouterr().out
        assert re.search(rf"^{one} ", listed, re.M)
        assert all(line in everything for line in listed.splitlines())


@pytest.mark.parametrize(
    "recipe", ["digits-vae", "digits-m2", "digits-modified-m2", "digits-gmvae"]
)
def test_train_writes_the_whole_run(recipe, tmp_path, capsys):
    out = tmp_path / "run"
    assert cli.main(["train", recipe, *QUICK, "--out", str(out), "--seed", "3"]) == 0
    assert {path.name for path in out.iterdir()} == FILES
    result = json.loads((out / "result.json").read_text())
    assert result["recipe"] == recipe
    assert (result["seed"], result["steps"]) == (3, 12)
    assert result["settings"]["encoder"]["init_args"]["hidden"] == [8]
    assert {"priorzoo", "torch", "pyro-ppl"} <= result["versions"].keys()
    assert {"seconds", "device", "metrics"} <= result.keys()
    assert result["threads"] == torch.get_num_threads()
    assert result["command"] == f"priorzoo train {recipe} {shlex.join(QUICK)}"
    terms = result["terms"]
    divergences = sum(value for name, value in terms.items() if name.startswith("kl["))
    assert terms["elbo"] == pytest.approx(terms["reconstruction"] - divergences, abs=1e-4)
    history = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    assert [(row["step"], row["split"]) for row in history] == [
        (6, "train"), (6, "valid"), (12, "train"), (12, "valid"),
    ]  # fmt: skip
    figures = {path.stem for path in (out / "figures").iterdir()}
    clustered = {"usage", "confusion", "clusters", "components"}
    assert figures == {"terms", "reconstructions", "samples", "plane"} | (
        set() if recipe == "digits-vae" else clustered
    )
    assert f"{-terms['elbo']:.3f}".lstrip("-") in capsys.readouterr().out


def test_one_seed_gives_one_result_and_another_seed_another(run, tmp_path):
    def elbo(seed):
        out = tmp_path / str(seed)
        cli.main(["train", "digits-gmvae", *QUICK, "--out", str(out), "--seed", str(seed)])
        return json.loads((out / "result.json").read_text())["terms"]["elbo"]

    assert elbo(0) == json.loads((run / "result.json").read_text())["terms"]["elbo"]
    assert elbo(0) != elbo(1)


def test_evaluate_repeats_the_result_of_the_training_to_the_last_bit(run, capsys):
    assert cli.main(["evaluate", str(run), "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    result = json.loads((run / "result.json").read_text())
    assert scores == {name: result[name] for name in ("terms", "metrics", "warning")}


def test_evaluate_adds_the_importance_weighted_bound(run, capsys):
    assert cli.main(["evaluate", str(run), "--json", "--importance-samples", "20"]) == 0
    terms = json.loads(capsys.readouterr().out)["terms"]
    assert terms["log p(x)"] > terms["elbo"]


def test_evaluate_takes_another_data_set(run, tmp_path, capsys):
    path = write(tmp_path / "dark.npz", x_train=np.zeros((4, 64)), x_test=np.zeros((4, 64)))
    assert cli.main(["evaluate", str(run), "--data", str(path), "--json"]) == 0
    assert "accuracy_majority" not in json.loads(capsys.readouterr().out)["metrics"]


def test_plot_draws_the_figures_again(run, capsys):
    (run / "figures" / "terms.png").unlink()
    assert cli.main(["plot", str(run)]) == 0
    assert (run / "figures" / "terms.png").read_bytes().startswith(b"\x89PNG")
    assert len(capsys.readouterr().out.splitlines()) == 8


def test_sample_draws_pictures_and_numbers_of_one_cluster(run, tmp_path):
    picture, numbers = tmp_path / "some.png", tmp_path / "some.npz"
    assert cli.main(["sample", str(run), "--n", "5", "--out", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    words = ["sample", str(run), "--n", "5", "--cluster", "2", "--out", str(numbers)]
    assert cli.main(words) == 0
    first = np.load(numbers)["x"]
    assert cli.main(words) == 0
    assert first.shape == (5, 64)
    assert np.array_equal(first, np.load(numbers)["x"])


def test_settings_come_from_yaml_and_the_command_line_has_the_last_word(tmp_path, capsys):
    settings = tmp_path / "mine.yaml"
    settings.write_text(
        "batch_size: 25\nmodel:\n  class_path: priorzoo.models.GMVAE\n"
        "  init_args: {clusters: 4, code: 3}\nkl:\n  y: {floor: 0.5}\n"
    )
    out = tmp_path / "run"
    words = ["train", "digits-gmvae", "--config", str(settings), *QUICK, "--out", str(out)]
    assert cli.main([*words, "--model.clusters", "6"]) == 0
    chosen = json.loads((out / "result.json").read_text())["settings"]
    assert chosen["batch_size"] == 25
    assert chosen["model"]["init_args"] | {"clusters": 6, "code": 3} == chosen["model"]["init_args"]
    assert chosen["kl"]["y"]["floor"] == 0.5


def test_epochs_replace_the_steps_of_a_recipe(tmp_path, capsys):
    out = tmp_path / "run"
    words = ["train", "digits-vae", "--epochs", "2", "--batch_size", "600", "--out", str(out)]
    assert cli.main(words) == 0
    assert json.loads((out / "result.json").read_text())["steps"] == 4


def test_the_command_of_a_row_names_neither_seed_nor_places():
    words = "m2 --seed 3 --steps 9 --overwrite --out=there --data-root here --download --device cpu"
    words += " --checkpoint-minutes 2 --checkpoints=3"
    assert repeatable(words.split()) == "priorzoo train m2 --steps 9"


def test_rows_are_appended(tmp_path):
    rows = tmp_path / "rows.jsonl"
    for seed in "01":
        words = ["--seed", seed, "--rows", str(rows), "--out", str(tmp_path / seed)]
        assert cli.main(["train", "digits-vae", *QUICK, *words]) == 0
    assert [json.loads(line)["seed"] for line in rows.read_text().splitlines()] == [0, 1]


def test_users_arrays_of_points_and_of_counts_train(tmp_path):
    generator = np.random.default_rng(0)
    points = write(
        tmp_path / "p.npz", x_train=generator.normal(size=(50, 2)), x_test=np.ones((9, 2))
    )
    counts = write(tmp_path / "c.npz", x_train=np.ones((50, 7), int), x_test=np.ones((9, 7), int))
    for path, likelihood in [(points, "Gaussian"), (counts, "Multinomial")]:
        words = ["--data", str(path), "--train", "null", "--validation", "0"]
        out = ["--likelihood", likelihood, "--out", str(tmp_path / likelihood)]
        assert cli.main(["train", "digits-gmvae", *QUICK, *words, *out]) == 0


@pytest.mark.parametrize(
    ("shape", "drawn"),
    [
        ((4, 5, 1), True),
        ((1, 4, 5), True),
        ((4, 5, 3), True),
        ((3, 4, 5), True),
        ((4, 4, 2), False),
    ],
)
def test_pictures_with_channels_are_drawn_where_they_can_be(tmp_path, shape, drawn, capsys):
    """One channel or three at either end; rows of all others have charts alone."""
    draws = np.random.default_rng(0).uniform(size=(40, *shape))
    path = write(tmp_path / "pictures.npz", x_train=draws, x_test=draws[:9])
    out = tmp_path / "run"
    words = ["train", "digits-gmvae", *QUICK, "--data", str(path), "--out", str(out)]
    assert cli.main(words) == 0
    figures = {path.stem for path in (out / "figures").iterdir()}
    pictures = {"samples", "reconstructions", "clusters", "components"}
    assert figures == {"terms", "plane", "usage"} | (pictures if drawn else set())
    assert (cli.main(["sample", str(out), "--n", "3"]) == 0) is drawn


def test_a_y_that_is_not_discrete_has_no_clusters_to_score():
    """It has a divergence, as all latent sites have."""

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.loc = nn.Parameter(torch.zeros(2))

        def forward(self, x=None, size=None):
            with data_plate(x, size):
                y = pyro.sample("y", dist.Normal(self.loc, 1.0).to_event(1))
                return pyro.sample("x", dist.Normal(y, 1.0).to_event(1), obs=x)

    class Guide(nn.Module):
        def forward(self, x, size=None):
            with data_plate(x, size):
                pyro.sample("y", dist.Normal(x / 2, 0.7).to_event(1))

    run = Run(Path(), Model(), Guide(), {"seed": 0}, [])
    found = score(run, data.load("pinwheel"))
    assert "kl[y]" in found["terms"]
    assert found["metrics"] == {}


def test_convolutional_networks_by_option(tmp_path):
    nets = (
        "--encoder ConvEncoder --encoder.channels [4] --decoder ConvDecoder --decoder.channels [4]"
    )
    words = ["train", "digits-m2", "--steps", "4", *nets.split(), "--out", str(tmp_path / "run")]
    assert cli.main(words) == 0


def test_the_command_line_leaves_the_random_state_alone(tmp_path):
    before = torch.get_rng_state()
    cli.main(["train", "digits-vae", *QUICK, "--out", str(tmp_path / "run")])
    assert torch.equal(before, torch.get_rng_state())


# Bad input: what was expected, what came, what to do; nothing half-written


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("trian digits-vae", "Unknown command 'trian'; did you mean 'train'?"),
        ("train", "Expected a recipe first"),
        ("train gmvea", "Unknown recipe 'gmvea'; did you mean 'gmvae'?"),
        ("train digits-vae --data mnits", "'mnits'; did you mean 'mnist'?"),
        ("train digits-vae --batchsize 3", "'--batchsize'; did you mean '--batch-size'?"),
        ("train digits-gmvae --model.clustrs 3", "'clustrs'; did you mean 'clusters'?"),
        (
            "train digits-gmvae --model.clusters ten",
            "Expected int for --model.clusters but got 'ten'.",
        ),
        ("train digits-gmvae --model nowhere.Model", "nowhere.Model"),
        ("train digits-gmvae --kl {z:{flor:1}}", "flor"),
        ("train digits-vae --binarise sometimes", "'static', 'dynamic'"),
        ("train digits-vae --steps 3 --epochs 2", "Expected --steps or --epochs but got both"),
        ("train digits-vae --device tpu", "Expected a device among auto, cpu, cuda and mps"),
        ("train digits-gmvae --guide Code", "Code does not fit GMVAE: the guide lacks"),
        (
            "train digits-vae --guide ClusterThenCode",
            "clusters for the networks of ClusterThenCode",
        ),
        ("train digits-vae --train 9000", "9000"),
        (
            "train digits-vae --likelihood Bernoulli --data pinwheel --train 9 --validation 0",
            "rescale the data or choose another likelihood",
        ),
        (
            "train digits-vae --encoder ConvEncoder --data pinwheel --train 9 --validation 0",
            "(H, W)",
        ),
        ("train digits-vae --optimiser LBFGS", "LBFGS needs closure"),
        (
            "train digits-vae --validation 0 --schedule ReduceLROnPlateau",
            "validation rows with ReduceLROnPlateau",
        ),
        ("train digits-vae --optimiser.foreach true", "Adam cannot be built"),
        ("train digits-vae --encoder.hidden [-3]", "encoder.hidden of at least 1 but got [-3]"),
        ("train digits-vae --decoder.hidden [8,0]", "decoder.hidden of at least 1 but got [8, 0]"),
        ("train digits-vae --model.code 0", "model.code of at least 1 but got 0"),
        ("train digits-gmvae --model.clusters -1", "model.clusters of at least 1 but got -1"),
        ("train digits-vae --clip 0", "positive clip"),
        ("train digits-vae --particles 0", "at least one particle but got particles=0"),
        ("train mnist.vae", "Unknown recipe"),
        ("list modles", "did you mean 'models'?"),
        ("evaluate nowhere", "no run folder"),
        ("plot nowhere", "no run folder"),
        ("sample nowhere", "no run folder"),
    ],
)
def test_bad_words_are_explained_in_one_line_and_write_nothing(
    words, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert message in fail(capsys, *words.split())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu(tmp_path, capsys):
    out = tmp_path / "run"
    said = fail(capsys, "train", "digits-vae", "--device", "cuda", "--out", out)
    assert "--device cuda but found none; use --device cpu" in said
    assert not out.exists()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x_train": np.full((8, 4), 255.0)}, "for Pixel but got values from 255 to 255"),
        ({"x_train": np.full((8, 4), np.nan)}, "NaN"),
        ({"x_train": np.full((8, 4), np.inf)}, "inf"),
        ({"x_train": np.zeros((0, 4))}, "row"),
        ({"y_train": np.zeros(5, int)}, "y_train"),
        ({"x_test": np.zeros((8, 5))}, "x_test"),
        ({"x_test": np.full((8, 4), 2.0)}, "Expected x_test to hold numbers from 0 to 1"),
    ],
)
def test_bad_arrays_are_explained_and_write_nothing(arrays, message, tmp_path, capsys):
    whole = {"x_train": np.zeros((8, 4)), "x_test": np.zeros((8, 4))} | arrays
    path, out = write(tmp_path / "mine.npz", **whole), tmp_path / "run"
    words = ["--data", path, "--train", "null", "--validation", "0", "--out", out]
    likelihood = ["--likelihood", "Bernoulli"]
    assert message in fail(capsys, "train", "digits-vae", *words, *likelihood)
    assert not out.exists()


def test_no_network_when_a_download_is_asked_for(tmp_path, monkeypatch, capsys):
    def unreachable(*_, **__):
        raise ConnectionError("Could not fetch MNIST; see the network, or put the files there.")

    source = data.Source("", unreachable)
    monkeypatch.setattr(data, "CATALOGUE", {"mnist": source})
    out = tmp_path / "run"
    said = fail(capsys, "train", "vae", "--download", "--data-root", tmp_path / "d", "--out", out)
    assert "Could not fetch MNIST" in said
    assert not out.exists()


def test_data_that_is_not_there_says_where_it_was_looked_for(tmp_path, capsys):
    said = fail(capsys, "train", "vae", "--data-root", tmp_path, "--out", tmp_path / "run")
    assert str(tmp_path) in said
    assert "--download" in said


def test_a_folder_that_holds_a_run_is_kept_unless_told_to_overwrite(run, capsys):
    before = (run / "model.safetensors").read_bytes()
    assert "--overwrite" in fail(capsys, "train", "digits-gmvae", *QUICK, "--out", run)
    assert (run / "model.safetensors").read_bytes() == before


def test_overwrite_spares_a_folder_that_holds_no_run(tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("mine")
    said = fail(capsys, "train", "digits-vae", *QUICK, "--out", tmp_path, "--overwrite")
    assert "holds other files" in said
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_data_of_ones_own_are_not_split_as_the_data_of_the_recipe(tmp_path):
    path = write(tmp_path / "few.npz", x_train=np.zeros((30, 9)), x_test=np.zeros((5, 9)))
    words = ["train", "gmvae", *QUICK, "--data", str(path), "--out", str(tmp_path / "run")]
    assert cli.main(words) == 0


def test_bad_input_with_overwrite_keeps_the_old_run(run, capsys):
    said = fail(capsys, "train", "digits-gmvae", "--out", run, "--overwrite", "--train", "9000")
    assert "9000" in said
    assert {path.name for path in run.iterdir()} >= FILES


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--steps 0", "length of at least one step but got steps=0"),
        ("--steps -5", "length of at least one step but got steps=-5"),
        ("--epochs .nan", "length of at least one step but got steps=None, epochs=nan"),
        ("--epochs .inf", "length of at least one step but got steps=None, epochs=inf"),
        ("--steps null", "Expected steps or epochs but got steps=None, epochs=None"),
        ('--kl {"w":{"weight":0.5}}', "KL policies for sites among ['y', 'z'] but got ['w']"),
        ("--patience 0", "positive patience"),
    ],
)
def test_settings_that_no_training_can_begin_with_keep_the_old_run(run, words, message, capsys):
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    said = fail(capsys, "train", "digits-gmvae", "--out", run, "--overwrite", *words.split())
    assert message in said
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_a_pair_that_cannot_be_saved_is_refused_before_it_is_trained(tmp_path, monkeypatch, capsys):
    (tmp_path / "forgets.py").write_text(
        "from priorzoo.models import VAE\n\n\nclass Forgets(VAE):\n"
        "    def __init__(self, decoder, likelihood, code=8, width=3):\n"
        "        super().__init__(decoder, likelihood, code)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    out = tmp_path / "run"
    said = fail(capsys, "train", "digits-vae", "--model", "forgets.Forgets", "--out", out)
    assert "add self.width = width" in said
    assert not out.exists()


def test_an_output_folder_that_is_a_file(tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("mine")
    for out in (tmp_path / "thesis.txt", tmp_path / "thesis.txt" / "run"):
        said = fail(capsys, "train", "digits-vae", *QUICK, "--out", out, "--overwrite")
        assert "thesis.txt" in said
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_a_folder_that_may_not_be_written(tmp_path, monkeypatch, capsys):
    def refuse(self, *_, **__):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    out = tmp_path / "run"
    assert f"Permission denied: '{out}'" in fail(capsys, "train", "digits-vae", "--out", out)


def test_a_result_is_there_whole_or_not_at_all(tmp_path, monkeypatch, capsys):
    write_text = Path.write_text

    def fill(self, text, *_, **__):
        if self.name.startswith("result"):
            write_text(self, text[:20])
            raise OSError(28, "No space left on device", str(self))
        return write_text(self, text)

    monkeypatch.setattr(Path, "write_text", fill)
    out = tmp_path / "run"
    assert "No space left" in fail(capsys, "train", "digits-vae", *QUICK, "--out", out)
    kept = {"checkpoint.safetensors", "checkpoint-1.safetensors"}
    assert {path.name for path in out.iterdir()} == FILES - {"result.json", "figures"} | kept


def test_the_scores_are_told_before_the_figures_are_drawn(tmp_path, monkeypatch, capsys):
    def fail_to_draw(*_):
        raise ValueError("no figure")

    monkeypatch.setattr(run_charts, "draw_run", fail_to_draw)
    assert cli.main(["train", "digits-vae", *QUICK, "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr()
    assert "held-out terms" in said.out
    assert "no figure" in said.err


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("result.json", "{}", "damaged: Expected settings, seed, shape"),
        (
            "result.json",
            '{"settings": {}, "shape": [8, 8], "seed": 0, "metrics": {}}',
            "Expected data, binarise, train",
        ),
        ("result.json", "[]", "damaged"),
        ("result.json", '{"sett', "damaged"),
        ("history.jsonl", '{"st', "damaged"),
        ("config.json", None, "half-written"),
        ("model.safetensors", None, "half-written"),
        ("result.json", None, "half-written"),
        ("config.json", '{"format": 99}', "upgrade priorzoo"),
        ("config.json", '{"for', "damaged"),
    ],
)
def test_run_folders_that_cannot_be_opened(run, name, text, message, tmp_path, capsys):
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in run.iterdir():
        if path.is_file():
            (copy / path.name).write_bytes(path.read_bytes())
    (copy / name).unlink() if text is None else (copy / name).write_text(text)
    assert message in fail(capsys, "evaluate", copy)


def test_sample_refuses_what_the_run_has_not(run, tmp_path, capsys):
    assert "from 0 to 9 but got 12" in fail(capsys, "sample", run, "--cluster", "12")
    assert ".png or .npz" in fail(capsys, "sample", run, "--out", tmp_path / "some.jpg")
    assert "--n" in fail(capsys, "sample", run, "--n", "0")


def test_a_training_that_diverges_fails_with_its_terms(tmp_path, capsys):
    words = ["--optimiser", "SGD", "--optimiser.lr", "1e9", "--out", str(tmp_path / "run")]
    assert cli.main(["train", "digits-vae", *QUICK, *words]) == 1
    assert "Expected finite terms" in capsys.readouterr().err


@pytest.fixture
def partly(tmp_path):
    """Digits of which a third of the labels are unknown, and the same coded from 1 in the test."""
    digits = data.load("digits")
    x = {"x_train": digits.x_train[:300], "x_test": digits.x_test[:60]}
    y = {"y_train": digits.y_train[:300].clone(), "y_test": digits.y_test[:60].clone()}
    for label in y.values():
        label[::3] = -1
    arrays = {name: value.numpy() for name, value in (x | y).items()}
    write(tmp_path / "partly.npz", **arrays)
    arrays["y_test"] = np.where(arrays["y_test"] < 0, -1, arrays["y_test"] + 1)
    write(tmp_path / "shifted.npz", **arrays)
    return tmp_path


@pytest.mark.parametrize("recipe", ["digits-gmvae", "digits-m2", "digits-sb-vae"])
def test_minus_one_is_unknown_from_the_file_to_the_charts(recipe, partly, capsys):
    """Training with labels, scores, charts; the metrics are those of the rows with labels."""
    words = ["train", recipe, *QUICK, "--data", str(partly / "partly.npz"), "--validation", "0"]
    labelled = [] if recipe == "digits-sb-vae" else ["--labelled", "20"]
    out = partly / "run"
    assert cli.main([*words, *labelled, "--out", str(out)]) == 0, capsys.readouterr().err
    found = json.loads((out / "result.json").read_text())
    run = open_run(out)
    whole = data.load(str(partly / "partly.npz"))
    known = whole.y_test >= 0
    part = replace(whole, x_test=whole.x_test[known], y_test=whole.y_test[known])
    again = score(run, part)["metrics"]
    for name in ("accuracy", "accuracy_majority", "accuracy_hungarian", "nmi", "ari"):
        assert found["metrics"].get(name) == pytest.approx(again.get(name)), name
    assert ("accuracy" in again) is bool(labelled)


def test_a_test_set_coded_unlike_the_training_set_is_told(partly, capsys):
    """A warning where labels serve for scores alone; an error where clusters learn their names."""
    words = ["train", "digits-gmvae", *QUICK, "--data", str(partly / "shifted.npz")]
    said = fail(capsys, *words, "--labelled", "20", "--out", partly / "run")
    assert "Expected classes of the training rows, from 0 to 9, but some test rows have 10" in said
    assert not (partly / "run").exists()
    assert cli.main([*words, "--out", str(partly / "run")]) == 0
    assert "warning: Expected classes of the training rows" in capsys.readouterr().err
