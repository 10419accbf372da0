"""Tables of trainings from files, of shared steps, of the importance bound, and of first steps."""

from collections.abc import Sequence
from operator import itemgetter
from statistics import median

from priorzoo.benchmarks.report.table import Cell, Table, build, number
from priorzoo.benchmarks.rows.files import Row, grouped

BOTH = ("files", "memory")


def files_table(rows: Sequence[Row]) -> Table:
    """A row for each size: rows a second and memory from files, beside the same rows in memory.

    Rates are medians, by seconds of the processor.
    """
    lines = []
    for (stored, size), mine in grouped(rows, itemgetter("stored", "rows")).items():
        rates = {row["from"]: number(median(row["rows_per_cpu_second"])) for row in mine}
        known = [row for row in mine if row["peak_mib"] is not None]
        peaks = {row["from"]: number(row["peak_mib"], ",.1f") for row in known}
        each, beside = (rates[name].value if name in rates else None for name in BOTH)
        ratio = number(each / beside, ".3f") if each and beside else Cell()
        commands = tuple(dict.fromkeys(row["command"] for row in mine))
        cells = (found.get(name, Cell()) for name in BOTH for found in (rates, peaks))
        first = Cell(stored, commands=commands)
        lines.append((first, number(size), *cells, ratio, rates.get("reading", Cell())))
    head = ("rows a second from files", "peak, MiB", "rows a second in memory", "its peak, MiB")
    columns = ("files", "rows", *head, "ratio", "rows a second, read alone")
    return Table(columns, tuple(lines), caption="Trainings from files")


def processes_table(rows: Sequence[Row]) -> Table:
    """A row for each training: time of a step, and of the message in it."""
    columns = {
        "recipe": lambda row: Cell(row["recipe"], commands=(row["command"],)),
        "step": lambda row: Cell(row["step"]),
        "batch": lambda row: number(row["batch"]),
        "processes": lambda row: number(row["processes"]),
        "ms a step": lambda row: number(row["microseconds"] / 1000, ",.2f"),
        "parameters": lambda row: number(row["parameters"]),
        "message, MB": lambda row: number(row["message_bytes"] / 1e6, ",.2f"),
        "message, ms": lambda row: number(row["message_microseconds"] / 1000, ",.2f"),
    }
    return build(rows, columns, caption="Steps that processes share")


def bound_table(rows: Sequence[Row]) -> Table:
    """A row for each K: samples of a row that are evaluated in a second, eager and compiled."""
    lines = []
    for (recipe, clusters), mine in grouped(rows, itemgetter("recipe", "clusters")).items():
        own = {row["step"]: row for row in mine}
        if set(own) != {"eager", "compiled"}:
            continue
        both = [own["eager"], own["compiled"]]
        rates = [median(row["draws_per_cpu_second"]) for row in both]
        peaks = [number(r["peak_mib"], ",.0f") if r["peak_mib"] else Cell() for r in both]
        sizes = number(clusters), number(both[0]["samples"])
        name = Cell(recipe, commands=tuple(dict.fromkeys(row["command"] for row in mine)))
        apart = Cell(f"{both[1]['difference']:.0e}")
        each = (number(rate) for rate in rates)
        lines.append((name, *sizes, *each, number(rates[1] / rates[0], ".2f"), apart, *peaks))
    columns = ("recipe", "K", "samples", "a second, eager", "compiled", "ratio", "difference")
    return Table((*columns, "peak, MiB, eager", "peak, compiled"), tuple(lines), caption="log p(x)")


def start_table(rows: Sequence[Row]) -> Table:
    """A row for each kind of start: the median seconds to a first step, and the most memory."""
    columns = {
        "recipe": lambda row: Cell(row["recipe"], commands=(row["command"],)),
        "process": lambda row: Cell(row["start"]),
        "seconds": lambda row: number(median(row["clock_seconds"]), ".2f"),
        "seconds of the processor": lambda row: number(median(row["cpu_seconds"]), ".2f"),
        "peak, MiB": lambda row: number(row["peak_mib"], ",.0f"),
    }
    return build(rows, columns, caption="From the start of a process to its first step")


TABLES = {"files": files_table, "processes": processes_table}
TABLES |= {"bound": bound_table, "start": start_table}
