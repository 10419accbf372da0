"""Charts are read back from the artists they leave on the axes."""

from collections.abc import Iterator
from itertools import pairwise
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib import rc_context, rcParams
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from torch import Tensor

from priorzoo.benchmarks.charts import axes as shared
from priorzoo.benchmarks.charts import clusters as clusterings
from priorzoo.benchmarks.charts import curves, pictures, planar, planes
from priorzoo.benchmarks.charts.run_charts import title_of
from priorzoo.benchmarks.papers import mehta2018, paquet2018

SHAPE = (3, 4)
HISTORY = [
    {"step": 0, "split": "train", "elbo": -500.0, "reconstruction": -480.0, "kl[z]": 20.0},
    {"step": 90, "split": "train", "elbo": -120.0, "reconstruction": -95.0, "kl[z]": 24.5},
    {"step": 90, "split": "valid", "elbo": -125.0, "reconstruction": -99.0, "kl[z]": 25.0},
    {"step": 99, "split": "train", "elbo": -110.0, "reconstruction": -90.0, "kl[y]": 0.5},
]


@pytest.fixture(autouse=True)
def pyplot_holds_nothing() -> Iterator[None]:
    yield
    assert plt.get_fignums() == []


@pytest.fixture
def ax() -> Axes:
    return Figure().subplots()


def flat(*values: float) -> Tensor:
    """One image of a single grey for each value."""
    return torch.tensor(values)[:, None].expand(-1, 12)


def hard(*assignments: int, clusters: int) -> Tensor:
    return torch.nn.functional.one_hot(torch.tensor(assignments), clusters).float()


def greys(ax: Axes) -> list[float]:
    return [round(float(tile.get_array().mean()), 3) for tile in ax.images]


def ticks(axis) -> list[str]:
    return [label.get_text() for label in axis.get_ticklabels()]


