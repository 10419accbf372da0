"""``priorzoo list``: models, guides, recipes and data sets, a line each."""

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType

from torch import nn

from priorzoo import guides, models
from priorzoo.benchmarks.data.sources import CATALOGUE
from priorzoo.benchmarks.papers import RECIPES
from priorzoo.benchmarks.recipes.building import fits
from priorzoo.benchmarks.recipes.changes import apply
from priorzoo.benchmarks.recipes.parts import unknown_name
from priorzoo.cli.options import Parser, print_next, print_table

OWN = {  # the user's own data
    "FILE.npz": "your own: x_train (N, ...) and x_test (M, ...), numbers; y_train (N,) and "
    "y_test (M,), integers, if there are labels; written by numpy.savez",
    "FILE.csv": "your own table, also .tsv, .parquet, .h5ad, or images: see priorzoo fit",
    "FOLDER": "your own, larger than memory: train.parquet and test.parquet, or x_train.npy and "
    "x_test.npy; labels in a column y, or y_train.npy and y_test.npy",
}


def list_command(words: Sequence[str]) -> None:
    """List models, guides, recipes and data sets, a line each.

    usage: priorzoo list [models|guides|recipes|data] [--model RECIPE|CLASS]

      WHAT ...      one of the four; all if left out
      --model NAME  only guides that fit the model of a recipe, or a class by its import path
    """
    shelves: Mapping[str, Callable[[], Mapping[str, str]]] = {
        "models": lambda: _modules(models),
        "guides": lambda: _guides(settings.model),
        "recipes": lambda: {name: recipe.summary for name, recipe in RECIPES.items()},
        "data": lambda: {name: one.summary for name, one in CATALOGUE.items()} | OWN,
    }
    settings = Parser("list", list_command).parse(words)
    for name in settings.what:
        if name not in shelves:
            raise ValueError(unknown_name("list", name, shelves))
        print_table(shelves[name]())
    for name in () if settings.what else shelves:
        print(name)
        print_table(shelves[name](), indent=2)
    print_next("priorzoo train digits-gmvae")


def _guides(model: str | None) -> Mapping[str, str]:
    """All guides, or those that fit the model of a recipe or of an import path."""
    lines = _modules(guides)
    if model is None:
        return lines
    if model not in RECIPES and "." not in model:
        raise ValueError(unknown_name("recipe", model, RECIPES))
    recipe = RECIPES.get(model) or apply(RECIPES["digits-gmvae"], {"model": model})
    return {name: line for name, line in lines.items() if fits(recipe, getattr(guides, name))}


def _modules(floor: ModuleType) -> dict[str, str]:
    """Classes of a floor's catalogue with the first line of their documentation."""
    kinds = {name: getattr(floor, name) for name in floor.__all__}
    return {
        name: _readable((inspect.getdoc(kind) or "").splitlines()[0])
        for name, kind in kinds.items()
        if isinstance(kind, type) and issubclass(kind, nn.Module)
    }


def _readable(line: str) -> str:
    """A line of documentation without its markup.

    >>> _readable(r":math:`q(z \\mid x)\\, q(\\mu_{ik})`, for :class:`GMVAE`.")
    'q(z | x) q(mu_ik), for GMVAE.'
    """
    line = line.replace("\\mid", "|").replace("\\,", "").replace("\\mathcal ", "")
    return re.sub(r":\w+:|[`\\{}]", "", line)
