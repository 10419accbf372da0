"""Likelihoods against scipy's and against formulas written out."""

import numpy as np
import pytest
import torch
from scipy import stats

from priorzoo.models import Bernoulli, Gaussian, Multinomial

pytestmark = pytest.mark.usefixtures("double")
B, P = 4, 5


def test_bernoulli_on_binary_pixels():
    logits, x = torch.randn(B, P), torch.bernoulli(torch.full((B, P), 0.5))
    found = Bernoulli()(logits)
    expected = stats.bernoulli(logits.sigmoid().numpy()).logpmf(x.numpy()).sum(-1)
    torch.testing.assert_close(found.log_prob(x), torch.tensor(expected))
    torch.testing.assert_close(found.mean, logits.sigmoid())
    assert set(found.sample((20,)).unique().tolist()) == {0.0, 1.0}


def test_bernoulli_on_grey_pixels():
    """The cross-entropy, x log p + (1 - x) log(1 - p), also at the ends of the scale."""
    logits, x = torch.randn(B, P), torch.rand(B, P)
    x[0, 0], x[0, 1] = 0.0, 1.0
    p = logits.sigmoid()
    expected = (x * p.log() + (1 - x) * (1 - p).log()).sum(-1)
    found = Bernoulli()(logits)
    torch.testing.assert_close(found.log_prob(x), expected)
    assert found.support.check(x).all()
    assert not found.support.check(x * 255).all()
    assert not found.support.check(x - 1e-3).all()


def test_bernoulli_of_extreme_logits_is_finite():
    logits = torch.tensor([[-1e4, 1e4]], requires_grad=True)
    wrong = Bernoulli()(logits).log_prob(torch.tensor([[1.0, 0.0]]))
    assert wrong.item() == pytest.approx(-2e4)
    wrong.sum().backward()
    torch.testing.assert_close(logits.grad, torch.tensor([[1.0, -1.0]]))


@pytest.mark.parametrize("spread", ["fixed", "shared", "network"])
def test_gaussian(spread):
    """Normal, of ``scale`` at the start; a network's offsets multiply it, above the floor."""
    likelihood = Gaussian(0.3, spread)
    loc, offset, x = torch.randn(B, P), torch.randn(B, P), torch.randn(B, P)
    wide = spread == "network"
    assert likelihood.width == 1 + wide
    found = likelihood(torch.cat([loc, offset], 1) if wide else loc)
    scale = 0.001 + 0.299 * offset.exp() if wide else torch.full((B, P), 0.3)
    expected = stats.norm(loc.numpy(), scale.numpy()).logpdf(x.numpy()).sum(-1)
    torch.testing.assert_close(found.log_prob(x), torch.tensor(expected))
    torch.testing.assert_close(found.mean, loc)
    learnt = [name for name, p in likelihood.named_parameters() if p.requires_grad]
    assert learnt == (["log_scale"] if spread == "shared" else [])


def test_a_bounded_spread_is_a_sigmoid_between_its_bounds():
    likelihood = Gaussian(0.4, "bounded")
    assert likelihood.width == 2
    raw = torch.tensor([[-50.0, 0.0, 1.5, 50.0]])
    found = likelihood(torch.cat([torch.zeros(1, 4), raw], 1)).base_dist.scale
    torch.testing.assert_close(found, 0.001 + 0.399 * torch.special.expit(raw))


@pytest.mark.parametrize("scale", [0.001, 0.0, -1.0, float("nan")])
def test_gaussian_refuses_a_scale_at_its_floor(scale):
    with pytest.raises(ValueError, match=r"above 0\.001"):
        Gaussian(scale)


def test_gaussian_refuses_a_misspelt_spread():
    with pytest.raises(ValueError, match="netwrok"):
        Gaussian(1.0, "netwrok")


def test_multinomial_scores_counts_of_any_total():
    """Rows of different totals, one of them empty, against scipy's multinomial of each total."""
    logits = torch.randn(B, P)
    x = torch.tensor([[3.0, 0, 1, 0, 2], [0, 0, 0, 0, 0], [0, 7, 0, 0, 0], [1, 1, 1, 1, 1]])
    p = logits.softmax(-1).numpy()
    expected = [
        stats.multinomial(int(row.sum()), q).logpmf(row)
        for row, q in zip(x.numpy(), p, strict=True)
    ]
    found = Multinomial(9)(logits)
    torch.testing.assert_close(found.log_prob(x), torch.tensor(np.array(expected)))
    clusters = torch.randn(3, B, P)
    every = Multinomial(9)(clusters).log_prob(x)
    for k in range(3):
        torch.testing.assert_close(every[k], Multinomial()(clusters[k]).log_prob(x))
    assert not found.support.check(x + 0.5).any()
    assert not found.support.check(x - 8).any()


def test_multinomial_draws_as_many_as_it_says():
    logits = torch.randn(B, P)
    found = Multinomial(9)(logits)
    assert (found.sample().sum(-1) == 9).all()
    torch.testing.assert_close(found.mean, 9 * logits.softmax(-1))
    draws = found.sample((4000,))
    error = (draws.mean(0) - found.mean) / (draws.std(0) / 4000**0.5)
    assert error.abs().max() < 4.5
