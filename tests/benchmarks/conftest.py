"""What tests of pages share."""

import shutil
from importlib.util import find_spec

import pytest


@pytest.fixture
def browser():
    """Headless Chromium."""
    found = [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")]
    program = next(filter(None, found), None)
    if find_spec("playwright") is None or program is None:
        pytest.skip("needs playwright and a Chromium on the path to open the page")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield chromium
        chromium.close()
