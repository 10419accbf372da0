"""The machine that a run is made on: its device, threads and versions."""

from collections.abc import Callable

import torch

from priorzoo.benchmarks.scores.run import Result
from priorzoo.inference.saving import versions


def pick_device(name: str) -> torch.device:
    """``auto`` is the CUDA GPU where there is one, else the CPU.

    ``mps``, the GPU of a Mac, has no float64, which some models need: it has to be asked for.

    Raises:
        ValueError: for ``cuda`` or ``mps`` without such a GPU, or an unknown name.
    """
    present: dict[str, Callable[[], bool]] = {
        "cuda": torch.cuda.is_available,
        "mps": torch.backends.mps.is_available,
    }
    if name not in ("auto", "cpu", *present):
        raise ValueError(f"Expected a device among auto, cpu, cuda and mps but got {name!r}.")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name in present and not present[name]():
        raise ValueError(f"Expected a device for --device {name} but found none; use --device cpu.")
    return torch.device(name)


def machine(where: torch.device) -> Result:
    """The machine and the versions that a row of results was made with."""
    return {
        "device": torch.cuda.get_device_name(where) if where.type == "cuda" else where.type,
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }
