"""The scripts of the gallery are short, and use what users may; `make docs` runs them."""

import ast
import sys
from importlib import import_module
from pathlib import Path

import pytest

import priorzoo

GALLERY = Path(__file__).parents[2] / "docs" / "gallery"
SCRIPTS = sorted(GALLERY.glob("*.py"))
OTHERS = {"matplotlib", "numpy", "pyro", "sklearn", "torch"} | sys.stdlib_module_names
ALIASES = {"priorzoo": "priorzoo", "inf": "priorzoo.inference"}  # whose attributes are looked up


def private(source: str) -> list[str]:
    """What a script imports of priorzoo that is no public name, and packages beside ``OTHERS``."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            found += [n for n in names if n != "priorzoo" and n.split(".")[0] not in OTHERS]
        elif isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names]
            found += [f"{node.module}.{n}" for n in names if not is_public(node.module, n)]
        elif isinstance(node, ast.Attribute) and getattr(node.value, "id", "") in ALIASES:
            module = ALIASES[node.value.id]
            found += [] if is_public(module, node.attr) else [f"{module}.{node.attr}"]
    return found


def is_public(module: str, name: str) -> bool:
    if module.split(".")[0] != "priorzoo":
        return module.split(".")[0] in OTHERS
    if module == "priorzoo":
        return name in dir(priorzoo)
    known = {f"priorzoo.{floor}" for floor in ("models", "guides", "inference")}
    return module in known and name in import_module(module).__all__


def test_there_are_ten_that_run():
    assert len(SCRIPTS) == 10
    assert all(path.name.startswith("plot_") for path in SCRIPTS)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_is_short_and_uses_public_names(path):
    source = path.read_text("utf-8")
    assert len(source.splitlines()) <= 60
    compile(source, path.name, "exec")
    assert not private(source)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_ends_in_a_figure_and_a_printed_sentence_on_it(path):
    body = [ast.unparse(statement) for statement in ast.parse(path.read_text("utf-8")).body]
    assert body.count("plt.show()") == 1
    assert any("print(" in statement for statement in body[body.index("plt.show()") :])


@pytest.mark.parametrize(
    "line",
    [
        "from priorzoo.inference.training.loop import fit",
        "from priorzoo.models import networks",
        "from priorzoo import nothing",
        "import priorzoo.models.gmvae",
        "import pandas",
        "import priorzoo\npriorzoo.nothing()",
        "from priorzoo import inference as inf\ninf.training.loop.fit",
    ],
)
def test_other_names_are_seen(line):
    assert private(line)
