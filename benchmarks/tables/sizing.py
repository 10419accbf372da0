"""Widths of networks and lengths of trainings that suit a table, by its size."""

from collections.abc import Callable
from dataclasses import dataclass

HELD_OUT = 1_000  # validation rows at most
LONG = 1_000  # steps
WIDE = 500  # cells of a row above which there is one wide layer in place of two
MANY = 30  # cells of a row from which on the learning rate is lower
CROWDED = 250  # cells of a row from which on the encoder has rectified units
FAST, MODERATE = 1e-2, 3e-3  # learning rates of Adam


@dataclass(frozen=True)
class Sizing:
    """Sizes of a recipe.

    Args:
        hidden: widths of the encoder's hidden layers; those of the decoder, last to first.
        reading: activation of the encoder.
        batch: rows of a step.
        steps: of the training proper.
        stage: steps of each stage before it.
        every: steps between two evaluations.
        validation: rows that are held out.
        patience: evaluations without a better validation bound after which the training stops;
            None to train to the end.
        rate: of Adam; None for the optimiser of the recipe.
        falls: whether the rate falls to 0, as a cosine.
    """

    hidden: list[int]
    reading: str
    batch: int
    steps: int
    stage: int
    every: int
    validation: int
    patience: int | None
    rate: float | None = None
    falls: bool = False


# Rows, cells of a row, steps or None for what suits the rows, and whether the recipe moves
# between clusters while it trains.
Rule = Callable[[int, int, int | None, bool], Sizing]


def thorough(rows: int, cells: int, steps: int | None, moves: bool) -> Sizing:
    """For a run that is kept: 60 passes over the rows, 1,500 to 20,000 steps."""
    batch = min(500, max(10, rows // 20))
    if steps is None:
        steps = min(20_000, max(1_500, 60 * rows // batch))
    return Sizing(
        hidden=_hidden(rows, cells),
        reading=_reading(cells),
        batch=batch,
        steps=steps,
        stage=max(1, steps // 3),
        every=max(1, steps // 20),
        validation=min(HELD_OUT, rows // 10),
        patience=5 if rows >= 500 and not moves else None,
    )


def quick(rows: int, cells: int, steps: int | None, moves: bool) -> Sizing:
    """For an estimator, whose ``fit`` somebody waits for.

    Four times as many steps as rows, 60 to 2,000, and one a row from 10,000 rows on. The one hidden
    layer of less than 1,000 rows is narrow: wider networks learn few rows by heart. In a training
    that is long enough, a large learning rate that falls to 0 reaches the higher held-out bound,
    but not with many columns.
    """
    if steps is None:
        steps = max(60, min(4 * rows, 2_000 if rows < 10_000 else rows))
    patience = 5 if rows >= 1_000 and not moves else None
    falls = steps >= LONG
    rate = MODERATE if cells >= MANY else FAST
    if not falls:
        rate = min(rate, 2 / steps)
    return Sizing(
        hidden=[32] if rows < 1_000 else _hidden(rows, cells),
        reading=_reading(cells),
        batch=min(rows, 256 if rows < 20_000 else 512),
        steps=steps,
        stage=max(1, steps // 2),
        every=max(1, steps // 10) if patience or moves else steps,
        validation=0,
        patience=patience,
        rate=rate,
        falls=falls,
    )


def _reading(cells: int) -> str:
    """Units of tanh have the higher held-out bound; those of very many cells saturate."""
    return "relu" if cells >= CROWDED else "tanh"


def _hidden(rows: int, cells: int) -> list[int]:
    width = 64 if rows < 1_000 else 128 if rows < 20_000 else 256
    return [max(width, 128)] if cells > WIDE else [width, width]
