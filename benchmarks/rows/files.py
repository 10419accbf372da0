"""Files of result rows, one JSON object a line.

A row is what one run under one seed, one timed step or one gradient estimator gave. ``changes``
holds what differs from the recipe: options and their values, as JSON has them.
"""

import errno
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

Row = Mapping[str, Any]
Key = TypeVar("Key")

FORMAT = 2  # of a row; 1 had the values of the changes as text
FAILURES = "failures.jsonl"
RESULTS = Path(__file__).parents[1] / "results"  # the project's own rows
NEEDED = ("command", "seed", "steps", "terms", "metrics")  # in the row of a run


def append_row(row: Row, path: Path) -> None:
    """Append a row with its format, in one write that has reached the disk on return.

    Raises:
        OSError: if it cannot be written; nothing of it is left in the file.
    """
    line = f"{json.dumps({'format': FORMAT, **row})}\n".encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab", buffering=0) as file:
        end = file.tell()
        try:
            if file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            os.fsync(file.fileno())
        except OSError:
            file.truncate(end)
            raise


def read_rows(path: Path, *, torn: bool = False) -> list[Row]:
    """The rows of a file, or of all ``.jsonl`` files directly in a folder.

    Args:
        path: of the file or folder.
        torn: whether to leave out a last line without its end, as a killed process leaves it.

    Raises:
        ValueError: for a line that is not a row of this format, with the file and the line.
    """
    files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    return [_checked(row, place) for file in files for place, row in read_lines(file, torn=torn)]


def read_folder(folder: Path) -> list[Row]:
    """All rows in a folder and its sub-folders, in the order of the files.

    Rows of speed have a ``kind``, those of gradients an ``estimator``, those of precision a
    ``quantity`` and those of failed runs an ``error``. All others are results of runs: their
    ``history`` is the list of its rows, and ``figures`` are paths of files.

    Raises:
        ValueError: for no folder, for a line that is not a row of this format, for a result that
            lacks an entry, and for a missing history or picture; with the file and the line.
    """
    if not folder.is_dir():
        raise ValueError(f"Expected a folder of .jsonl files but got {folder}; name one.")
    files = {path: list(read_lines(path)) for path in sorted(folder.rglob("*.jsonl"))}
    named = (row.get("history") for lines in files.values() for _, row in lines)
    histories = {folder / name for name in named if isinstance(name, str)}
    found = []
    for path, lines in files.items():
        for place, row in lines if path not in histories else []:
            if "split" not in row:  # else of the history of a run without a result
                _checked(row, place)
                other = row.keys() & {"kind", "estimator", "quantity", "error"}
                found.append(row if other else _complete(row, folder, place))
    return found


def read_folders(folders: Iterable[Path]) -> list[Row]:
    """All rows of several folders, as :func:`read_folder` reads each.

    Raises:
        ValueError: for a folder within another or named twice, whose rows would count twice, and
            as for one folder.
    """
    found: list[Row] = []
    seen: dict[Path, Path] = {}
    for folder in folders:
        place = folder.resolve()
        for other, named in seen.items():
            if place.is_relative_to(other) or other.is_relative_to(place):
                raise ValueError(
                    f"Expected folders that hold different rows but {folder} and {named} share "
                    "some; name only the outer one, or each once."
                )
        seen[place] = folder
        found += read_folder(folder)
    return found


def grouped(rows: Iterable[Row], key: Callable[[Row], Key]) -> dict[Key, list[Row]]:
    """The rows by a key, in the order in which keys are met."""
    found: dict[Key, list[Row]] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)
    return found


def read_lines(path: Path, *, torn: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """The JSON objects of a file, each after its place: the file and the line."""
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), 1):
        if torn and not line.endswith(b"\n"):
            return
        place = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"Expected JSON in {place} but got {error}; drop the line.") from error
        if not isinstance(row, dict):
            raise ValueError(f"Expected an object in {place} but got {row!r:.40}; drop the line.")
        yield place, row


def _checked(row: Row, place: str) -> Row:
    if row.get("format") != FORMAT:
        raise ValueError(
            f"Expected a row of format {FORMAT} in {place} but got format {row.get('format')}; "
            "make the row again with this version, or move its file out of the folder."
        )
    return row


def _complete(row: dict[str, Any], folder: Path, place: str) -> Row:
    """With the history read, the paths of pictures resolved, and defaults for rows of no recipe."""
    if missing := ", ".join(name for name in NEEDED if name not in row):
        raise ValueError(f"Expected a result in {place} but it has no {missing}; make it again.")
    row = {"recipe": row["command"], "changes": {}, "cell": "", "budget": "", "device": ""} | row
    if isinstance(row.get("history"), str):
        row["history"] = [line for _, line in read_lines(_file(folder, row["history"], place))]
    row["figures"] = [_file(folder, name, place) for name in row.get("figures") or ()]
    return row


def _file(folder: Path, name: str, place: str) -> Path:
    if not (folder / name).is_file():
        raise ValueError(
            f"Expected the file {folder / name}, which {place} names, but there is none; copy it "
            "there, or write null in the row."
        )
    return folder / name
