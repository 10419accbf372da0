"""Compiled code is kept in a folder of the user's cache, and found again by the next process."""

import os
import subprocess
import sys
from importlib import import_module

import pytest
import torch

from priorzoo.inference.training import caching


@pytest.fixture(autouse=True)
def _clean(monkeypatch):
    for name in (caching.PLACE, "PRIORZOO_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)


def test_the_folder_is_named_by_the_user_or_in_the_users_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    name = caching.cache_folder().name
    assert name.startswith(f"torch-{torch.__version__}-python-3.")
    assert caching.cache_folder().parent == tmp_path / "home" / ".cache" / "priorzoo" / "compiled"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert caching.cache_folder() == tmp_path / "cache" / "priorzoo" / "compiled" / name
    monkeypatch.setenv("PRIORZOO_CACHE", str(tmp_path / "own"))
    assert caching.cache_folder() == tmp_path / "own" / name


def test_another_processor_has_another_folder(monkeypatch):
    before = caching.cache_folder()
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "another")
    assert caching.cache_folder() != before


def test_inductor_is_told_unless_its_user_has_named_a_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("PRIORZOO_CACHE", str(tmp_path))
    caching.use_cache()
    assert os.environ[caching.PLACE] == str(caching.cache_folder())
    assert caching.cache_folder().is_dir()
    monkeypatch.setenv(caching.PLACE, "named")
    caching.use_cache()
    assert os.environ[caching.PLACE] == "named"
    monkeypatch.delenv(caching.PLACE)
    runtime = import_module("torch._inductor.runtime.cache_dir_utils")
    assert runtime.cache_dir() == os.environ[caching.PLACE] != str(caching.cache_folder())
    caching.use_cache()
    assert os.environ[caching.PLACE] == str(caching.cache_folder())


def test_a_folder_that_cannot_be_made_is_left_out(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PRIORZOO_CACHE", str(tmp_path / "file"))
    caching.use_cache()
    assert caching.PLACE not in os.environ


PREPARED = """
import sys, time, torch
from priorzoo.guides import Code
from priorzoo.inference import Training
from priorzoo.models import MLP, VAE
torch.manual_seed(0)
model, guide = VAE(MLP(2, 6, (4,)), code=2), Code(MLP(6, 4, (4,)))
training = Training(model, guide, torch.rand(40, 6).round(), step="compiled", batch_size=20)
"""
LOADED = 'print([name for name in ("torch._dynamo", "sympy") if name in sys.modules])'
TIMED = "begun = time.perf_counter(); training.run(2); print(time.perf_counter() - begun)"


def said(program, folder):
    environment = os.environ | {"PRIORZOO_CACHE": str(folder)}
    command = [sys.executable, "-c", program]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return run.stdout.splitlines()


def test_a_training_is_prepared_without_the_compiler_of_torch(tmp_path):
    assert said(f"{PREPARED}{LOADED}", tmp_path) == ["[]"]


@pytest.mark.slow
def test_a_second_process_finds_the_code_of_the_first_and_needs_no_compiler(tmp_path):
    times, files = [], []
    for _ in range(2):
        taken, loaded = said(f"{PREPARED}{TIMED}\n{LOADED}", tmp_path)
        times.append(float(taken))
        files.append(set(tmp_path.rglob("*.so")))
    assert files[0] == files[1] != set()
    assert times[1] < times[0] / 2
    assert loaded == "[]"
