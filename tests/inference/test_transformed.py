"""The rows that an evaluation sees after a random transform."""

import pytest
import torch
from scipy.stats import binomtest
from torch import nn

from priorzoo.guides import ClusterThenCode, Code
from priorzoo.inference import Pixels, Training, binarised, evaluate
from priorzoo.models import GMVAE, MLP, VAE

P, ROWS = 6, 230
GREY = torch.rand(ROWS, P, generator=torch.Generator().manual_seed(3))


class Seen(nn.Module):
    """An encoder that keeps the rows it was given."""

    def __init__(self, net):
        super().__init__()
        self.net, self.rows = net, []

    def forward(self, x, *beside):
        self.rows.append(x.detach().clone())
        return self.net(x, *beside)


def vae(code=2):
    seen = Seen(MLP(P, 2 * code))
    return VAE(MLP(code, P), code=code), Code(seen), seen


def wide():
    return vae(code=5)


def gmvae():
    seen = Seen(MLP(P, 3))
    model = GMVAE(MLP(2, P), code=2, clusters=3)
    return model, ClusterThenCode(seen, MLP(P, 4, clusters=3)), seen


def doubled():
    model, guide, seen = vae()
    return model.double(), guide.double(), seen


def rows_seen(make, x=GREY, transform=torch.bernoulli, **settings):
    """The rows of the evaluation, without repetitions by importance samples."""
    model, guide, seen = make()
    settings = {"batch_size": 100, "seed": 1} | settings
    evaluate(model, guide, x, transform=transform, **settings)
    if settings.get("importance_samples"):
        batches = [rows for rows in seen.rows if len(rows) > 1]  # but for measuring the cost
        seen.rows = batches[::2]  # the ELBO's run, then that of the importance weights
    return torch.cat(seen.rows).float()


def noisy(x):
    return (x + 0.1 * torch.randn(x.shape)).clamp(0, 1)


TRANSFORMS = {
    "bernoulli": (torch.bernoulli, GREY),
    "binarised": (binarised, GREY),
    "pixels": (Pixels(binarise=True), (255 * GREY).to(torch.uint8)),
    "noise": (noisy, GREY),
    "none": (None, GREY),
    "certain": (lambda x: (x > 0.5).float(), GREY),
}


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize(
    ("make", "settings"),
    [
        (vae, {"batch_size": 1}),
        (vae, {"batch_size": 7}),
        (vae, {"batch_size": 150}),
        (vae, {"batch_size": 1_000}),
        (vae, {"importance_samples": 3}),
        (gmvae, {}),
        (gmvae, {"batch_size": 64, "importance_samples": 2}),
        (wide, {}),
    ],
)
def test_one_seed_gives_one_test_set(name, make, settings):
    transform, x = TRANSFORMS[name]
    expected = rows_seen(vae, x, transform)
    assert torch.equal(rows_seen(make, x, transform, **settings), expected)


def test_the_precision_of_the_model_does_not_matter():
    assert torch.equal(rows_seen(doubled), rows_seen(vae))


@pytest.mark.parametrize("count", [1, 15, 99, 100, 101, 199])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_rows_that_follow_do_not_matter(name, count):
    transform, x = TRANSFORMS[name]
    whole = rows_seen(vae, x, transform)
    assert torch.equal(rows_seen(vae, x[:count], transform), whole[:count])


@pytest.mark.parametrize("transform", [torch.bernoulli, binarised])
def test_draws_are_bernoulli_and_new_for_each_row_and_seed(transform):
    """Frequencies at p = .3, and the agreement of blocks and of seeds, by binomial tests."""
    x = torch.full((400, 500), 0.3)
    model, guide = VAE(MLP(2, 500), code=2), Code(MLP(500, 4))
    drawn = []
    for seed in (0, 1):
        guide.encoder = Seen(MLP(500, 4))
        evaluate(model, guide, x, transform=transform, seed=seed)
        drawn.append(torch.cat(guide.encoder.rows))
    assert binomtest(int(drawn[0].sum()), x.numel(), 0.3).pvalue > 1e-4
    both = 0.3**2 + 0.7**2
    pairs = [(drawn[0][:200], drawn[0][200:]), (drawn[0][::2], drawn[0][1::2]), tuple(drawn)]
    for one, other in pairs:
        assert binomtest(int((one == other).sum()), one.numel(), both).pvalue > 1e-4


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_binary_values_have_small_and_large_probabilities_in_any_precision(dtype):
    """Also of probabilities below the spacing of the numbers that half precision draws."""
    p = torch.tensor([0.0, 0.001, 0.003, 0.5, 0.99, 1.0]).to(dtype)
    drawn = binarised(p.expand(200_000, -1))
    assert drawn.dtype == dtype
    for column, probability in zip(drawn.double().t(), p.tolist(), strict=True):
        assert binomtest(int(column.sum()), len(column), probability).pvalue > 1e-4


def test_draws_of_the_model_are_those_of_the_same_rows_without_a_transform():
    """The transform's stream is apart from that of the draws, and from the global one."""
    model, guide, _ = vae()
    x = rows_seen(vae)
    before = torch.get_rng_state()
    found = evaluate(model, guide, GREY, transform=torch.bernoulli, batch_size=100, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert found == evaluate(model, guide, x, batch_size=100, seed=1)
    more = evaluate(model, guide, x, batch_size=100, seed=1, importance_samples=2)
    assert found == {name: term for name, term in more.items() if name != "log p(x)"}


def test_validation_sees_one_test_set_at_every_step():
    model, guide, seen = vae()
    settings = {"transform": torch.bernoulli, "validation": GREY[:40], "every": 2}
    Training(model, guide, GREY, batch_size=50, **settings).run(steps=6)
    found = [rows for rows in seen.rows if len(rows) == 40]
    assert len(found) == 3
    assert all(torch.equal(rows, found[0]) for rows in found)
