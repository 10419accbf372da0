"""Pairs on disk."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from priorzoo.guides import ClusterThenCode, Code
from priorzoo.inference import evaluate, load, save, saving
from priorzoo.models import GMVAE, MLP, VAE

P, D, K = 6, 2, 3


class Scaled(nn.Module):
    """A user's network, which keeps its arguments, one of them a network."""

    def __init__(self, inner, factor=1.0, sizes=(1, 2)):
        super().__init__()
        self.inner, self.factor, self.sizes = inner, factor, sizes

    def forward(self, x):
        return self.factor * self.inner(x)


class Forgetful(nn.Module):
    def __init__(self, inputs, factor):
        super().__init__()
        self.inputs = inputs
        self.layer = nn.Linear(inputs, 2 * D)

    def forward(self, x):
        return self.layer(x)


class Holder(nn.Module):
    def __init__(self, held):
        super().__init__()
        self.held = held
        self.layer = nn.Linear(P, 2 * D)

    def forward(self, x):
        return self.layer(x)


def saved(folder, guide=None):
    """A small VAE, saved."""
    pair = VAE(MLP(D, P), code=D), Code(MLP(P, 2 * D)) if guide is None else guide
    save(folder, *pair)
    return pair


def assert_same_pair(folder, model, guide):
    again = load(folder, trust=[__name__])
    x = torch.bernoulli(torch.full((5, P), 0.5))
    assert evaluate(*again, x) == evaluate(model, guide, x)
    return again


@pytest.fixture
def _no_pickle(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a pickle")

    for module, names in ((pickle, ("dump", "dumps", "load", "loads")), (torch, ("save", "load"))):
        for name in names:
            monkeypatch.setattr(module, name, refuse)


@pytest.mark.usefixtures("_no_pickle")
def test_a_run_is_json_and_safetensors(tmp_path):
    """Two files; the numbers behind a JSON header, as the format of safetensors has it."""
    pair = saved(tmp_path / "a" / "b")
    folder = tmp_path / "a" / "b"
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors"}
    config = json.loads((folder / "config.json").read_text())
    assert config["model"]["class_path"] == "priorzoo.models.vae.VAE"
    assert config["guide"]["init_args"]["encoder"]["init_args"]["hidden"] == [512, 512]
    raw = (folder / "model.safetensors").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    assert "model.decoder.layers.0.weight" in header
    assert_same_pair(folder, *pair)


def test_a_loaded_pair_is_ready_for_use(tmp_path):
    assert all(module.training for module in saved(tmp_path))
    assert not any(m.training for module in load(tmp_path) for m in module.modules())


def test_a_shared_network_is_still_shared(tmp_path):
    """One encoder in two places of a guide, and one layer in model and guide."""
    trunk = nn.Linear(P, P)
    model = VAE(nn.Sequential(MLP(D, P, ()), trunk), code=D)
    guide = Code(nn.Sequential(trunk, nn.ReLU(), MLP(P, 2 * D, ())))
    save(tmp_path, model, guide)
    model, guide = assert_same_pair(tmp_path, model, guide)
    assert model.decoder[1] is guide.encoder[0]


def test_networks_of_torch(tmp_path):
    """Sequences within sequences, with and without biases, norms and settings."""
    layers = nn.Sequential(
        nn.Linear(P, 8, bias=False),
        nn.Sequential(nn.LayerNorm(8, eps=1e-3), nn.Dropout(0.25), nn.LeakyReLU(0.3)),
        nn.Unflatten(-1, (2, 4)),
        nn.Conv1d(2, 3, 3, padding=1, bias=False),
        nn.Flatten(),
        nn.BatchNorm1d(12),
        nn.Linear(12, 2 * D),
    )
    layers(torch.randn(10, P))  # moves the averages of the norm
    pair = saved(tmp_path, Code(layers))
    _, guide = assert_same_pair(tmp_path, *pair)
    norm, dropout, slope = guide.encoder[1]
    assert (norm.eps, dropout.p, slope.negative_slope) == (1e-3, 0.25, 0.3)
    assert guide.encoder[0].bias is None
    assert guide.encoder[3].bias is None


def test_double_precision_is_kept(tmp_path):
    model, guide = VAE(MLP(D, P), code=D).double(), Code(MLP(P, 2 * D)).double()
    save(tmp_path, model, guide)
    for old, new in zip((model, guide), load(tmp_path), strict=True):
        torch.testing.assert_close(new.state_dict(), old.state_dict(), rtol=0, atol=0)


def test_a_users_class_that_keeps_its_arguments(tmp_path):
    pair = saved(tmp_path, Code(Scaled(nn.Linear(P, 2 * D), factor=0.5)))
    _, guide = assert_same_pair(tmp_path, *pair)
    assert guide.encoder.factor == 0.5


def test_a_users_class_that_does_not_keep_them(tmp_path):
    with pytest.raises(ValueError, match=r"Forgetful to keep .*add self\.factor = factor"):
        saved(tmp_path / "run", Code(Forgetful(P, 2.0)))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "held", [torch.tanh, {1, 2}, torch.ones(2), nn.Parameter(torch.ones(2)), [torch.ones(2)]]
)
def test_an_argument_that_json_cannot_write(tmp_path, held):
    with pytest.raises(ValueError, match=r"plain value at guide\.encoder\.held"):
        saved(tmp_path / "run", Code(Holder(held)))
    assert not (tmp_path / "run").exists()


