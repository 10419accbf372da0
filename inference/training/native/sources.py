"""What the code of a process is: versions, settings and the source that it has read."""

import functools
import hashlib
import os
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import torch

from priorzoo.inference.training.caching import PLACE, cache_folder, temporary_folder
from priorzoo.inference.training.native.script import UnknownCallError

HOUSE = "priorzoo"
IMPORTED = time.time()


def check_source(module: str | None, name: str) -> tuple[object, ...]:
    """The version of the installed package that has a module; nothing for source that
    :func:`process` includes.

    Raises:
        UnknownCallError: if the module has no file, such as a notebook.
    """
    found = sys.modules.get(module or "")
    file = getattr(found, "__file__", None)
    if file is None:
        raise UnknownCallError(f"the source of {name} is not known")
    if not _is_installed(Path(file)):
        return ()
    place = Path(file).stat()
    return file, place.st_mtime_ns, place.st_size


def process() -> Iterator[object]:
    """Versions, settings and the source of all code that is not of an installed package."""
    yield torch.__version__, torch.version.git_version, pyro.__version__, np.__version__
    yield sys.version, torch.get_num_threads(), str(torch.get_default_dtype())
    yield torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision()
    yield torch.backends.mkldnn.enabled, torch.is_autocast_enabled("cpu")
    yield sorted((name, repr(value)) for name, value in pyro.settings.get().items())
    yield bool(torch.distributions.Distribution._validate_args)
    told = ("TORCHINDUCTOR_", "TORCH_COMPILE", "CXX")
    yield sorted(i for i in os.environ.items() if i[0].startswith(told) and "CACHE" not in i[0])
    for path in sorted(_sources()):
        if path.stat().st_mtime > _started():
            raise UnknownCallError(f"{path} may have changed after it was read")
        yield path.name, digest(path.read_bytes())


@functools.cache
def _started() -> float:
    """When this process began, or a minute before this module was read."""
    try:
        ticks = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
        booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        return booted + int(ticks) / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError, IndexError):  # of other systems than Linux
        return IMPORTED - 60


def _sources() -> Iterator[Path]:
    """The files of priorzoo, and those of loaded modules that are in no installed package."""
    for floor in ("models", "guides", "inference"):
        for root in __import__(f"{HOUSE}.{floor}", fromlist=["_"]).__path__:
            yield from (p for p in Path(root).rglob("*") if p.suffix in (".py", ".cpp"))
    places = os.environ.get(PLACE), cache_folder(), temporary_folder()
    generated = tuple(str(Path(place).resolve()) for place in places if place)
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if not file or name.startswith(HOUSE) or _is_installed(Path(file)):
            continue
        if Path(file).is_file() and not str(Path(file).resolve()).startswith(generated):
            yield Path(file)


@functools.cache
def _roots() -> tuple[str, ...]:
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    places = {sysconfig.get_paths()[name] for name in names}
    places |= {str(Path(torch.__file__).parents[1]), str(Path(os.__file__).parent)}
    return tuple(places | {str(Path(place).resolve()) for place in places})


def _is_installed(path: Path) -> bool:
    return str(path).startswith(_roots()) or str(path.parent).startswith(_roots())


def digest(content: Any) -> str:
    """The SHA-256 of bytes in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()
