"""``priorzoo bench`` and ``report``: grids of runs, measurements, and the page of their rows."""

from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from priorzoo.benchmarks.grid.on_ray import Ray
from priorzoo.benchmarks.grid.places import Pool
from priorzoo.benchmarks.grid.processes import Processes
from priorzoo.benchmarks.papers import PAPERS
from priorzoo.benchmarks.report.table import build, to_markdown
from priorzoo.benchmarks.rows.files import FAILURES, append_row
from priorzoo.benchmarks.runs.machine import pick_device
from priorzoo.cli.options import Parser, print_next, quoted, repeatable, require

Measurements = dict[str, Callable[[Namespace], None]]


def bench_command(words: Sequence[str]) -> None:
    """Run recipes, clusterings or whole papers over settings and seeds.

    usage: priorzoo bench NAME ... [--OPTION VALUE ...]

      NAMES ...                        recipes, clusterings, papers, or all
      --seeds RANGE                    such as 0:5; 0:1 if quick, else 0:3
      --set KEY=A,B ...                settings to vary
      --budget quick|standard|paper    length of each run [quick]
      --importance-samples N           of the bound on log p(x), in place of the paper's
      --runner local|ray               processes of this machine, or tasks of Ray [local]
      --jobs N                         cells at a time; 1 if left out, on Ray as many as fit
      --address NAME                   of a Ray cluster, or auto; this machine alone if left out
      --cpus N                         for each cell on Ray [1]
      --gpus M                         the same; 1 with --device cuda, else 0
      --shard I/N                      only cells I, I + N, I + 2 N, ..., counted from 1
      --out DIR                        folder; runs/bench-BUDGET if left out
      --data-root DIR                  folder of the data sets
      --device NAME                    auto, cpu, cuda or mps [auto]

    bench speed, speed-kernels, speed-runs, speed-moves, speed-files, speed-processes, speed-bound,
    speed-start, serving, tables, counts, estimators, precision, infogan, embedding and planar are
    measurements with options of their own.
    """
    kinds = measurements()
    if words and words[0] in kinds:
        name, measure = f"bench {words[0]}", kinds[words[0]]
        settings = Parser(name, measure).parse(words[1:])
        settings.command = repeatable(words[1:], name)
        measure(settings)
        return
    from priorzoo.benchmarks.grid import planning, runner
    from priorzoo.benchmarks.grid.clusterings import NEEDS
    from priorzoo.benchmarks.grid.shared import ROWS

    settings = Parser("bench", bench_command).parse(words)
    budget = settings.budget
    seeds = planning.read_seeds(settings.seeds or ("0:1" if budget == "quick" else "0:3"))
    sets, samples = planning.read_sets(settings.set or []), settings.importance_samples
    cells = planning.plan(settings.names, seeds, sets, budget, importance=samples)
    require(*{NEEDS[cell.recipe] for cell in cells if cell.recipe in NEEDS})
    if settings.shard is not None:
        cells = planning.share(cells, *planning.read_shard(settings.shard))
    pool = _pool(settings)
    out = Path(settings.out or f"runs/bench-{budget}")
    how = {"root": settings.data_root, "device": settings.device, "progress": True}
    try:
        taken, failed = runner.run_grid(cells, out, jobs=settings.jobs, pool=pool, **how)
    except KeyboardInterrupt as error:
        advice = "the same command goes on with the cells that are left"
        raise KeyboardInterrupt(*error.args[:1], advice) from error
    done = len(cells) - failed
    print(f"{done} of {len(cells)} cells have a row in {out / ROWS}, {taken} were run")
    if failed:
        raise FloatingPointError(f"{failed} cells failed; see {out / FAILURES}.")
    print_next(f"priorzoo report {quoted(out)}")


def _pool(settings: Namespace) -> Pool:
    """What starts the workers of a grid, checked before anything is written."""
    if settings.runner == "ray":
        require("ray")
        gpus = float(settings.device == "cuda") if settings.gpus is None else settings.gpus
        return Ray(settings.address, settings.cpus, gpus)
    for name, default in (("address", None), ("cpus", 1), ("gpus", None)):
        if getattr(settings, name) != default:
            raise ValueError(
                f"Expected --{name} with --runner ray alone; add that, or leave it out."
            )
    pick_device(settings.device)
    return Processes()


