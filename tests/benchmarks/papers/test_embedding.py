"""The scores of a plane against brute force, and the command on small runs."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch
from torch import nn

from priorzoo.benchmarks.charts import run_charts as plots
from priorzoo.benchmarks.data import sets as data
from priorzoo.benchmarks.papers import PAPERS
from priorzoo.benchmarks.papers import bodin2017 as embedding
from priorzoo.benchmarks.report.groups import group_rows
from priorzoo.benchmarks.report.paper_tables import paper_table
from priorzoo.benchmarks.report.result_tables import pixel_table
from priorzoo.benchmarks.runs.opening import open_run
from priorzoo.cli import main as cli
from priorzoo.inference import Memory, codes, load, reconstructions
from priorzoo.models.likelihoods.continuous import SCALE_FLOOR

QUICK = ["--steps", "30", "--every", "30", "--encoder.hidden", "[8]", "--decoder.hidden", "[8]"]
FIGURES = {"terms", "reconstructions", "samples", "plane", "embedding", "grid", "interpolations"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Run folders of a nonparametric and a plain VAE, barely trained."""
    place = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedding, "SIDE", 3)
        words = [*QUICK, "--memory", "90", "--out", str(place / "digits-nonparametric")]
        assert cli.main(["train", "digits-nonparametric", *words]) == 0
        patch.setattr(plots, "draw_run", lambda *_: [])
        words = [*QUICK, "--out", str(place / "digits-vae")]
        assert cli.main(["train", "digits-vae", *words]) == 0
    return place


@pytest.fixture(scope="module")
def rows():
    return data.load("digits", train=1_200, validation=200)


def test_neighbours_are_the_ten_nearest():
    known, asked = torch.randn(80, 2), torch.randn(30, 2)
    labels = (known[:, 0] > 0).long()
    nearest = torch.cdist(asked, known).topk(10, largest=False).indices
    votes = labels[nearest].sum(1)
    expected = (votes > 5).long()  # of a tie the smaller label counts
    found = embedding.neighbour_accuracy(known, labels, asked, expected)
    assert found == 1
    assert embedding.neighbour_accuracy(known, labels, asked, 1 - expected) == 0


def test_trustworthiness_is_one_of_the_data_themselves_and_half_of_noise():
    x = torch.randn(400, 2)
    assert embedding.trustworthiness(x, 3 * x) == pytest.approx(1)
    assert embedding.trustworthiness(x, torch.randn(400, 2)) == pytest.approx(0.5, abs=0.05)


def test_pairs_are_of_two_classes_and_always_the_same():
    labels = torch.arange(1_000) % 3
    first, last = embedding.different_pairs(labels, 50)
    assert len(first) == len(last) == 50
    assert (labels[first] != labels[last]).all()
    assert len(torch.cat([first, last]).unique()) == 100
    torch.manual_seed(5)
    assert torch.equal(
        torch.stack([first, last]), torch.stack(embedding.different_pairs(labels, 50))
    )


def test_the_plane_of_two_components_is_that_of_the_covariance(rows):
    """Neighbours do not ask for the signs of the components."""
    x = rows.x_train - rows.x_train.mean(0)
    largest = torch.linalg.eigh(x.T @ x).eigenvectors[:, -2:]
    known, asked = x @ largest, (rows.x_test - rows.x_train.mean(0)) @ largest
    expected = embedding.plane_scores(rows, known, asked)
    found = embedding.pixel_plane(rows, "pca")
    assert found == pytest.approx(expected, abs=0.01)


def test_the_judge_knows_the_data_and_not_noise(rows):
    judge = embedding.train_judge(rows, epochs=12)
    right = (judge(rows.x_test).argmax(-1) == rows.y_test).double().mean()
    assert right > 0.9
    assert embedding.confidence(judge, rows.x_test).mean() > 0.8
    assert embedding.confidence(judge, torch.full((5, 64), 0.5)).max() < embedding.SURE


def test_ways_lead_through_u_or_straight_through_z(folders, rows):
    x = rows.x_train[:20]
    first, last = torch.arange(5), torch.arange(10, 15)
    for name in ("digits-nonparametric", "digits-vae"):
        run = open_run(folders / name, "cpu")
        ways = embedding.Interpolation(run, x).between(first, last, 3)
        if name == "digits-vae":
            z = codes(run.model, run.guide, x)
            middle = run.model.decoder((z[first] + z[last]) / 2)
        else:
            u = run.guide.locator(x)
            memory = Memory.load(folders / name, run.model)
            assert len(memory.places) == 90
            middle = run.model.decoder(memory.codes_at((u[first] + u[last]) / 2))
        torch.testing.assert_close(ways[:, 1], middle.detach())


def test_training_draws_the_plane_and_keeps_a_memory(folders):
    folder = folders / "digits-nonparametric"
    assert {path.stem for path in (folder / "figures").iterdir()} == FIGURES
    assert (folder / "memory.safetensors").is_file()
    assert not (folders / "digits-vae" / "memory.safetensors").exists()


