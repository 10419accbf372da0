"""The tables of a document such as ``RESULTS.md``, made from the rows that its marks name."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import mean

from priorzoo.benchmarks.papers.paper import BEST, MAJORITY, NEGATIVE, NMI, PSEUDO, Measure, Paper
from priorzoo.benchmarks.report.clustered import clustering_tables
from priorzoo.benchmarks.report.drawn import samples_table
from priorzoo.benchmarks.report.groups import Group, group_rows
from priorzoo.benchmarks.report.measured import (
    PRECISIONS,
    counts_table,
    growth_table,
    move_table,
    precision_table,
    ratio_table,
    serving_table,
)
from priorzoo.benchmarks.report.paper_tables import ORIGIN, line_cell, paper_tables
from priorzoo.benchmarks.report.scaled import TABLES
from priorzoo.benchmarks.report.standings import standings_table
from priorzoo.benchmarks.report.table import Cell, Table, build, number, spread, to_markdown
from priorzoo.benchmarks.rows.files import Row, read_rows

MARK = re.compile(r"(<!-- ([\w-]+): ([^>]*?) -->\n).*?(<!-- /\2 -->)", re.S)


def update_tables(document: Path, folder: Path, papers: Sequence[Paper] = ()) -> None:
    """Write each table of a document again between its two marks.

    The first mark names the table, and files or folders of rows: ``<!-- speed: speed.jsonl -->``;
    the second is ``<!-- /speed -->``. Tables are ``speed``, ``growth``, ``moves``, ``precision``,
    ``k-means``, ``pixels``, ``clusterings``, ``serving``, ``files``, ``processes``, ``bound``,
    ``start``, ``counts``, ``samples``, ``standings`` and, by a paper's name, its lines that have
    rows.

    Args:
        document: Markdown.
        folder: where the marks' files are.
        papers: whose tables the document may name.

    Raises:
        ValueError: for a document without marks, for an unknown table, and for rows that cannot be
            read; the document stays as it was.
    """
    known: dict[str, Callable[[Sequence[Row]], list[Table]]] = {
        "speed": lambda rows: [ratio_table(rows)],
        "growth": lambda rows: [growth_table(rows)],
        "moves": lambda rows: [replace(move_table(rows), caption="")],
        "counts": lambda rows: [replace(counts_table(rows), caption="")],
        "samples": lambda rows: [replace(samples_table(rows), caption="")],
        "precision": lambda rows: [precision_table(rows, name) for name in PRECISIONS],
        "k-means": lambda rows: [k_means_table(papers, rows)],
        "pixels": lambda rows: [pixel_table(rows)],
        "clusterings": clustering_tables,
        "serving": lambda rows: [serving_table(rows)],
        **{name: partial(_bare, table) for name, table in TABLES.items()},
        "standings": lambda rows: [standings_table(papers, rows)],
        **{paper.name: partial(_lines, paper) for paper in papers},
    }

    def written(found: re.Match[str]) -> str:
        begin, name, paths, end = found.groups()
        if name not in known:
            raise ValueError(f"Unknown table {name!r} in {document}; it may be {', '.join(known)}.")
        rows = [row for path in paths.split() for row in read_rows(folder / path)]
        tables = (to_markdown(_with_commands(table.condensed())) for table in known[name](rows))
        return "\n".join([begin, *tables, end])

    text, count = MARK.subn(written, document.read_text("utf-8"))
    if not count:
        raise ValueError(
            f"Expected marks such as <!-- speed: speed.jsonl --> and then <!-- /speed --> in "
            f"{document} but got none; add them."
        )
    document.write_text(text, encoding="utf-8")


def _bare(table: Callable[[Sequence[Row]], Table], rows: Sequence[Row]) -> list[Table]:
    """A table without its caption."""
    return [replace(table(rows), caption="")]


def _lines(paper: Paper, rows: Sequence[Row]) -> list[Table]:
    """The lines of a paper that have rows."""
    return paper_tables([group for group in group_rows([paper], rows)[paper.name] if group.rows])


def _with_commands(table: Table) -> Table:
    """With a last column of the commands that make each row, where they are known."""
    commands = ["; ".join(row[0].commands) for row in table.rows]
    if not any(commands):
        return table
    cells = [Cell(command, code=True) if command else Cell() for command in commands]
    rows = tuple((*row, cell) for row, cell in zip(table.rows, cells, strict=True))
    return replace(table, head=(*table.head, "command"), rows=rows)


def k_means_table(papers: Sequence[Paper], rows: Sequence[Row]) -> Table:
    """Models beside k-means with as many clusters as each run uses, by their majority accuracy.

    A run without k-means of its data and its number of clusters has none beside it.
    """
    floors: dict[tuple[str, int], list[float]] = {}
    for row in rows:
        if row["recipe"] == "k-means":
            floors.setdefault(_place(row), []).append(row["metrics"]["accuracy_majority"])

    def beside(group: Group) -> Cell:
        found = [floors.get(_place(row), []) for row in group.rows]
        return number(mean(map(mean, found)), ".3f") if all(found) else Cell()

    groups = group_rows(papers, [row for row in rows if row["terms"]]).values()
    made = [group for found in groups for group in found if group.rows]
    # One line for a group, also where it is a line of two papers.
    shown = {(group.rows[0]["command"], group.steps): group for group in made}
    measures = (NEGATIVE, PSEUDO, MAJORITY, BEST, NMI)
    columns = {
        m.title: partial(_mean, measure=m)
        for m in measures
        if any(group.values(m) for group in shown.values())
    }
    last = {"k-means, as many clusters": beside, **ORIGIN}
    return build(shown.values(), {"line": line_cell, **columns, **last})


def _mean(group: Group, measure: Measure) -> Cell:
    values = group.values(measure)
    return spread(values, measure.digits) if values else Cell()


def pixel_table(rows: Iterable[Row]) -> Table:
    """Planes of the pixels themselves, scored as those of the models are."""
    scored = [row["embedding"]["pixels"] for row in rows if "pixels" in row.get("embedding", {})]
    planes = [(name, found) for found in scored for name in ("pca", "umap") if name in found]
    columns: dict[str, Callable[[tuple[str, Row]], Cell]] = {
        "plane": lambda plane: Cell(f"{plane[0].upper()} of the pixels"),
        "seed": lambda plane: Cell(str(plane[1]["seed"])),
        "10 nearest neighbours": partial(_score, name="neighbour_accuracy"),
        "trustworthiness": partial(_score, name="trustworthiness"),
    }
    return build(planes, columns)


def _score(plane: tuple[str, Row], name: str) -> Cell:
    return number(plane[1][plane[0]][name], ".3f")


def _place(row: Row) -> tuple[str, int]:
    return row["settings"]["data"], int(row["metrics"]["used_clusters"])
