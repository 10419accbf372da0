"""Processes that train together, as ``torchrun`` starts them, and what they tell each other."""

import os
import re
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

from priorzoo.inference.failures import first_line
from priorzoo.inference.randomness import random_states, set_random_states
from priorzoo.inference.shares import Share

Made = TypeVar("Made")
PATIENCE = timedelta(days=1)  # that others wait for the first, which scores and draws alone
LOST = re.compile("gloo|nccl|closed by peer|connection|socket|broken pipe", re.IGNORECASE)


class Processes:
    """The processes that share each batch of a training; one alone by default.

    All of them run the same calls in the same order, on the same rows, seeds and settings, and have
    the same parameters, random state and history at each step. The first alone writes files.

    Args:
        rank, count: the number of this process, from 0, and of all.
        group: name of the process group.
    """

    def __init__(self, rank: int = 0, count: int = 1, group: str = "") -> None:
        self.rank, self.count, self.group = rank, count, group

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def share(self, rows: int) -> Share | None:
        """This process's share of a batch; None for one process, which has the whole."""
        return None if self.count == 1 else Share.of(rows, self.rank, self.count, self.group)

    def most(self, *numbers: int) -> list[int]:
        """The largest of each number over all processes."""
        if self.count == 1:
            return [*numbers]
        found = torch.tensor(numbers)
        distributed.all_reduce(found, distributed.ReduceOp.MAX)
        return found.tolist()

    def total(self, sums: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The sums over all processes of tensors by name."""
        if self.count == 1:
            return dict(sums)
        share = Share.of(self.count, self.rank, self.count, self.group)
        return {name: share.total(value) for name, value in sums.items()}

    def level(self, *modules: nn.Module) -> None:
        """Give parameters and buffers the values that they have in the first process."""
        for module in modules if self.count > 1 else ():
            for tensor in [*module.parameters(), *module.buffers()]:
                distributed.broadcast(tensor.data, 0)

    def level_random_state(self, device: torch.device) -> None:
        """Give torch's random state the value that it has in the first process."""
        if self.count == 1:
            return
        states = random_states([device])
        for state in states:
            distributed.broadcast(state, 0)
        set_random_states(states, [device])

    def by_first(self, make: Callable[[], Made]) -> Made:
        """What the first process makes, in all.

        Raises:
            SystemExit: in the others, where the first could not make it and says why.
        """
        if self.count == 1:
            return make()
        made: list[Any] = [None, "failed"]
        try:
            if self.is_first:
                made = [make(), ""]
        finally:
            distributed.broadcast_object_list(made, 0)
        if made[1]:
            raise SystemExit(2)
        return made[0]


ALONE = Processes()


@contextmanager
def joined() -> Iterator[Processes]:
    """The processes that ``torchrun`` has started, this one among them; else this one alone.

    Rows on a GPU are exchanged by NCCL, all else by gloo. A process that ends, of whatever cause,
    ends the others at their next step.

    Raises:
        ConnectionError: where another process has ended.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or "RANK" not in os.environ:
        yield ALONE
        return
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    distributed.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=PATIENCE)
    rank, count = distributed.get_rank(), distributed.get_world_size()
    try:
        yield Processes(rank, count, _name_of_world())
        distributed.barrier()  # none ends, and closes its connections, while others still send
    except KeyboardInterrupt as error:
        if rank == 0:
            raise
        raise SystemExit(128 + next(iter(error.args), signal.SIGINT)) from error
    except RuntimeError as error:
        reason = first_line(error)
        if not LOST.search(reason):
            raise
        raise ConnectionError(
            f"Expected {count} processes but process {rank} has lost another ({reason})."
        ) from error
    finally:
        with suppress(RuntimeError):
            distributed.destroy_process_group()


def _name_of_world() -> str:
    world = distributed.group.WORLD
    assert world is not None
    return world.group_name
