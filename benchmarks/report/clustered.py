"""Clusterings of tables with missing cells, by methods: from rows of ``priorzoo bench tables``."""

from collections.abc import Callable, Sequence
from statistics import mean

from priorzoo.benchmarks.report.table import Cell, Table, build, number, spread
from priorzoo.benchmarks.rows.files import Row

Key = tuple[str, float]
MEAN = "mean over tables"
COMMON = "mean over tables of all methods"
CAPTIONS = {
    "ari": "Adjusted Rand index of the clusters of the training rows and their classes.",
    "nats": "log p of the observed cells of held-out rows, nats a row, in the units of the table.",
}


def clustering_tables(rows: Sequence[Row]) -> list[Table]:
    """Both measures, a line for each table and share of missing cells, a column for each method.

    The last lines are means over the tables, each method's over those that it has a value for; if
    these are not the same, they are followed by means over the tables that all methods have.
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
    shares = sorted({share for _, share in found})
    common = {key for key, of in found.items() if len(of) == len(methods)}
    means = [(MEAN, share) for share in shares]
    if len(common) < len(found):
        means += [(COMMON, share) for share in sorted({share for _, share in common})]
    lines = [*found, *means]

    def cell(method: str) -> Callable[[Key], Cell]:
        def of_line(key: Key) -> Cell:
            if key[0] not in (MEAN, COMMON):
                values = found[key].get(method, [])
                return spread(values, 3 if measure == "ari" else 2) if values else Cell()
            own = [k for k, of in found.items() if k[1] == key[1] and method in of]
            kept = [mean(found[k][method]) for k in own if key[0] == MEAN or k in common]
            return number(mean(kept), ".3f" if measure == "ari" else ".2f") if kept else Cell()

        return of_line

    first: dict[str, Callable[[Key], Cell]] = {
        "table": lambda key: Cell(key[0]),
        "missing": lambda key: Cell(f"{key[1]:.0%}"),
    }
    note = f"Seeds of a line: {min(seeds)} to {max(seeds)}." if seeds else ""
    columns = first | {method: cell(method) for method in methods}
    return build(lines, columns, (note,) if note else (), CAPTIONS[measure])
