"""A quick site: trainings of the gallery take a few steps only, where PRIORZOO_DOCS is ``quick``.

Its figures say nothing. They are not taken for those of a full build, nor these for them.
"""

import os
from pathlib import Path

from priorzoo.inference import Training

STEPS = 5
QUICK = os.environ.get("PRIORZOO_DOCS") == "quick"
length = Training.length


def shorten(_settings: dict[str, object], _script: str) -> None:
    """Shorten what the next script trains, if the site is quick; the gallery calls this before."""
    if QUICK:
        Training.length = few


def few(training: Training, steps: int | None = None, epochs: float | None = None) -> int:
    """The number of steps that a training asks for, at most 5."""
    return min(STEPS, length(training, steps, epochs))


def forget(built: Path) -> None:
    """Let all scripts run again after a build of the other kind; drop those that are gone."""
    kind, stamp = "quick" if QUICK else "full", built / "kind.txt"
    if not stamp.is_file() or stamp.read_text("utf-8") != kind:
        for ran in built.glob("*.md5"):
            ran.unlink()
    for copy in built.glob("*.py"):
        if not (built.parent / "gallery" / copy.name).is_file():
            for left in built.glob(f"{copy.stem}.*"):
                left.unlink()
    built.mkdir(exist_ok=True)
    stamp.write_text(kind, "utf-8")
