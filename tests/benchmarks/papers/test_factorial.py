"""The factorial mixture from a recipe to its figures."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from priorzoo.benchmarks.charts import run_charts as plots
from priorzoo.benchmarks.charts.sweep import draw_sweep
from priorzoo.benchmarks.data.labels import keep_rows
from priorzoo.benchmarks.papers import RECIPES
from priorzoo.benchmarks.papers import paquet2018 as factorial
from priorzoo.benchmarks.recipes.recipe import Stage, part
from priorzoo.benchmarks.rows.files import plain
from priorzoo.benchmarks.runs import run as runs
from priorzoo.benchmarks.runs.course import Course
from priorzoo.benchmarks.runs.opening import open_run
from priorzoo.benchmarks.runs.reading import read_data
from priorzoo.benchmarks.runs.scoring import score
from priorzoo.benchmarks.scores.run import Run
from priorzoo.cli import main as cli
from priorzoo.guides import FactorialCode
from priorzoo.inference import predictive
from priorzoo.inference.training.checkpoints import load_state, save_state
from priorzoo.models import MLP, Dirichlet, FactorialMixture, Gaussian, NormalGamma

JUDGED = ("judge", "agreement", "regression")
SMALL = {"encoder": part(MLP, hidden=[8]), "decoder": part(MLP, hidden=[8])}


@pytest.fixture
def faces(tmp_path):
    """A file like that of the faces, 12 x 16, whose brightness is the pose."""
    generator = np.random.default_rng(0)
    labels = {key: generator.integers(k, size=80) for key, k in (("eyes", 2), ("pose", 4))}
    x = 60 * labels["pose"][:, None, None] + generator.integers(20, size=(80, 12, 16))
    extra = {key: np.zeros(80, int) for key in ("person", "expression")}
    test = np.arange(80) % 4 == 0
    np.savez(tmp_path / "cmu_faces.npz", x=x.astype(np.uint8), is_test=test, **labels, **extra)
    return tmp_path


def test_labels_are_read_by_name_for_the_same_rows(faces):
    settings = plain(asdict(RECIPES["factorial-faces"]))
    rows = read_data(settings, str(faces), seed=0)
    pose, test = rows.named["r_2"]
    torch.testing.assert_close((rows.x_train.mean(-1) * 255 / 60).long().float(), pose.float())
    torch.testing.assert_close((rows.x_test.mean(-1) * 255 / 60).long().float(), test.float())
    torch.testing.assert_close(rows.named["r_1"][0], rows.y_train)


def test_labelled_rows_keep_all_their_labels():
    labels = {"r_1": torch.arange(50) % 2, "r_2": torch.arange(50) % 5}
    kept = keep_rows(labels, 20, seed=1)
    known = {site: (label >= 0) for site, label in kept.items()}
    assert known["r_1"].sum() == 20
    assert (known["r_1"] == known["r_2"]).all()
    for site, label in kept.items():
        assert (label[known[site]] == labels[site][known[site]]).all()
    with pytest.raises(ValueError, match="to the 50 training rows"):
        keep_rows(labels, 51, seed=1)


def test_a_recipe_goes_through_its_stages(faces, tmp_path, monkeypatch):
    """Pre-training, components at the known classes, joint training; metrics of each factor."""
    recipe = replace(
        RECIPES["factorial-faces"],
        **SMALL,
        model=part(FactorialMixture, code=6, clusters=[2, 4, 3]),
        kl={},
        labelled=50,
        steps=150,
        every=50,
        stages=(
            replace(RECIPES["factorial-faces"].stages[0], steps=20),
            *RECIPES["factorial-faces"].stages[1:],
            Stage("globals", steps=5, learn=("guide.weights", "guide.components")),
        ),
    )
    run, rows = runs.train("faces", recipe, tmp_path / "run", data_root=str(faces))
    assert [row["stage"] for row in run.history if row["split"] == "test"] == [
        "pretraining",
        "prior",
        "globals",
    ]
    assert {f"r_{i}.used" for i in (1, 2, 3)} <= set(run.result["metrics"])
    assert run.result["metrics"]["r_2.accuracy"] > 0.5
    assert "r_3.accuracy" not in run.result["metrics"]
    again = open_run(tmp_path / "run")
    scored = score(again, rows)["metrics"]
    assert {name: run.result["metrics"][name] for name in scored} == scored
    judged = {f"{site}.{name}" for site in ("r_1", "r_2") for name in JUDGED}
    assert judged == set(run.result["metrics"]) - set(scored)
    assert run.result["metrics"]["r_2.judge"] == 1.0
    names = {path.stem for path in plots.draw_run(again, rows)}
    assert {"grid", "means", "weights_1", "weights_3", "clusters_2", "samples", "terms"} <= names


def test_the_judge_sees_what_a_perfect_decoder_draws(faces, tmp_path):
    """A row is as bright as the second factor says; the first one has no say."""
    rows = read_data(plain(asdict(RECIPES["factorial-faces"])), str(faces), seed=0)
    model = FactorialMixture(MLP(2, 192, ()), Gaussian(0.1), code=2, clusters=(2, 4))
    layer = model.decoder.layers[0]
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([0.0, 1.0]).expand(192, 2))
        layer.bias.zero_()
    guide = FactorialCode(MLP(192, 4, ()), 2, (2, 4))
    means = (60 * torch.arange(4.0)[:, None] + 10) / 255
    guide.components[1].data = NormalGamma.natural(means, *torch.tensor([1e6, 5e5, 10.0]))
    known = {site: labels for site, (labels, _) in rows.named.items()}
    found = factorial.judge_factors(Run(tmp_path, model, guide, {}, []), rows, known)
    assert found["r_2.agreement"] == found["r_2.judge"] == found["r_2.regression"] == 1.0
    assert 0.4 < found["r_1.agreement"] < 0.6


def test_an_interrupted_run_keeps_clamps_schedule_and_natural_parameters(faces, tmp_path):
    """A run that is taken up again ends where one without a break does, to the last bit."""
    recipe = replace(
        RECIPES["factorial-faces"],
        **SMALL,
        model=part(FactorialMixture, code=6, clusters=[2, 4, 3]),
        labelled=40,
        steps=12,
        every=4,
        stages=(),
    )
    rows = read_data(plain(asdict(recipe)), str(faces), seed=0)
    whole = Course(recipe, rows, torch.device("cpu"), 0)
    (tmp_path / "whole").mkdir()
    whole.run(tmp_path / "whole", {})
    first = Course(recipe, rows, torch.device("cpu"), 0)
    training = first.prepared.training(first.stages[-1], first.model, first.guide, seed=0)
    training.run(4)
    save_state(tmp_path / "state.safetensors", training.state())
    again = Course(recipe, rows, torch.device("cpu"), 0)
    training = again.prepared.training(again.stages[-1], again.model, again.guide, seed=1)
    training.restore(load_state(tmp_path / "state.safetensors"))
    training.run(8)
    torch.testing.assert_close(again.guide.state_dict(), whole.guide.state_dict(), rtol=0, atol=0)


def test_grids_hold_what_they_do_not_vary():
    """Rows share the first factor's code and columns the second's, and the third never changes."""
    model = FactorialMixture(MLP(6, 6, ()), code=6, clusters=(3, 2, 4))
    layer = model.decoder.layers[0]
    with torch.no_grad():
        layer.weight.copy_(torch.eye(6))
        layer.bias.zero_()
    guide = FactorialCode(MLP(6, 12, ()), 6, (3, 2, 4))
    story, _ = predictive(model, guide, prune=True)
    logits = factorial.attribute_grid(model, story, [0, 1, 2], [0, 1]).logit().reshape(3, 2, 6)
    torch.testing.assert_close(logits[:, 0, :2], logits[:, 1, :2])
    torch.testing.assert_close(logits[0, :, 2:4], logits[2, :, 2:4])
    assert (logits[0, 0, :2] != logits[1, 0, :2]).all()
    assert (logits[0, 0, 2:4] != logits[0, 1, 2:4]).all()
    torch.testing.assert_close(logits[..., 4:], logits[:1, :1, 4:].expand(3, 2, 2))


def test_means_are_over_the_codes_of_a_pair_of_clusters():
    """A linear decoder gives back the means of both clusters, and of the third factor's weights."""
    model = FactorialMixture(MLP(3, 3, ()), Gaussian(0.1), code=3, clusters=(2, 3, 2))
    layer = model.decoder.layers[0]
    with torch.no_grad():
        layer.weight.copy_(torch.eye(3))
        layer.bias.zero_()
    guide = FactorialCode(MLP(3, 6, ()), 3, (2, 3, 2))
    means = [torch.tensor([1.0, 2.0]), torch.tensor([-3.0, 4.0, 5.0]), torch.tensor([7.0, 7.0])]
    for natural, mean in zip(guide.components, means, strict=True):
        parts = torch.tensor([1e6, 5e4, 5e4]).unbind()
        natural.data = NormalGamma.natural(mean[:, None], *parts)
    story, _ = predictive(model, guide, prune=True)
    found = factorial.mean_grid(story, [1, 0], [2, 0])
    expected = torch.tensor([[2.0, 5, 7], [2, -3, 7], [1, 5, 7], [1, -3, 7]])
    assert ((found - expected).abs() < 5 / 100**0.5).all()  # codes have deviation 1
    ax = factorial.draw_pairs(torch.rand(4, 12), {"eyes": [1, 0], "factor 2": [2, 0]}, (3, 4))
    assert [label.get_text() for label in ax.get_yticklabels()] == ["1", "0"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["2", "0"]
    assert (ax.get_ylabel(), ax.get_xlabel()) == ("eyes", "factor 2")


def test_moments_are_those_of_the_samples():
    samples = torch.rand(2, 50, 12)
    samples[1] = samples[1] / 2
    ax = factorial.draw_moments(samples, ["4:  60.0%", "0:  40.0%"], (3, 4), "pose")
    tiles = [torch.from_numpy(np.asarray(tile.get_array())).flatten() for tile in ax.images]
    assert len(tiles) == 2 * 8
    torch.testing.assert_close(tiles[8], samples[1].mean(0))
    spread = samples.var(1).sqrt()
    torch.testing.assert_close(torch.stack([tiles[1], tiles[9]]), spread / spread.max())
    torch.testing.assert_close(tiles[10], samples[1, 0])
    heads = [label.get_text() for label in ax.get_xticklabels()]
    assert heads == ["mean", "sd", "samples", *[""] * 5]


def test_pruned_components_are_marked():
    model = FactorialMixture(MLP(2, 6, ()), code=2, clusters=3)
    guide = FactorialCode(MLP(6, 4, ()), 2, 3)
    guide.weights[0].data = Dirichlet.natural(torch.tensor([1.2, 60.0, 9.0]))
    ax = factorial.draw_weights(*factorial.weights(model, guide, 1))
    heights = [bar.get_height() for bar in ax.containers[0]]
    assert heights == pytest.approx([60 / 70.2, 9 / 70.2, 1.2 / 70.2])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1", "2", "0"]
    (ground,) = set(ax.patches) - set(ax.containers[0])
    assert (ground.get_x(), ground.get_width()) == (1.5, 1)
    assert ax.get_title() == "2 of 3 components in use, 1 pruned"
    assert NormalGamma.usual(guide.components[0].detach())[1].min() > 0


def test_one_factor_is_scored_like_any_clustering(tmp_path, capsys):
    words = ["--steps", "5", "--every", "5", "--stages", "[]", "--model.clusters", "4"]
    out = str(tmp_path / "run")
    assert cli.main(["train", "digits-factorial", *words, "--out", out]) == 0
    metrics = json.loads((tmp_path / "run" / "result.json").read_text())["metrics"]
    assert metrics["clusters"] == 4
    assert {"accuracy_majority", "used"} <= set(metrics)
    capsys.readouterr()
    assert cli.main(["evaluate", out, "--json", "--importance-samples", "20"]) == 0
    terms = json.loads(capsys.readouterr().out)["terms"]
    assert terms["log p(x)"] > terms["elbo"]
    assert cli.main(["sample", out, "--cluster", "1", "--n", "3"]) == 0


def swept(clusters, seed, elbo, **changes):
    terms = {"kl[r_1]": 1.5, "kl[z_1]": 20.0, "reconstruction": elbo + 21.5, "elbo": elbo}
    settings = {"data": "mnist", "model": {"init_args": {"clusters": clusters}}}
    row = {"recipe": "factorial", "steps": 500, "settings": settings, "seed": seed}
    return row | {"terms": terms | {"globals": 7.0}} | changes


def test_a_sweep_shows_mean_and_deviation_of_each_part():
    """Seeds at -90 and -86 have the mean -88 and the deviation sqrt(8); one seed has no band."""
    rows = [swept(16, 0, -90.0), swept(64, 0, -85.0), swept(16, 1, -86.0)]
    ax = draw_sweep(rows)
    panels = {panel.get_ylabel(): panel for panel in ax.figure.axes}
    expected = {"ELBO": (-88, -85), "reconstruction": (-66.5, -63.5), "KL[z]": (20, 20)}
    for name, heights in (expected | {"KL[r]": (1.5, 1.5)}).items():
        panel = panels.pop(f"{name}, nats")
        assert panel.lines[0].get_xdata().tolist() == [16, 64]
        assert panel.lines[0].get_ydata() == pytest.approx(heights)
        assert panel.get_xscale() == "log"
        edges = panel.collections[0].get_paths()[0].vertices
        spread = 8**0.5 if name in ("ELBO", "reconstruction") else 0.0
        first = edges[edges[:, 0] == 16, 1]
        assert (first.min(), first.max()) == pytest.approx(
            (heights[0] - spread, heights[0] + spread)
        )
        assert np.ptp(edges[edges[:, 0] == 64, 1]) == 0
    assert not panels
    assert ax.figure.get_suptitle() == (
        "factorial on mnist, 500 steps; mean and deviation of 1 to 2 seeds for each K"
    )
    assert (
        draw_sweep(rows[:2], Figure().subplots())
        .figure.get_suptitle()
        .endswith("1 seed for each K")
    )


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "got none"),
        ([swept(4, 0, -9.0), swept(8, 0, -9.0, steps=900)], "one recipe, data set and number"),
        ([swept([4, 4], 0, -9.0)], r"one factor but got clusters=\[4, 4\]"),
    ],
)
def test_a_sweep_does_not_mix_what_cannot_be_compared(rows, said):
    with pytest.raises(ValueError, match=said):
        draw_sweep(rows)
