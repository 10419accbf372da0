"""Signals that end a process: SIGINT, SIGTERM and SIGHUP become ``KeyboardInterrupt(number)``."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP
GRACE = 3.0  # seconds that a step or an evaluation may take to its end

Handler = Callable[[int, FrameType | None], None]


def stop(number: int, frame: FrameType | None = None) -> None:
    """The handler that ends what is done at once."""
    raise KeyboardInterrupt(number)


@contextmanager
def handling(handler: Handler = stop) -> Iterator[None]:
    """Inside ``with``, a handler gets the signals that end a process, but those it ignores.

    A process under ``nohup`` ignores SIGHUP. Other threads than the main one handle no signals.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        numbers = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
        before = {number: signal.getsignal(number) for number in numbers}
    for number, old in before.items():
        if old is not signal.SIG_IGN:
            signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@contextmanager
def holding_back() -> Iterator[None]:
    """A process that is started inside ``with`` never gets SIGINT."""
    if not hasattr(signal, "pthread_sigmask"):  # on Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Deferred:
    """Inside ``with``, a signal is kept in ``wanted`` until :meth:`check` is called.

    After :data:`GRACE` seconds, or at a second Ctrl-C, it ends what is done at once.
    """

    def __init__(self) -> None:
        self.wanted: int | None = None
        self._handling = handling(self._note)

    def __enter__(self) -> "Deferred":
        self._handling.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._alarm(0)
        self._handling.__exit__(None, None, None)
        if kind is None:
            self.check()

    def check(self) -> None:
        """Raise the ``KeyboardInterrupt`` of a signal that came."""
        if self.wanted is not None:
            stop(self.wanted)

    def hurry(self) -> None:
        """End the time of grace, before state is saved: that must not be broken off."""
        self._alarm(0)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.wanted is not None and number == signal.SIGINT:
            stop(number)
        if self.wanted is None:
            self.wanted = number
            self._alarm(GRACE)

    def _alarm(self, seconds: float) -> None:
        if self.wanted is None or not hasattr(signal, "setitimer"):
            return
        if seconds:
            signal.signal(signal.SIGALRM, lambda *_: self.check())
        signal.setitimer(signal.ITIMER_REAL, seconds)