def measurements() -> Measurements:
    """What ``bench`` measures besides grids, by name: of speed, and what papers add."""
    from priorzoo.benchmarks.gan.command import measure_infogan
    from priorzoo.benchmarks.speed.bound import measure_bound
    from priorzoo.benchmarks.speed.files import measure_files
    from priorzoo.benchmarks.speed.kernels import measure_kernels
    from priorzoo.benchmarks.speed.moves import measure_moves
    from priorzoo.benchmarks.speed.processes import measure_processes
    from priorzoo.benchmarks.speed.runs import measure_runs
    from priorzoo.benchmarks.speed.start import measure_start
    from priorzoo.benchmarks.tables.counts import measure_counts

    own: Measurements = {"speed": _speed, "speed-runs": measure_runs, "speed-moves": measure_moves}
    own |= {"speed-files": measure_files, "speed-kernels": measure_kernels, "serving": _serving}
    own |= {"speed-processes": measure_processes}
    own |= {"speed-bound": measure_bound, "speed-start": measure_start}
    own |= {"tables": _tables, "counts": measure_counts, "infogan": measure_infogan}
    own |= {"estimators": _estimators, "precision": _precision}
    return own | {name: command for paper in PAPERS for name, command in paper.commands.items()}


def report_command(words: Sequence[str]) -> None:
    """Make a page, Markdown and CSV of the rows of folders beside the published values.

    usage: priorzoo report FOLDER ... [--OPTION VALUE ...]

      FOLDER ...     of rows, such as --out of bench; several for the shards of a grid
      --out DIR      folder of the page [site]
      --update FILE  rewrite the tables of this Markdown file from one folder, and make no page
    """
    from priorzoo.benchmarks.report.page import write_report
    from priorzoo.benchmarks.report.result_tables import update_tables

    settings = Parser("report", report_command).parse(words)
    if not settings.folder:
        raise ValueError("Expected at least one folder of rows, such as --out of bench; name it.")
    if settings.update is None:
        print(write_report(settings.folder, Path(settings.out), PAPERS))
    elif len(settings.folder) > 1:
        named = ", ".join(map(str, settings.folder))
        raise ValueError(f"Expected one folder for --update but got {named}; name the one above.")
    else:
        update_tables(settings.update, settings.folder[0], PAPERS)
        print(settings.update)


def _speed(settings: Namespace) -> None:
    """Time a training step on synthetic images of 28 x 28, beside that of other libraries.

    usage: priorzoo bench speed [--OPTION VALUE ...]

      --recipes A,B             [vae,gmvae]
      --sizes A,B               of the networks; all if left out
      --arms A,B                what to time; all if left out
      --base ARM                whose ratio is 1; the hand-written one if left out
      --sweep                   vary K, batch and code of --recipes
      --quick                   leave out every second size of a sweep
      --clusters K              of one mixture
      --precision float32|bf16  of the networks [float32]
      --rounds N                in each of which every arm runs [15]
      --steps N                 of each arm in a round [10]
      --rows FILE               file of rows to append to
      --figures DIR             folder for charts
      --device NAME             auto, cpu, cuda or mps [auto]
    """
    from priorzoo.benchmarks.report.measured import step_table
    from priorzoo.benchmarks.speed import charts, measure

    device = pick_device(settings.device)
    rows: list[Mapping[str, object]] = []
    print(to_markdown(step_table([])), end="")
    sizes = list(measure.SIZES) if settings.sizes is None else settings.sizes
    how = settings.sweep, settings.precision, settings.clusters, settings.quick
    limits = {"rounds": settings.rounds, "steps": settings.steps, "base": settings.base}
    for case in measure.cases(settings.recipes, sizes, *how):
        for row in measure.measure(case, device, arms=settings.arms, **limits):
            row = {"command": settings.command, **row}
            print(to_markdown(step_table([row])).splitlines()[-1], flush=True)
            rows.append(row)
            if settings.rows is not None:
                append_row(row, settings.rows)
    if settings.figures is not None:
        for path in charts.draw_speed(rows, Path(settings.figures)):
            print(path)


