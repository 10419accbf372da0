"""Opening the folder of a finished run."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from priorzoo.benchmarks.runs.folder import HISTORY, REMEDY, RESULT, history_of
from priorzoo.benchmarks.runs.machine import pick_device
from priorzoo.benchmarks.runs.schemas import OF_RESULT
from priorzoo.benchmarks.scores.run import Run
from priorzoo.inference import Stream, check_pair, draw, load
from priorzoo.inference.failures import FAILURES, one_line
from priorzoo.inference.files import read_json, read_lines
from priorzoo.inference.schema import check
from priorzoo.models.contract import needed


def open_run(folder: Path, device: str = "auto", *, trust: Sequence[str] = ()) -> Run:
    """The run that :func:`train` left in a folder.

    Args:
        folder, device: as in :func:`pick_device`.
        trust: modules whose classes may be imported, beside those of priorzoo and torch.nn.

    Raises:
        FileNotFoundError: for a folder that is missing or half-written.
        ValueError: for one that is damaged, or of a newer format.
    """
    model, guide = load(folder, pick_device(device), trust=trust)
    if not os.path.lexists(folder / RESULT):
        raise FileNotFoundError(
            f"Expected {RESULT} in {folder} but it is half-written; train again."
        )
    try:
        result: Any = read_json(folder / RESULT)
        check(OF_RESULT, result, "the result", folder / RESULT, REMEDY)
        history = history_of(read_lines(folder / HISTORY))
    except ValueError as error:
        raise ValueError(
            f"Expected the result and history of a run in {folder} but they are damaged: {error}"
        ) from error
    run = Run(folder, model, guide, result, history)
    _check_program(run)
    return run


def _check_program(run: Run) -> None:
    """Check on two rows that the pair of a run works, and that its rows are of the run's shape.

    Raises:
        ValueError: if not, which a change of its configuration by hand may bring about.
    """
    if needed(run.model) | needed(run.guide):
        return
    try:
        with Stream(0, run.device):
            check_pair(run.model, run.guide)
            width = draw(run.model, 2).flatten(1).shape[1]
    except FAILURES as error:
        said = one_line(error)
        raise ValueError(
            f"Expected a pair that works in {run.folder} but got {said:.300}; train it again."
        ) from error
    if width != math.prod(run.shape):
        raise ValueError(
            f"Expected rows of shape {run.shape}, as {RESULT} in {run.folder} says, but the model "
            f"has {width} values in a row; train it again."
        )
