"""``priorzoo fit``: train on a table, a file of counts or a folder of images of the user's own."""

import argparse
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from priorzoo.benchmarks.data.tables import load_table, read
from priorzoo.benchmarks.recipes.changes import apply
from priorzoo.benchmarks.recipes.recipe import Recipe
from priorzoo.benchmarks.runs import run as runs
from priorzoo.benchmarks.runs.reading import SPLIT
from priorzoo.benchmarks.tables.choosing import base_of, chosen, model_for, recipe_for
from priorzoo.cli.options import Parser, print_next, print_table, quoted, repeatable, require
from priorzoo.cli.settings import read_words
from priorzoo.cli.train import HOW, KEEPING, resumable, tell_result
from priorzoo.inference.data.tables.schema import Table

SMALL = 2**16  # units of a layer in all rows of a batch, for which one thread is enough
READING = ("columns", "scaling", "layer", "size", "mode")


def fit_command(words: Sequence[str]) -> None:
    """Train on your own data: types of columns, likelihood, sizes and length are chosen for it.

    usage: priorzoo fit FILE [--OPTION VALUE ...]

      FILE              .csv, .tsv, .parquet, .npz, .npy, .h5ad, or a folder of images
      --model NAME      nggp (finds the number of clusters), gmvae, vampprior, m2, vae, ...; if left
                        out, nggp for 20,000 cells or more, and gmvae for less or with --clusters
      --clusters K      number of clusters, 10 if left out; with nggp, the most that there may be
      --steps N         length of the training; by the number of rows if left out
      --columns TEXT    what columns are: age=student-t,city=categorical,id=ignore,kind=label
      --scaling NAME    auto, standard, robust or none [auto]
      --layer NAME      of an AnnData, in place of X
      --size HxW        to which images are resized: 32x32
      --mode L|RGB      to which images are converted
      --seed N          of all random numbers, any whole number modulo 2**32 [0]
      -h, --help        show the options
      --out DIR         run folder; runs/FILE-MODEL-seedN if left out
      --overwrite       replace a run in that folder
      --rows FILE       rows to append the result to
      --resume          continue an interrupted run, or repeat the scores of a finished one
      --checkpoint-minutes M  how often a checkpoint is saved at least [10]
      --checkpoints N   how many of the last are kept [2]
      --device NAME     auto, cpu, cuda or mps [auto]

    Other settings of a recipe are options too: --batch-size 50, --model.code 4, --n-init 3.
    """
    parser = Parser("fit", fit_command)
    if set(words) & {"-h", "--help"}:
        parser.print_help()
        return
    settings, rest = parser.known(words)
    require("sklearn", "scipy")  # for the scores, once the run is trained
    given = {name: getattr(settings, name) for name in READING}
    reading = {name: value for name, value in given.items() if value is not None}
    path = str(settings.file.expanduser().resolve())
    table = read(path, reading)
    settings.model = settings.model or model_for(table, settings.clusters)
    asked = {"clusters": settings.clusters, "steps": settings.steps, "reading": reading}
    first = recipe_for(table, path, settings.model, **asked)
    changes = read_words(rest, parser.options)
    recipe = apply(first, changes)
    print_chosen(table, recipe)
    named = {"model.clusters": settings.clusters, "steps": settings.steps}
    named = {name: value for name, value in named.items() if value is not None}
    train(table, recipe, settings, words, {"data": path, "reading": reading, **named, **changes})


@contextmanager
def threads_for(work: int) -> Iterator[None]:
    """One thread for layers of few units in all rows, unless the user chose a number.

    Several would wait for each other longer than they work.
    """
    before = torch.get_num_threads()
    if work <= SMALL and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def print_chosen(table: Table, recipe: Recipe) -> None:
    """The columns of a table, and what was chosen for it."""
    if table.schema.shape:
        sides = " x ".join(map(str, table.schema.shape))
        print(f"{len(table):,} images of {sides}, {len(table.schema.classes)} classes")
    else:
        print("\n".join(table.schema.lines()))
    print()
    print_table(chosen(recipe, table))
    print(flush=True)


def train(
    table: Table,
    recipe: Recipe,
    settings: argparse.Namespace,
    words: Sequence[str],
    changes: Mapping[str, object],
) -> None:
    """Train the recipe in the folder that the settings name.

    Args:
        table: the rows.
        recipe: for them.
        settings, words: of the command.
        changes: what the user chose of the recipe, for a file of rows.
    """
    path = Path(recipe.data)
    folder = Path(settings.out or f"runs/{path.stem}-{settings.model}-seed{settings.seed}")
    how = {key: getattr(settings, key) for key in (*HOW, *KEEPING) if hasattr(settings, key)}
    split: dict[str, Any] = {name: getattr(recipe, name) for name in SPLIT}
    command, name = repeatable(words, "fit"), base_of(settings.model)
    dataset = load_table(recipe.data, recipe.reading, table=table, seed=settings.seed, **split)
    how |= {"command": command, "progress": True, "dataset": dataset}
    width = max(recipe.encoder.init_args.get("hidden", [1]))
    with resumable(words, folder, "fit"), threads_for(recipe.batch_size * width):
        run, _ = runs.train(name, recipe, folder, **how)
    tell_result(name, changes, run, settings.rows)
    print_next(
        f"priorzoo predict {quoted(folder)} {quoted(settings.file)} --out clusters.csv",
        f"priorzoo describe {quoted(folder)}",
    )
