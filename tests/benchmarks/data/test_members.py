"""Arrays of a file are read one at a time, bytes stay bytes, and headers are checked first."""

import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch

from priorzoo.benchmarks.data import members
from priorzoo.benchmarks.data import sets as data
from priorzoo.benchmarks.data.fingerprints import fingerprint
from priorzoo.guides import Code
from priorzoo.inference import Training
from priorzoo.models import MLP, VAE

DRAW = np.random.default_rng(0)


@pytest.fixture
def twins(tmp_path):
    """The same rows of 0 and 1, as bytes and as floats, of more than one portion."""
    x = (DRAW.random((50, 6)) < 0.5).astype(np.uint8)
    paths = []
    for kind in (np.uint8, np.float64):
        paths.append(str(tmp_path / f"{np.dtype(kind).name}.npz"))
        np.savez(paths[-1], x_train=x.astype(kind), x_test=x[:5].astype(kind))
    return paths


@pytest.mark.parametrize("binarise", ["none", "static", "dynamic"])
def test_bytes_are_the_rows_that_floats_are(twins, binarise, monkeypatch):
    monkeypatch.setattr(members, "PORTION", 100)
    monkeypatch.setattr(data, "PORTION", 7)
    packed, plain = (data.load(path, binarise=binarise, validation=9) for path in twins)
    assert packed.train.dtype == packed.valid.dtype == torch.uint8
    assert plain.train.dtype == packed.x_train.dtype == packed.x_test.dtype == torch.float32
    for name in ("x_train", "x_valid", "x_test"):
        assert torch.equal(getattr(packed, name), getattr(plain, name))
    assert fingerprint(packed) == fingerprint(plain)


@pytest.mark.parametrize("binarise", ["none", "dynamic"])
def test_a_training_on_bytes_is_that_on_floats(twins, binarise):
    def trained(path):
        rows = data.load(path, binarise=binarise)
        torch.manual_seed(0)
        model, guide = VAE(MLP(2, 6, (4,)), code=2), Code(MLP(6, 4, (4,)))
        how = {"transform": rows.unpacking, "batch_size": 20, "seed": 3}
        Training(model, guide, rows.train, **how).run(5)
        return torch.nn.utils.parameters_to_vector(model.parameters())

    assert torch.equal(*map(trained, twins))


def test_grey_bytes_are_scaled_batch_by_batch():
    x = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(data.Unpacked(255)(x), x.to(torch.float32) / 255)
    drawn = data.Unpacked(255, binarise=True)(x.repeat(2_000, 1)).mean(0)
    assert (drawn - x / 255).abs().max() < 0.06  # 5 standard deviations


def test_arrays_of_columns_and_of_other_byte_orders_are_read(tmp_path):
    x, path = DRAW.random((7, 3)), tmp_path / "own.npz"
    for kind in (np.asfortranarray(x), x.astype(">f4"), x.astype(np.float16)):
        np.savez_compressed(path, x_train=kind, x_test=kind[:2])
        got = data.load(str(path))
        np.testing.assert_array_equal(got.x_train, np.asarray(kind, np.float32))


def test_shapes_are_refused_before_any_row_is_read(tmp_path, monkeypatch):
    path = tmp_path / "own.npz"
    np.savez(path, x_train=np.zeros((9, 4)), x_test=np.zeros((2, 3)))
    monkeypatch.setattr("priorzoo.benchmarks.data.archives.rows", None)
    with pytest.raises(ValueError, match=r"shape \(4,\) in x_test of .* but got \(3,\)"):
        data.load(str(path))


def test_a_wrong_value_is_named_by_its_row_in_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(members, "PORTION", 8)
    x = np.zeros((9, 4))
    x[7, 2] = np.nan
    np.savez(tmp_path / "own.npz", x_train=x, x_test=x[:2])
    with pytest.raises(ValueError, match="first in row 7, column 2"):
        data.load(str(tmp_path / "own.npz"))


def test_a_member_that_is_no_array_is_damage(tmp_path):
    path = tmp_path / "own.npz"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x_train.npy", b"no array")
        file.writestr("x_test.npy", b"no array")
    with pytest.raises(ValueError, match=r"own\.npz is damaged \(x_train has no header"):
        data.load(str(path))


@pytest.mark.slow
def test_a_file_of_bytes_takes_its_own_memory_and_no_more(tmp_path):
    """Beside the imports, which a smaller file measures."""

    def peak(rows):
        x = np.ones((rows, 784), np.uint8)
        np.savez(tmp_path / "own.npz", x_train=x, x_test=x[:10])
        words = ["train", "vae", "--data", tmp_path / "own.npz", "--binarise", "none"]
        words += ["--steps", "2", "--step", "eager", "--out", tmp_path / "run", "--overwrite"]
        program = "import sys; from priorzoo.cli.main import main; main(sys.argv[1:])"
        program += "; import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        command = [sys.executable, "-c", program, *words]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        return 1024 * int(run.stdout.split()[-1])

    assert peak(300_000) - peak(1_000) < 2 * 784 * 300_000
