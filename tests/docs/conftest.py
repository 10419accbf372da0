"""Pages of the documentation as their blocks of code, and trainings of a few steps."""

import re
from pathlib import Path

import pytest

from priorzoo.inference.training.loop import Training

DOCS = Path(__file__).parents[2] / "docs"
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.S | re.M)
STEPS = 4  # of a training


@pytest.fixture
def blocks():
    """The fenced blocks of a page, each with its language."""
    return lambda page: FENCED.findall((DOCS / f"{page}.md").read_text("utf-8"))


@pytest.fixture
def hurried(monkeypatch):
    """Every training ends after four steps more."""

    def run(training, steps=None, epochs=None, *, progress=False):
        wanted = training.length(steps, epochs)
        return training.run_to(training.step + min(wanted, STEPS), progress=False)

    monkeypatch.setattr(Training, "run", run)
