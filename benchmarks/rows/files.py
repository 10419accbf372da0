"""Files of result rows, one JSON object a line.

A row is what one run under one seed, one timed step or one gradient estimator gave. ``changes``
holds what differs from the recipe: options and their values, as JSON has them.
"""

import errno
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from priorzoo.benchmarks.rows.schemas import ROW, STEP, schema_of
from priorzoo.inference.files import MIB, check_regular, open_regular, parse
from priorzoo.inference.files import read_lines as lines_of
from priorzoo.inference.schema import Record, check

Row = Mapping[str, Any]
Key = TypeVar("Key")

FORMAT = 2  # of a row; 1 had the values of the changes as text
FAILURES = "failures.jsonl"
RESULTS = Path(__file__).parents[1] / "results"  # the project's own rows
REMEDY = "make the row again, or drop the line"
IMAGES = {
    ".png": ("image/png", b"\x89PNG\r\n\x1a\n"),
    ".jpg": ("image/jpeg", b"\xff\xd8\xff"),
    ".jpeg": ("image/jpeg", b"\xff\xd8\xff"),
}
OPTION = re.compile(r"(?<=\s)--[\w.-]+")
LONGEST = 2**20 * MIB  # of a file of rows
LARGEST, SHOWN = 8 * MIB, 128 * MIB  # bytes of an image, and of all in one report


def append_row(row: Row, path: Path) -> None:
    """Append a row with its format, in one write that has reached the disk on return.

    Raises:
        OSError: if it cannot be written; nothing of it is left in the file.
    """
    line = f"{json.dumps({'format': FORMAT, **row})}\n".encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(path):  # to open a FIFO would wait for its reader
        check_regular(path, LONGEST)
    with path.open("ab", buffering=0) as file:
        end = file.tell()
        try:
            if file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            os.fsync(file.fileno())
        except OSError:
            file.truncate(end)
            raise


def tell_row(row: Row, path: Path | None) -> None:
    """Print a row of a measurement, and append it to a file if there is one."""
    print(row, flush=True)
    if path is not None:
        append_row(row, path)


def read_rows(path: Path, *, torn: bool = False) -> list[Row]:
    """The rows of a file, or of all ``.jsonl`` files directly in a folder.

    Args:
        path: of the file or folder.
        torn: whether to leave out a last line without its end, as a killed process leaves it.

    Raises:
        ValueError: for a line that is not a row of this format, with the file and the line.
    """
    files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    found = [each for file in files for each in read_lines(file, torn=torn)]
    for place, row in found:
        _check_format(row, place)
        check(Record({}, ROW), row, "row", place, REMEDY)
    return [_spelt(row) for _, row in found]


def read_folder(folder: Path) -> list[Row]:
    """All rows in a folder and its sub-folders, in the order of the files.

    Rows of speed have a ``kind``, those of serving and tables a ``measure``, those of gradients an
    ``estimator``, those of precision a ``quantity`` and those of failed runs an ``error``. All
    others are results of runs: their ``history`` is the list of its rows, and ``figures`` are
    paths of files.

    Raises:
        ValueError: for no folder, for a line that is not a row of this format, for a result that
            lacks an entry or has one of another type, for a history or an image that is missing,
            of another kind or outside the folder; with the file and the line.
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
                _check_format(row, place)
                check(schema_of(row), row, "row", place, REMEDY)
                row = _spelt(row)
                other = row.keys() & {"kind", "measure", "estimator", "quantity", "error"}
                found.append({"changes": {}} | row if other else _complete(row, folder, place))
    size = sum(image.stat().st_size for row in found for image in row.get("figures") or ())
    if size > SHOWN:
        raise ValueError(
            f"Expected at most {SHOWN // MIB} MiB of images for a report of {folder} but got "
            f"{size // MIB} MiB; name fewer."
        )
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
    """The JSON objects of a file, each after its place: the file and the line.

    Raises:
        ValueError: for another line, and for what is no regular file or too large.
    """
    for place, line in lines_of(path):
        if torn and not line.endswith(b"\n"):
            return
        try:
            row = parse(line, place)
        except ValueError as error:
            raise ValueError(f"{str(error).removesuffix('.')}; drop the line.") from error
        if not isinstance(row, dict):
            text = line[:200].decode("utf-8", "replace").strip()
            raise ValueError(f"Expected an object in {place} but got {text:.40}; drop the line.")
        yield place, row


def read_image(path: Path) -> tuple[str, bytes]:
    """The media type and the bytes of a PNG or JPEG file, as its suffix and its beginning say.

    Raises:
        ValueError: for another file, with what it should be.
    """
    kind, begin = IMAGES.get(path.suffix.lower(), ("", b""))
    if not kind:
        raise ValueError(f"Expected one of {', '.join(IMAGES)} but got {path}; name an image.")
    with open_regular(path, LARGEST) as file:
        data = file.read(LARGEST + 1)
    if not data.startswith(begin):
        raise ValueError(f"Expected {kind} in {path} but it begins otherwise; name an image.")
    return kind, data


def _check_format(row: Row, place: str) -> None:
    if row.get("format") != FORMAT:
        raise ValueError(
            f"Expected a row of format {FORMAT} in {place} but got format "
            f"{row.get('format')!r:.40}; make the row again with this version, or move its file "
            "out of the folder."
        )


def _spelt(row: dict[str, Any]) -> dict[str, Any]:
    """With the options of the command spelt with hyphens; earlier rows have underscores."""
    command = row.get("command")
    if not isinstance(command, str):
        return row
    return row | {"command": OPTION.sub(lambda found: found[0].replace("_", "-"), command)}


def _complete(row: dict[str, Any], folder: Path, place: str) -> Row:
    """The row with its history, resolved paths of images, and defaults where it has no recipe."""
    row = {"recipe": row["command"], "changes": {}, "cell": "", "budget": "", "device": ""} | row
    if isinstance(row.get("history"), str):
        lines = list(read_lines(_inside(folder, row["history"], place)))
        for where, line in lines:
            check(STEP, line, "row", where, REMEDY)
        row["history"] = [line for _, line in lines]
    row["figures"] = [_inside(folder, name, place) for name in row.get("figures") or ()]
    for image in row["figures"]:
        read_image(image)
    return row


def _inside(folder: Path, name: str, place: str) -> Path:
    """The path of a file that a row names, which lies in the folder, also behind links."""
    path, root = folder / name, os.path.realpath(folder)
    if PurePosixPath(name).is_absolute() or ".." in re.split(r"[/\\]", name):
        inside = False
    else:
        inside = Path(os.path.realpath(path)).is_relative_to(root)
    if not inside:
        raise ValueError(
            f"Expected a path within {folder} but {place} names {name!r:.100}; copy the file there."
        )
    if not path.exists():
        raise ValueError(
            f"Expected the file {path}, which {place} names, but there is none; copy it "
            "there, or write null in the row."
        )
    return path


def plain(value: object) -> dict[str, Any]:
    """Settings as JSON writes them."""
    return json.loads(json.dumps(value))
