"""The memory against sums over all of it."""

import pytest
import torch

from priorzoo.inference import Memory, codes, load, reconstructions_through, remember, save
from priorzoo.inference.seeding import k_means_plus_plus
from priorzoo.models import LeaveOneOutGP

N, Q, D = 50, 7, 2


@pytest.fixture
def pair(zoo):
    return zoo["nonparametric"].pair()


def test_codes_anywhere_are_weighted_means_of_those_remembered(pair):
    places, remembered, u = torch.randn(N, 2), torch.randn(N, D), torch.randn(Q, 2)
    expected = torch.zeros(Q, D)
    for i in range(Q):
        weights = [(-0.5 * ((u[i] - v) ** 2).sum()).exp() for v in places]
        parts = [w * z for w, z in zip(weights, remembered, strict=True)]
        expected[i] = sum(parts) / sum(weights)
    for held in (1, 120, 10**6):
        memory = Memory(pair[0], places, remembered, held)
        torch.testing.assert_close(memory.codes_at(u), expected)
        torch.testing.assert_close(memory.sample_at(u), pair[0].decoder(expected).sigmoid())


def test_far_from_all_data_the_nearest_is_remembered(pair):
    """Where every weight is 0 in float32."""
    places = torch.tensor([[0.0, 0], [100, 0], [0, 100]])
    memory = Memory(pair[0], places, torch.arange(6.0).reshape(3, 2))
    asked = torch.tensor([[1e3, 10], [-40, -60], [10, 1e3]])
    assert memory.codes_at(asked).tolist() == [[2, 3], [0, 1], [4, 5]]


def test_draws_have_the_means(pair):
    memory = Memory(pair[0], torch.randn(N, 2), torch.randn(N, D))
    u = torch.randn(1, 2).expand(4000, 2)
    mean = memory.sample_at(u)[0]
    drawn = memory.sample_at(u, means=False)
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    error = (drawn.mean(0) - mean) / (mean * (1 - mean) / 4000).sqrt()
    assert error.abs().max() < 4


def test_ways_are_straight_in_the_plane(pair):
    memory = Memory(pair[0], torch.randn(N, 2), torch.randn(N, D))
    first, last = torch.randn(Q, 2), torch.randn(Q, 2)
    ways = memory.between(first, last, 5)
    assert ways.shape == (Q, 5, 6)
    for step, share in enumerate((0, 0.25, 0.5, 0.75, 1)):
        torch.testing.assert_close(
            ways[:, step], memory.sample_at((1 - share) * first + share * last)
        )


def test_the_grid_is_read_like_a_page(pair):
    """From the upper left, row by row, over the memory but its outermost hundredths."""
    ramp = torch.linspace(0, 1, 101)
    memory = Memory(pair[0], torch.stack([10 * ramp, ramp.flip(0) - 1], 1), torch.randn(101, D))
    grid = memory.grid(3)
    across, up = [0.1, 5.0, 9.9], [-0.01, -0.5, -0.99]
    expected = torch.tensor([[a, b] for b in up for a in across])
    torch.testing.assert_close(grid, expected)


def test_a_process_predicts_its_own_memory(zoo):
    """With hardly any jitter it interpolates the codes, which a kernel mean does not."""
    model, _ = zoo["nonparametric-gp"].pair()
    model.coupling = LeaveOneOutGP(jitter=1e-6)
    places = torch.cartesian_prod(torch.arange(0.0, 9, 3), torch.arange(0.0, 9, 3))
    remembered = torch.randn(9, D)
    torch.testing.assert_close(
        Memory(model, places, remembered).codes_at(places), remembered, rtol=1e-3, atol=1e-3
    )


def test_remembers_places_and_means_of_rows(pair, zoo):
    (model, guide), x = pair, zoo["nonparametric"].rows(N)
    memory = remember(model, guide, x)
    torch.testing.assert_close(memory.places, guide.locator(x))
    torch.testing.assert_close(memory.codes, guide.encoder(x)[:, :D])
    few = remember(model, guide, x, 5)
    rows = [(memory.places == place).all(1).nonzero()[0, 0] for place in few.places]
    torch.testing.assert_close(few.codes, memory.codes[torch.stack(rows)])
    torch.testing.assert_close(
        reconstructions_through(memory, guide, x), memory.sample_at(codes(*pair, x, site="u"))
    )


def test_a_subset_covers_the_plane():
    """Of twelve groups of very unequal size, far apart, it takes one point each; no point twice."""
    sizes = [500, *[5] * 11]
    centres = 100 * torch.stack([torch.arange(12.0).sin(), torch.arange(12.0).cos()], 1)
    points = torch.cat([c + 1e-3 * torch.randn(n, 2) for c, n in zip(centres, sizes, strict=True)])
    group = torch.repeat_interleave(torch.arange(12), torch.tensor(sizes))
    for seed in range(5):
        torch.manual_seed(seed)
        chosen = k_means_plus_plus(points, 12, points[:0])
        assert group[chosen].sort().values.tolist() == list(range(12))
    assert len(k_means_plus_plus(points, 300, points[:0]).unique()) == 300


def test_points_that_all_coincide_can_be_chosen_from():
    points = torch.ones(10, 2)
    assert k_means_plus_plus(points, 4, points[:0]).shape == (4,)
    assert k_means_plus_plus(points, 4, points[:1]).shape == (4,)


def test_is_kept_in_the_run_folder(pair, zoo, tmp_path):
    (model, guide), x = pair, zoo["nonparametric"].rows(N)
    memory = remember(model, guide, x)
    save(tmp_path, model, guide)
    with pytest.raises(FileNotFoundError, match=r"Expected memory\.safetensors"):
        Memory.load(tmp_path, model)
    memory.save(tmp_path)
    again = Memory.load(tmp_path, load(tmp_path)[0])
    u = torch.randn(Q, 2)
    torch.testing.assert_close(again.sample_at(u), memory.sample_at(u), rtol=0, atol=0)


def test_what_cannot_be_remembered_is_refused(zoo):
    with pytest.raises(ValueError, match="a coupling but got VAE"):
        Memory(zoo["vae"].model(), torch.randn(N, 2), torch.randn(N, D))
    with pytest.raises(ValueError, match="as many places as codes but got 50 and 49"):
        Memory(zoo["nonparametric"].model(), torch.randn(N, 2), torch.randn(N - 1, D))
    (model, guide), x = zoo["nonparametric-gp"].pair(), zoo["nonparametric-gp"].rows(N)
    with pytest.raises(ValueError, match="positive size but got 0"):
        remember(model, guide, x, 0)
    model.coupling.capacity = 20
    assert len(remember(model, guide, x, 20).places) == 20
    with pytest.raises(ValueError, match=r"at most 20 rows .* got 50; remember fewer"):
        remember(model, guide, x)
