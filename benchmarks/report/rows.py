"""The rows below a folder, checked, for :mod:`priorzoo.benchmarks.report.page`."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from priorzoo.benchmarks.report.tables import Row

FORMAT = 1
FAILURES = "failures.jsonl"
NEEDED = ("command", "seed", "steps", "terms", "metrics")


@dataclass(frozen=True)
class Found:
    """What a folder holds, in the order of its files.

    Args:
        results: of training; ``history`` is the list of its rows, ``figures`` are paths of files.
        speed: rows of ``bench speed`` and of whole trainings against the clock.
        gradients: rows of gradient estimators.
        failures: recipe, changes, seed and error of runs that gave no result.
    """

    results: list[Row]
    speed: list[Row]
    gradients: list[Row]
    failures: list[Row]


def read(folder: Path) -> Found:
    """The rows of all ``.jsonl`` files of a folder and its sub-folders, but for histories.

    Raises:
        ValueError: for a row that is no JSON, of another format or without what a result has, and
            for a history or figure that is not there; with the file and the line.
    """
    if not folder.is_dir():
        raise ValueError(f"Expected a folder of .jsonl files but got {folder}; name one.")
    files = {path: list(_lines(path)) for path in sorted(folder.rglob("*.jsonl"))}
    failures: list[Row] = [row for _, row in files.pop(folder / FAILURES, [])]
    named = {row.get("history") for lines in files.values() for _, row in lines if _told(row)}
    histories = {folder / name for name in named if name is not None}
    found = Found([], [], [], failures)
    for path, lines in files.items():
        for place, row in lines if path not in histories else []:
            if "kind" in row or "estimator" in row:
                _check({"format": FORMAT} | row, place)
                (found.speed if "kind" in row else found.gradients).append(row)
            elif "split" not in row:  # else of the history of a run without a result
                _check(row, place)
                found.results.append(_complete(row, folder, place))
    return found


def _told(row: Row) -> bool:
    return isinstance(row.get("history"), str)


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row with its place."""
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        place = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"Expected JSON in {place} but got {error}; drop the line.") from error
        if not isinstance(row, Mapping):
            raise ValueError(f"Expected an object in {place} but got {line[:40]}; drop the line.")
        yield place, dict(row)


def _check(row: Row, place: str) -> None:
    if row.get("format") != FORMAT:
        raise ValueError(
            f"Expected a row of format {FORMAT} in {place} but got {row.get('format')}; make the "
            "row anew with this version, or move its file out of the folder."
        )


def _complete(row: dict[str, Any], folder: Path, place: str) -> Row:
    """With the history read, the paths of figures resolved, and defaults for rows of no recipe."""
    missing = [name for name in NEEDED if name not in row]
    if missing:
        raise ValueError(
            f"Expected a result in {place} but it has no {', '.join(missing)}; make the row anew."
        )
    row = {"recipe": row["command"], "changes": {}, "cell": "", "budget": "", "device": ""} | row
    if _told(row):
        path = _file(folder, row["history"], place)
        row["history"] = [history for _, history in _lines(path)]
    row["figures"] = [_file(folder, name, place) for name in row.get("figures") or ()]
    return row


def _file(folder: Path, name: str, place: str) -> Path:
    if not (folder / name).is_file():
        raise ValueError(
            f"Expected the file {folder / name}, which {place} names, but there is none; copy it "
            "there, or write null in the row."
        )
    return folder / name
