"""The papers, one file each: recipes, published values, and the scores and charts of its own.

A new file in this folder with a ``PAPER`` is part of the catalogue.
"""

from importlib import import_module
from pkgutil import iter_modules

from priorzoo.benchmarks.papers.paper import Paper
from priorzoo.benchmarks.recipes.recipe import Recipe

__all__ = ["PAPERS", "RECIPES"]


def _read_papers() -> tuple[Paper, ...]:
    """The ``PAPER`` of each file of this folder, by year and then by author."""
    modules = [import_module(f"{__name__}.{found.name}") for found in iter_modules(__path__)]
    papers = [vars(module)["PAPER"] for module in modules if "PAPER" in vars(module)]
    return tuple(sorted(papers, key=lambda paper: (paper.name[-4:], paper.name)))


def _read_recipes(papers: tuple[Paper, ...]) -> dict[str, Recipe]:
    found: dict[str, Recipe] = {}
    for paper in papers:
        if twice := found.keys() & paper.recipes.keys():
            raise ValueError(
                f"Expected new names of recipes in {paper.name} but got {', '.join(twice)}; "
                "another paper has them."
            )
        found |= paper.recipes
    return found


PAPERS = _read_papers()
RECIPES = _read_recipes(PAPERS)