def test_scores_runs_and_draws_them_side_by_side(folders, rows, tmp_path, monkeypatch):
    judge = nn.Linear(64, 10)
    nn.init.normal_(judge.weight, std=40.0)  # small differences count
    monkeypatch.setattr(embedding, "train_judge", lambda _: judge)
    words = [str(folders / name) for name in ("digits-nonparametric", "digits-vae")]
    written = tmp_path / "rows.jsonl"
    options = ["--rows", str(written), "--figures", str(tmp_path), "--pixels", "pca"]
    assert cli.main(["bench", "embedding", *words, *options]) == 0
    ours, plain = (json.loads(line) for line in written.read_text().splitlines())
    assert ours["recipe"] == "digits-nonparametric"
    assert (ours["embedding"]["site"], plain["embedding"]["site"]) == ("u", "z")
    assert ours["embedding"]["memories"] == 90
    assert "through_plane" not in plain["embedding"]
    pixels = {"seed": 0, "pca": embedding.pixel_plane(rows, "pca")}
    assert ours["embedding"]["pixels"] == plain["embedding"]["pixels"] == pixels
    for row in (ours, plain):
        run = open_run(folders / row["recipe"], "cpu")
        made = reconstructions(run.model, run.guide, rows.x_test)
        scale = run.model.likelihood.log_scale.detach().exp() + SCALE_FLOOR
        nats = torch.distributions.Normal(made, scale).log_prob(rows.x_test).sum(1).mean()
        assert row["embedding"]["direct"] == pytest.approx(nats.item(), rel=1e-4)
        pairs = embedding.different_pairs(rows.y_train)
        ways = embedding.Interpolation(run, rows.x_train).between(*pairs)
        sure = judge(ways).softmax(-1).amax(-1)[:, 1:10] > 0.9
        share = sure.sum().item() / sure.numel()
        assert 0 < share < 1
        assert row["embedding"]["confident_between"] == pytest.approx(share)
    for name in ("planes", "interpolations"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_runs_of_other_data_are_not_mixed(folders, tmp_path, capsys):
    """Whose pairs, neighbours and classifier would not be the same."""
    other = tmp_path / "other"
    shutil.copytree(folders / "digits-vae", other)
    result = json.loads((other / "result.json").read_text())
    result["settings"]["train"] = 1_000
    (other / "result.json").write_text(json.dumps(result))
    assert cli.main(["bench", "embedding", str(folders / "digits-vae"), str(other)]) == 2
    assert "Expected runs that agree in data" in capsys.readouterr().err
    assert cli.main(["bench", "embedding", str(tmp_path / "none")]) == 2
    assert "no run folder" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is in KiB on Linux alone")
def test_the_memory_in_use_does_not_grow_with_the_queries():
    """1,500 queries of 60,000 places: the weights alone would take 343 MiB, several times over."""
    one, many = (embedding.peak(60_000, queries, 50)["peak_gib"] for queries in (1, 1_500))
    assert 0.1 < one < 2
    assert many - one < 0.2


def test_a_coupling_is_chosen_on_the_command_line(tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "draw_run", lambda *_: [])
    words = ["--model.coupling", "priorzoo.models.LeaveOneOutGP", "--model.coupling.jitter", "0.2"]
    out = tmp_path / "run"
    assert cli.main(["train", "digits-nonparametric", *QUICK, *words, "--out", str(out)]) == 0
    model, _ = load(out)
    assert type(model.coupling).__name__ == "LeaveOneOutGP"
    assert model.coupling.jitter == 0.2
    settings = json.loads((out / "result.json").read_text())["settings"]["model"]["init_args"]
    assert settings["coupling"]["init_args"]["jitter"] == 0.2


def test_a_memory_too_large_is_refused_before_the_training(tmp_path, capsys):
    x, out = np.zeros((10_001, 2)), tmp_path / "run"
    np.savez(tmp_path / "many.npz", x_train=x, x_test=x[:5])
    words = ["--data", str(tmp_path / "many.npz"), "--out", str(out)]
    words += ["--model.coupling", "priorzoo.models.LeaveOneOutGP"]
    for memory, said in (
        (["--memory", "0"], "a positive size but got 0"),
        ([], "at most 10000 rows"),
    ):
        assert cli.main(["train", "digits-nonparametric", *words, *memory]) == 2
        assert said in capsys.readouterr().err
        assert not out.exists()


def test_rows_of_planes_show_their_scores_and_those_of_the_pixels():
    def row(seed, accuracy, **more):
        plane = {"neighbour_accuracy": accuracy, "trustworthiness": 0.9, "confident_between": 0.5}
        return {
            "recipe": "nonparametric-500",
            "command": "priorzoo train nonparametric-500",
            "changes": {},
            "budget": "standard",
            "cell": "",
            "device": "cpu",
            "steps": 4_300,
            "seed": seed,
            "settings": {},
            "terms": {"reconstruction": -100.0 - seed},
            "metrics": {},
            "embedding": plane | {"site": "u", "dimensions": 2, "direct": -99} | more,
        }

    pca = {"neighbour_accuracy": 0.4, "trustworthiness": 0.7}
    rows = [row(0, 0.8, pixels={"seed": 3, "pca": pca}), row(1, 0.9)]
    (group,) = [group for group in group_rows(PAPERS, rows)["bodin2017"] if group.rows]
    table = paper_table([group])
    assert {name: cell.text for name, cell in zip(table.head, table.rows[0], strict=True)} == {
        "line": "MNIST, tied to a plane, code of 500 dimensions",
        "10 nearest neighbours": "0.850 ± 0.071",
        "trustworthiness": "0.900 ± 0.000",
        "reconstruction, nats": "-100.5 ± 0.7",
        "at the code's mean, nats": "-99.0 ± 0.0",
        "confident in between": "0.500 ± 0.000",
        "steps": "4,300",
        "seeds": "2",
        "budget": "standard",
        "device": "cpu",
    }
    assert table.rows[0][0].commands == ("priorzoo train nonparametric-500",)
    (pixels,) = pixel_table(rows).rows
    assert [cell.text for cell in pixels] == ["PCA of the pixels", "3", "0.400", "0.700"]
