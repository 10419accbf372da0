"""A lock that runs programs one at a time, because Pyro's stack and the random state are global."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from threading import Lock, get_ident
from typing import cast

import pyro
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from priorzoo.models.pyro_internals import global_parameters

Home = dict[str, Tensor | None]


class FairLock:
    """A re-entrant lock that threads get in the order in which they asked for it."""

    def __init__(self) -> None:
        self._guard, self._owner, self._depth = Lock(), 0, 0
        self._queue: deque[tuple[int, Lock]] = deque()

    @property
    def is_contended(self) -> bool:
        """Whether another thread is waiting."""
        return bool(self._queue)

    def __enter__(self) -> None:
        thread = get_ident()
        with self._guard:
            if self._owner in (0, thread):
                self._owner, self._depth = thread, self._depth + 1
                return
            ticket = thread, Lock()
            ticket[1].acquire()
            self._queue.append(ticket)
        try:
            ticket[1].acquire()  # blocks until the lock is released to this thread
        except BaseException:  # such as an interrupt, after which nobody waits for this ticket
            with self._guard:
                if self._owner != thread:
                    self._queue.remove(ticket)
                    raise
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        with self._guard:
            self._depth -= 1
            if self._depth == 0:
                self._owner = 0
                if self._queue:
                    self._owner, waiting = self._queue.popleft()
                    self._depth = 1
                    waiting.release()


PROGRAM_LOCK = FairLock()


class UntrainedError(ValueError):
    """Raised for parameters that do not belong to a module of the model or the guide."""


@contextmanager
def running(*programs: Callable[..., object]) -> Iterator[None]:
    """Run programs inside ``with``: other threads wait, and Pyro's parameter store is empty.

    The global store has one tensor for each name, so that two pairs in one process would share the
    parameters that PyroModules, automatic guides and ``pyro.module`` register there. The previous
    content of the store is restored afterwards.

    Raises:
        UntrainedError: if a program calls ``pyro.param``, whose parameter belongs to no module.
    """
    store = pyro.get_param_store()
    with PROGRAM_LOCK, store.scope():
        yield
        if len(store):
            _check_owned(global_parameters(store), programs)


def _check_owned(found: Mapping[str, Tensor], programs: Iterable[object]) -> None:
    modules = [program for program in programs if isinstance(program, nn.Module)]
    own = {id(parameter) for module in modules for parameter in module.parameters()}
    foreign = [name for name, parameter in found.items() if id(parameter) not in own]
    if foreign:
        raise UntrainedError(
            f"Expected parameters of the model's and guide's modules but pyro.param or pyro.module "
            f"keeps {foreign} in Pyro's global store, where they would not be trained or saved; "
            "make them nn.Parameters or submodules, or PyroParams of a PyroModule for constraints."
        )


def places_of(module: nn.Module) -> Iterator[tuple[Home, str, Tensor]]:
    """For each parameter and buffer: the dictionary that holds it, its key, and the tensor."""
    for part in module.modules():
        for home in (cast(Home, part._parameters), part._buffers):
            for name, tensor in home.items():
                if tensor is not None:
                    yield home, name, tensor


@contextmanager
def keeping_state(*modules: nn.Module) -> Iterator[None]:
    """Restore all buffers and parameters after ``with``, whether replaced or written to."""
    kept = [
        (home, name, tensor, tensor.detach().clone())
        for module in modules
        for home, name, tensor in places_of(module)
        if not is_lazy(tensor)
    ]
    try:
        yield
    finally:
        for home, name, tensor, value in kept:
            home[name] = tensor
            tensor.data.copy_(value)  # through ``data``, so that autograd does not record it
