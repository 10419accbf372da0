"""The look of the charts of priorzoo, for the scripts of the gallery."""

import matplotlib

from priorzoo.benchmarks.charts.axes import LOOK


def dress(_settings: dict[str, object], _script: str) -> None:
    """Draw the next script's figures in the one look; the gallery calls this before it."""
    matplotlib.rcParams.update(LOOK)
