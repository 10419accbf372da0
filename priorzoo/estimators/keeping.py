"""A fitted estimator as plain values and the files of a run folder, from which it is made again."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from priorzoo.estimators.scoring import LogLikelihood
from priorzoo.inference import load, save

MADE = ("model_", "guide_", "_log_likelihood")  # made of the files
FILES = ("config.json", "model.safetensors")
State = dict[str, Any]


def packed(fitted: Mapping[str, Any]) -> State:
    """Fitted attributes, with model and guide as the bytes of their files."""
    state = {name: value for name, value in fitted.items() if name not in MADE}
    if "model_" in fitted:
        with TemporaryDirectory() as folder:
            save(folder, fitted["model_"], fitted["guide_"])
            state["files"] = {name: (Path(folder) / name).read_bytes() for name in FILES}
    return state


def unpacked(state: Mapping[str, Any]) -> State:
    """The inverse of :func:`packed`.

    Raises:
        ValueError: for files that are damaged, or that name classes of other packages.
    """
    fitted = {name: value for name, value in state.items() if name != "files"}
    if "files" in state:
        with TemporaryDirectory() as folder:
            for name in FILES:
                (Path(folder) / name).write_bytes(state["files"][name])
            fitted["model_"], fitted["guide_"] = load(folder)
        fitted["_log_likelihood"] = LogLikelihood(fitted["model_"], fitted["guide_"])
    return fitted
