"""Restarts, stages, labels and resuming: the whole of a recipe's training."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture

from priorzoo.benchmarks.data.labels import keep_labels, repeat_labelled
from priorzoo.benchmarks.data.sets import load
from priorzoo.benchmarks.papers import RECIPES
from priorzoo.benchmarks.papers.jiang2017 import place_mixture
from priorzoo.benchmarks.recipes import one_cycle
from priorzoo.benchmarks.recipes.building import build_pair, build_training
from priorzoo.benchmarks.recipes.recipe import Stage, part
from priorzoo.benchmarks.rows.files import plain
from priorzoo.benchmarks.runs import run as runs
from priorzoo.benchmarks.runs.course import Course, derive
from priorzoo.benchmarks.runs.folder import Checkpoints
from priorzoo.guides import ClusterThenCode, CodeThenCluster
from priorzoo.inference import (
    Autoencoder,
    Classification,
    StoredRows,
    codes,
    move_clusters,
    reseed_clusters,
)
from priorzoo.models import GMVAE, MLP, VAE, NGGPMixture
from priorzoo.models.distributions.gaussian import deviation

CPU = torch.device("cpu")
SMALL = replace(
    RECIPES["digits-gmvae"],
    encoder=part(MLP, hidden=[8]),
    decoder=part(MLP, hidden=[8]),
    steps=12,
    every=4,
)
STAGED = replace(
    SMALL,
    model=part(GMVAE, code=3, clusters=4, learn_weights=True),
    guide=part(CodeThenCluster),
    stages=(
        Stage("autoencoder", steps=8, objective=part(Autoencoder)),
        Stage("mixture", begin=part(place_mixture)),
        Stage("prior", steps=4, learn=("model.loc", "model.raw", "model.logits")),
    ),
)
GROWING = replace(
    RECIPES["digits-nggp"],
    model=part(NGGPMixture, code=3, clusters=8, start=2),
    encoder=SMALL.encoder,
    decoder=SMALL.decoder,
    moves={"clusters": part(move_clusters, rows=100, rounds=1)},
    optimiser=part(torch.optim.Adam, lr=3e-3),
    steps=60,
    every=20,
)
RESEEDED = {"moves": {"starved": part(reseed_clusters, rows=100, starved=3.0, until=1.0)}}


@pytest.fixture
def digits():
    return load("digits", train=300, validation=50)


def course(recipe, digits, seed=0):
    return Course(recipe, digits, CPU, seed)


def settings(recipe):
    return plain(asdict(recipe))


def timeless(history):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in history]


class Interrupted(Exception):
    pass


@pytest.mark.parametrize(
    ("recipe", "rows"),
    [
        *(
            (SMALL, 2),
            (SMALL, 5),
            (STAGED, 3),
            (STAGED, 5),
            (STAGED, 9),
            (GROWING, 3),
            (GROWING, 7),
        ),
        (replace(STAGED, average=0.9), 5),
        (replace(STAGED, average=0.9, **RESEEDED), 9),
    ],
)
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(recipe, rows, digits, tmp_path):
    """To the last bit, wherever it was broken off, and with a history without gap or double."""
    whole = course(recipe, digits)
    (tmp_path / "whole").mkdir()
    whole.run(tmp_path / "whole", settings(recipe))
    folder = tmp_path / "broken"
    folder.mkdir()
    broken = course(recipe, digits)
    broken.history = type("Rows", (list,), {"append": lambda self, row: _append(self, row, rows)})()
    with pytest.raises(Interrupted):
        broken.run(folder, settings(recipe))
    again = course(recipe, digits)
    again.restore(Checkpoints(folder).load())
    again.run(folder, settings(recipe))
    for one, other in ((whole.model, again.model), (whole.guide, again.guide)):
        torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=0, atol=0)
    assert timeless(again.history) == timeless(whole.history)
    lines = (folder / "history.jsonl").read_text().splitlines()
    assert timeless(map(json.loads, lines)) == timeless(whole.history)


def test_moves_come_between_steps_and_leave_a_row(digits, tmp_path):
    """At each row but the last, and what they leave is what the next step begins with."""
    growing = course(GROWING, digits)
    growing.run(tmp_path, settings(GROWING))
    splits = [(row["split"], row["step"]) for row in growing.history if row["split"] != "valid"]
    assert splits == [("train", 20), ("moves", 20), ("train", 40), ("moves", 40), ("train", 60)]
    there = {row["step"]: row["clusters"] for row in growing.history if row["split"] == "moves"}
    trained = {row["step"]: row["clusters"] for row in growing.history if row["split"] == "train"}
    assert trained == {20: 2, 40: there[20], 60: there[40]}
    assert there[20] != 2
    still = course(replace(GROWING, moves={}), digits)
    still.run(tmp_path, settings(GROWING))
    assert {row["clusters"] for row in still.history if row["split"] == "train"} == {2}


def _append(history, row, rows):
    list.append(history, row)
    if len(history) == rows:
        raise Interrupted


def test_stages_are_named_and_counted_through_in_the_history(digits, tmp_path):
    staged = course(STAGED, digits)
    staged.run(tmp_path, settings(STAGED), judge=lambda: {"judged": 1})
    steps = [(row.get("stage"), row["step"]) for row in staged.history if row["split"] == "train"]
    assert steps == [
        ("autoencoder", 4),
        ("autoencoder", 8),
        ("prior", 12),
        (None, 16),
        (None, 20),
        (None, 24),
    ]
    judged = [row["stage"] for row in staged.history if row["split"] == "test"]
    assert judged == ["autoencoder", "mixture", "prior"]
    assert staged.step == 24


def test_only_the_parameters_that_a_stage_names_learn_in_it(digits, tmp_path):
    recipe = replace(STAGED, stages=STAGED.stages[-1:], steps=1)
    staged = course(recipe, digits)
    before = {k: v.clone() for k, v in staged.model.state_dict().items()}
    guide = {k: v.clone() for k, v in staged.guide.state_dict().items()}
    seen = {}

    def judge():
        seen.update(
            {k: not torch.equal(v, before[k]) for k, v in staged.model.state_dict().items()}
        )
        torch.testing.assert_close(staged.guide.state_dict(), guide, rtol=0, atol=0)
        return {}

    staged.run(tmp_path, settings(recipe), judge=judge)
    assert {name for name, moved in seen.items() if moved} == {"loc", "raw", "logits"}
    assert all(p.requires_grad for p in staged.guide.parameters())


def test_an_autoencoder_leaves_prior_and_variances_alone(digits, tmp_path):
    """Codes are at their means: neither the variances' half of the encoder nor the prior moves."""
    recipe = replace(STAGED, stages=STAGED.stages[:1], steps=1)
    staged = course(recipe, digits)
    last = staged.guide.encoder.layers[-1].weight.clone()
    loc = staged.model.loc.clone()

    def judge():
        now = staged.guide.encoder.layers[-1].weight
        torch.testing.assert_close(now[3:], last[3:], rtol=0, atol=0)
        torch.testing.assert_close(staged.model.loc, loc, rtol=0, atol=0)
        assert (now[:3] != last[:3]).any()
        return {}

    staged.run(tmp_path, settings(recipe), judge=judge)


