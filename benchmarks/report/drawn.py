"""Samples of categories, as a classifier judges them: rows of ``priorzoo bench infogan``."""

from collections.abc import Sequence
from statistics import mean

from priorzoo.benchmarks.report.groups import settings_of
from priorzoo.benchmarks.report.table import Cell, Table, number, span, spread
from priorzoo.benchmarks.rows.files import Row, grouped

SCORES = {
    "share of samples of the category's class": "sample_share",
    "share of the most frequent class": "sample_purity",
    "majority accuracy": "accuracy_majority",
    "Hungarian accuracy": "accuracy_hungarian",
}
HEAD = ("model", *SCORES, "classes", "K", "used K", "steps", "seeds", "seconds")


def samples_table(rows: Sequence[Row]) -> Table:
    """A row for each model, length and settings: its samples, and its clusters of test rows."""

    def place(row: Row) -> tuple[object, ...]:
        changes = settings_of(row) if "changes" in row else ""
        return row["recipe"], row["settings"]["data"], row["steps"], changes, row["command"]

    lines = [_line(mine) for mine in grouped(rows, place).values()]
    return Table(HEAD, tuple(lines), (_note(rows),) if rows else (), "Samples of each category")


def _note(rows: Sequence[Row]) -> str:
    counts = ", ".join(map(str, sorted({row["samples"] for row in rows})))
    right = mean(row["judge_accuracy"] for row in rows)
    return (
        f"Shares are of {counts} samples of each category, by a convolutional classifier that is "
        f"right on {right:.1%} of the test images."
    )


def _line(mine: Sequence[Row]) -> tuple[Cell, ...]:
    first, metrics = mine[0], [row["metrics"] for row in mine]
    changes = settings_of(first) if "changes" in first else ""
    name = f"{first['recipe']} on {first['settings']['data']}"
    seeds = ", ".join(str(row["seed"]) for row in mine)
    seconds = [row["seconds"] for row in mine if row.get("seconds") is not None]
    return (
        Cell(f"{name} ({changes})" if changes else name, commands=(first["command"],)),
        *(spread([found[key] for found in metrics], 3) for key in SCORES.values()),
        Cell(span([found["sample_classes"] for found in metrics])),
        Cell(span([found["clusters"] for found in metrics])),
        Cell(span([found["used_clusters"] for found in metrics])),
        number(first["steps"], ","),
        Cell(str(len(mine)), len(mine), note=seeds),
        number(mean(seconds)) if seconds else Cell(),
    )
