"""InfoGAN: its losses beside closed forms, and a training that is continued to the bit."""

import math

import pytest
import torch
from torch import distributions as dist

from priorzoo.benchmarks.gan.networks import (
    Sizes,
    category_information,
    continuous_information,
    discriminator_loss,
    generator_loss,
)
from priorzoo.benchmarks.gan.training import InfoGAN

SMALL = Sizes(8, 8, channels=2, noise=4, categories=3)


def every(joint):
    """Pairs of category and image, as often as 1,000 draws from ``joint`` (C, X) have them."""
    counts = (1_000 * joint).round().long().flatten()
    assert counts.sum() == 1_000
    pair = torch.arange(joint.numel()).repeat_interleave(counts)
    return pair // joint.shape[1], pair % joint.shape[1]


JOINT = torch.tensor([[0.20, 0.04, 0.01], [0.05, 0.15, 0.05], [0.01, 0.01, 0.23], [0.1, 0.1, 0.05]])
JOINT = JOINT.double()


def test_the_bound_is_the_mutual_information_for_the_posterior_and_less_otherwise():
    """The toy generator emits one of three images; I(c; x) is summed over the table."""
    c, x = every(JOINT)
    marginals = JOINT.sum(1, keepdim=True) * JOINT.sum(0, keepdim=True)
    exact = (JOINT * (JOINT / marginals).log()).sum()
    posterior = (JOINT / JOINT.sum(0)).T.log()  # of each image, (X, C)
    torch.testing.assert_close(category_information(posterior[x], c), exact)
    other = posterior + torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).double()
    q, p = other.log_softmax(-1), posterior
    divergence = (JOINT.T * (p - q)).sum()  # mean KL of posterior and recogniser
    torch.testing.assert_close(category_information(other[x], c), exact - divergence)
    assert exact < math.log(4)


def test_the_bound_is_at_most_the_entropy_of_the_category():
    c = torch.arange(10)
    certain = 1e4 * torch.eye(10)
    assert category_information(certain, c).item() == pytest.approx(math.log(10))
    assert category_information(torch.zeros(10, 10), c).item() == pytest.approx(0, abs=1e-6)


def test_the_bound_of_uniform_codes_has_its_closed_form():
    """Of an image that says nothing the best Gaussian has variance 1/3, and of x = c + e, e's."""
    grid = (torch.arange(20_000).double() + 0.5) / 10_000 - 1
    code = torch.stack([grid, grid.flip(0)], -1)
    nothing, log_scale = torch.zeros_like(code), torch.full_like(code, math.log(1 / 3) / 2)
    expected = 2 * (math.log(2) - 0.5 * math.log(2 * math.pi * math.e / 3))
    found = continuous_information(nothing, log_scale, code)
    assert found.item() == pytest.approx(expected, abs=1e-6)
    assert found < 0  # the information, 0, is above its bound
    scale = 0.1
    noisy = code + scale * torch.randn(code.shape, generator=torch.Generator().manual_seed(0))
    found = continuous_information(noisy, torch.full_like(code, math.log(scale)), code)
    exact = 2 * (math.log(2) - dist.Normal(0.0, scale).entropy().item())
    assert found.item() == pytest.approx(exact, abs=0.03)


def test_the_best_discriminator_has_the_divergence_as_its_loss():
    """2 log 2 - 2 JSD for D = p / (p + q), on three images."""
    p, q = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.1, 0.4, 0.5])
    logits, middle = (p / q).log(), (p + q) / 2
    pick = [torch.arange(3).repeat_interleave((10 * each).round().long()) for each in (p, q)]
    jsd = sum((each * (each / middle).log()).sum() for each in (p, q)) / 2
    loss = discriminator_loss(*(logits[each] for each in pick))
    assert loss.item() == pytest.approx(2 * math.log(2) - 2 * jsd.item(), rel=1e-5)
    worse = discriminator_loss(*(1.3 * logits[each] for each in pick))
    assert worse > loss
    assert generator_loss(torch.zeros(5)).item() == pytest.approx(math.log(2))


def test_a_training_goes_on_from_its_checkpoint_to_the_bit(tmp_path):
    x = torch.rand(20, 64, generator=torch.Generator().manual_seed(0))
    whole, first, second = (InfoGAN(SMALL, 6, seed=3) for _ in range(3))
    before = torch.get_rng_state()
    whole.train(x, 6)
    first.train(x, 4, tmp_path / "state", every=4)
    second.load(tmp_path / "state")
    assert second.step == 4
    second.train(x, 6)
    assert torch.equal(torch.get_rng_state(), before)
    for name in ("generator", "discriminator"):
        pairs = zip(*(getattr(gan, name).parameters() for gan in (whole, second)), strict=True)
        assert all(torch.equal(*pair) for pair in pairs)
    torch.testing.assert_close(whole.samples(2), second.samples(2))
    with pytest.raises(ValueError, match="Expected a checkpoint of"):
        InfoGAN(SMALL, 7).load(tmp_path / "state")


def test_categories_of_two_images_are_told_apart_by_information():
    """Of data with two images, the recogniser gives each a category of its own."""
    images = (torch.rand(2, 64, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    gan = InfoGAN(Sizes(8, 8, channels=4, noise=2, categories=2), 16, seed=0)
    x = images.repeat(20, 1)
    gan.train(x, 120, every=1_000)
    q = gan.recognised(x).unflatten(0, (20, 2))
    assert (q.argmax(-1) == q[0].argmax(-1)).all()
    assert set(q[0].argmax(-1).tolist()) == {0, 1}


def test_shapes_and_what_is_refused():
    gan = InfoGAN(SMALL, 6)
    samples = gan.samples(5)
    assert samples.shape == (3, 5, 64)
    assert 0 <= samples.min() <= samples.max() <= 1
    with pytest.raises(ValueError, match="multiples of 4 but got 30 x 28"):
        Sizes(30, 28)
    paper = sum(p.numel() for p in InfoGAN(Sizes()).generator.parameters())
    assert paper == 74 * 1024 + 1024 * 6272 + 128 * 64 * 16 + 64 * 16 + 1 + 2 * (1024 + 6272 + 64)
