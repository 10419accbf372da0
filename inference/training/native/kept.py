"""Compiled steps that are kept in the user's cache, each in a folder named by its key.

Together they take at most ``LIMIT`` bytes: those that were not used for the longest are removed.
"""

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from priorzoo.inference.training.caching import cache_folder
from priorzoo.inference.training.native.script import Native, Script, UnknownCallError

NAMES = ("script.json", "constants.safetensors", "step.json")
LIMIT = 512 * 2**20  # bytes
PART = "part-"  # how the names of folders begin that are being written or removed
LEFT = 86_400  # seconds after which such a folder was left by a process that was ended


@dataclass(frozen=True)
class Kept:
    """A compiled step as it is kept.

    Args:
        script: its calls.
        library: the file of ``calls.cpp``, compiled.
        names: what it returns and changes, by name.
        plan: of the optimiser's step.
        products: the number of matrix products by the library that computes them.
    """

    script: Script
    library: str
    names: Mapping[str, list[str]]
    plan: str
    products: Mapping[str, int]


def keep(key: str, kept: Kept) -> None:
    """Write a step to its folder unless there is one already.

    Where that fails, such as on a full disk, nothing is kept and no error is raised.
    """
    folder = cache_folder() / "steps" / key
    with suppress(OSError, UnknownCallError):
        if folder.exists():
            return
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=PART))
        try:
            _write(part, kept)
            part.rename(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        trim(folder.parent, key)


def trim(steps: Path, newest: str) -> None:
    """Remove the steps that were used the longest ago until the rest takes at most ``LIMIT`` bytes.

    A process that uses one of them goes on with the code that it has loaded. One that reads it now
    finds a folder that is not complete, and compiles.

    Args:
        steps: the folder of all.
        newest: the key of a step that stays.
    """
    known, total = [], 0
    for folder in steps.iterdir():
        with suppress(OSError):  # another process may remove it now
            used, size = folder.stat().st_mtime, sum(p.stat().st_size for p in folder.iterdir())
            if not folder.name.startswith(PART):
                known.append((used, size, folder))
                total += size
            elif time.time() - used > LEFT:
                shutil.rmtree(folder, ignore_errors=True)
    for _, size, folder in sorted(known):
        if total <= LIMIT:
            return
        if folder.name != newest:
            with suppress(OSError):
                # Nobody finds half of a step by its key.
                moved = folder.rename(steps / f"{PART}{folder.name}-{os.getpid()}")
                shutil.rmtree(moved, ignore_errors=True)
                total -= size


def find(key: str) -> Kept | None:
    """The step of a key; None where there is none, and where its folder is damaged."""
    folder = cache_folder() / "steps" / key
    try:
        found = _read(folder)
        os.utime(folder)  # when it was last used
        return found
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError):
        return None


def _write(folder: Path, kept: Kept) -> None:
    files = [*dict.fromkeys([kept.library, *kept.script.libraries])]
    names = {file: f"{number}.so" for number, file in enumerate(files)}
    digests = {}
    for file, name in names.items():
        content = Path(file).read_bytes()
        (folder / name).write_bytes(content)
        digests[name] = hashlib.sha256(content).hexdigest()
    (folder / "script.json").write_text(_moved(kept.script, names).written())
    constants = {str(home): tensor for home, tensor in kept.script.constants.items()}
    save_file(constants, folder / "constants.safetensors")
    own = {"names": kept.names, "plan": kept.plan, "products": kept.products, "files": digests}
    (folder / "step.json").write_text(json.dumps(own))


def _read(folder: Path) -> Kept:
    own = json.loads((folder / "step.json").read_text())
    for name, digest in own["files"].items():
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != digest:
            raise ValueError(f"{name} is damaged")
    constants = {int(k): v for k, v in load_file(folder / "constants.safetensors").items()}
    script = Script.read((folder / "script.json").read_text(), constants)
    names = {name: str(folder / name) for name in own["files"]}
    made = _moved(script, names)
    return Kept(made, names["0.so"], own["names"], own["plan"], own["products"])


def _moved(script: Script, names: Mapping[str, str]) -> Script:
    """A script whose libraries have other names."""
    calls = [
        replace(call, library=names[call.library]) if isinstance(call, Native) else call
        for call in script.calls
    ]
    return replace(script, calls=calls)
