"""Locks that the operating system holds for a process, and drops when the process ends."""

import os
import platform
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from priorzoo.inference.files import MIB, check_regular

POLL = 0.05  # seconds between two tries of a lock that another holds


@contextmanager
def locked(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Inside ``with``, no other process and no other thread holds the lock of this file.

    The file is made for the lock and removed with it. One that a killed process left behind is no
    obstacle, since the lock itself went with that process.

    Args:
        path: of the file, which says who holds the lock.
        wait: whether to wait for the lock.

    Raises:
        BlockingIOError: if another holds it, with process, machine and time.
    """
    file = _opened(path, wait)
    try:
        with suppress(OSError):  # a full disk is no reason against a lock
            file.truncate(0)
            since = time.strftime("%Y-%m-%d %H:%M:%S")
            file.write(f"process {os.getpid()} on {platform.node()} since {since}")
            file.flush()
        yield
    finally:
        with suppress(OSError):  # Windows does not remove an open file
            path.unlink()  # before the lock is dropped: later it may be another's
        file.close()


def holder(path: Path) -> str:
    """Who holds the lock of a file; empty if nobody does."""
    if not path.is_file():
        return ""
    try:
        _opened(path, wait=False).close()
    except BlockingIOError:
        return _named(path)
    return ""


def _opened(path: Path, wait: bool) -> IO[str]:
    while True:
        with suppress(FileNotFoundError):  # a link leads to a file that the lock would empty
            if path.is_symlink():
                raise ValueError(f"Expected a lock file at {path} but it is a link; remove it.")
            check_regular(path, MIB)
        file = path.open("a")
        try:
            if not _take(file.fileno()):
                if not wait:
                    raise BlockingIOError(
                        f"Expected no other process in {path.parent} but {_named(path)} uses it; "
                        "wait until it ends, or choose another folder."
                    )
            elif _is_at(file.fileno(), path):
                return file
        except BaseException:
            file.close()
            raise
        file.close()  # of a lock that is held, or whose file was removed in between
        time.sleep(POLL)


def _is_at(file: int, path: Path) -> bool:
    """Whether an open file is still the one at a path."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _named(path: Path) -> str:
    with suppress(OSError):
        return path.read_text() or "another process"
    return "another process"


def _take(file: int) -> bool:
    """Take the lock of an open file; False if another has it."""
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(
                file, 2**30, os.SEEK_SET
            )  # what is locked cannot be read, but the text must be
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:
        warnings.warn(
            f"Expected a file system with locks but got {error}; start no second process in the "
            "same folder.",
            stacklevel=2,
        )
    return True
