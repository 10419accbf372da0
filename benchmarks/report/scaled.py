"""Tables of trainings from files, and of steps that processes share."""

from collections.abc import Sequence
from operator import itemgetter
from statistics import median

from priorzoo.benchmarks.report.table import Cell, Table, build, number
from priorzoo.benchmarks.rows.files import Row, grouped


def files_table(rows: Sequence[Row]) -> Table:
    """A row for each size: rows a second and memory from files, beside the same rows in memory."""
    lines = []
    for (stored, size), mine in grouped(rows, itemgetter("stored", "rows")).items():
        found = {row["from"]: row for row in mine}
        rates = {name: median(row["rows_per_second"]) for name, row in found.items()}
        share = rates["files"] / rates["memory"] if len(rates) == 2 else None
        commands = tuple(dict.fromkeys(row["command"] for row in mine))
        cells = [Cell(stored, commands=commands), number(size)]
        for name in ("files", "memory"):
            there = name in found
            cells.append(number(rates[name]) if there else Cell())
            cells.append(number(found[name]["peak_mib"], ",.1f") if there else Cell())
        lines.append((*cells, Cell() if share is None else number(share, ".3f")))
    head = ("rows a second from files", "peak, MiB", "rows a second in memory", "its peak, MiB")
    return Table(("files", "rows", *head, "ratio"), tuple(lines), caption="Trainings from files")


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
