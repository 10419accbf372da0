"""Rows of a training's history, and going back or on after steps with NaN or infinity."""

import math
from collections.abc import Callable
from typing import Any

from priorzoo.inference.training.descent import Descent
from priorzoo.inference.training.leaving import Leaving
from priorzoo.inference.training.nonfinite import SMALLER, Remedy, scale_rates

Row = dict[str, Any]


class Reports:
    """The history of a training: a row of terms for some steps, held-out rows, and remedies.

    Args:
        descent: takes the steps, and can go back to an earlier state.
        remedy: what to do about steps with terms or gradients that are NaN or infinite.
        leaving: says when to stop, and at which parameters held-out rows are evaluated.
        validate: gives the terms of held-out rows, in nats per datum; None if there are no rows.
        record: called with each new row.
    """

    def __init__(
        self,
        descent: Descent,
        remedy: Remedy,
        leaving: Leaving,
        validate: Callable[[], dict[str, float]] | None,
        record: Callable[[Row], None],
    ) -> None:
        self.descent, self.remedy, self.leaving = descent, remedy, leaving
        self.validate, self.record = validate, record
        self.rows: list[Row] = []

    def gone_back(self) -> bool:
        """Whether steps were not finite and were undone, so that a row is still to be reached."""
        if self.remedy.policy == "skip" or (trouble := self.descent.steps.trouble()) is None:
            return False
        self._go_back(self.remedy.described(trouble, self.descent.place(trouble)))
        return True

    def report(self) -> dict[str, float] | None:
        """Add rows for the steps since the last row; returns their terms, None after going back.

        Raises:
            FloatingPointError: for terms that are not finite, unless the remedy is another.
        """
        terms = self.descent.steps.means(self._skipped())
        if not all(map(math.isfinite, terms.values())):
            raise FloatingPointError(
                f"Expected terms whose sum over steps is finite but got {terms}; choose "
                "a smaller every."
            )
        try:
            with self.leaving.averaged():
                held = {} if self.validate is None else self.validate()
        except FloatingPointError as error:
            if self.remedy.policy != "rollback":
                raise
            step = self.descent.step
            self._go_back(f"after step {step} those of held-out rows are not: {error}")
            return None
        if terms:
            self._add("train", **terms, seconds=round(self.descent.seconds, 3))
        if held:
            self._take_held(held)
        return terms

    def _take_held(self, terms: dict[str, float]) -> None:
        with self.leaving.averaged():
            self.descent.schedule.validated(terms["elbo"])
            self._add("valid", **terms, seconds=round(self.descent.seconds, 3))
            self.descent.stopped = self.leaving.stops(terms["elbo"])

    def _skipped(self) -> int:
        """The number of steps since the last row that were skipped, with a row that says so."""
        trouble = self.descent.steps.trouble()
        if trouble is None:
            return 0
        count, said = trouble.steps, self.remedy.described(trouble, self.descent.place(trouble))
        self.remedy.skipped(count, self.descent.steps.count, said)
        self._add("nonfinite", done="skip", lost=count, said=said)
        return count

    def _go_back(self, said: str) -> None:
        lost = self.descent.step
        self.descent.restore(self.remedy.go_back(said))
        scale_rates(self.descent.optimiser, self.descent.schedule.made, SMALLER)
        self.remedy.keep(self.descent.state)
        self._add("nonfinite", done="rollback", lost=lost - self.descent.step, said=said)

    def _add(self, split: str, **values: object) -> None:
        step = self.descent.step
        place: Row = {"step": step, "epoch": step / self.descent.batches.epoch, "split": split}
        row = place | values
        self.rows.append(row)
        self.record(row)
