"""The most memory that a process has held."""

import sys


def peak_mib() -> float | None:
    """The most memory that this process has held, in MiB; None on Windows, which does not say."""
    try:
        import resource
    except ModuleNotFoundError:
        return None
    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
