"""Tables of speed, of gradient variance and of runs that failed."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial

from priorzoo.benchmarks.report.groups import settings_of
from priorzoo.benchmarks.report.table import Cell, Table, build, number
from priorzoo.benchmarks.rows.files import Row
from priorzoo.benchmarks.speed.charts import case

Columns = Mapping[str, Callable[[Row], Cell]]


def _numbers(names: Mapping[str, str], form: str) -> Columns:
    """Columns of numbers: the key in a row, and the head."""
    return {head: partial(_number, key=key, form=form) for key, head in names.items()}


def _number(row: Row, key: str, form: str) -> Cell:
    return number(row[key], form)


def _device(row: Row) -> Cell:
    return Cell(f"{row['device']}, {row['threads']} threads")


def _ratio(row: Row) -> Cell:
    low, high = row["ratio_quartiles"]
    return Cell(f"{row['ratio']:.2f} ({low:.2f} to {high:.2f})", row["ratio"])


def _networks(row: Row) -> str:
    return "the recipe's" if row["hidden"] is None else "-".join(map(str, row["hidden"]))


def _sizes(row: Row) -> Cell:
    parts = (row["recipe"], row["batch"], row["clusters"] or "-", row["code"], _networks(row))
    return Cell(", ".join(map(str, parts)), commands=(row["command"],) if "command" in row else ())


STEP: Columns = {
    "recipe, batch, K, code, networks": _sizes,
    "arm": lambda row: Cell(row["arm"]),
    **_numbers({"microseconds": "microseconds a step"}, ",.0f"),
    "ratio (quartiles)": _ratio,
    "operations": lambda row: number(row.get("kernels", row.get("operations")), "d"),
    **_numbers({"peak_mib": "peak, MiB"}, ",.1f"),
    "device": _device,
}
RUN: Columns = {
    "recipe": lambda row: Cell(
        f"{row['recipe']}{', bf16' * (row.get('precision') == 'bf16')}", commands=(row["command"],)
    ),
    "arm": lambda row: Cell(row["arm"]),
    **_numbers({"replicas": "at once", "steps": "steps taken", "seconds": "seconds"}, ",.0f"),
    **_numbers({"full_steps": "full length, steps"}, ",.0f"),
    **_numbers({"extrapolated_seconds": "seconds for the full length"}, ",.0f"),
    "device": _device,
}
GRADIENT: Columns = {
    "expectation": lambda row: Cell(row["expectation"], commands=(row["command"],)),
    "estimator": lambda row: Cell(row["estimator"]),
    **_numbers({"gradient": "exact gradient", "estimate": "estimate"}, ".4g"),
    **_numbers({"variance": "variance"}, ".4g"),
    **_numbers({"draws": "draws"}, ",.0f"),
}
FAILURE: Columns = {
    "recipe": lambda row: Cell(row["recipe"], note=settings_of(row)),
    "seed": lambda row: Cell(str(row["seed"])),
    "error": lambda row: Cell(row["error"]),
}


def step_table(rows: Iterable[Row]) -> Table:
    """A row for each timed step; its ratio is to the arm whose ratio is 1."""
    return build(rows, STEP, caption="A training step")


def run_table(rows: Iterable[Row]) -> Table:
    """Whole trainings against the clock."""
    return build(rows, RUN, caption="Whole trainings")


def gradient_table(rows: Iterable[Row]) -> Table:
    """Gradient estimators beside the exact gradient."""
    return build(rows, GRADIENT)


def failure_table(rows: Iterable[Row]) -> Table:
    """Runs that gave no result."""
    return build(rows, FAILURE)


def ratio_table(rows: Iterable[Row]) -> Table:
    """A row for each case and a column for each arm: the median ratio and its quartiles.

    Of the sizes that a sweep varies only the recipe's K and D with a batch of 20 are shown; of
    cases measured twice, the first.
    """
    kept = [row for row in rows if row["hidden"] is None or _usual(row)]
    kept = [row for row in kept if not row["arm"].startswith("plain")]
    cases: dict[str, dict[str, Cell]] = {}
    for row in kept:
        name = f"{case(row)}, {row['precision']}".replace("\n", ", ")
        name += ", by a plain VAE's step" if row["base"].startswith("plain") else ""
        ratio = Cell("1", 1.0) if row["arm"] == row["base"] else _ratio(row)
        cases.setdefault(name, {}).setdefault(row["arm"], ratio)
    arms = list(dict.fromkeys(row["arm"] for row in kept))
    ratios = ([found.get(arm, Cell()) for arm in arms] for found in cases.values())
    lines = tuple((Cell(name), *cells) for name, cells in zip(cases, ratios, strict=True))
    return Table(("recipe and sizes", *arms), lines)


def _usual(row: Row) -> bool:
    return (row["batch"], row["clusters"] or 10, row["code"]) == (20, 10, 64)
