"""Progress on the error stream: a bar on a terminal, otherwise a line from time to time."""

import sys

from tqdm import tqdm

SECONDS = 10.0  # before the first line, and between two


class Progress(tqdm):
    """A bar of tqdm, or lines where the error stream is no terminal, such as in a log file.

    What takes less than ten seconds writes no line.

    Args:
        shown: whether to write at all.
        options: of tqdm.
    """

    def __init__(self, *, shown: bool, **options: object) -> None:
        self.lines = not sys.stderr.isatty()
        if self.lines:
            options |= {"mininterval": SECONDS, "maxinterval": SECONDS, "delay": SECONDS}
            options |= {"ncols": 80, "ascii": True}
        super().__init__(disable=not shown, **options)

    def display(self, msg: str | None = None, pos: int | None = None) -> object:
        """Write the bar, or a line."""
        if not self.lines:
            return super().display(msg, pos)
        print(str(self) if msg is None else msg, file=sys.stderr, flush=True)
        return True


def say(text: str) -> None:
    """Write a line of what is being waited for."""
    print(text, file=sys.stderr, flush=True)