def _estimators(settings: Namespace) -> None:
    """Print the variance of gradient estimators.

    usage: priorzoo bench estimators [--OPTION VALUE ...]

      --draws N    of each estimator [100000]
      --seed N     of the draws [0]
      --rows FILE  file of rows to append to
    """
    from priorzoo.benchmarks.report.measured import GRADIENT
    from priorzoo.benchmarks.speed import estimators

    rows = estimators.measure(settings.draws, settings.seed)
    print(to_markdown(build(rows, GRADIENT)), end="")
    for row in rows if settings.rows else ():
        append_row(row, settings.rows)


def _precision(settings: Namespace) -> None:
    """Print the errors of estimators and closed forms in both precisions, for a range of shapes.

    usage: priorzoo bench precision [--OPTION VALUE ...]

      --draws N     of each estimator [100000]
      --shapes A,B  ten from 0.001 to 100,000 if left out
      --seed N      of the draws [0]
      --rows FILE   file of rows to append to
    """
    from priorzoo.benchmarks.report.measured import PRECISIONS, precision_table
    from priorzoo.benchmarks.speed import precision

    shapes = [float(shape) for shape in settings.shapes or precision.SHAPES]
    rows = precision.measure(settings.draws, settings.seed, shapes, settings.command)
    for name in PRECISIONS:
        print(to_markdown(precision_table(rows, name)))
    for row in rows if settings.rows else ():
        append_row(row, settings.rows)


def _serving(settings: Namespace) -> None:
    """Time predictions of one row on one thread, by the programs and by a recorded graph.

    usage: priorzoo bench serving [--OPTION VALUE ...]

      --recipes A,B    on the embedded digits [digits-gmvae,digits-vade]
      --calls N        of each [1000]
      --rows FILE      file of rows to append to
    """
    import torch

    from priorzoo.benchmarks.report.measured import serving_table
    from priorzoo.benchmarks.speed.serving import measure

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows = [
            {"command": settings.command, **row}
            for name in settings.recipes
            for row in measure(name, settings.calls)
        ]
    finally:
        torch.set_num_threads(threads)
    print(to_markdown(serving_table(rows)))
    for row in rows if settings.rows else ():
        append_row(row, settings.rows)


def _tables(settings: Namespace) -> None:
    """Cluster tables with missing cells by priorzoo.Clusterer and by methods of other libraries.

    usage: priorzoo bench tables [--OPTION VALUE ...]

      --tables A,B      such as wine,penguins; all eight if left out
      --missing A,B     shares of the cells that are removed at random [0,0.2,0.5]
      --seeds RANGE     of split, removal and methods [0:5]
      --rows FILE       file of rows to append to; seeds that it has are left out
      --data-root DIR   folder of the data sets
    """
    from priorzoo.benchmarks.data.sets import data_root
    from priorzoo.benchmarks.grid.planning import read_seeds
    from priorzoo.benchmarks.report.clustered import clustering_tables
    from priorzoo.benchmarks.rows.files import read_rows
    from priorzoo.comparisons.comparing import compare
    from priorzoo.comparisons.tables import TABLES

    kept = settings.rows is not None and Path(settings.rows).exists()
    before = list(read_rows(Path(settings.rows))) if kept else []
    names = settings.tables or list(TABLES)
    if unknown := [name for name in names if name not in TABLES]:
        raise ValueError(f"Expected tables among {', '.join(TABLES)} but got {unknown[0]!r}.")
    shares = [float(share) for share in settings.missing]
    found = []
    for row in compare(
        names, shares, read_seeds(settings.seeds), data_root(settings.data_root), before
    ):
        row = {"command": settings.command, **row}
        print(
            f"{row['table']:<10} {row['missing']:<4} {row['seed']:<2} {row['method']:<42} "
            f"{row['ari']:.3f} {'' if row['nats'] is None else format(row['nats'], '.2f')}",
            flush=True,
        )
        found.append(row)
        if settings.rows is not None:
            append_row(row, settings.rows)
    for table in clustering_tables([*before, *found]):
        print(to_markdown(table))
