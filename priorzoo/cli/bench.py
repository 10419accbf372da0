"""``priorzoo bench`` and ``report``: grids of runs, measurements, and the page of their rows."""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import get_args

from priorzoo.benchmarks.papers import PAPERS
from priorzoo.benchmarks.papers.paper import BUDGETS
from priorzoo.cli.options import Parser, print_next, repeatable
from priorzoo.inference.training.step import Precision


def bench_command(words: Sequence[str]) -> None:
    """Run a grid of trainings, or one of the measurements that have a name."""
    kinds = measurements()
    if words and words[0] in kinds:
        kinds[words[0]](words[1:])
        return
    from priorzoo.benchmarks.grid import planning, runner
    from priorzoo.benchmarks.rows.files import FAILURES
    from priorzoo.benchmarks.runs.run import pick_device

    parser = Parser("bench", "Run recipes, clusterings or whole papers over settings and seeds.")
    parser.add_argument("names", nargs="*", help="recipes, clusterings, papers, or all")
    parser.add_argument("--seeds", metavar="RANGE", help="such as 0:5; 0:1 if quick, else 0:3")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=A,B", help="settings to vary")
    parser.add_argument("--budget", choices=BUDGETS, default="quick", help="length of each run")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes at a time")
    parser.add_argument("--out", metavar="DIR", help="folder; runs/bench-BUDGET if left out")
    parser.add_argument("--data-root", metavar="DIR", help="folder of the data sets")
    parser.add_device()
    settings = parser.parse(words)
    budget = settings.budget
    seeds = planning.read_seeds(settings.seeds or ("0:1" if budget == "quick" else "0:3"))
    cells = planning.plan(settings.names, seeds, planning.read_sets(settings.set), budget)
    pick_device(settings.device)
    out = Path(settings.out or f"runs/bench-{budget}")
    where = {"root": settings.data_root, "device": settings.device}
    shown = sys.stderr.isatty()
    taken, failed = runner.run_grid(cells, out, jobs=settings.jobs, progress=shown, **where)
    done = len(cells) - failed
    print(f"{done} of {len(cells)} cells have a row in {out / runner.ROWS}, {taken} were run")
    if failed:
        raise FloatingPointError(f"{failed} cells failed; see {out / FAILURES}.")
    print_next(f"priorzoo report {out}")


def measurements() -> Mapping[str, Callable[[Sequence[str]], None]]:
    """What ``bench`` measures besides grids, by name: of speed, and what papers add."""
    from priorzoo.benchmarks.speed import runs as whole

    own: dict[str, Callable[[Sequence[str]], None]] = {
        "speed": _speed,
        "speed-runs": whole.main,
        "estimators": _estimators,
    }
    return own | {name: command for paper in PAPERS for name, command in paper.commands.items()}


def report_command(words: Sequence[str]) -> None:
    """Make one page of all rows of a folder beside the published values."""
    from priorzoo.benchmarks.report.page import write_report
    from priorzoo.benchmarks.report.result_tables import update_tables

    parser = Parser("report", "Make a page, Markdown and CSV of rows beside what is published.")
    parser.add_argument("folder", type=Path, help="of rows, such as --out of bench")
    parser.add_argument("--out", type=Path, default="site", metavar="DIR", help="of the page")
    parser.add_argument("--update", type=Path, metavar="FILE", help="Markdown with tables to renew")
    settings = parser.parse(words)
    if settings.update is None:
        print(write_report(settings.folder, settings.out, PAPERS))
    else:
        update_tables(settings.update, settings.folder, PAPERS)
        print(settings.update)


def _speed(words: Sequence[str]) -> None:
    """Time a step beside the same by hand and beside stock Pyro."""
    from priorzoo.benchmarks.report.measured import step_table
    from priorzoo.benchmarks.report.table import to_markdown
    from priorzoo.benchmarks.rows.files import append_row
    from priorzoo.benchmarks.runs.run import pick_device
    from priorzoo.benchmarks.speed import charts, measure

    settings = _speed_parser(measure.SIZES).parse(words)
    device = pick_device(settings.device)
    rows: list[Mapping[str, object]] = []
    print(to_markdown(step_table([])), end="")
    for case in measure.cases(
        settings.recipes, settings.sizes, settings.sweep, settings.precision, settings.clusters
    ):
        limits = {"rounds": settings.rounds, "steps": settings.steps}
        for row in measure.measure(case, device, arms=settings.arms, **limits):
            row = {"command": repeatable(words, "bench speed"), **row}
            print(to_markdown(step_table([row])).splitlines()[-1], flush=True)
            rows.append(row)
            if settings.rows is not None:
                append_row(row, Path(settings.rows))
    if settings.figures is not None:
        for path in charts.draw_speed(rows, Path(settings.figures)):
            print(path)


def _estimators(words: Sequence[str]) -> None:
    """Print the variance of gradient estimators."""
    from priorzoo.benchmarks.report.measured import gradient_table
    from priorzoo.benchmarks.report.table import to_markdown
    from priorzoo.benchmarks.rows.files import append_row
    from priorzoo.benchmarks.speed import estimators

    parser = Parser("bench estimators", "Measure the variance of gradient estimators.")
    parser.add_argument("--draws", type=int, default=100_000, metavar="N", help="of each estimator")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the draws")
    parser.add_argument("--rows", metavar="FILE", help="file of rows to append to")
    settings = parser.parse(words)
    rows = estimators.measure(settings.draws, settings.seed)
    print(to_markdown(gradient_table(rows)), end="")
    for row in rows if settings.rows else ():
        append_row(row, Path(settings.rows))


def _speed_parser(sizes: Mapping[str, object]) -> Parser:
    parser = Parser("bench speed", "Time a training step on synthetic pictures of 28 x 28.")
    for name, default, told in (
        ("--recipes", ["vae", "gmvae"], ""),
        ("--sizes", list(sizes), ", ".join(sizes)),
        ("--arms", None, "what to time; all if left out"),
    ):
        parser.add_argument(name, type=_names, default=default, metavar="A,B", help=told)
    parser.add_argument("--sweep", action="store_true", help="vary K, batch and code of --recipes")
    parser.add_argument("--clusters", type=int, metavar="K", help="of one mixture")
    parser.add_argument("--precision", choices=get_args(Precision), default="float32")
    parser.add_argument("--rounds", type=int, default=15, metavar="N", help="of all arms by turns")
    parser.add_argument("--steps", type=int, default=10, metavar="N", help="of each arm in a round")
    parser.add_argument("--rows", metavar="FILE", help="file of rows to append to")
    parser.add_argument("--figures", metavar="DIR", help="folder for charts")
    parser.add_device()
    return parser


def _names(text: str) -> list[str]:
    """``a,b`` or ``[a,b]`` as a list."""
    return [word.strip(" '\"") for word in text.strip("[]").split(",")]