def legend(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_clusters_are_sorted_by_occupancy_and_members_by_confidence():
    q = torch.tensor([[0.3, 0.7, 0], [0.1, 0.9, 0], [0.8, 0.2, 0], [0.4, 0.6, 0], [0.0, 1.0, 0]])
    samples = torch.stack([flat(0.75, 0.8), flat(0.85, 0.9), flat(0.95, 1.0)])
    ax = pictures.draw_clusters(flat(0, 0.1, 0.2, 0.3, 0.4), q, samples, SHAPE, members=3)
    assert ticks(ax.yaxis) == ["1:  80.0%", "0:  20.0%", "2:  empty"]
    assert ticks(ax.xaxis) == ["most confident members", "samples"]
    assert greys(ax) == [0.4, 0.1, 0.0, 0.85, 0.9, 0.2, 0.75, 0.8]


def test_a_gap_parts_samples_from_members():
    q = hard(0, 0, clusters=1)
    ax = pictures.draw_clusters(flat(0, 0.1), q, flat(0.5, 0.6)[None], SHAPE, members=2)
    edges = [tile.get_extent()[:2] for tile in ax.images]
    gaps = [right[0] - left[1] for left, right in pairwise(edges)]
    assert gaps[0] == pytest.approx(gaps[2])
    assert gaps[1] > 4 * gaps[0]


def test_clusters_beyond_twenty_are_counted_in_the_title():
    some = torch.linspace(0, 1, 22).tolist()
    ax = pictures.draw_clusters(flat(*some), hard(*range(22), clusters=25), None, SHAPE)
    assert len(ax.get_yticks()) == 20
    assert ax.get_title() == "20 fullest of 22 clusters in use, room for 25"
    assert ticks(ax.xaxis) == ["most confident members"]


def test_where_there_is_room_for_many_empty_clusters_are_left_out():
    ax = pictures.draw_clusters(flat(0.5), hard(22, clusters=25), None, SHAPE)
    assert ticks(ax.yaxis) == ["22:  100.0%"]
    assert ax.get_title() == "1 clusters in use, room for 25"
    weights = torch.zeros(25).index_fill(0, torch.tensor([3, 7]), 0.5)
    ax = pictures.draw_components(flat(*weights.tolist()), weights, SHAPE)
    assert [text.get_text() for text in ax.texts] == ["3:  50.0%", "7:  50.0%"]


def test_tiles_of_components_are_even_and_bars_show_their_shares():
    shares = torch.tensor([0.1, 0.0, 0.6, 0.3])
    ax = pictures.draw_components(flat(0.1, 0.2, 0.3, 0.4), shares, SHAPE)
    assert greys(ax) == [0.3, 0.4, 0.1]
    extents = [tile.get_extent() for tile in ax.images]
    assert [right - left for left, right, *_ in extents] == pytest.approx(3 * [4 / 3])
    assert [bottom - top for *_, bottom, top in extents] == pytest.approx(3 * [1])
    bars = [bar.get_width() for bar in ax.patches[1::2]]
    assert bars == pytest.approx([4 / 3 * share for share in (1, 1 / 2, 1 / 6, 0)])
    written = [text.get_text() for text in ax.texts]
    assert written == ["2:  60.0%", "3:  30.0%", "0:  10.0%", "1:  empty"]


@pytest.mark.parametrize("size", [1, 3, 10, 23])
def test_grid_has_a_tile_for_each_image(size):
    ax = pictures.draw_grid(torch.rand(size, 12), SHAPE)
    tops = {tile.get_extent()[3] for tile in ax.images}
    assert (len(ax.images), len(tops)) == (size, -(-size // 10))


def test_colour_images_keep_their_channels_and_are_clipped():
    image = torch.linspace(-1, 2, 36)
    (tile,) = pictures.draw_grid(image[None], (3, 4, 3)).images
    np.testing.assert_allclose(tile.get_array(), image.clamp(0, 1).reshape(3, 4, 3))


def test_reconstructions_lie_below_their_originals():
    ax = pictures.draw_reconstructions(flat(0.1, 0.2, 0.3), flat(0.6, 0.7, 0.8), SHAPE, columns=2)
    assert greys(ax) == [0.1, 0.6, 0.2, 0.7, 0.3, 0.8]
    for original, copy in zip(ax.images[::2], ax.images[1::2], strict=True):
        assert original.get_extent()[:2] == copy.get_extent()[:2]
        assert original.get_extent()[2] < copy.get_extent()[3]


@pytest.mark.parametrize("shape", [(12,), (3, 2, 2), ()])
def test_only_pictures_are_drawn(shape):
    x, q = torch.rand(2, 12), hard(0, 1, clusters=2)
    for draw in (
        lambda: pictures.draw_clusters(x, q, None, shape),
        lambda: pictures.draw_components(x, torch.ones(2), shape),
        lambda: pictures.draw_grid(x, shape),
        lambda: pictures.draw_reconstructions(x, x, shape),
    ):
        with pytest.raises(ValueError, match=r"Expected a shape \(H, W\) or \(H, W, 3\) but got"):
            draw()


def test_images_must_fill_the_shape():
    with pytest.raises(ValueError, match=r"Expected images \(\.\.\., 6\) .* got \(2, 12\)"):
        pictures.draw_grid(torch.rand(2, 12), (2, 3))


@pytest.mark.parametrize(("size", "code"), [(30, 1), (30, 2), (30, 64), (1, 64), (2, 3), (1, 1)])
def test_plane_shows_each_code_once(size, code, tmp_path):
    codes, labels = torch.randn(size, code), torch.arange(size) % 4
    axes = planes.draw_plane(codes, torch.rand(size, 3), labels)
    shared.save(axes[0], tmp_path / "plane.png")
    assert [ax.get_title() for ax in axes] == ["by class", "by cluster"]
    assert legend(axes[0]) == [str(label) for label in labels.unique().tolist()]
    for ax in axes:
        assert sum(len(points.get_offsets()) for points in ax.collections) == size
        assert ("variance" in ax.get_xlabel()) == (code > 2)


def test_plane_says_the_variance_it_explains():
    codes = torch.randn(50, 4) * torch.tensor([3.0, 2.0, 1.0, 0.5])
    (ax,) = planes.draw_plane(codes, torch.ones(50, 1))
    parts = torch.linalg.eigvalsh(codes.T.cov()).flip(0) / codes.var(0).sum()
    assert ax.get_xlabel() == f"component 1, {parts[0]:.0%} of variance"
    assert ax.get_ylabel() == f"component 2, {parts[1]:.0%} of variance"


def test_plane_of_a_collapsed_code_explains_nothing():
    (ax,) = planes.draw_plane(torch.ones(5, 8), torch.ones(5, 1))
    assert ax.get_xlabel() == "component 1, 0% of variance"


def colours(ax: Axes) -> dict[str, tuple[str, int]]:
    """Colour and number of corners of the marker of each category that the legend names."""
    return {
        points.get_label(): (to_hex(points.get_facecolor()[0]), len(points.get_paths()[0]))
        for points in ax.collections
    }


def test_a_perfect_match_has_equal_pictures():
    """Whatever the numbers of the clusters, of which one is empty."""
    labels = torch.arange(60) % 3
    q = hard(*([3, 0, 1][k] for k in labels), clusters=4)
    classes, clusters = planes.draw_plane(torch.randn(60, 2), q, labels)
    assert legend(classes) == ["0", "1", "2"]
    assert legend(clusters) == ["3", "0", "1"]
    assert [*colours(classes).values()] == [*colours(clusters).values()]
    for left, right in zip(classes.collections, clusters.collections, strict=True):
        np.testing.assert_array_equal(left.get_offsets(), right.get_offsets())


def test_further_clusters_have_the_colour_of_their_most_frequent_class():
    labels = torch.tensor([5] * 9 + [7] * 4)
    q = hard(*[2] * 4, *[0] * 3, *[1] * 2, *[3] * 4, clusters=4)
    classes, clusters = map(colours, planes.draw_plane(torch.randn(13, 2), q, labels))
    assert clusters["2"] == classes["5"]
    assert clusters["3"] == classes["7"]
    assert clusters["0"][0] == clusters["1"][0] == classes["5"][0]
    assert len({clusters[k] for k in "201"}) == 3


def test_fewer_clusters_than_classes_take_the_colours_of_some():
    labels = torch.tensor([0, 0, 1, 1, 1, 2, 2, 2, 2])
    q = hard(*[1] * 2, *[0] * 3, *[1] * 4, clusters=2)
    classes, clusters = map(colours, planes.draw_plane(torch.randn(9, 2), q, labels))
    assert clusters == {"0": classes["1"], "1": classes["2"]}


@pytest.mark.parametrize(("size", "area", "alpha"), [(400, 16, 0.9), (5_000, 6, 0.6)])
def test_points_are_seen_at_first_sight(size, area, alpha):
    (ax,) = planes.draw_plane(torch.randn(size, 2), torch.ones(size, 1))
    (points,) = ax.collections
    assert points.get_sizes() == pytest.approx([area])
    assert points.get_alpha() == pytest.approx(alpha)


def test_without_clusters_the_plane_shows_classes_or_plain_points():
    codes, labels = torch.randn(9, 2), torch.arange(9) % 2
    (ax,) = planes.draw_plane(codes, None, labels)
    assert ax.get_title() == "by class"
    (ax,) = planes.draw_plane(codes, None)
    assert ax.get_title() == ""
    assert ax.get_legend() is None
    assert len(ax.collections[0].get_offsets()) == 9


def test_numbers_do_not_hide_one_another():
    """Of two categories in one place the fuller has its number."""
    codes = torch.tensor([[0.0, 0.0]] * 5 + [[1.0, 1.0]] * 2)
    (ax,) = planes.draw_plane(codes, None, torch.tensor([0, 0, 1, 1, 1, 2, 2]))
    assert sorted(text.get_text() for text in ax.texts) == ["1", "2"]


def test_plane_draws_the_first_points_and_greys_the_rarest_clusters():
    q = hard(*(i % 25 for i in range(6_000)), clusters=25)
    (ax,) = planes.draw_plane(torch.randn(6_000, 2), q)
    assert sum(len(points.get_offsets()) for points in ax.collections) == planes.POINTS
    assert legend(ax) == ["others", *map(str, range(20))]


def test_plane_wants_axes_for_each_colouring(ax):
    codes, q = torch.randn(4, 2), torch.rand(4, 2)
    assert planes.draw_plane(codes, q, axes=[ax]) == [ax]
    with pytest.raises(ValueError, match=r"Expected 2 axes \(class, cluster\) but got 1"):
        planes.draw_plane(codes, q, torch.arange(4), [ax])


def test_terms_are_the_rows(ax):
    assert curves.draw_terms(HISTORY, ax) is ax
    above, below = ax.get_figure().axes
    elbo, elbo_valid, _, reconstruction_valid = (line.get_xydata().tolist() for line in above.lines)
    assert elbo == [[0, 500], [90, 120], [99, 110]]
    assert elbo_valid == [[90, 125]]
    assert reconstruction_valid == [[90, 99]]
    z, z_valid, y, y_valid = (line.get_xydata().tolist() for line in below.lines)
    assert (z, z_valid) == ([[0, 20], [90, 24.5]], [[90, 25]])
    assert (y, y_valid) == ([[99, 0.5]], [])
    assert legend(above) == ["$-$ELBO", "$-$reconstruction", "train", "valid"]
    assert legend(below) == ["KL[z]", "KL[y]"]


def test_splits_share_a_colour_and_differ_in_dashes():
    solid, dashed, *_ = curves.draw_terms(HISTORY).lines
    assert solid.get_color() == dashed.get_color()
    assert (solid.get_linestyle(), dashed.get_linestyle()) == ("-", "--")


def test_the_first_fall_does_not_flatten_the_rest():
    """It leaves the axes at the top, where its highest value is written."""
    ax = curves.draw_terms(HISTORY)
    low, high = ax.get_ylim()
    assert low < 90
    assert 125 < high < 130
    assert [text.get_text() for text in ax.texts] == [r"$\uparrow$ 500 at step 0"]


def test_a_low_start_is_written_too(ax):
    ax.plot([0, 50, 100], [-900.0, -101.0, -100.0])
    curves.crop(ax)
    assert -102 < ax.get_ylim()[0] < -101
    assert [text.get_text() for text in ax.texts] == [r"$\downarrow$ -900 at step 0"]


def test_terms_that_stay_in_the_axes_are_written_nowhere():
    rows = [row | {"step": row["step"] + 20} for row in HISTORY]
    ax = curves.draw_terms(rows)
    assert ax.get_ylim()[1] > 500
    assert len(ax.texts) == 0


def test_stages_end_at_marks_with_their_names():
    staged = [row | {"stage": "autoencoder"} for row in HISTORY]
    staged += [{"step": 99, "split": "begin", "stage": "mixture"}]
    ax = curves.draw_terms([*staged, *(row | {"step": row["step"] + 100} for row in HISTORY)])
    above, below = ax.get_figure().axes
    for each in (above, below):
        assert list(each.lines[-1].get_xdata()) == [99, 99]
    (top,) = above.child_axes
    assert ticks(top.xaxis) == ["end of autoencoder and mixture"]
    assert list(top.get_xticks()) == [99]
    assert curves.draw_terms(HISTORY).child_axes == []


@pytest.mark.parametrize("elbo", [-1.0, float("nan")])
def test_terms_of_a_single_row_without_kl(elbo, tmp_path):
    rows = [{"step": 0, "split": "train", "elbo": elbo, "reconstruction": elbo}]
    ax = curves.draw_terms(rows)
    shared.save(ax, tmp_path / "terms.png")
    assert ax.get_figure().axes == [ax]
    assert legend(ax) == ["$-$ELBO", "$-$reconstruction", "train"]


def test_terms_want_rows_and_a_place_to_split():
    with pytest.raises(ValueError, match="at least one row"):
        curves.draw_terms([])
    with pytest.raises(ValueError, match="axes made by subplots"):
        curves.draw_terms(HISTORY, Figure().add_axes((0, 0, 1, 1)))


def test_usage_shows_hard_and_soft_shares(ax):
    q = torch.tensor([[0.6, 0.4, 0.0], [0.2, 0.8, 0.0], [0.1, 0.9, 0.0], [0.2, 0.5, 0.3]])
    assert clusterings.draw_usage(q, ax) is ax
    assert [bar.get_height() for bar in ax.patches] == [0.75, 0.25, 0.0]
    assert ticks(ax.xaxis) == ["1", "0", "2"]
    dots, even = ax.lines
    np.testing.assert_allclose(dots.get_ydata(), [0.65, 0.275, 0.075])
    np.testing.assert_allclose(even.get_ydata(), 1 / 3)
    assert "2 of 3 used" in ax.get_xlabel()


@pytest.mark.parametrize("clusters", [1, 100])
def test_usage_has_a_bar_for_each_cluster(clusters):
    ax = clusterings.draw_usage(torch.rand(1, clusters))
    assert len(ax.patches) == clusters
    assert len(ticks(ax.xaxis)) == (1 if clusters == 1 else 0)


def test_confusion_counts_by_hand(ax):
    labels = torch.tensor([0, 0, 0, 2, 2, 2, 2])
    assignments = torch.tensor([3, 3, 1, 0, 0, 0, 1])
    assert clusterings.draw_confusion(assignments, labels, 4, ["cat", "cow", "dog"], ax) is ax
    assert ticks(ax.yaxis) == ["cat", "dog"]
    assert ticks(ax.xaxis) == ["3", "0", "1", "2"]
    counts = {text.get_position(): text.get_text() for text in ax.texts}
    assert counts == {(0, 0): "2", (2, 0): "1", (1, 1): "3", (2, 1): "1"}
    shares = [[2 / 3, 0, 1 / 3, 0], [0, 3 / 4, 1 / 4, 0]]
    np.testing.assert_allclose(ax.images[0].get_array(), shares, rtol=1e-6)


@pytest.mark.parametrize(("clusters", "printed"), [(1, 1), (20, 20), (21, 0)])
def test_counts_are_printed_where_they_fit(clusters, printed):
    each = torch.arange(clusters)
    ax = clusterings.draw_confusion(each, torch.zeros_like(each), clusters)
    assert ax.images[0].get_array().shape == (1, clusters)
    assert len(ax.texts) == printed


def test_empty_clusters_leave_the_confusion_where_there_is_room_for_many():
    ax = clusterings.draw_confusion(torch.tensor([30, 7]), torch.tensor([0, 1]), 40)
    assert ticks(ax.xaxis) == ["30", "7"]
    assert ax.get_xlabel() == "cluster; of 40, the others are empty"
    ax = clusterings.draw_confusion(torch.tensor([3]), torch.tensor([0]), 20)
    assert ax.images[0].get_array().shape == (1, 20)


def test_pictures_use_the_axes_they_are_given(ax):
    x, q = torch.rand(1, 12), torch.ones(1, 1)
    assert pictures.draw_clusters(x, q, x[None], SHAPE, ax=ax) is ax
    assert pictures.draw_components(x, torch.ones(1), SHAPE, ax) is ax
    assert pictures.draw_grid(x, SHAPE, ax=ax) is ax
    assert pictures.draw_reconstructions(x, x, SHAPE, ax=ax) is ax
    assert ax.get_figure().axes == [ax]


def test_saving_twice_gives_the_same_bytes(ax, tmp_path):
    pictures.draw_grid(torch.rand(2, 12), SHAPE, ax=ax)
    first, second = tmp_path / "new" / "folder" / "a.png", tmp_path / "b.png"
    shared.save(ax, first)
    shared.save(ax.get_figure(), str(second))
    assert first.read_bytes() == second.read_bytes()
    assert b"Software\0priorzoo" in first.read_bytes()


def test_factors_are_priced_beside_the_kls(ax):
    """So that the lower axes add up to the distance of the curves above."""
    rows = [row | {"log p(coupling)": -3.0} for row in HISTORY[:2]]
    _, below = curves.draw_terms(rows, ax).get_figure().axes
    assert legend(below) == ["KL[z]", "$-$log p(coupling)"]
    assert below.lines[2].get_xydata().tolist() == [[0, 3], [90, 3]]


def test_embedding_has_a_panel_for_each_name(tmp_path):
    """With classes where known; ways lie over every panel, with a letter where they start."""
    u, labels, ways = torch.randn(30, 2), torch.arange(30) % 3, torch.randn(2, 5, 2)
    axes = planes.draw_embedding({"known": (u, labels), "unknown": (u, None)}, ways)
    shared.save(axes[0], tmp_path / "embedding.png")
    assert [ax.get_title() for ax in axes] == ["known", "unknown"]
    assert [len(ax.collections) for ax in axes] == [3, 1]
    assert [len(part.get_offsets()) for part in axes[0].collections] == [10, 10, 10]
    for ax in axes:
        assert ax.get_xlabel() == "$u_1$"
        drawn = [line.get_xydata() for line in ax.lines]
        np.testing.assert_allclose(drawn, ways, rtol=1e-6)
        starts = {text.get_text(): text.xy for text in ax.texts}
        np.testing.assert_allclose(starts["B"], ways[1, 0], rtol=1e-6)


def test_ways_lie_in_rows_with_their_names():
    ways = torch.stack([flat(0.1, 0.2, 0.3), flat(0.4, 0.5, 0.6)])
    ax = pictures.draw_ways(ways, SHAPE)
    assert greys(ax) == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    assert ticks(ax.yaxis) == ["A", "B"]
    tops = [tile.get_extent()[3] for tile in ax.images]
    assert tops[0] == tops[2] < tops[3] == tops[5]
    assert ticks(pictures.draw_ways(ways, SHAPE, ["u", "z"]).yaxis) == ["u", "z"]


def test_charts_say_what_they_show_and_how_to_read_it(tmp_path):
    """In figures of their own; axes that are given stay as they are."""
    x, q = torch.rand(4, 12), hard(0, 1, 1, 0, clusters=2)
    given = Figure().subplots(1, 2)
    charts = [
        planes.draw_plane(x, q, torch.arange(4))[0],
        planes.draw_embedding({"data": (x, None)})[0],
        curves.draw_terms(HISTORY),
        clusterings.draw_usage(q),
        clusterings.draw_confusion(q.argmax(-1), torch.arange(4), 2),
        pictures.draw_clusters(x, q, None, SHAPE),
        pictures.draw_components(x, torch.ones(4), SHAPE),
        pictures.draw_samples(x, SHAPE),
        pictures.draw_reconstructions(x, x, SHAPE),
        pictures.draw_ways(x[None], SHAPE),
    ]
    for ax in charts:
        figure = ax.get_figure()
        title = figure.get_suptitle()
        assert title
        assert figure.get_supxlabel().endswith(".")
        shared.save(ax, tmp_path / "chart.png", run="digits-gmvae, seed 1")
        assert " ".join(figure.get_suptitle().split()) == f"{title}: digits-gmvae, seed 1"
    planes.draw_plane(x, q, torch.arange(4), list(given))
    assert given[0].get_figure().get_suptitle() == given[0].get_figure().get_supxlabel() == ""


def test_titles_and_captions_leave_the_size_of_what_is_drawn():
    plain, told = shared.new_figure(5, 3), shared.new_figure(5, 3, "Title", 30 * "caption ")
    assert list(plain.get_size_inches()) == [5, 3]
    assert told.get_figwidth() == 5
    assert told.get_figheight() > 3.6
    assert max(map(len, told.get_supxlabel().splitlines())) <= 80


def test_charts_of_papers_say_it_too():
    grown = [{"step": 1, "split": "train", "clusters": 2, "occupied": 1.5, "kl[y]": 1.0}]
    half, v = torch.full((2,), 0.5), torch.linspace(0, 1, 5)
    charts = [
        planar.draw_floor({"KL[y]": grown}, 1.0),
        mehta2018.draw_growth(grown),
        mehta2018.draw_densities(v, v, {"prior": v}),
        mehta2018.draw_sizes(half, half.expand(3, 2), 0.25),
        mehta2018.draw_words({"0": ["word"]}, half),
        paquet2018.draw_weights(half, half > 0),
        paquet2018.draw_moments(torch.rand(2, 7, 12), ["0", "1"], SHAPE),
        paquet2018.draw_pairs(torch.rand(4, 12), {"a": [0, 1], "b": [0, 1]}, SHAPE, "Pairs."),
    ]
    for ax in charts:
        assert ax.get_figure().get_suptitle()
        assert ax.get_figure().get_supxlabel().endswith(".")


def test_a_single_row_of_history_is_a_point_above_the_floor():
    rows = [{"step": 1, "split": "train", "kl[y]": 1.0}]
    assert planar.draw_floor({"KL[y]": rows}, 0.5).lines[0].get_marker() == "."


def test_charts_look_alike_whatever_the_settings_of_their_user(tmp_path):
    sizes = []
    for size in (5.0, 20.0):
        with rc_context({"font.size": size, "axes.spines.top": True}):
            with shared.look():
                ax = shared.new_axes(3, 2, "A title")
                ax.set(xlabel="steps", ylabel="ELBO, nats")
                shared.save(ax, tmp_path / f"{size}.png")
            assert rcParams["font.size"] == size
        sizes.append((ax.xaxis.label.get_size(), ax.spines["top"].get_visible()))
    assert sizes == [(9.0, False)] * 2
    assert (tmp_path / "5.0.png").read_bytes() == (tmp_path / "20.0.png").read_bytes()


def test_the_title_of_a_run_says_data_clusters_and_rows():
    run = SimpleNamespace(
        settings={"data": "folder/mine.csv"}, clusters=3, seed=1, result={"recipe": "gmvae"}
    )
    assert title_of(run, 1200) == "gmvae on mine.csv, K = 3, 1,200 test rows, seed 1"
    run.clusters, run.settings = 0, {"data": "mnist"}
    assert title_of(run, 7) == "gmvae on mnist, 7 test rows, seed 1"
