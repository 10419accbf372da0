"""Steps as native calls, kept for other processes and found by them only if nothing has changed."""

import copy
import os
import shutil
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest
import torch

from priorzoo.guides import Code
from priorzoo.inference import ELBO, Training, binarised
from priorzoo.inference.training import caching, compiled
from priorzoo.inference.training.native import fingerprint, kept, sources
from priorzoo.models import MLP, VAE

P, D = 30, 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An own folder of kept steps for the tests of this file.

    Modules that other tests wrote and imported are hidden: with them, no step has a key.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name, module in list(sys.modules.items()):
            file = Path(getattr(module, "__file__", None) or "")
            if file.is_file() and file.stat().st_mtime > sources._started():
                patch.delitem(sys.modules, name)
        patch.setenv("PRIORZOO_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield caching.cache_folder() / "steps"


def training(folder, step="compiled", **settings):
    torch.manual_seed(0)
    pair = VAE(MLP(D, P, (8,)), code=D), Code(MLP(P, 2 * D, (8,)))
    grey = torch.rand(90, P)
    chosen = {"batch_size": 20, "transform": binarised, "every": 23, "seed": 1} | settings
    return Training(*pair, grey, step=step, **chosen)


@pytest.fixture(scope="module")
def first(folder):
    """A training that has compiled its step, and kept it."""
    made = training(folder)
    made.run(46)
    return made


def losses(made):
    return torch.tensor([row["elbo"] for row in made.history], dtype=torch.float64)


def test_several_steps_at_once_are_those_of_one_after_the_other(first, folder, monkeypatch):
    """To the bit; the last batch of each pass is smaller, and eager. Both are eager steps."""
    assert first.steps.descend._made.player.is_native
    single = training(folder)
    monkeypatch.setattr(compiled.Compiled, "can_repeat", lambda *_: False)
    single.run(46)
    assert torch.equal(losses(single), losses(first))
    for name, value in first.objective.state_dict().items():
        assert torch.equal(value, single.objective.state_dict()[name])
    assert torch.equal(first.stream.state[0], single.stream.state[0])
    eager = training(folder, "eager")
    eager.run(46)
    torch.testing.assert_close(losses(eager), losses(first), rtol=1e-4, atol=1e-4)


def test_a_kept_step_is_found_and_is_the_same_to_the_bit(first, folder, monkeypatch):
    def refuse(*_):
        raise AssertionError("a step was compiled")

    monkeypatch.setattr(compiled, "lower", refuse)
    again = training(folder)
    again.run(11)
    state = copy.deepcopy(again.state())
    again.run_to(46)
    assert torch.equal(losses(again)[-1:], losses(first)[-1:])
    assert again.steps.descend.products == first.steps.descend.products
    resumed = training(folder)
    resumed.restore(state)
    resumed.run_to(46)
    for name, value in first.objective.state_dict().items():
        assert torch.equal(value, resumed.objective.state_dict()[name])


class Half(Code):
    """A guide of another class."""


def changed(name, made):
    """Something that a step depends on, changed in a training that has not begun."""
    if name == "class":
        made.guide.__class__ = Half
    if name == "attribute":
        made.model.code = D + 0.0
    if name == "frozen":
        next(made.model.parameters()).requires_grad_(False)
    if name == "hook":
        made.model.decoder.register_forward_hook(lambda *_: None)


def key(made):
    """The key of a training's step."""
    descend = made.steps.descend
    given = made.batches.pick()
    return compiled.key_of(
        descend.objective, descend.optimiser, given, descend.clip, descend.precision
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"clip": 1.0},
        {"transform": None},
        {"batch_size": 21},
        {"optimiser": lambda p: torch.optim.Adam(p, weight_decay=0.1)},
        {"optimiser": lambda p: torch.optim.SGD(p, lr=1e-3)},
        {"precision": "bf16"},
    ],
)
def test_other_settings_have_another_key(first, folder, settings):
    assert key(training(folder)) == first.steps.descend._key is not None
    assert key(training(folder, **settings)) != first.steps.descend._key


@pytest.mark.parametrize("name", ["class", "attribute", "frozen", "hook"])
def test_another_program_has_another_key(first, folder, name):
    made = training(folder)
    changed(name, made)
    assert key(made) != first.steps.descend._key


