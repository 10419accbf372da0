"""The plane of a mixture against Bayes' rule by hand; figures read back from their artists."""

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from scipy.stats import chi2, multivariate_normal
from torch import nn

from priorzoo.benchmarks.charts import planar
from priorzoo.benchmarks.charts import run_charts as plots
from priorzoo.benchmarks.papers import RECIPES
from priorzoo.benchmarks.papers.dilokthanakul2016 import watch
from priorzoo.benchmarks.recipes.changes import apply, written
from priorzoo.benchmarks.rows.files import plain
from priorzoo.benchmarks.runs import run as runs
from priorzoo.cli import main as cli
from priorzoo.guides import CodeThenCluster
from priorzoo.inference import Linear, Stream
from priorzoo.models import GMVAE, Gaussian
from priorzoo.models.distributions.gaussian import deviation

LOCS = [[2.0, 0.0], [-1.0, 2.0], [-1.0, -2.0], [30.0, 30.0]]  # the last holds no datum


class Same(nn.Module):
    """Encodes x as itself, almost without spread."""

    def forward(self, x):
        return torch.cat([x, torch.full_like(x, -20.0)], -1)


def mixture():
    model = GMVAE(nn.Identity(), Gaussian(scale=0.1), code=2, clusters=4)
    with torch.no_grad():
        model.loc.copy_(torch.tensor(LOCS))
    return model, CodeThenCluster(Same(), model)


def data():
    means = torch.tensor(LOCS)[torch.arange(600) % 3]
    return means + 0.3 * torch.randn(600, 2, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def view():
    with Stream(0):
        return planar.look(*mixture(), data(), "mine")


def test_regions_are_those_of_bayes_rule(view):
    model, _ = mixture()
    _, scale = model.components()
    scores = []
    across, up = np.meshgrid(view.ticks, view.ticks)  # rows go up
    for k, loc in enumerate(LOCS):
        part = multivariate_normal(loc, np.diag(scale[k].detach().numpy() ** 2))
        scores.append(part.pdf(np.stack([across, up], -1)))
    joint = np.stack(scores)
    np.testing.assert_array_equal(view.regions, joint.argmax(0))
    certainty = joint.max(0) / joint.sum(0)
    np.testing.assert_allclose(view.certainty, certainty, rtol=2e-3)  # float32 far from all


def test_draws_come_from_their_component(view):
    model, _ = mixture()
    _, scale = (part.detach() for part in model.components())
    error = scale / planar.DRAWN**0.5
    assert ((view.drawn_codes.mean(1) - torch.tensor(LOCS)).abs() < 5 * error).all()
    noise = view.drawn - view.drawn_codes
    assert noise.std().item() == pytest.approx(0.1, rel=0.1)
    assert float(deviation(torch.tensor(-20.0))) < 0.02  # codes of the data are the data
    torch.testing.assert_close(view.x, view.z)


def test_an_ellipse_of_two_deviations_holds_what_the_chi_squared_law_says():
    mixing = torch.tensor([[1.0, 0.0], [1.5, 0.2]])
    points = torch.randn(20_000, 2, generator=torch.Generator().manual_seed(1)) @ mixing.T + 3
    ellipse = planar._ellipse(points, "black")
    ax = Figure().subplots()
    ax.add_patch(ellipse)
    inside = ellipse.contains_points(ax.transData.transform(points.numpy()))
    assert inside.mean() == pytest.approx(chi2(2).cdf(4), abs=0.01)


def test_components_without_data_are_not_drawn(view):
    above, below = planar.draw_regions([view])
    assert [part.get_label() for part in above.collections] == ["data", "0", "1", "2"]
    assert sum(isinstance(patch, Ellipse) for patch in below.patches) == 3
    assert above.get_title() == "mine"
    (picture,) = above.images
    assert picture.get_extent() == [view.ticks[0], view.ticks[-1]] * 2
    assert picture.origin == "lower"


def test_views_stand_in_columns(view):
    axes = planar.draw_regions([view, replace(view, name="other")])
    assert [ax.get_title() for ax in axes] == ["mine", "other", "", ""]


def test_only_planes_are_looked_at():
    model = GMVAE(nn.Identity(), Gaussian(), code=3, clusters=4)
    with pytest.raises(ValueError, match="2 dimensions but got 3 and 3"):
        planar.look(model, CodeThenCluster(Same(), model), torch.randn(5, 3))


HISTORY = [
    {"step": 1, "split": "train", "elbo": -9.0, "reconstruction": -8.0, "kl[y]": 2.0},
    {"step": 1, "split": "test", "terms": {}},
    {"step": 2, "split": "train", "elbo": -5.0, "reconstruction": -4.0, "kl[y]": 1.5},
]


def test_the_floor_lies_below_its_curve():
    ax = planar.draw_floor({"one": HISTORY}, 1.6)
    curve, floor = ax.lines
    np.testing.assert_array_equal(curve.get_xydata(), [[1, 2.0], [2, 1.5]])
    assert set(floor.get_ydata()) == {1.6}
    assert ax.get_ylim()[0] == 0


def test_terms_side_by_side_share_their_ordinates():
    other = [row | {"elbo": -50.0, "kl[y]": 40.0} for row in HISTORY if row["split"] == "train"]
    axes = planar.draw_guides({"one": HISTORY, "two": other})
    assert [ax.get_title() for ax in axes] == ["one", "two"]
    lower = [ax for ax in axes[0].figure.axes if ax not in axes]
    assert len(lower) == 2
    for pair in (axes, lower):
        assert pair[0].get_ylim() == pair[1].get_ylim()
    assert lower[0].get_ylim()[1] >= 40


@pytest.mark.parametrize(("name", "floor"), [("pinwheel", np.log(5)), ("pinwheel-plain", 0)])
def test_the_floor_of_a_run_is_read_from_its_settings(name, floor):
    settings = plain(asdict(RECIPES[name]))
    assert planar.floor_of(settings) == pytest.approx(floor, abs=1e-3)


def test_schedules_of_penalties_survive_the_options():
    penalties = written(RECIPES["pinwheel"])["penalties"]
    read = apply(RECIPES["pinwheel-plain"], {"penalties": penalties})
    assert read.penalties["consistency"].init_args["weight"] == Linear(0, 0.5, fraction=1)


def test_a_training_is_watched_at_every_row_of_its_history():
    recipe = replace(RECIPES["pinwheel"], steps=20, every=10, n_init=1)
    first, last = watch(recipe, seed=3)
    assert (first.name, last.name) == ("step 10", "step 20")
    assert not torch.equal(first.z, last.z)
    torch.testing.assert_close(last.share.sum(), torch.ones(()))


def test_runs_are_drawn_side_by_side(tmp_path):
    folders = [tmp_path / name for name in ("plain", "remedied")]
    for folder, name in zip(folders, ("pinwheel-plain", "pinwheel"), strict=True):
        recipe = replace(RECIPES[name], steps=4, every=2, n_init=1)
        drawn = {path.stem for path in plots.draw_run(*runs.train(name, recipe, folder))}
        assert "regions" in drawn
        assert ("floor" in drawn) == (name == "pinwheel")
    assert cli.main(["bench", "planar", *map(str, folders), "--out", str(tmp_path)]) == 0
    for name in ("regions", "floor", "terms"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
