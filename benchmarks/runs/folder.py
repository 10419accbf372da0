"""The folder of a run: what a run writes there, its lock, and its checkpoints."""

import json
import logging
import os
import re
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from priorzoo.benchmarks.runs.schemas import OF_FINISHED, OF_HISTORY, OF_RESULT, OF_STATE
from priorzoo.inference.files import parse, read_lines, read_text
from priorzoo.inference.saving import replace_file
from priorzoo.inference.schema import check
from priorzoo.inference.training.checkpoints import Packed, is_state, load_state, save_packed

LOG = logging.getLogger(__name__)
LOCK = "run.lock"
RESULT, HISTORY, CHECKPOINT = "result.json", "history.jsonl", "checkpoint.safetensors"
FILES: tuple[str, ...] = (
    RESULT,
    "config.json",
    "model.safetensors",
    "memory.safetensors",
    "table.json",
)
FILES += (HISTORY, CHECKPOINT)
CHECKPOINTS = r"checkpoint(?:-(\d+))?\.safetensors"
REMEDY = "train again"
DRAWN_BY = "priorzoo"  # the ``Software`` of a PNG in the folder ``figures``

State = dict[str, Any]


def is_run(folder: Path) -> bool:
    """Whether a folder holds files of a run, finished or not."""
    config, result = _read(folder / "config.json"), _read(folder / RESULT)
    if {"model", "guide"} <= config.keys() or "settings" in result:
        return True
    return "split" in _read(folder / HISTORY) or any(map(is_state, _checkpoints(folder)))


def check_free(folder: Path, overwrite: bool) -> None:
    """Check that a new run may be written to a folder.

    Raises:
        FileExistsError: for a file, and for a folder that holds something else than a run to
            overwrite.
    """
    if folder.is_file():
        raise FileExistsError(f"Expected a folder but {folder} is a file; choose another --out.")
    if not folder.exists() or not {*folder.iterdir()} - {folder / LOCK, *_torn(folder)}:
        return
    if not is_run(folder):
        raise FileExistsError(
            f"Expected a run but {folder} holds other files; choose another --out."
        )
    if not overwrite:
        raise FileExistsError(
            f"Expected a new folder but {folder} already holds files; choose another --out, or "
            "add --overwrite, or --resume to go on where a run was interrupted."
        )


def clear(folder: Path) -> None:
    """Remove what an earlier run wrote, and nothing else, but for the newest checkpoint."""
    for name in FILES:
        if name != CHECKPOINT:
            (folder / name).unlink(missing_ok=True)
    for path in [*_checkpoints(folder)[1:], *_torn(folder)]:
        path.unlink()
    for path in filter(Path.is_file, (folder / "figures").glob("*.png")):
        with path.open("rb") as file:
            if f"Software\0{DRAWN_BY}".encode() in file.read(1024):
                path.unlink()
    with suppress(OSError):  # other files are in it, or there is none
        (folder / "figures").rmdir()