def test_changed_code_has_another_key(first, folder, monkeypatch):
    """Code that was replaced in this process, a number beside it, and a file of the package."""
    own = first.steps.descend._key
    with monkeypatch.context() as patch:
        original = Code.forward
        patch.setattr(Code, "forward", lambda self, *given: original(self, *given))
        assert key(training(folder)) != own
    with monkeypatch.context() as patch:
        patch.setattr(import_module(VAE.__module__), "dist", 3.0)
        assert key(training(folder)) != own
    with monkeypatch.context() as patch:
        digest = sources.digest
        patch.setattr(sources, "digest", lambda content: digest(bytes(content) + b" "))
        assert key(training(folder)) != own
    with monkeypatch.context() as patch:
        patch.setattr(torch, "__version__", "0")
        assert key(training(folder)) != own
    with monkeypatch.context() as patch:  # as if a file had been written since the process began
        patch.setattr(sources, "_started", lambda: 0.0)
        assert key(training(folder)) is None
    assert key(training(folder)) == own


class Doubled(ELBO):
    """Has a loss that differs, by a number that no key has."""

    factor = [1.0]

    def loss(self, batch):
        found = super().loss(batch)
        return found._replace(value=self.factor[0] * found.value)


def test_programs_without_source_have_no_key(folder, monkeypatch):
    monkeypatch.setattr(Doubled, "__module__", "__nowhere__")
    made = training(folder)
    own = {"model": made.model, "guide": made.guide}
    objective = Doubled(**own)
    assert fingerprint.fingerprint(objective) is None
    assert fingerprint.fingerprint(ELBO(**own)) is not None


def test_a_kept_step_that_computes_something_else_is_not_used(first, folder, monkeypatch):
    """Even if it has the same key."""
    own = first.steps.descend._key
    monkeypatch.setattr(compiled, "key_of", lambda *_: own)
    made = training(folder)
    given = made.batches.pick()
    how = {"clip": None, "precision": "float32"}
    about = made.objective, made.optimiser, given, given.batch
    assert compiled.restored(kept.find(own), *about, **how) is not None
    other = Doubled(made.model, made.guide)
    monkeypatch.setattr(Doubled, "factor", [1.1])
    assert compiled.restored(kept.find(own), other, *about[1:], **how) is None
    smaller = training(folder, batch_size=10)
    about = smaller.objective, smaller.optimiser, smaller.batches.pick()
    assert compiled.restored(kept.find(own), *about, about[-1].batch, **how) is None


@pytest.mark.parametrize("name", ["0.so", "script.json", "step.json", "constants.safetensors"])
def test_a_damaged_step_is_not_used(first, folder, name):
    copied = folder / "copied"  # the files of the first are in use
    for damage in ("half", "empty", "missing"):
        shutil.copytree(folder / first.steps.descend._key, copied)
        assert kept.find("copied") is not None
        place = copied / name
        content = place.read_bytes()
        place.unlink()
        if damage != "missing":
            place.write_bytes(content[: len(content) // 2] if damage == "half" else b"")
        assert kept.find("copied") is None
        shutil.rmtree(copied)


def test_the_steps_that_were_used_the_longest_ago_are_removed(tmp_path, monkeypatch):
    """Beside those that other processes write, whose folders are left unless they are old."""
    for age, name in enumerate(("new", "used", "old", "older", "part-now", "part-left")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.so").write_bytes(bytes(100))
        then = time.time() - 10 * age - (10**6 if name == "part-left" else 0)
        os.utime(tmp_path / name, (then, then))
    monkeypatch.setattr(kept, "LIMIT", 250)
    kept.trim(tmp_path, "older")
    assert {path.name for path in tmp_path.iterdir()} == {"new", "older", "part-now"}
    monkeypatch.setattr(kept, "LIMIT", 0)
    kept.trim(tmp_path, "new")
    assert {path.name for path in tmp_path.iterdir()} == {"new", "part-now"}


def test_keeping_a_step_trims_the_others_and_a_step_in_use_goes_on(first, folder, monkeypatch):
    own = first.steps.descend._key
    before = (folder / own).stat().st_mtime
    os.utime(folder / own, (before - 100, before - 100))
    step = kept.find(own)
    assert (folder / own).stat().st_mtime > before - 50
    copied = folder.parent / "copied"
    shutil.copytree(folder / own, copied)
    made = training(folder)
    made.run(3)
    monkeypatch.setattr(kept, "LIMIT", 1)
    kept.keep("another", step)
    assert [path.name for path in folder.iterdir()] == ["another"]
    made.run_to(46)
    assert torch.equal(losses(made)[-1:], losses(first)[-1:])
    shutil.rmtree(folder)
    folder.mkdir()
    copied.rename(folder / own)
