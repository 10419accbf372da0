"""The command line: ``priorzoo list``, ``train``, ``evaluate``, ``plot``, ``sample``, ``bench``
and ``report``."""

import inspect
import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentParser

from priorzoo import guides, models
from priorzoo.benchmarks.charts import run_charts as plots
from priorzoo.benchmarks.data import sets as data
from priorzoo.benchmarks.grid import cells, planning
from priorzoo.benchmarks.grid import runner as grid
from priorzoo.benchmarks.papers.paper import Budget
from priorzoo.benchmarks.papers.published import PAPERS
from priorzoo.benchmarks.recipes.building import fits
from priorzoo.benchmarks.recipes.recipe import RECIPES
from priorzoo.benchmarks.report.page import write_report
from priorzoo.benchmarks.rows.files import append_row
from priorzoo.benchmarks.runs import run as runs
from priorzoo.benchmarks.speed import estimators
from priorzoo.benchmarks.speed import measure as speed
from priorzoo.benchmarks.speed import report as speed_report
from priorzoo.cli.options import (
    add_recipe,
    new_parser,
    parse,
    read_recipe,
    unknown_name,
)
from priorzoo.inference import Stream, draw
from priorzoo.inference.training.step import Precision

USAGE = """priorzoo: variational autoencoders with structured priors

  priorzoo list [models|guides|recipes|data] [--model RECIPE]
  priorzoo train RECIPE [--data NAME|FILE.npz] [--steps N] [--seed N] [--out DIR] ...
  priorzoo evaluate RUN [--data NAME|FILE.npz] [--importance-samples S] [--json]
  priorzoo plot RUN
  priorzoo sample RUN [--cluster K] [--n N] [--out FILE.png]
  priorzoo bench RECIPE|PAPER|all ... [--budget quick] [--seeds 0:5] [--set KEY=A,B] [--jobs N]
  priorzoo bench speed [--recipes NAMES] [--sweep] [--rows FILE] [--figures DIR]
  priorzoo bench estimators [--draws N] [--rows FILE]
  priorzoo report DIR [--out site]

priorzoo COMMAND --help tells more; priorzoo train RECIPE --help names every setting of a recipe."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns 0 if all went well, 1 for a failure, 2 for bad input."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # where a model of one's own is, named by its import path
    try:
        if words[0] not in COMMANDS:
            raise ValueError(unknown_name("command", words[0], COMMANDS))
        COMMANDS[words[0]](words[1:])
    except (ValueError, OSError) as error:
        print(f"priorzoo {words[0]}: error: {error}", file=sys.stderr)
        return 2
    except FloatingPointError as error:
        print(f"priorzoo {words[0]}: failed: {error}", file=sys.stderr)
        return 1
    return 0


def list_catalogue(words: Sequence[str]) -> None:
    """Print what there is, one line each."""
    shelves: dict[str, Callable[[], Mapping[str, str]]] = {
        "models": lambda: _modules(models),
        "guides": lambda: _guides(settings.model),
        "recipes": lambda: {name: recipe.summary for name, recipe in RECIPES.items()},
        "data": lambda: {name: source.summary for name, source in data.CATALOGUE.items()},
    }
    parser = new_parser("list", "Print what there is.")
    parser.add_argument("what", nargs="?", type=str | None, help=", ".join(shelves))
    parser.add_argument(
        "--model", type=str | None, help="only the guides that fit the model of this recipe"
    )
    settings = parse(parser, words)
    what = settings.what
    if what is not None and what not in shelves:
        raise ValueError(unknown_name("list", what, shelves))
    for name in shelves if what is None else [what]:
        print(name if what is None else "", end="\n" if what is None else "")
        print_table(shelves[name](), indent=2 if what is None else 0)


def train(words: Sequence[str]) -> None:
    """Train a recipe, and write its run folder and figures."""
    if not words or words[0].startswith("-"):
        if words and words[0] in ("-h", "--help"):
            print(
                "usage: priorzoo train RECIPE [--KEY VALUE ...]; priorzoo list recipes names them"
            )
            return
        raise ValueError("Expected a recipe first; priorzoo list recipes names them.")
    name = words[0]
    if name not in RECIPES:
        raise ValueError(unknown_name("recipe", name, RECIPES))
    parser = new_parser("train", RECIPES[name].summary)
    parser.add_argument("--config", action="config", help="settings from a YAML file")
    parser.add_argument("--data-root", type=str | None, help="folder of the data sets")
    parser.add_argument("--download", action="store_true", help="fetch the data if it is missing")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is random")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu or cuda")
    parser.add_argument("--out", type=str | None, help="run folder; runs/RECIPE-seedN by default")
    parser.add_argument("--overwrite", action="store_true", help="replace a run in that folder")
    parser.add_argument("--resume", action="store_true", help="go on where a run was interrupted")
    parser.add_argument("--rows", type=str | None, help="file of rows to append the result to")
    add_recipe(parser, RECIPES[name])
    settings = parse(parser, words[1:])
    folder = Path(settings.out or f"runs/{name}-seed{settings.seed}")
    run, rows = runs.train(
        name,
        read_recipe(RECIPES[name], settings),
        folder,
        seed=settings.seed,
        device=settings.device,
        data_root=settings.data_root,
        download=settings.download,
        overwrite=settings.overwrite,
        resume=settings.resume,
        progress=sys.stderr.isatty(),
        command=repeatable(words),
    )
    if settings.rows is not None:
        append_row(cells.trained(run.result), Path(settings.rows))
    print_scores(run.result)
    print_warning(run.result)
    print("figures", flush=True)
    for path in plots.draw_run(run, rows):
        print(f"  {path}")


def evaluate(words: Sequence[str]) -> None:
    """Score a run on the test rows of its own data set or of another."""
    parser = _run_parser("evaluate", "Score a run on test data.")
    parser.add_argument(
        "--importance-samples", type=int, default=0, help="S of the bound on log p(x)"
    )
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    settings = parse(parser, words)
    run, rows = _open(settings)
    result = runs.score(run, rows, settings.importance_samples)
    if settings.json:
        print(json.dumps(result))
    else:
        print_scores(result)
    print_warning(result)


def plot(words: Sequence[str]) -> None:
    """Draw every figure that fits the model."""
    parser = _run_parser("plot", "Draw every figure that fits the model, as PNG.")
    for path in plots.draw_run(*_open(parse(parser, words))):
        print(path)


def sample(words: Sequence[str]) -> None:
    """Draw rows from the prior, all or of one cluster, as a picture or as an array."""
    parser = new_parser("sample", "Draw rows from the prior.")
    parser.add_argument("run", type=str, help="run folder")
    parser.add_argument("--cluster", type=int | None, help="hold the cluster; all by default")
    parser.add_argument(
        "--given", type=dict[str, int] | None, help='sites to hold, such as {"r_1": 0, "r_2": 3}'
    )
    parser.add_argument("--n", type=int, default=100, help="number of rows")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu or cuda")
    parser.add_argument("--out", type=str | None, help=".png, or .npz for numbers; RUN/samples.png")
    settings = parse(parser, words)
    if settings.n < 1:
        raise ValueError(f"Expected --n of at least 1 but got {settings.n}.")
    run = runs.open_run(Path(settings.run), settings.device)
    with Stream(settings.seed, run.device):
        given = {} if settings.cluster is None else {run.site: settings.cluster}
        rows = draw(run.story, settings.n, given=given | (settings.given or {})).cpu()
    print(plots.write_rows(rows, run.shape, Path(settings.out or run.folder / "samples.png")))


def bench(words: Sequence[str]) -> None:
    """Measure: a grid of trainings, or the speed of a step, or the variance of gradients."""
    kinds: Mapping[str, Callable[[Sequence[str]], None]]
    kinds = {"speed": bench_speed, "estimators": estimators.main}
    if words and words[0] in kinds:
        kinds[words[0]](words[1:])
        return
    parser = new_parser("bench", "Run recipes, baselines or whole papers over settings and seeds.")
    parser.add_argument("names", nargs="*", type=str, help="recipes, baselines, papers, or all")
    parser.add_argument("--seeds", type=str | None, help="such as 0:5; 0:1 if quick, else 0:3")
    parser.add_argument("--set", nargs="+", type=str, default=[], help="key=a,b to override")
    parser.add_argument("--budget", type=Budget, default="quick", help="how long each cell is")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--out", type=str | None, help="folder; runs/bench-BUDGET by default")
    parser.add_argument("--data-root", type=str | None, help="folder of the data sets")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu or cuda")
    settings = parse(parser, words)
    budget = settings.budget
    seeds = planning.read_seeds(settings.seeds or ("0:1" if budget == "quick" else "0:3"))
    grid_cells = planning.plan(settings.names, seeds, planning.read_sets(settings.set), budget)
    runs.pick_device(settings.device)
    out = Path(settings.out or f"runs/bench-{budget}")
    taken, failed = grid.run_grid(
        grid_cells,
        out,
        jobs=settings.jobs,
        root=settings.data_root,
        device=settings.device,
        progress=sys.stderr.isatty(),
    )
    done = len(grid_cells) - failed
    print(f"{done} of {len(grid_cells)} cells have a row in {out / grid.ROWS}, {taken} were run")
    if failed:
        raise FloatingPointError(f"{failed} cells failed; see {out / grid.FAILURES}.")


def bench_speed(words: Sequence[str]) -> None:
    """Time a step beside the same by hand and beside stock Pyro."""
    parser = new_parser("bench speed", "Time a training step on synthetic pictures of 28 x 28.")
    parser.add_argument("--recipes", type=list[str], default=["vae", "gmvae"])
    parser.add_argument("--sizes", type=list[str], default=list(speed.SIZES))
    parser.add_argument("--arms", type=list[str] | None, help="what to time; all by default")
    parser.add_argument("--sweep", action="store_true", help="vary K, batch and code of --recipes")
    parser.add_argument("--clusters", type=int | None, help="K of one mixture; else the recipe's")
    parser.add_argument("--precision", type=Precision, default="float32")
    parser.add_argument("--rounds", type=int, default=15, help="of all arms by turns")
    parser.add_argument("--steps", type=int, default=10, help="of each arm in a round")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu or cuda")
    parser.add_argument("--rows", type=str | None, help="file of rows to append to")
    parser.add_argument("--figures", type=str | None, help="folder for figures")
    settings = parse(parser, words)
    device = runs.pick_device(settings.device)
    rows: list[Mapping[str, Any]] = []
    print(speed_report.HEAD, end="")
    sizes = settings.sizes, settings.sweep, settings.precision, settings.clusters
    for case in speed.cases(settings.recipes, *sizes):
        limits = {"rounds": settings.rounds, "steps": settings.steps, "arms": settings.arms}
        for row in speed.measure(case, device, **limits):
            row = {"command": repeatable(words, "bench speed"), **row}
            print(speed_report.speed_table([row]).removeprefix(speed_report.HEAD), end="")
            sys.stdout.flush()
            rows.append(row)
            if settings.rows is not None:
                append_row(row, Path(settings.rows))
    if settings.figures is not None:
        for path in speed_report.draw_speed(rows, Path(settings.figures)):
            print(path)


def report(words: Sequence[str]) -> None:
    """Make one page of all rows of a folder beside the published figures."""
    parser = new_parser("report", "Make a page, Markdown and CSV of rows beside what is published.")
    parser.add_argument("folder", type=str, help="of rows, such as --out of bench")
    parser.add_argument("--out", type=str, default="site", help="folder of the page")
    settings = parse(parser, words)
    print(write_report(Path(settings.folder), Path(settings.out), PAPERS))


PLACES = ("--seed", "--out", "--rows", "--figures", "--data-root", "--device")

COMMANDS: Mapping[str, Callable[[Sequence[str]], None]] = {
    "list": list_catalogue,
    "train": train,
    "evaluate": evaluate,
    "plot": plot,
    "sample": sample,
    "bench": bench,
    "report": report,
}


def repeatable(words: Sequence[str], command: str = "train") -> str:
    """The command that makes the same again under any seed: without what names seed and places.

    >>> repeatable(["m2", "--seed", "3", "--steps", "9", "--overwrite", "--out=a"])
    'priorzoo train m2 --steps 9'
    """
    kept, rest = [], list(words)
    while rest:
        word = rest.pop(0)
        if word.split("=")[0] in PLACES:
            if "=" not in word:
                rest.pop(0)
        elif word not in ("--overwrite", "--resume", "--download"):
            kept.append(word)
    return shlex.join(["priorzoo", *command.split(), *kept])


def print_scores(result: Mapping[str, Any]) -> None:
    """Terms and metrics, one a line, with their units."""
    print("held-out terms, nats per datum")
    terms = result["terms"]
    print_table(
        {name: f"{terms[name]:10.3f}" for name in sorted(terms, key="elbo".__ne__)}, indent=2
    )
    if result["metrics"]:
        print("clusters of the held-out rows")
        print_table({k: f"{v:10.3f}" for k, v in result["metrics"].items()}, indent=2)


def print_warning(result: Mapping[str, Any]) -> None:
    """What is wrong with the clusters, if anything, where errors go."""
    if result.get("warning"):
        print(f"warning: {result['warning']}", file=sys.stderr)


def print_table(rows: Mapping[str, str], indent: int = 0) -> None:
    """Two aligned columns."""
    width = max(map(len, rows), default=0)
    for name, text in rows.items():
        print(f"{' ' * indent}{name:<{width}}  {text}")


def _guides(recipe: str | None) -> dict[str, str]:
    """All guides, or those that fit the model of a recipe."""
    lines = _modules(guides)
    if recipe is None:
        return lines
    if recipe not in RECIPES:
        raise ValueError(unknown_name("recipe", recipe, RECIPES))
    return {
        name: line for name, line in lines.items() if fits(RECIPES[recipe], getattr(guides, name))
    }


def _modules(floor: Any) -> dict[str, str]:
    """Classes of a floor's catalogue with the first line of their documentation."""
    kinds = {name: getattr(floor, name) for name in floor.__all__}
    return {
        name: _readable((inspect.getdoc(kind) or "").splitlines()[0])
        for name, kind in kinds.items()
        if isinstance(kind, type) and issubclass(kind, torch.nn.Module)
    }


