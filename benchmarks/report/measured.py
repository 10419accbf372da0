"""Tables of speed, of gradient variance, of precision and of runs that failed."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from operator import itemgetter
from statistics import linear_regression

from priorzoo.benchmarks.report.groups import settings_of
from priorzoo.benchmarks.report.table import Cell, Table, build, number, spread
from priorzoo.benchmarks.rows.files import Row, grouped
from priorzoo.benchmarks.speed.charts import case

PRECISIONS = ("float32", "float64")
Columns = Mapping[str, Callable[[Row], Cell]]


def _text(key: str) -> Callable[[Row], Cell]:
    return lambda row: Cell(str(row[key]))


def _number(key: str, form: str = ",.0f") -> Callable[[Row], Cell]:
    return lambda row: number(row[key], form)


def _known(value: float | None, form: str) -> Cell:
    return Cell() if value is None else number(value, form)


def _device(row: Row) -> Cell:
    return Cell(f"{row['device']}, {row['threads']} threads")


def _ratio(row: Row) -> Cell:
    low, high = row["ratio_quartiles"]
    return Cell(f"{row['ratio']:.2f} ({low:.2f} to {high:.2f})", row["ratio"])


def _sizes(row: Row) -> Cell:
    networks = "the recipe's" if row["hidden"] is None else "-".join(map(str, row["hidden"]))
    parts = (row["recipe"], row["batch"], row["clusters"] or "-", row["code"], networks)
    return Cell(", ".join(map(str, parts)), commands=(row["command"],) if "command" in row else ())


def _recipe(row: Row) -> Cell:
    precision = ", bf16" if row.get("precision") == "bf16" else ""
    return Cell(f"{row['recipe']}{precision}", commands=(row["command"],))


STEP: Columns = {
    "recipe, batch, K, code, networks": _sizes,
    "arm": _text("arm"),
    "microseconds a step": _number("microseconds"),
    "ratio (quartiles)": _ratio,
    "operations": lambda row: _known(row.get("kernels", row.get("operations")), "d"),
    "peak, MiB": lambda row: _known(row.get("peak_mib"), ",.1f"),
    "device": _device,
}
RUN: Columns = {
    "recipe": _recipe,
    "arm": _text("arm"),
    "at once": _number("replicas"),
    "steps taken": _number("steps"),
    "seconds": _number("seconds"),
    "full length, steps": _number("full_steps"),
    "seconds for the full length": _number("extrapolated_seconds"),
    "device": _device,
}
GRADIENT: Columns = {
    "expectation": lambda row: Cell(row["expectation"], commands=(row["command"],)),
    "estimator": _text("estimator"),
    "exact gradient": _number("gradient", ".4g"),
    "estimate": _number("estimate", ".4g"),
    "variance": _number("variance", ".4g"),
    "draws": _number("draws"),
}
SERVING: Columns = {
    "recipe": lambda row: Cell(row["recipe"], commands=(row["command"],)),
    "output": _text("output"),
    "programs, ms": lambda row: number(row["programs"][0], ".3f"),
    "graph, ms": lambda row: number(row["graph"][0], ".3f"),
    "programs, p99": lambda row: number(row["programs"][1], ".2f"),
    "graph, p99": lambda row: number(row["graph"][1], ".2f"),
    "ONNX, KiB": _number("onnx_kib"),
    "largest difference of ONNX": _number("difference", ".1g"),
}
FAILURE: Columns = {
    "recipe": lambda row: Cell(row["recipe"], note=settings_of(row)),
    "seed": _text("seed"),
    "error": _text("error"),
}


def precision_table(rows: Iterable[Row], precision: str) -> Table:
    """A row for each quantity, a column for each shape, with the relative errors.

    Errors of estimates are followed by their relative standard error.
    """
    lines: dict[tuple[str, str], dict[float, Cell]] = {}
    for row in rows:
        found, exact = row[precision], row["exact"]
        error, spread = found["mean"] / exact - 1, found.get("spread")
        text = (
            f"{abs(error):.0e}" if spread is None else f"{error:+.0e} ± {spread / abs(exact):.0e}"
        )
        cell = Cell(text, error)
        lines.setdefault((row["quantity"], row["method"]), {})[row["shape"]] = cell
    shapes = sorted({shape for cells in lines.values() for shape in cells})
    made = (
        (Cell(quantity), Cell(method), *(cells.get(shape, Cell()) for shape in shapes))
        for (quantity, method), cells in lines.items()
    )
    head = ("relative error, " + precision, "of its", *(f"a = {shape:g}" for shape in shapes))
    return Table(head, tuple(made))


def step_table(rows: Iterable[Row]) -> Table:
    """A row for each timed step; its ratio is to the arm whose ratio is 1."""
    return build(rows, STEP, caption="A training step")


def move_table(rows: Sequence[Row]) -> Table:
    """A row for each case: seconds of each version of the moves, and the first by the last."""
    versions = list(dict.fromkeys(row["commit"] for row in rows))
    lines = []
    for place, mine in grouped(rows, itemgetter("family", "clusters", "rows")).items():
        family, *sizes = place
        commands = tuple(dict.fromkeys(row["command"] for row in mine))
        took = {row["commit"]: row["seconds"] for row in mine}
        cells = [number(took[name], ".2f") if name in took else Cell() for name in versions]
        if len(versions) > 1:
            both = {versions[0], versions[-1]} <= took.keys()
            ratio = took[versions[0]] / took[versions[-1]] if both else None
            cells.append(Cell() if ratio is None else number(ratio, ".1f"))
        lines.append((Cell(family, commands=commands), *map(number, sizes), *cells))
    heads = [f"seconds at {name}" if name else "seconds" for name in versions]
    heads += ["times faster"] if len(versions) > 1 else []
    return Table(("components", "K", "rows", *heads), tuple(lines), caption="Moves of clusters")


def counts_table(rows: Sequence[Row]) -> Table:
    """A row for each size, with and without the covariate: clusters found and ARI over seeds."""
    lines = []
    for place, mine in grouped(rows, itemgetter("rows", "covariate", "steps")).items():
        size, told, steps = place
        found = [row["clusters"] for row in mine]
        each = f"{min(found)} to {max(found)}" if len(set(found)) > 1 else f"{found[0]}"
        scores = [spread([row[key] for row in mine], 3) for key in ("ari", "ari_of_batches")]
        bound = spread([row["elbo"] for row in mine], 2)
        name = Cell("yes" if told else "no", commands=(mine[0]["command"],))
        sizes = number(size), number(steps), number(len(mine)), number(mine[0]["planted"])
        lines.append((name, *sizes, Cell(each), *scores, bound))
    sizes_of = ("rows", "steps", "seeds", "planted K", "found K")
    head = ("covariate", *sizes_of, "ARI", "ARI of batches", "ELBO, nats")
    return Table(head, tuple(lines), caption="Clusters of counts from two batches")


def ratio_table(rows: Iterable[Row]) -> Table:
    """A row for each case and a column for each arm: the median ratio and its quartiles.

    Of the sizes that a sweep varies only the recipe's K and D with a batch of 20 are shown; of
    cases measured twice, the first.
    """
    cases: dict[str, dict[str, Cell]] = {}
    for row in rows:
        usual = (row["batch"], row["clusters"] or 10, row["code"]) == (20, 10, 64)
        if row["arm"].startswith("plain") or not (usual or row["hidden"] is None):
            continue
        name = f"{case(row)}, {row['precision']}".replace("\n", ", ")
        name += _where(row) + (", by a plain VAE's step" if row["base"].startswith("plain") else "")
        ratio = Cell("1", 1.0) if row["arm"] == row["base"] else _ratio(row)
        cases.setdefault(name, {}).setdefault(row["arm"], ratio)
    arms = dict.fromkeys(arm for ratios in cases.values() for arm in ratios)
    lines = ((Cell(name), *(own.get(arm, Cell()) for arm in arms)) for name, own in cases.items())
    return Table(("recipe and sizes", *arms), tuple(lines))


def growth_table(rows: Iterable[Row]) -> Table:
    """The power of a size with which the time of each arm grows, for each size that was varied.

    It is the slope of a straight line through the logarithms of size and time, of three sizes at
    least.
    """
    lines: dict[str, dict[str, Cell]] = {}
    names = {"batch": "B", "clusters": "K", "code": "D"}
    steps = list(rows)
    for size, letter in names.items():
        others = [name for name in names if name != size]
        known = [row for row in steps if isinstance(row[size], int)]
        place = ("recipe", "precision", "device", "threads", "hidden", *others)
        groups = grouped(known, partial(_names, place))
        for (recipe, *_), mine in groups.items():
            values = sorted({row[size] for row in mine})
            if len(values) < 3:
                continue
            line = lines.setdefault(f"{recipe}, {letter} = {values[0]:,} to {values[-1]:,}", {})
            for arm, own in grouped(mine, itemgetter("arm")).items():
                if len({row[size] for row in own}) == len(values):
                    line[arm] = number(_slope(own, size), ".2f")
    arms = dict.fromkeys(arm for line in lines.values() for arm in line)
    cells = ((Cell(name), *(line.get(arm, Cell()) for arm in arms)) for name, line in lines.items())
    return Table(("growth of a step's time", *arms), tuple(cells))


def _where(row: Row) -> str:
    """The machine, where it is not one core of a CPU."""
    if row.get("device", "cpu") != "cpu":
        return f", {row['device']}"
    return f", {row['threads']} cores" if row.get("threads", 1) > 1 else ""


def _names(keys: Sequence[str], row: Row) -> tuple[str, ...]:
    return tuple(str(row[key]) for key in keys)


def _slope(rows: Sequence[Row], size: str) -> float:
    found = linear_regression(
        [math.log(row[size]) for row in rows], [math.log(row["microseconds"]) for row in rows]
    )
    return found.slope


def serving_table(rows: Sequence[Row]) -> Table:
    """Latency of predictions of one row, median and 99th percentile, a line for each output."""
    return build(rows, SERVING)
