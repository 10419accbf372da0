"""Couplings against loops over rows, explicit refits, scipy and finite differences."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF
from torch.distributions import Normal, kl_divergence

from priorzoo.models import KernelMean, LeaveOneOutGP

pytestmark = pytest.mark.usefixtures("double")
KINDS = [KernelMean, LeaveOneOutGP]


def batch(rows=30, code=3):
    return torch.randn(rows, 2), torch.randn(rows, code), torch.rand(rows, code) + 0.1


def kernel(u, v, length, variance=1.0):
    """The paper's equation (6)."""
    return variance * np.exp(-cdist(u, v, "sqeuclidean") / (2 * length**2))


@pytest.mark.parametrize("variance", [0.3, 1.0, 7.0])
def test_weights_are_the_papers_whatever_its_variance(variance):
    """Kernel, diagonal taken away, rows divided by their sums: they sum to 1, and 0 on the way."""
    u, _, _ = batch()
    w = kernel(u, u, 0.8, variance)
    w = w - np.diag(np.diag(w))
    w = w / w.sum(1, keepdims=True)
    found = KernelMean(0.8).weights(u)
    torch.testing.assert_close(found, torch.from_numpy(w))
    torch.testing.assert_close(found.sum(1), torch.ones(30))
    assert (found.diagonal() == 0).all()


def test_kernel_mean_is_a_squared_distance():
    u, loc, scale = batch()
    found = KernelMean(0.8)(u, loc, scale)
    for i in range(30):
        others = [j for j in range(30) if j != i]
        w = kernel(u[i : i + 1], u[others], 0.8)[0]
        mean = (w[:, None] * loc[others].numpy()).sum(0) / w.sum()
        assert found[i].item() == pytest.approx(((loc[i].numpy() - mean) ** 2).sum())


def test_leave_one_out_is_thirty_refits():
    """Predictions of a process on the other 29 rows, and q's KL from them by torch."""
    u, loc, scale = batch()
    coupling = LeaveOneOutGP(0.8, jitter=0.05)
    means, variances = coupling.predictions(u, loc)
    kl = coupling(u, loc, scale)
    for i in range(30):
        others = [j for j in range(30) if j != i]
        gram = kernel(u[others], u[others], 0.8) + 0.05 * np.eye(29)
        k = kernel(u[i : i + 1], u[others], 0.8)[0]
        mean = torch.from_numpy(k @ np.linalg.inv(gram) @ loc[others].numpy())
        variance = 1.05 - k @ np.linalg.inv(gram) @ k
        torch.testing.assert_close(means[i], mean)
        assert variances[i].item() == pytest.approx(variance)
        told = Normal(mean, torch.full((3,), variance).sqrt())
        torch.testing.assert_close(kl[i], kl_divergence(Normal(loc[i], scale[i]), told).sum())


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_finite_differences(kind):
    """To places, means, deviations and the length, for each row."""
    coupling = kind(0.9, learn_length=True)
    u, loc, scale = (t.requires_grad_() for t in batch(6))

    def loss(u, loc, scale, log_length):
        parameters = {"log_length": log_length}
        return torch.func.functional_call(coupling, parameters, (u, loc, scale))

    inputs = (u, loc, scale, coupling.log_length)
    assert torch.autograd.gradcheck(loss, inputs)
    gradients = torch.autograd.grad(loss(*inputs).sum(), inputs, allow_unused=True)
    used = [g is not None and bool((g != 0).any()) for g in gradients]
    assert used == [True, True, kind is LeaveOneOutGP, True]


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_a_batch_does_not_matter(kind):
    coupling, rows = kind(), batch()
    order = torch.randperm(30)
    found = coupling(*(t[order] for t in rows))
    torch.testing.assert_close(found, coupling(*rows)[order])


@pytest.mark.parametrize("kind", KINDS)
def test_several_batches_at_once(kind):
    coupling, batches = kind(), [batch(5) for _ in range(3)]
    found = coupling(*(torch.stack(parts) for parts in zip(*batches, strict=True)))
    torch.testing.assert_close(found, torch.stack([coupling(*rows) for rows in batches]))


def test_a_row_alone_knows_the_prior():
    """Nothing to be near for the kernel mean; the process at zero, of variance 1 and the jitter."""
    u, loc, scale = batch(1)
    assert KernelMean()(u, loc, scale).tolist() == [0.0]
    expected = kl_divergence(Normal(loc, scale), Normal(0, torch.tensor(1.25).sqrt())).sum(1)
    torch.testing.assert_close(LeaveOneOutGP(jitter=0.25)(u, loc, scale), expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spacing", [0.0, 1e4])
def test_places_that_coincide_or_lie_far_apart_stay_finite(kind, spacing):
    """In float32, where the kernel is 1 throughout or 0 to the last bit."""
    coupling = kind().float()
    u = (spacing * torch.arange(20).reshape(10, 2)).float().requires_grad_()
    _, loc, scale = (t.float() for t in batch(10))
    cost = coupling(u, loc, scale)
    cost.sum().backward()
    assert cost.isfinite().all()
    assert u.grad.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_of_the_networks_spares_the_coupling(kind):
    coupling, rows = kind().float(), [t.float() for t in batch()]
    with torch.autocast("cpu", torch.bfloat16):
        found = coupling(*rows)
    torch.testing.assert_close(found, coupling(*rows), rtol=0, atol=0)


def test_predictions_anywhere():
    """Of the process by scikit-learn; of the kernel mean by the weights of Nadaraya and Watson."""
    (u, loc, _), at = batch(), torch.randn(7, 2)
    gp = LeaveOneOutGP(0.8, jitter=0.05)
    known = GaussianProcessRegressor(RBF(0.8), alpha=0.05, optimizer=None).fit(u, loc)
    found = gp.predict(at, u, gp.targets(u, loc))
    torch.testing.assert_close(found, torch.from_numpy(known.predict(at)))
    mean = KernelMean(0.8)
    w = kernel(at, u, 0.8)
    expected = torch.from_numpy(w / w.sum(1, keepdims=True)) @ loc
    torch.testing.assert_close(mean.predict(at, u, mean.targets(u, loc)), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_what_makes_no_kernel_is_refused(kind):
    for length in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="positive length"):
            kind(length)
    with pytest.raises(ValueError, match="positive jitter"):
        LeaveOneOutGP(jitter=0.0)