def _readable(line: str) -> str:
    """A line of documentation without its markup.

    >>> _readable(r":math:`q(z \\mid x)\\, q(\\mu_{ik})`, for :class:`GMVAE`.")
    'q(z | x) q(mu_ik), for GMVAE.'
    """
    line = line.replace("\\mid", "|").replace("\\,", "").replace("\\mathcal ", "")
    return re.sub(r":\w+:|[`\\{}]", "", line)


def _run_parser(command: str, description: str) -> ArgumentParser:
    parser = new_parser(command, description)
    parser.add_argument("run", type=str, help="run folder")
    parser.add_argument("--data", type=str | None, help="another data set than the run's own")
    parser.add_argument("--data-root", type=str | None, help="folder of the data sets")
    parser.add_argument("--download", action="store_true", help="fetch the data if it is missing")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu or cuda")
    return parser


def _open(settings: Any) -> tuple[runs.Run, data.Dataset]:
    run = runs.open_run(Path(settings.run), settings.device)
    chosen = dict(run.settings)
    if settings.data is not None:
        chosen |= {"data": settings.data, "train": None, "validation": 0}
    rows = runs.read_data(
        chosen, settings.data_root, seed=run.result["seed"], download=settings.download
    )
    return run, rows


if __name__ == "__main__":
    sys.exit(main())
