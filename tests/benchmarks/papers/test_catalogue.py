"""A paper is one file: the catalogue finds it, and nothing outside names what is its own."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from torch import nn

from priorzoo import guides, models
from priorzoo.benchmarks import PAPERS, RECIPES, papers
from priorzoo.models import MLP, VAE, Bernoulli, Gaussian, Multinomial

ROOT = Path(__file__).parents[3]
PARTS = {VAE, MLP, Bernoulli, Gaussian, Multinomial, guides.Code}  # that belong to no one paper
MINE = """
from priorzoo.benchmarks.papers.paper import Paper
from priorzoo.benchmarks.recipes.common import DIGITS

PAPER = Paper("mine2016", "Mine", "me, 2016", (), recipes={"NAME": DIGITS})
"""


def test_papers_are_those_of_the_folder_by_year_and_author():
    files = {path.stem for path in (ROOT / "benchmarks" / "papers").glob("*.py")}
    names = [paper.name for paper in PAPERS]
    assert set(names) == files - {"__init__", "paper", "tasks"}
    assert names == sorted(names, key=lambda name: (int(name[-4:]), name))
    assert set(RECIPES) == {name for paper in PAPERS for name in paper.recipes}


@pytest.fixture
def added(tmp_path, monkeypatch):
    """Writes the file of a new paper with one recipe, beside those there are."""

    def add(recipe: str) -> None:
        (tmp_path / "mine2016.py").write_text(MINE.replace("NAME", recipe))
        monkeypatch.setattr(papers, "__path__", [*papers.__path__, str(tmp_path)])

    yield add
    sys.modules.pop("priorzoo.benchmarks.papers.mine2016", None)


def test_a_new_file_is_in_the_catalogue(added):
    added("mine")
    found = papers._read_papers()
    names = [paper.name for paper in found]
    assert names.index("mine2016") == names.index("dilokthanakul2016") + 1
    assert len(names) == len(PAPERS) + 1
    assert "mine" in papers._read_recipes(found)


def test_a_recipe_has_one_paper(added):
    added("gmvae")
    with pytest.raises(ValueError, match=r"new names of recipes in shu2016 but got gmvae"):
        papers._read_recipes(papers._read_papers())


def test_the_catalogue_imports_neither_charts_nor_scikit_learn():
    heavy = "matplotlib", "sklearn", "torchvision", "scipy", "jinja2"
    program = f"import priorzoo.benchmarks, sys; print([m for m in {heavy} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stdout.strip() == "[]", run.stderr


def owned() -> set[str]:
    """Names of the models and guides that belong to papers."""
    shelves = [getattr(floor, name) for floor in (models, guides) for name in floor.__all__]
    kinds = {kind for kind in shelves if isinstance(kind, type) and issubclass(kind, nn.Module)}
    parts = "networks", "likelihoods"
    kinds = {kind for kind in kinds - PARTS if not any(p in kind.__module__ for p in parts)}
    return {kind.__name__ for kind in kinds}


@pytest.mark.parametrize("floor", ["benchmarks", "priorzoo"])
def test_no_class_of_a_paper_is_named_outside_its_file(floor):
    """Neither as a class nor as a string."""
    names = owned()
    assert {"GMVAE", "FactorialMixture", "NGGPMixture", "Sticks"} <= names
    for path in sorted((ROOT / floor).rglob("*.py")):
        if path.parent.name in ("papers", "speed") or path.name == "counts.py":
            continue  # where pairs are written by hand once more
        tree = ast.parse(path.read_text("utf-8"))
        found = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        found |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        found |= {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
        assert not found & names, path
