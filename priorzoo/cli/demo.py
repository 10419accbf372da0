"""``priorzoo demo``: one model, three guides, an open number of clusters, and k-means beside."""

import inspect
import os
from collections.abc import Sequence
from itertools import compress
from textwrap import dedent

from priorzoo.benchmarks.papers import PAPERS
from priorzoo.benchmarks.report.groups import group_rows
from priorzoo.benchmarks.report.page import write_report
from priorzoo.benchmarks.report.paper_tables import paper_tables
from priorzoo.benchmarks.report.table import Table
from priorzoo.benchmarks.rows.files import read_rows
from priorzoo.cli.options import Parser, print_next, require
from priorzoo.inference.construction import locate
from priorzoo.inference.progress import say

PAPER = next(paper for paper in PAPERS if paper.name == "alpaydin1998")
LEFT_OUT = ("steps", "seeds", "budget", "device")


def demo_command(words: Sequence[str]) -> None:
    """Cluster 8 x 8 digits by a model with three guides, an open number of clusters, and k-means.

    usage: priorzoo demo [--OPTION VALUE ...]

      --out DIR                 folder of rows and page [runs/demo]
      --seeds RANGE             such as 0:5 [0]
      --jobs N                  trainings at a time, each on one thread [2]
      --budget quick|standard   length of the trainings; quick takes a few steps [standard]

    Labels serve for the scores alone. The same command goes on where it was stopped.
    """
    settings = Parser("demo", demo_command).parse(words)
    require("jinja2", "matplotlib", "scipy", "sklearn")
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # more would spin beside other work
    from priorzoo.benchmarks.grid import planning, runner
    from priorzoo.benchmarks.grid.shared import ROWS

    out, seeds = settings.out, planning.read_seeds(settings.seeds)
    story = locate(PAPER.recipes["digits-full"].model.class_path).forward
    cells = planning.plan([PAPER.name], seeds, {}, settings.budget)
    print(f"The model of the first three trainings:\n\n{dedent(inspect.getsource(story))}")
    say(f"{len(cells)} clusterings of the digits, {settings.jobs} at a time")
    _, failed = runner.run_grid(cells, out, jobs=int(settings.jobs))
    if failed:
        raise FloatingPointError(f"{failed} of {len(cells)} failed; see {out}/failures.jsonl.")
    (table,) = paper_tables(group_rows([PAPER], read_rows(out / ROWS))[PAPER.name])
    print("\n".join(as_text(table)))
    print(f"\n{PAPER.note}\n\npage: {write_report(out, out / 'site', [PAPER])}", flush=True)
    print_next(
        "priorzoo train digits-full --out runs/digits   # one of them, with charts",
        "priorzoo train digits-full --guide MeanField --help",
        "priorzoo fit FILE.csv                          # your own table",
    )


def as_text(table: Table) -> list[str]:
    """A table in lines of aligned columns, without what is the same in all rows."""
    kept = [name not in LEFT_OUT for name in table.head]
    rows = [[cell.text for cell in compress(row, kept)] for row in table.rows]
    rows.insert(0, list(compress(table.head, kept)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