def test_the_mixture_is_placed_on_the_codes(digits):
    """Weights, means and variances are those of the codes that each component explains."""
    model, guide = course(STAGED, digits).model, course(STAGED, digits).guide
    guide.__dict__["model"] = model
    place_mixture(model, guide, digits.x_train, seed=0)
    z = codes(model, guide, digits.x_train)
    loc, scale = model.components()
    parts = torch.distributions.Normal(loc, scale)
    joint = model.logits.log_softmax(-1) + parts.log_prob(z.unsqueeze(1)).sum(-1)
    share = joint.softmax(-1)
    mean = share.T @ z / share.sum(0)[:, None]
    var = share.T @ z**2 / share.sum(0)[:, None] - mean**2
    torch.testing.assert_close(share.mean(0), model.logits.softmax(-1), atol=0.02, rtol=0)
    torch.testing.assert_close(mean, loc, atol=0.02, rtol=0.02)
    torch.testing.assert_close(var, scale**2, atol=0.02, rtol=0.1)


@pytest.mark.parametrize("covariance", ["full", "tied"])
def test_a_mixture_of_any_covariance_is_placed_as_scikit_learn_fits_it(digits, covariance):
    recipe = replace(
        STAGED,
        model=replace(STAGED.model, init_args={**STAGED.model.init_args, "covariance": covariance}),
    )
    made = course(recipe, digits)
    place_mixture(made.model, made.guide, digits.x_train, seed=0)
    z = codes(made.model, made.guide, digits.x_train).double().numpy()
    expected = GaussianMixture(
        made.model.clusters, covariance_type=covariance, n_init=5, random_state=0, reg_covar=1e-4
    ).fit(z)
    every = torch.arange(made.model.clusters)
    found = made.model.component(every)
    torch.testing.assert_close(
        found.mean.double(), torch.from_numpy(expected.means_), rtol=0, atol=1e-5
    )
    matrices = torch.from_numpy(expected.covariances_).expand(len(every), -1, -1)
    torch.testing.assert_close(found.covariance_matrix.double(), matrices, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("covariance", ["diagonal", "full", "tied"])
def test_a_mixture_may_hold_the_variance_of_the_codes_posterior(digits, covariance):
    """As the mean over the codes of each component, which leaves means and weights as they are."""
    model = replace(STAGED.model, init_args={**STAGED.model.init_args, "covariance": covariance})
    pair = course(replace(STAGED, model=model), digits)
    every, x, matrices = torch.arange(pair.model.clusters), digits.x_train, []
    for spread in (False, True):
        place_mixture(pair.model, pair.guide, x, seed=0, spread=spread)
        shares = pair.model.logits.softmax(-1)
        found = pair.model.component(every)
        fn = getattr(found, "base_dist", found)
        full = covariance != "diagonal"
        matrices.append(fn.covariance_matrix if full else fn.variance.diag_embed())
    torch.testing.assert_close(pair.model.logits.softmax(-1), shares)
    own = pair.guide.encoder(x).chunk(2, -1)[1]
    added = (matrices[1] - matrices[0]).diagonal(dim1=-2, dim2=-1)
    expected = deviation(own).square().mean(0)
    torch.testing.assert_close((shares[:, None] * added).sum(0), expected, rtol=2e-2, atol=1e-4)


def test_a_schedule_lasts_as_long_as_its_stage(digits):
    """Its own ``total_steps``, where it is told any, stay."""
    cycle = one_cycle(max_lr=0.1)
    fixed = replace(cycle, init_args={**cycle.init_args, "total_steps": 99})
    first = Stage("first", steps=8, objective=part(Autoencoder), schedule=fixed)
    second = Stage("second", epochs=2)
    recipe = replace(SMALL, stages=(first, second), schedule=cycle, schedule_unit="step")
    trainings = course(recipe, digits).trainings
    lasts = [training.schedule.total_steps for training in trainings.values()]
    assert lasts == [99, 2 * 6, 12]  # 300 rows in batches of 50
    epochs = course(replace(recipe, schedule_unit="epoch"), digits).trainings
    assert [training.schedule.total_steps for training in epochs.values()] == [99, 2, 2]
    last = trainings[2]
    last.run(11)
    assert last.schedule.get_last_lr()[0] < 1e-5  # at the last step


@pytest.mark.parametrize(("unit", "total"), [("step", 12), ("epoch", 2)])
def test_a_schedule_lasts_as_long_for_rows_in_files(unit, total, tmp_path, digits):
    np.save(tmp_path / "x.npy", digits.x_train.numpy())
    stored = StoredRows(tmp_path / "x.npy").batched(50, seed=0)
    cycle = one_cycle(max_lr=0.1)
    recipe = replace(SMALL, steps=None, epochs=2, schedule=cycle, schedule_unit=unit, batch_size=50)
    for data in (stored, digits.x_train):
        training = build_training(recipe, *build_pair(recipe, digits.shape), data)
        assert training.length(epochs=2) == 12
        assert training.schedule.total_steps == total


def test_a_mixture_of_another_model_is_refused():
    with pytest.raises(ValueError, match=r"Expected a GMVAE .* got VAE"):
        place_mixture(VAE(MLP(2, 4), code=2), None, torch.zeros(3, 4), seed=0)


def test_the_start_with_the_best_bound_goes_on(digits, tmp_path):
    recipe = replace(SMALL, n_init=4, init_steps=6)
    several = course(recipe, digits)
    several.run(tmp_path, settings(recipe))
    starts = [row for row in several.history if row["split"] == "init"]
    assert len({row["elbo"] for row in starts}) == 4
    best = max(starts, key=lambda row: row["elbo"])["start"]
    seed = 0 if best == 0 else derive(0, -best)
    alone = course(SMALL, digits, seed=seed)
    alone_training = alone.prepared.training(alone.stages[-1], alone.model, alone.guide, seed=seed)
    alone_training.run(6)
    alone_training = alone.prepared.training(alone.stages[-1], alone.model, alone.guide, seed=0)
    alone_training.run(12)
    torch.testing.assert_close(several.model.state_dict(), alone.model.state_dict(), rtol=0, atol=0)


def test_labels_that_are_kept_are_balanced_and_the_seed_s():
    labels = torch.arange(100) % 10
    kept = keep_labels(labels, 32, seed=1)
    counts = [(kept == c).sum().item() for c in range(10)]
    assert sorted(counts) == [3] * 8 + [4] * 2
    assert (kept[kept >= 0] == labels[kept >= 0]).all()
    assert (kept == keep_labels(labels, 32, seed=1)).all()
    assert (kept != keep_labels(labels, 32, seed=2)).any()


@pytest.mark.parametrize(
    ("labels", "message"),
    [(None, "no labels"), (torch.arange(10), "Expected 2 rows of class 0 .* there are 1")],
)
def test_labels_that_are_not_there_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        keep_labels(labels, 20, seed=0)


def test_labels_teach_the_clusters_their_names(digits, tmp_path):
    recipe = replace(
        SMALL,
        model=part(GMVAE, code=4, clusters=10),
        guide=part(ClusterThenCode),
        encoder=part(MLP, hidden=[32]),
        penalties={"classification": part(Classification, weight=20.0)},
        labelled=300,
        steps=150,
    )
    _, rows = runs.train("x", recipe, tmp_path / "run", seed=0)
    found = json.loads((tmp_path / "run" / "result.json").read_text())["metrics"]
    assert found["accuracy"] > 0.5
    assert rows.y_train is not None


@pytest.mark.parametrize(("share", "copies"), [(0.0, 1), (0.05, 1), (0.5, 3), (0.55, 4)])
def test_labelled_rows_make_their_share_of_a_pass(share, copies):
    """Of 12 rows 3 have a label of one site or another, so that 3 copies are a half."""
    x = torch.arange(12.0).unsqueeze(-1)
    labels = {"y": torch.full((12,), -1), "w": torch.full((12,), -1)}
    labels["y"][[2, 5]] = torch.tensor([0, 7])
    labels["w"][9] = 4
    found, given = repeat_labelled(x, labels, share)
    assert found.flatten().long().bincount().tolist() == [
        copies if row in (2, 5, 9) else 1 for row in range(12)
    ]
    for site, label in labels.items():
        assert torch.equal(given[site], label[found.flatten().long()])


@pytest.mark.parametrize("share", [-0.1, 1.0, 0.5])
def test_share_that_cannot_be_is_refused(share):
    labels = {"y": torch.full((4,), -1)}
    with pytest.raises(ValueError, match="labelled_share"):
        repeat_labelled(torch.zeros(4, 2), labels, share)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_init": 0}, "at least one start"),
        ({"stages": (Stage("s"),)}, "length|steps"),
        ({"stages": (Stage("s", steps=2, learn=("nobody",)),)}, "none begins with 'nobody'"),
        ({"stages": (Stage("s", steps=0),)}, "at least one step"),
        ({"labelled": 10, "guide": part(CodeThenCluster), "model": part(GMVAE, clusters=4)}, "-1"),
    ],
)
def test_what_cannot_be_trained_is_found_at_once(change, message, digits):
    with pytest.raises(ValueError, match=message):
        course(replace(SMALL, **change), digits)


