"""``priorzoo train``: train a recipe, and write its run folder and charts."""

import argparse
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from priorzoo.benchmarks.papers import RECIPES
from priorzoo.benchmarks.recipes.changes import apply, differences, import_paths
from priorzoo.benchmarks.recipes.parts import unknown_name
from priorzoo.benchmarks.recipes.recipe import Recipe
from priorzoo.benchmarks.rows.files import Row, append_row
from priorzoo.benchmarks.scores.run import Run
from priorzoo.cli.options import Parser, print_next, quoted, repeatable, require, trusting
from priorzoo.cli.scores import print_scores, print_warning
from priorzoo.cli.settings import WIDTH, as_yaml, read_file, read_words, settings_help
from priorzoo.inference.saving import configuration
from priorzoo.inference.trust import check_trusted, homes

HOW = ("seed", "device", "data_root", "download", "overwrite", "resume")
KEEPING = ("checkpoints", "checkpoint_minutes")
LONGEST = 60  # characters of a run folder's name that say what differs from the recipe


def train_command(words: Sequence[str]) -> None:
    """Train a recipe, and write its run folder and charts.

    usage: priorzoo train RECIPE [--OPTION VALUE ...]

      -h, --help        show the options people use
      --help-all        show all settings, with types
      --config FILE     settings from a YAML file
      --trust MODULE    import what that file names from this module of yours, which runs its code
      --print-config    print the settings as YAML
      --seed N          of all random numbers, any whole number modulo 2**32 [0]
      --out DIR         run folder; runs/RECIPE-...-seedN if left out
      --overwrite       replace a run in that folder
      --resume          continue an interrupted run, or repeat the scores of a finished one
      --checkpoint-minutes M  how often a checkpoint is saved at least [10]
      --checkpoints N   how many of the last are kept [2]
      --rows FILE       rows to append the result to
      --data-root DIR   folder of the data sets
      --download        fetch missing data
      --device NAME     auto, cpu, cuda or mps [auto]

    priorzoo list recipes shows the recipes, and priorzoo train RECIPE --help the settings of one.
    """
    parser = Parser("train", train_command)
    if words and words[0] in ("-h", "--help", "--help-all"):
        parser.print_help()
        return
    name = words[0] if words else "-"
    if name.startswith("-"):
        raise ValueError("Expected a recipe first; priorzoo list recipes names them.")
    if name not in RECIPES:
        raise ValueError(unknown_name("recipe", name, RECIPES))
    settings, recipe = _read(parser, RECIPES[name], words[1:])
    if settings.help or settings.help_all:
        print(parser.text, f"\nsettings of {name}: {recipe.summary}"[:WIDTH], sep="\n")
        print(settings_help(recipe, settings.help_all))
        print("" if settings.help_all else "\n--help-all shows all settings, with types.")
    elif settings.print_config:
        print(as_yaml(recipe), end="")
        raise SystemExit(0)
    else:
        _train(name, recipe, settings, words)


def _read(parser: Parser, base: Recipe, words: Sequence[str]) -> tuple[argparse.Namespace, Recipe]:
    """The command's own options, and the recipe with what a file and the words change."""
    settings, rest = parser.known(words)
    given = read_words(rest, parser.options)
    if settings.config is not None:
        kept = read_file(settings.config)
        named = [path.rpartition(".")[0] for path in import_paths(given)]  # by who types them
        check_trusted(
            [{"class_path": path} for path in import_paths(kept)],
            settings.config,
            ["torch.optim", *named, *(settings.trust or ())],
        )
        own = {key: kept.pop(key) for key in vars(settings) if key in kept}
        numbers = {k: str(v) for k, v in own.items() if type(v) in (int, float)}  # checked as words
        parser.set_defaults(**own | numbers)
        settings, _ = parser.known(words)
        units = {"steps", "epochs"}
        replaced = given.keys() | (units if units & given.keys() else set())
        given = {key: value for key, value in kept.items() if key not in replaced} | given
    return settings, apply(base, given)


