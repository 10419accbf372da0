"""The reference names every public name of the packages, and each has a docstring worth reading."""

import inspect
import re
from importlib import import_module
from pathlib import Path

import pytest

from priorzoo.benchmarks import PAPERS

DOCS = Path(__file__).parents[2] / "docs"
PACKAGES = ("models", "guides", "inference", "estimators", "benchmarks")
DIRECTIVE = re.compile(r"^```\{public\} ([\w.]+)\n(.*?)^```", re.S | re.M)
DATA = re.compile(r"^```\{py:data\} (\w+)$", re.M)
OWN = "".join(path.read_text("utf-8") for path in sorted((DOCS / "reference").glob("*.md")))
DOCUMENTED = [
    (package, name.strip())
    for package, names in DIRECTIVE.findall(OWN)
    for name in names.split("\n")
    if name.strip()
]


def missing(package):
    """Public names of a package that the reference lacks."""
    full = f"priorzoo.{package}"
    listed = {name for home, name in DOCUMENTED if home == full}
    listed |= {*DATA.findall(OWN)} if package == "benchmarks" else set()
    return set(import_module(full).__all__) - listed


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_documented(package):
    assert not missing(package)


def test_no_name_is_documented_twice_or_gone():
    assert len(DOCUMENTED) == len(set(DOCUMENTED)) > 120
    for package, name in DOCUMENTED:
        assert hasattr(import_module(package), name), (package, name)


@pytest.mark.parametrize(("package", "name"), DOCUMENTED)
def test_a_docstring_begins_with_a_sentence(package, name):
    text = inspect.getdoc(getattr(import_module(package), name))
    assert text, name
    first = text.split("\n\n")[0].rstrip()
    assert first[-1] in ".:;", (name, first)


def test_every_paper_has_a_page():
    pages = {path.stem for path in (DOCS / "papers").glob("*.md")} - {"index"}
    assert pages == {paper.name for paper in PAPERS}
    for page in pages:
        text = (DOCS / "papers" / f"{page}.md").read_text("utf-8")
        assert f"```{{paper-results}} {page}\n" in text
        assert f"```{{paper-recipes}} {page}\n" in text
        assert "## " in text
        assert f"\n{page}\n" in (DOCS / "papers" / "index.md").read_text("utf-8")
