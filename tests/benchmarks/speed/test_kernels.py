"""Kernels of a compiled step, and how rows of speed tell the ways of its products."""

import pytest
import torch

from priorzoo.benchmarks.speed.arms import products_of
from priorzoo.benchmarks.speed.kernels import kernels_of
from priorzoo.guides import Code
from priorzoo.inference import Training, binarised
from priorzoo.inference.training import compiled
from priorzoo.models import MLP, VAE

P, D = 6, 2


def training(step):
    pair = VAE(MLP(D, P, (5,)), code=D), Code(MLP(P, 2 * D, (5,)))
    how = {"batch_size": 10, "every": 10**9, "transform": binarised}
    return Training(*pair, torch.rand(40, P), step=step, **how)


def test_steps_without_a_graph_are_refused():
    with pytest.raises(ValueError, match="one compiled graph but it has 0"):
        kernels_of(training("eager"), 1)
    assert products_of(training("eager").run) == {}


def test_a_row_says_how_products_are_computed(monkeypatch):
    monkeypatch.setattr(compiled, "lower", lambda graph, *_: graph)
    monkeypatch.setattr(compiled, "count_products", lambda _: {"compiled": 2, "torch": 5})
    made = training("compiled")
    made.run(steps=1)
    assert products_of(made.run) == {"products": "2 compiled, 5 torch"}


@pytest.mark.slow
def test_every_kernel_of_a_step_is_timed_and_the_step_remains_whole():
    made = training("compiled")
    found = kernels_of(made, 5)
    names = [kernel.name for kernel in found]
    assert sum("product" in name or name.startswith("extern_kernels") for name in names) >= 9
    assert any(name.startswith("cpp_fused") for name in names)
    assert all(kernel.seconds > 0 and "us" in kernel.line for kernel in found)
    made.run(steps=3)  # no longer timed
    assert len(found) == len(names)