def _train(name: str, recipe: Recipe, settings: argparse.Namespace, words: Sequence[str]) -> None:
    require("matplotlib", "scipy", "sklearn")  # for scores and charts, once the run is trained
    from priorzoo.benchmarks.charts import run_charts as charts
    from priorzoo.benchmarks.runs import run as runs
    from priorzoo.inference.processes import joined

    changes, command = differences(RECIPES[name], recipe), repeatable(words)
    how = {key: getattr(settings, key) for key in (*HOW, *KEEPING)}
    places = how["resume"], how["overwrite"]
    folder = Path(settings.out or run_folder(name, changes, settings.seed, *places))
    with resumable(words, folder), joined() as processes:
        how["progress"] = processes.is_first
        run, dataset = runs.train(name, recipe, folder, command=command, processes=processes, **how)
    if not processes.is_first:
        return
    tell_result(name, changes, run, settings.rows)
    print("charts", flush=True)
    for path in charts.draw_run(run, dataset):
        print(f"  {path}")
    trust = trusting(homes(configuration(run.model, run.guide)))
    print_next(
        f"priorzoo evaluate {quoted(folder)}{trust}", f"priorzoo sample {quoted(folder)}{trust}"
    )


def tell_result(name: str, changes: Mapping[str, object], run: Run, file: Path | None) -> None:
    """Print the scores of a finished run, and append its row to a file of rows if there is one.

    Args:
        name, changes: of the recipe, and what was changed in it.
        run: the run.
        file: of rows.
    """
    if file is not None:
        from priorzoo.benchmarks.grid.cells import Cell

        more: Row = {"peak_mib": None, "history": None, "figures": []}
        append_row({**more, **run.row, **Cell(name, changes=changes).origin()}, file)
    print_scores(run.result)
    print_warning(run.result)


@contextmanager
def resumable(words: Sequence[str], folder: Path, command: str = "train") -> Iterator[None]:
    """Name the command that goes on where a run was interrupted, or where the disk was full."""
    kept = [word for word in words if word not in ("--overwrite", "--resume")]
    out = [] if any(word.partition("=")[0] == "--out" for word in words) else ["--out", str(folder)]
    again = shlex.join(["priorzoo", command, *kept, *out, "--resume"])
    try:
        yield
    except KeyboardInterrupt as error:
        there = (folder / "checkpoint.safetensors").is_file()
        advice = f"go on with: {again}" if there else "nothing had been kept; start it again"
        raise KeyboardInterrupt(*error.args[:1], advice) from error
    except FloatingPointError as error:
        if not (folder / "checkpoint.safetensors").is_file():
            raise
        more = "with a lower --optimiser.lr, with --clip or with --on-nonfinite"
        raise FloatingPointError(f"{error} Go on {more}: {again}") from error
    except (BlockingIOError, FileExistsError, FileNotFoundError):
        raise
    except OSError as error:
        if not (folder / "checkpoint.safetensors").is_file():
            raise
        raise OSError(f"{error} What was kept is whole; then go on with: {again}") from error


def run_folder(
    name: str, changes: Mapping[str, object], seed: int, resume: bool, overwrite: bool
) -> Path:
    """Where a run goes if no folder is given: ``runs/gmvae-clusters16-seed0``.

    A number is added where there is such a run already, as there may be others of the same name.
    To resume, it is the first that was interrupted.
    """
    words = [f"{key.rpartition('.')[2]}{_in_a_name(value)}" for key, value in changes.items()]
    said = "-".join([name, *words])
    if len(said) > len(name) + LONGEST:
        said = f"{said[: len(name) + LONGEST]}-and-more"
    first = Path("runs") / f"{said}-seed{seed}"
    number, folder = 1, first
    while folder.exists() and any(folder.iterdir()) and not overwrite:
        if resume and (folder / "checkpoint.safetensors").is_file():
            return folder
        number += 1
        folder = first.with_name(f"{first.name}-{number}")
    return first if resume else folder


def _in_a_name(value: object) -> str:
    if isinstance(value, Mapping) and "class_path" in value:
        value = value["class_path"].rpartition(".")[2]
    named = re.fullmatch(r"[\w.]+\.([A-Z]\w*)", str(value))  # a class by its import path
    text = named[1] if named else Path(value).stem if isinstance(value, str) else str(value)
    return re.sub(r"[^\w.]+", "-", text).strip("-")
