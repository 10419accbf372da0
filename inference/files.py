"""Opens files that others may have written: only regular files of limited size."""

import json
import os
import stat
from collections.abc import Iterator
from typing import BinaryIO

MIB = 2**20
KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def check_regular(path: str | os.PathLike[str], limit: int) -> None:
    """Check that a path is a regular file, or a link to one, of at most ``limit`` bytes.

    Raises:
        FileNotFoundError: for no file.
        ValueError: for a folder, a FIFO, a device or a socket, and for a larger file.
    """
    _check(os.stat(path), path, limit)


def open_regular(path: str | os.PathLike[str], limit: int) -> BinaryIO:
    """Open a file for binary reading; never waits for a process that writes to a FIFO.

    Raises:
        OSError: if it cannot be opened.
        ValueError: for the reasons of :func:`check_regular`.
    """
    check_regular(path, limit)  # before opening, which may already move a device
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    file = os.fdopen(os.open(path, flags), "rb")
    try:
        _check(os.fstat(file.fileno()), path, limit)
    except BaseException:
        file.close()
        raise
    return file


def read_text(path: str | os.PathLike[str], limit: int = 16 * MIB) -> str:
    """The text of a file in UTF-8, see :func:`open_regular`."""
    with open_regular(path, limit) as file:
        data = file.read(limit + 1)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"Expected text in UTF-8 in {path} but got {error}.") from error


def read_json(path: str | os.PathLike[str], limit: int = 16 * MIB) -> object:
    """The JSON value of a file, see :func:`open_regular` and :func:`parse`."""
    return parse(read_text(path, limit), str(path))


def read_lines(
    path: str | os.PathLike[str], limit: int = 128 * MIB, longest: int = MIB
) -> Iterator[tuple[str, bytes]]:
    """The lines of a file, with their line ends, as pairs of place (file and line number) and line.

    Raises:
        ValueError: for a longer line, and for the reasons of :func:`open_regular`.
    """
    with open_regular(path, limit) as file:
        for number in range(1, limit + 2):
            place = f"{path}, line {number}"
            line = file.readline(longest + 1)
            if len(line) > longest:
                raise ValueError(f"Expected at most {longest:,} bytes in {place} but got more.")
            if not line:
                return
            yield place, line


def parse(text: str | bytes, place: str) -> object:
    """A JSON value.

    Raises:
        ValueError: for other text, for values nested too deep and for numbers of too many digits.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError(f"Expected JSON in {place} but it is nested too deep.") from None
    except ValueError as error:
        raise ValueError(f"Expected JSON in {place} but got {error}.") from error


def _check(found: os.stat_result, path: str | os.PathLike[str], limit: int) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = KINDS.get(stat.S_IFMT(found.st_mode), "something else")
        raise ValueError(f"Expected a regular file at {path} but it is {kind}; remove it.")
    if found.st_size > limit:
        raise ValueError(
            f"Expected at most {limit / MIB:,.0f} MiB in {path} but got "
            f"{found.st_size / MIB:,.0f} MiB; it is damaged, or no file of this kind."
        )
