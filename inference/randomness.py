"""Random streams that are independent of torch's global random state."""

from collections.abc import Iterable, Sequence
from types import TracebackType

import numpy as np
import torch
from torch import Tensor

from priorzoo.inference.running import PROGRAM_LOCK


def derive(seed: int, *place: int) -> int:
    """A seed for one part of what ``seed`` determines, unlike those of neighbouring parts."""
    words = [seed % 2**64, *(index % 2**32 for index in place)]
    return int(np.random.SeedSequence(words).generate_state(1)[0])


def random_states(devices: Iterable[torch.device]) -> list[Tensor]:
    """Torch's random states: of the CPU, and of each GPU among the devices."""
    states = [torch.get_rng_state()]
    for device in gpus(devices):
        mps = device.type == "mps"
        states.append(torch.mps.get_rng_state() if mps else torch.cuda.get_rng_state(device))
    return states


def set_random_states(states: Sequence[Tensor], devices: Iterable[torch.device]) -> None:
    """Set the states that :func:`random_states` gave for the same devices."""
    torch.set_rng_state(states[0])
    for state, device in zip(states[1:], gpus(devices), strict=True):
        if device.type == "mps":
            torch.mps.set_rng_state(state)
        else:
            torch.cuda.set_rng_state(state, device)


def gpus(devices: Iterable[torch.device]) -> list[torch.device]:
    """Those of the devices that have a random state of their own."""
    return [device for device in devices if device.type in ("cuda", "mps")]


class Stream:
    """A seeded random state that replaces torch's global one inside ``with``.

    Draws depend only on the seed and on earlier draws from the same stream, so that two trainings
    that alternate in one process draw the same numbers as each would alone. Other threads that
    draw, or run a program, wait until the end of ``with``.

    Args:
        seed: the seed, from -2**63 to 2**64 - 1.
        device: device of the draws; the CPU's random state is replaced as well.
    """

    def __init__(self, seed: int, device: torch.device | str = "cpu") -> None:
        if not isinstance(seed, (int, np.integer)) or not -(2**63) <= seed < 2**64:
            raise ValueError(
                f"Expected a whole number from -2**63 to 2**64 - 1 as seed but got {seed!r:.60}."
            )
        self.device = torch.device(device)
        places = [torch.device("cpu"), *gpus([self.device])]
        self.state = [torch.Generator(place).manual_seed(int(seed)).get_state() for place in places]

    def __enter__(self) -> None:
        PROGRAM_LOCK.__enter__()
        try:
            self.outside = random_states([self.device])
            set_random_states(self.state, [self.device])
        except BaseException:  # such as a state that is none; other threads shall not wait forever
            PROGRAM_LOCK.__exit__()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.state = random_states([self.device])
        set_random_states(self.outside, [self.device])
        PROGRAM_LOCK.__exit__()

    def let_others_run(self) -> None:
        """Inside ``with``, let waiting threads run first, with the random state from before it."""
        if PROGRAM_LOCK.is_contended:
            self.__exit__(None, None, None)
            self.__enter__()
