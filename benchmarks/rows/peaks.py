"""The most memory that a process has held."""

import re
import sys
from pathlib import Path

STATUS = Path("/proc/self/status")


def peak_mib() -> float | None:
    """The most memory that this process has held, in MiB; None on Windows, which does not say.

    On Linux it is read from /proc: getrusage gives the peak of the process that started this one,
    if that is more.
    """
    if STATUS.is_file() and (found := re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text())):
        return int(found[1]) / 2**10
    try:
        import resource
    except ModuleNotFoundError:
        return None
    return in_mib(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def in_mib(maxrss: int) -> float:
    """The ``ru_maxrss`` of a process in MiB: the system gives bytes on a Mac and KiB elsewhere."""
    return maxrss / (2**20 if sys.platform == "darwin" else 2**10)
