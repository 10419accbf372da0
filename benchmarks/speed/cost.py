"""What one step of an arm takes beside time: operations, and memory of its tensors."""

import gc
from itertools import accumulate
from typing import Any, Protocol, cast

import torch
from torch.autograd.profiler_util import FunctionEvent

from priorzoo.benchmarks.speed.arms import Arm, seconds_of


def cost(arm: Arm, device: torch.device) -> dict[str, Any]:
    """Operations of one step, and the most memory that its tensors take beside those that stay.

    On a GPU, the number of kernels. On the CPU that of aten's operations that no other calls, among
    which the fused loops of a compiled step do not count.
    """
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    gc.collect()
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        seconds_of(arm, 1, device)
    events = profile.events() or []
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        seconds_of(arm, 1, device)
        kernels = sum(e.device_type.name == "CUDA" and "Mem" not in e.name for e in events)
        peak = torch.cuda.max_memory_allocated(device) - before
        return {"kernels": kernels, "peak_mib": round(peak / 2**20, 2)}
    outer = sum(e.name.startswith("aten::") and not _within_aten(e) for e in events)
    return {"operations": outer, "peak_mib": round(_peak(profile) / 2**20, 2)}


def _within_aten(event: FunctionEvent) -> bool:
    parent = event.cpu_parent
    return parent is not None and (parent.name.startswith("aten::") or _within_aten(parent))


class _Event(Protocol):
    """What is read of an event of the profiler; the stubs of torch lack ``nbytes``."""

    def name(self) -> str: ...
    def start_ns(self) -> int: ...
    def nbytes(self) -> int: ...


def _peak(profile: torch.profiler.profile) -> int:
    """The highest sum of what was allocated and freed, in the order of time."""
    assert profile.profiler is not None
    assert profile.profiler.kineto_results is not None
    found = cast("list[_Event]", profile.profiler.kineto_results.events())
    events = sorted(found, key=lambda e: e.start_ns())
    taken = (e.nbytes() for e in events if e.name() == "[memory]")
    return max(accumulate(taken, initial=0))
