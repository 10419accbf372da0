"""Which cells a grid has: recipes, clusterings or papers, over settings and seeds."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from itertools import product

from priorzoo.benchmarks.grid.cells import Cell
from priorzoo.benchmarks.grid.clusterings import CLUSTERINGS, Clustering
from priorzoo.benchmarks.papers import PAPERS, RECIPES
from priorzoo.benchmarks.papers.paper import BUDGETS, Budget, Line, Paper
from priorzoo.benchmarks.recipes.changes import read_value
from priorzoo.benchmarks.recipes.parts import unknown_name
from priorzoo.inference.data.tensors import check_count

MOST = 100_000  # seeds


def plan(
    names: Sequence[str],
    seeds: Sequence[int],
    sets: Mapping[str, Sequence[object]],
    budget: Budget,
    papers: Sequence[Paper] = PAPERS,
    importance: int | None = None,
) -> list[Cell]:
    """The cells of a grid, checked.

    Args:
        names: recipes, clusterings, papers, or ``all`` for every line of every paper whose recipe
            there is and that is not optional.
        seeds: of each cell.
        sets: for each option the values that it takes; cells are made of all combinations. Those
            that only recipes have, such as ``step``, leave the clusterings of a paper as they are.
        budget: how long the cells are.
        importance: samples of the bound on log p(x); those of the lines if None.

    Raises:
        ValueError: for unknown names and options, for no seeds or cells, and for a negative number
            of samples.
    """
    if not names:
        raise ValueError("Expected recipes, papers or all; priorzoo list recipes names them.")
    if not seeds:
        raise ValueError("Expected at least one seed but the range is empty; write --seeds 0:5.")
    if importance is not None:
        check_count(importance, "--importance-samples", 0)
    found: dict[tuple[str, int], Cell] = {}
    lines = list(_lines(names, budget, papers))
    for line in lines:
        own = _taken(line.recipe, sets, [one.recipe for one in lines])
        for values in product(*own.values()):
            changes = {**line.changes, **dict(zip(own, values, strict=True))}
            length = line.lengths.get(budget)
            cell = Cell(line.recipe, 0, budget, length, changes, line.extra, line.importance)
            if importance is not None:
                cell = replace(cell, importance=importance, asked=True)
            cell = replace(cell, changes=cell.needed())
            found |= {(cell.key, seed): replace(cell, seed=seed) for seed in seeds}
    if not found:
        said = f"Expected lines of {', '.join(names)} with budget {budget} but there are none"
        raise ValueError(f"{said}; choose another of {', '.join(BUDGETS)}.")
    return list(found.values())


def _taken(
    recipe: str, sets: Mapping[str, Sequence[object]], all_recipes: Sequence[str]
) -> Mapping[str, Sequence[object]]:
    """The options that a recipe takes: of a clustering those that it has, if others take the rest.

    A clustering beside the recipes of a paper has no steps and no optimiser.
    """
    if recipe not in CLUSTERINGS or all(one in CLUSTERINGS for one in all_recipes):
        return sets
    known = {each.name for each in fields(Clustering)}
    return {name: values for name, values in sets.items() if name in known}


def _lines(names: Sequence[str], budget: Budget, papers: Sequence[Paper]) -> Iterator[Line]:
    known = {**RECIPES, **CLUSTERINGS}
    here = {
        paper.name: [one for one in paper.lines if one.recipe in known and budget in one.lengths]
        for paper in papers
    }
    every = [line for lines in here.values() for line in lines]
    for name in names:
        if name in known:
            alike = [line for line in every if line.recipe == name]
            yield replace(alike[0], changes={}) if alike else Line(name, name, {})
        elif name == "all":
            yield from (line for line in every if not line.optional)
        elif name in here:
            yield from here[name]
        else:
            raise ValueError(unknown_name("recipe or paper", name, [*known, *here, "all"]))


def read_sets(words: Sequence[str]) -> dict[str, list[object]]:
    """``key=a,b`` as a mapping of lists of values; a comma within brackets does not separate.

    >>> read_sets(["model.code=8,16", "encoder.hidden=[64,64],[128]"])
    {'model.code': [8, 16], 'encoder.hidden': [[64, 64], [128]]}

    Raises:
        ValueError: for a word without a key or a value, or the same key twice.
    """
    found: dict[str, list[object]] = {}
    for word in words:
        key, equals, values = word.partition("=")
        parts = re.split(r",(?![^\[{]*[\]}])", values)
        key = key.removeprefix("--").replace("-", "_")
        if not (key and equals and all(parts)) or key in found:
            raise ValueError(f"Expected --set key=a,b with each key once but got {word!r}.")
        found[key] = [read_value(text) for text in parts]
    return found


def read_shard(text: str) -> tuple[int, int]:
    """``3/16`` as the third of sixteen.

    >>> read_shard("3/16")
    (3, 16)

    Raises:
        ValueError: for anything else, and for a shard that there is not.
    """
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    shard, of = map(int, found.groups()) if found else (0, 0)
    if not 1 <= shard <= of:
        raise ValueError(f"Expected --shard such as 3/16, from 1/16 to 16/16, but got {text!r}.")
    return shard, of


def share(cells: Sequence[Cell], shard: int, of: int) -> list[Cell]:
    """The cells of one shard: the ``shard``-th, counted from 1, and then every ``of``-th."""
    return list(cells[shard - 1 :: of])


def read_seeds(text: str) -> list[int]:
    """``0:5`` or ``0,3,4`` as integers.

    >>> read_seeds("0:3"), read_seeds("7"), read_seeds("1,4")
    ([0, 1, 2], [7], [1, 4])

    Raises:
        ValueError: for anything else, and for a range without seeds.
    """
    if not re.fullmatch(r"\d+:\d+|\d+(,\d+)*", text):
        raise ValueError(f"Expected --seeds such as 0:5 or 0,1,4 but got {text!r}.")
    numbers = [int(word) for word in re.split("[:,]", text)]
    seeds = range(*numbers) if ":" in text else numbers
    if not seeds:
        raise ValueError(f"Expected a range with at least one seed but got {text!r}.")
    if max(numbers) > 2**32 or seeds[-1] == 2**32 or len(seeds) > MOST:
        raise ValueError(f"Expected up to {MOST} seeds below {2**32} but got {text[:60]!r}.")
    return list(seeds)
