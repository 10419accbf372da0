"""Where compiled code is kept, so that it is made once for a machine and a version of torch."""

import hashlib
import os
import platform
import sys
from pathlib import Path

import torch

PLACE = "TORCHINDUCTOR_CACHE_DIR"  # where inductor looks for its own


def use_cache() -> None:
    """Let inductor keep compiled code in :func:`cache_folder`, unless its user has named another.

    Without it inductor uses the system's temporary folder, which is emptied when a machine starts.
    """
    if os.environ.get(PLACE, "") not in ("", temporary_folder()):
        return
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:  # such as a home that cannot be written
        return
    if os.access(folder, os.W_OK):
        os.environ[PLACE] = str(folder)


def temporary_folder() -> str:
    """Inductor's cache in the system's temporary folder; empty before inductor is imported.

    Inductor writes this path to the environment as soon as it needs its cache.
    """
    loaded = sys.modules.get("torch._inductor.runtime.cache_dir_utils")
    return "" if loaded is None else os.path.abspath(loaded.default_cache_dir())


def cache_folder() -> Path:
    """``$PRIORZOO_CACHE``, else ``priorzoo/compiled`` in ``$XDG_CACHE_HOME`` or ``~/.cache``.

    In it, a folder for each version of torch and Python and each kind of processor, since homes
    may be shared by machines. Inductor has files in it for each graph.
    """
    named = os.environ.get("PRIORZOO_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    root = Path(named).expanduser() if named else Path(home) / "priorzoo" / "compiled"
    python = ".".join(map(str, sys.version_info[:2]))
    return root / f"torch-{torch.__version__}-python-{python}-{_processor()}"


def _processor() -> str:
    """A name of the kind of processor and its instructions."""
    told = [platform.machine(), torch.backends.cpu.get_cpu_capability()]
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        told += sorted({line for line in lines if line.startswith(("model name", "flags"))})
    except OSError:
        told.append(platform.processor())
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:12]
