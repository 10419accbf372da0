import os
import shutil
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

import pyro
import pytest
import torch

# The tensors of the tests are small: more threads would only wait for each other.
torch.set_num_threads(min(2, torch.get_num_threads()))

APART = {"slow", "docs"}  # marks of tests that run only if asked for

# By its path, since pytest's importlib mode puts no folder of tests on the import path.
spec = spec_from_file_location("catalogue", Path(__file__).with_name("catalogue.py"))
catalogue = module_from_spec(spec)
spec.loader.exec_module(catalogue)


def pytest_addoption(parser):
    told = "trainings that tests/interruptions breaks off"
    parser.addoption("--count", type=int, default=4, help=told)
    parser.addoption("--slow", action="store_true", help="run the tests marked slow, only these")
    parser.addoption("--docs", action="store_true", help="run the tests marked docs, only these")


def pytest_collection_modifyitems(config, items):
    wanted = {mark for mark in APART if config.getoption(f"--{mark}")}
    chosen = [item for item in items if {m.name for m in item.iter_markers()} & APART == wanted]
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = chosen


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
    pyro.clear_param_store()  # of what stock Pyro's steps left there in another test


@pytest.fixture
def double():
    """Float64 for networks and rows made in the test."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="session")
def zoo():
    """The catalogue by name, for tests that want a certain pair."""
    return catalogue.CATALOGUE


@pytest.fixture(params=catalogue.CATALOGUE)
def entry(request):
    """Each pair of the catalogue in its turn."""
    return catalogue.CATALOGUE[request.param]


@pytest.fixture
def browser():
    """Headless Chromium; without one the test is skipped, or fails where NEEDS_BROWSER is set."""
    found = [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")]
    program = next(filter(None, found), None)
    if find_spec("playwright") is None or program is None:
        end = pytest.fail if os.environ.get("NEEDS_BROWSER") else pytest.skip
        end("needs playwright and a Chromium on the path to open pages")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield chromium
        chromium.close()