def test_shared_numbers_in_double_precision(tmp_path):
    """Under whichever of its names the tensor is in the file."""
    trunk = nn.Linear(P, P)
    model = VAE(nn.Sequential(MLP(D, P, ()), trunk), code=D).double()
    guide = Code(nn.Sequential(trunk, MLP(P, 2 * D, ()))).double()
    save(tmp_path, model, guide)
    for old, new in zip((model, guide), load(tmp_path), strict=True):
        torch.testing.assert_close(new.state_dict(), old.state_dict(), rtol=0, atol=0)


def test_a_class_that_cannot_be_found_again(tmp_path):
    """A class made inside a function has no import path: refused when it is saved, not later."""

    class Local(Scaled):
        pass

    with pytest.raises(ValueError, match="Local"):
        saved(tmp_path / "run", Code(Local(nn.Linear(P, 2 * D))))
    assert not (tmp_path / "run").exists()


def test_a_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="no run folder"):
        load(tmp_path / "none")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_half_of_a_run(tmp_path, name):
    saved(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"(?s){name}.*half-written"):
        load(tmp_path)


def test_a_newer_format(tmp_path):
    saved(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 1000}))
    with pytest.raises(ValueError, match="got 1000; upgrade priorzoo"):
        load(tmp_path)


def test_an_older_format(tmp_path):
    saved(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 1}))
    with pytest.raises(ValueError, match=r"Expected format 2 .* got 1; an older priorzoo"):
        load(tmp_path)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"format": "new"}', '{"format": 2}', '{"format": 2, "model": 3}']
)
def test_a_damaged_configuration(tmp_path, text):
    saved(tmp_path)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"(?s)config\.json.*damaged"):
        load(tmp_path)


def test_damaged_numbers(tmp_path):
    """A file that was cut short, as by a full disk."""
    saved(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ValueError, match="Expected parameters"):
        load(tmp_path)


def test_numbers_of_another_pair(tmp_path):
    saved(tmp_path / "one")
    save(tmp_path / "two", VAE(MLP(D + 1, P), code=D + 1), Code(MLP(P, 2 * D + 2)))
    (tmp_path / "two" / "model.safetensors").replace(tmp_path / "one" / "model.safetensors")
    with pytest.raises(ValueError, match=r"(?s)that fit its classes but got .*; train again"):
        load(tmp_path / "one")


@pytest.mark.parametrize(
    ("class_path", "message"),
    [
        ("priorzoo.models.vae.Gone", "cannot be imported"),
        ("gone.VAE", r"of priorzoo and torch\.nn .* but got gone\.VAE.* add --trust gone"),
        ("VAE", "cannot be imported"),
        ("pathlib.Path", "add --trust pathlib, in Python"),
        ("priorzoo.models.data_plate", "Expected a Module"),
        ("priorzoo.models.gmvae.GMVAE", None),
    ],
)
def test_classes_that_have_changed(tmp_path, class_path, message):
    """Moved, no network at all, or of other arguments: said by name."""
    saved(tmp_path)
    file = tmp_path / "config.json"
    config = json.loads(file.read_text())
    config["model"]["class_path"] = class_path
    if message is None:
        config["model"]["init_args"]["colour"] = 1
        message = r"GMVAE as it was saved but it has changed.*colour"
    file.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        load(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_save_that_fails_leaves_nothing_by_half(tmp_path, monkeypatch, name):
    """The disk is full at one of the two files: no such file, or the one of before."""
    first = saved(tmp_path / "old")
    kept = (tmp_path / "old" / name).read_bytes()

    def fail(part):
        Path(part).write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(saving, "save_model", lambda *args: fail(args[1]))
    if name == "config.json":
        monkeypatch.undo()
        monkeypatch.setattr(Path, "write_text", lambda self, *_, **__: fail(self))
    with pytest.raises(OSError, match="no space left"):
        saved(tmp_path / "new")
    assert not (tmp_path / "new" / name).exists()
    with pytest.raises(OSError, match="no space left"):
        save(tmp_path / "old", *first)
    assert (tmp_path / "old" / name).read_bytes() == kept


def test_the_random_state_plays_no_part(tmp_path):
    """What is loaded is what was saved, not what the constructors drew."""
    model = GMVAE(MLP(D, P), code=D, clusters=K)
    guide = ClusterThenCode(MLP(P, K), MLP(P, 2 * D, clusters=K))
    save(tmp_path, model, guide)
    torch.manual_seed(1)
    one = load(tmp_path)
    torch.manual_seed(2)
    two = load(tmp_path)
    for left, right in zip(one, two, strict=True):
        torch.testing.assert_close(left.state_dict(), right.state_dict(), rtol=0, atol=0)