class Checkpoints:
    """The last checkpoints of a run: ``checkpoint.safetensors``, then ``checkpoint-1`` and so on.

    Args:
        folder: of the run.
        count: how many are kept.
        minutes: after how long since the last another is due.
    """

    def __init__(self, folder: Path, count: int = 2, minutes: float = 10.0) -> None:
        if count < 1 or not minutes > 0:
            raise ValueError(
                f"Expected at least one checkpoint and positive minutes but got {count} and "
                f"{minutes}."
            )
        self.folder, self.count, self.minutes = folder, count, minutes
        self._saved = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether the last is too old."""
        return time.monotonic() - self._saved >= 60 * self.minutes

    def save(self, packed: Packed) -> None:
        """Save a state; at every moment there is a complete checkpoint.

        Raises:
            OSError: if it cannot be written; the last one is kept.
        """
        names = [CHECKPOINT, *(f"checkpoint-{i}.safetensors" for i in range(1, self.count))]
        files = [self.folder / name for name in names]
        for older, newer in reversed(list(zip(files[1:], files, strict=False))):
            if newer.is_file():
                replace_file(older, partial(_copy, newer))
        save_packed(files[0], packed)
        self._saved = time.monotonic()

    def load(self) -> State:
        """The newest complete checkpoint, with its rows of the ``history`` and its ``place``.

        Of a finished run, the same of its result: its ``stage`` is None.

        Raises:
            FileNotFoundError: if nothing was kept.
            ValueError: if no checkpoint is whole, saying what is wrong with the newest.
        """
        damaged: ValueError | None = None
        for file in _checkpoints(self.folder):
            try:
                state = load_state(file)
                check(OF_STATE, state, "the state", file, REMEDY)
                state = self._with_history(state)
            except ValueError as error:
                damaged = damaged or error
                continue
            if damaged is not None:
                LOG.warning("%s Going on from the checkpoint before.", damaged)
            return state
        if damaged is not None:
            raise damaged
        if "settings" not in (result := _read(self.folder / RESULT)):
            raise FileNotFoundError(
                f"Expected a checkpoint in {self.folder} but nothing had been kept; train anew, "
                "without --resume."
            )
        check(OF_RESULT, result, "the result", self.folder / RESULT, REMEDY)
        check(OF_FINISHED, result, "the result", self.folder / RESULT, REMEDY)
        return self._finished(result)

    def remove(self) -> None:
        """Remove all, the oldest first, and the temporary files of interrupted writes."""
        for path in [*_torn(self.folder), *reversed(_checkpoints(self.folder))]:
            path.unlink()

    def _finished(self, result: State) -> State:
        settings = json.dumps({"seed": result["seed"], **result["settings"]})
        rows = len(_lines(self.folder / HISTORY))
        state = {"settings": settings, "data": result.get("fingerprint"), "rows": rows}
        state |= {"before": result["steps"], "spent": result["seconds"]}
        return self._with_history(state | {"stage": None, "training": None})

    def _with_history(self, state: State) -> State:
        """The state with the rows of the history that it counts; later ones are dropped."""
        path = self.folder / HISTORY
        if "data" not in state:
            raise ValueError(f"Expected a newer checkpoint in {self.folder}; train again.")
        lines = _lines(path)
        if len(lines) < state["rows"]:
            raise ValueError(
                f"Expected at least {state['rows']} rows in {path}, as the checkpoint counts, but "
                f"got {len(lines)}; put the file back, or train again."
            )
        return state | {"history": history_of(lines[: state["rows"]]), "place": str(self.folder)}


def history_of(lines: Iterable[tuple[str, bytes]]) -> list[State]:
    """The rows of a history, from its lines after their places.

    Raises:
        ValueError: for a line that is no row of a history.
    """
    found: list[State] = []
    for place, line in lines:
        row: Any = parse(line, place)
        check(OF_HISTORY, row, "row", place, REMEDY)
        found.append(row)
    return found


def _checkpoints(folder: Path) -> list[Path]:
    """All checkpoints, the newest first."""
    found = {}
    for path in folder.glob("checkpoint*.safetensors"):
        if name := re.fullmatch(CHECKPOINTS, path.name):
            found[int(name[1] or 0)] = path
    return [found[age] for age in sorted(found)]


def _torn(folder: Path) -> list[Path]:
    """Files that a killed process was writing: ours, and those that safetensors renames itself."""
    found = []
    for path in folder.iterdir():
        name = path.name.removesuffix(".part")
        if name != path.name:
            if name in FILES or re.fullmatch(CHECKPOINTS, name):
                found.append(path)
        elif re.fullmatch(r"\.tmp\w{6}", name) and path.is_file():
            with path.open("rb") as file:
                if file.read(9)[8:] in (b"", b"{"):
                    found.append(path)
    return found


def _lines(path: Path) -> list[tuple[str, bytes]]:
    """The whole lines of a file after their places; none if there is no file."""
    lines = read_lines(path) if os.path.lexists(path) else ()
    return [(place, line) for place, line in lines if line.endswith(b"\n")]


def _read(path: Path) -> State:
    """The first JSON object of a file; an empty one if there is none."""
    found: object = None
    with suppress(OSError, ValueError):
        first = next(read_lines(path), ("", b""))[1] if path.suffix == ".jsonl" else read_text(path)
        found = parse(first, str(path))
    return found if isinstance(found, dict) else {}


def _copy(source: Path, to: Path) -> None:
    to.unlink(missing_ok=True)
    try:
        os.link(source, to)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, to)
