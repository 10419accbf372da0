"""Memory files of others: of this model, finite and of regular size, or refused in one line."""

import os

import pytest
import torch
from safetensors.torch import load_file, save_file

from priorzoo.inference.memory import FILE, Memory
from priorzoo.models import MLP, VAE, KernelMean, LeaveOneOutGP, NonparametricVAE

P, D, M = 6, 3, 5


@pytest.fixture
def model():
    return NonparametricVAE(MLP(D, P, (3,)), code=D, coupling=KernelMean())


@pytest.fixture
def saved(model, tmp_path):
    Memory(model, torch.randn(M, 2), torch.randn(M, D)).save(tmp_path)
    assert torch.equal(Memory.load(tmp_path, model).places, load_file(tmp_path / FILE)["places"])
    return tmp_path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"codes": torch.randn(M, D + 1)}, r"codes of shape \(5, 3\)"),
        ({"codes": torch.randn(M + 1, D)}, r"codes of shape \(5, 3\)"),
        ({"codes": torch.randn(M, D, 2)}, r"codes of shape \(5, 3\)"),
        ({"places": torch.randn(M, 3)}, r"places of shape \(5, 2\)"),
        ({"places": torch.randn(M, 2).double()}, "places of .* float64|places of .* F64"),
        ({"codes": torch.ones(M, D, dtype=torch.int64)}, "codes of .* I64"),
        ({"places": torch.full((M, 2), float("nan"))}, "finite places .* 10 values"),
        ({"codes": torch.full((M, D), float("inf"))}, "finite codes .* 15 values"),
        ({"places": torch.ones(0, 2), "codes": torch.ones(0, D)}, "places and codes of data"),
        ({"more": torch.ones(2)}, "places and codes of data"),
        ({"places": None}, "places of shape"),
    ],
)
def test_a_memory_of_another_model_is_refused(saved, model, change, message):
    tensors = {**load_file(saved / FILE), **change}
    save_file({name: x for name, x in tensors.items() if x is not None}, saved / FILE)
    with pytest.raises(ValueError, match=message) as caught:
        Memory.load(saved, model)
    assert "\n" not in str(caught.value)


def test_a_memory_beyond_the_capacity_is_refused(tmp_path):
    model = NonparametricVAE(MLP(D, P, (3,)), code=D, coupling=LeaveOneOutGP())
    save_file({"places": torch.ones(10_001, 2), "codes": torch.ones(10_001, D)}, tmp_path / FILE)
    with pytest.raises(ValueError, match="at most 10000 rows"):
        Memory.load(tmp_path, model)


@pytest.mark.parametrize("size", [0, 7, 40, 100])
def test_a_damaged_memory_is_refused(saved, model, size):
    (saved / FILE).write_bytes((saved / FILE).read_bytes()[:size])
    with pytest.raises(ValueError, match="Expected parameters"):
        Memory.load(saved, model)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
def test_only_regular_files_are_opened(tmp_path, model, make):
    make(tmp_path / FILE)
    with pytest.raises(ValueError, match="regular file"):
        Memory.load(tmp_path, model)


def test_a_model_without_places_has_no_memory(saved):
    with pytest.raises(ValueError, match="Expected"):
        Memory.load(saved, VAE(MLP(D, P, (3,)), code=D))
