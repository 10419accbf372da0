"""Clusterings of tables with missing cells, by methods: from rows of ``priorzoo bench tables``."""

from collections.abc import Callable, Sequence
from statistics import mean

from priorzoo.benchmarks.report.table import Cell, Table, build, number, spread
from priorzoo.benchmarks.rows.files import Row

Key = tuple[str, float]
MEAN = "mean over tables"
CAPTIONS = {
    "ari": "Adjusted Rand index of the clusters of the training rows and their classes.",
    "nats": "log p of the observed cells of held-out rows, nats a row, in the units of the table.",
}


def clustering_tables(rows: Sequence[Row]) -> list[Table]:
    """Both measures, a line for each table and share of missing cells, a column for each method.

    The last lines are means over the tables for which all methods of the line have a value.
    """
    return [_table(rows, measure) for measure in CAPTIONS]


def _table(rows: Sequence[Row], measure: str) -> Table:
    found: dict[Key, dict[str, list[float]]] = {}
    for row in rows:
        if row[measure] is not None:
            key = row["table"], row["missing"]
            found.setdefault(key, {}).setdefault(row["method"], []).append(row[measure])
    methods = list(dict.fromkeys(row["method"] for row in rows if row[measure] is not None))
    seeds = {
        len({row["seed"] for row in rows if (row["table"], row["missing"]) == k}) for k in found
    }
    lines = [*found, *((MEAN, share) for share in sorted({share for _, share in found}))]

    def cell(method: str) -> Callable[[Key], Cell]:
        def of_line(key: Key) -> Cell:
            if key[0] != MEAN:
                values = found[key].get(method, [])
                return spread(values, 3 if measure == "ari" else 2) if values else Cell()
            means = [
                mean(of[method])
                for (_, share), of in found.items()
                if share == key[1] and method in of
            ]
            return number(mean(means), ".3f" if measure == "ari" else ".2f") if means else Cell()

        return of_line

    first: dict[str, Callable[[Key], Cell]] = {
        "table": lambda key: Cell(key[0]),
        "missing": lambda key: Cell(f"{key[1]:.0%}"),
    }
    note = f"Seeds of a line: {min(seeds)} to {max(seeds)}." if seeds else ""
    columns = first | {method: cell(method) for method in methods}
    return build(lines, columns, (note,) if note else (), CAPTIONS[measure])
