"""Portions and compiled code change neither the bound nor the draws, and memory is bounded."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from priorzoo.guides import ClusterThenCode
from priorzoo.inference import Batch, bounds, evaluate, importance_bound, progress
from priorzoo.models import GMVAE, MLP
from priorzoo.models.plates import data_plate

P, D, WIDTH = 20, 3, 30


def gmvae(clusters=4):
    torch.manual_seed(0)
    model = GMVAE(MLP(D, P, (WIDTH,)), code=D, clusters=clusters)
    guide = ClusterThenCode(MLP(P, clusters, (8,)), MLP(P, 2 * D, (8,), clusters=clusters))
    return model, guide


class Largest(TorchDispatchMode):
    values = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor) and not func.is_view:
            self.values = max(self.values, made.numel())
        return made


@pytest.mark.parametrize("clusters", [2, 40])
@pytest.mark.parametrize("samples", [1, 20])
def test_no_tensor_has_more_values_than_are_held(clusters, samples):
    """Whatever K, S, the rows and the widths; counted while it runs."""
    pair, x = gmvae(clusters), torch.rand(6, P).round()
    held = 4 * clusters * WIDTH  # of four samples of a row
    with torch.no_grad(), Largest() as seen:
        found = importance_bound(*pair, x, samples, held=held)
    assert found.shape == (6,)
    assert seen.values <= max(held, P * WIDTH)  # or the weights of a network


def test_portions_are_parts_of_the_same_sum():
    """Without a code nothing is drawn: any portions give the evidence exactly."""
    means, classifier = torch.randn(3, P), nn.Linear(P, 3)

    class Mixture(nn.Module):
        def forward(self, x=None, size=None):
            with data_plate(x, size):
                y = pyro.sample("y", dist.Categorical(logits=torch.zeros(3)))
                return pyro.sample("x", dist.Normal(means[y], 1.0).to_event(1), obs=x)

    class Classifier(nn.Module):
        def forward(self, x, size=None):
            with data_plate(x, size):
                q_y = dist.Categorical(logits=classifier(x))
                pyro.sample("y", q_y, infer={"enumerate": "parallel"})

    x = torch.randn(9, P)
    normals = dist.Normal(means, 1.0).to_event(1)
    exact = dist.MixtureSameFamily(dist.Categorical(logits=torch.zeros(3)), normals).log_prob(x)
    for samples, held in ((1, 1), (24, 100), (24, 1_000), (24, 10**6)):
        found = importance_bound(Mixture(), Classifier(), x, samples, held=held)
        torch.testing.assert_close(found, exact)


@pytest.mark.slow
def test_compiled_weights_are_the_same_on_the_same_draws(monkeypatch):
    """Also of the last portions, which are smaller."""
    pair, x, found = gmvae(), torch.rand(25, P).round(), []
    compiled = []
    usual = bounds.COMPILERS[-1]

    def counted(*args):
        compiled.append(args[-1])
        return usual(*args)

    monkeypatch.setattr(bounds, "COMPILERS", [counted])
    for worth in (math.inf, 0.0):
        monkeypatch.setattr(bounds, "WORTH", worth)
        found.append(evaluate(*pair, x, importance_samples=11, batch_size=10)["log p(x)"])
    assert len(compiled) == 1
    assert found[1] == pytest.approx(found[0], rel=1e-5)


def test_nothing_is_compiled_for_little_work_or_for_gradients(monkeypatch):
    pair, x = gmvae(), torch.rand(5, P).round()
    monkeypatch.setattr(bounds, "COMPILERS", [None])  # which cannot be called
    with torch.no_grad():
        importance_bound(*pair, x, 3)
    monkeypatch.setattr(bounds, "WORTH", 0.0)
    importance_bound(*pair, x, 3).sum().backward()
    assert pair[0].loc.grad.abs().sum() > 0


def test_the_cost_grows_with_clusters_and_widths():
    x = Batch(torch.rand(5, P).round())
    small, large = (bounds.cost_of(*gmvae(k), x) for k in (10, 100))
    assert small.values >= 10 * WIDTH
    assert large.values == 10 * small.values
    assert large.seconds > 5 * small.seconds


def test_progress_is_lines_where_there_is_no_terminal(capsys, monkeypatch):
    """The first after ten seconds, so that what is short writes none."""
    pair, x = gmvae(), torch.rand(25, P).round()
    evaluate(*pair, x, importance_samples=2, batch_size=10, progress=True)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    evaluate(*pair, x, importance_samples=2, batch_size=10, progress=True)
    lines = [line for line in capsys.readouterr().err.splitlines() if line]
    assert "25/25" in lines[-1]
    assert "\r" not in "".join(lines)
