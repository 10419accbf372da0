"""The data of a recipe and of a run, read again from where they were."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from priorzoo.benchmarks.data import sets as data
from priorzoo.benchmarks.data.labels import with_labels
from priorzoo.benchmarks.data.tables import is_table, load_table
from priorzoo.benchmarks.recipes.recipe import Recipe
from priorzoo.benchmarks.scores.run import Run
from priorzoo.inference.data.tables.schema import Schema

SPLIT = ("binarise", "train", "validation")  # settings of a recipe by which rows are split


def read_data(
    settings: Mapping[str, Any],
    root: str | Path | None = None,
    *,
    seed: int,
    download: bool = False,
    schema: Schema | None = None,
) -> data.Dataset:
    """The data set, split, labelled and binarised as the settings of a recipe say.

    Args:
        settings: of a recipe.
        root, seed, download: as of :func:`data.load`.
        schema: that of a run, if other rows than those of its training are read.
    """
    reading = settings.get("reading") or {}
    split = {name: settings[name] for name in SPLIT}
    if is_table(settings["data"], reading):
        return load_table(settings["data"], reading, schema, seed=seed, **split)

    def read(name: str) -> data.Dataset:
        return data.load(name, root, seed=seed, download=download, **split)

    return with_labels(read(settings["data"]), settings.get("labels") or {}, read)


def read_again(
    folder: Path | None, settings: Mapping[str, Any], root: str | Path | None, **how: Any
) -> data.Dataset:
    """The data of the run in a folder, if there is one.

    Raises:
        ValueError: where they cannot be read as they were, saying that they have changed.
    """
    try:
        return read_data(settings, root, **how)
    except ValueError as error:
        if folder is None:
            raise
        raise ValueError(f"The data of the run in {folder} have changed: {error}") from error


def sources(recipe: Recipe, root: str | Path | None) -> dict[str, str]:
    """Absolute paths of the user's own data and of the data root, unless it is the default one."""
    found: dict[str, str] = {}
    if data.own_path(recipe.data) is not None or is_table(recipe.data, recipe.reading):
        found["data"] = str(data.expanded(recipe.data).absolute())
    if root is not None or os.environ.get("PRIORZOO_DATA"):
        found["root"] = str(data.data_root(root).absolute())
    return found


def place_of(run: Run) -> str:
    """The name or path of a run's data: where they were, if they are still there."""
    known = (run.result.get("sources") or {}).get("data", "")
    there = Path(known).is_absolute() and Path(known).exists()
    return known if there else str(run.settings["data"])


def data_of(run: Run, root: str | Path | None = None, download: bool = False) -> data.Dataset:
    """The data of a run, found from any working directory.

    Raises:
        ValueError: where they cannot be read as they were, saying that they have changed.
    """
    settings = {**run.settings, "data": place_of(run)}
    known = (run.result.get("sources") or {}).get("root", "")
    if root is None and Path(known).is_absolute() and Path(known).is_dir():
        root = known
    return read_again(run.folder, settings, root, seed=run.seed, download=download)