def test_another_run_s_checkpoint_is_refused(digits, tmp_path):
    broken = course(SMALL, digits)
    broken.history = type("Rows", (list,), {"append": lambda s, row: _append(s, row, 4)})()
    with pytest.raises(Interrupted):
        broken.run(tmp_path, runs.written(SMALL))
    with pytest.raises(ValueError, match="but batch_size differ"):
        runs.train("x", replace(SMALL, batch_size=7), tmp_path, resume=True)
    with pytest.raises(FileNotFoundError, match="checkpoint"):
        runs.train("x", SMALL, tmp_path / "nowhere", resume=True)


def test_a_curve_scores_the_test_rows_on_the_way_and_changes_nothing(tmp_path):
    folders = tmp_path / "a", tmp_path / "b"
    plain = replace(SMALL, train=300, validation=50)
    one, _ = runs.train("x", replace(plain, curve=True), folders[0], device="cpu")
    other, _ = runs.train("x", plain, folders[1], device="cpu")
    scored = [row for row in one.history if row["split"] == "test"]
    assert [row["step"] for row in scored] == [4, 8, 12]
    assert scored[-1]["metrics"] == one.result["metrics"]
    assert "stages" not in one.result
    assert "k-means" not in scored[-1]
    assert timeless(other.history) == timeless(r for r in one.history if r["split"] != "test")
    assert one.result["terms"] == other.result["terms"]
