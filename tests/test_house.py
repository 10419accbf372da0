"""The house: four floors, imports that only point down, and a wheel that holds all of it."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = ("models", "guides", "inference", "benchmarks")
ROOMS = (
    "data rows",
    "recipes",
    "scores",
    "charts",
    "runs",
    "papers",
    "gan tables",
    "grid",
    "speed",
    "report",
)
HOUSE = (*FLOORS, "priorzoo")  # the front door imports every floor
TOP_FLOOR_ONLY = {"jinja2", "jsonargparse", "matplotlib", "sklearn", "torchvision"}
DATA = {
    "inference/training/native/calls.cpp",
    "inference/training/product.cpp",
    "benchmarks/report/report.html",
    "benchmarks/tables/description.html",
    "benchmarks/results/reference/shu2016.csv",
}  # that code reads
MACHINE_PATH = re.compile(r"(?<![\w./:-])/(?:home|mnt|opt|root|tmp|Users|work)/\w")


def sources(floor: str) -> list[Path]:
    return sorted((ROOT / floor).rglob("*.py"))


def imported(node: ast.AST, in_functions: bool = True) -> Iterator[str]:
    """Names of what a file imports; without ``in_functions``, only what its own import runs."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            module = "." * child.level + (child.module or "")
            yield from (f"{module}.{alias.name}" for alias in child.names)
        elif in_functions or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from imported(child, in_functions)


def upward(floor: str, source: str) -> list[str]:
    """What a file on ``floor`` imports from the floors above."""
    above = FLOORS[FLOORS.index(floor) + 1 :]
    names = imported(ast.parse(source))
    return [n for n in names if n.lstrip(".").removeprefix("priorzoo.").split(".")[0] in above]


def packages(source: str, in_functions: bool = True) -> set[str]:
    """The top-level packages that a file imports."""
    return {name.split(".")[0] for name in imported(ast.parse(source), in_functions)}


@pytest.mark.parametrize("floor", FLOORS)
def test_imports_point_down(floor):
    assert sources(floor)
    for path in sources(floor):
        assert not upward(floor, path.read_text("utf-8")), path


@pytest.mark.parametrize(
    "line",
    [
        "import priorzoo.guides",
        "import torch, priorzoo.guides.gaussian as g",
        "from priorzoo import guides",
        "from priorzoo.guides import Code",
        "from priorzoo.guides.gaussian import Code",
        "from ..guides import Code",
        "from .. import guides",
        "import guides",
        "def f():\n    from priorzoo.guides import Code",
        "if TYPE_CHECKING:\n    from priorzoo.guides import Code",
    ],
)
def test_an_upward_import_is_seen(line):
    assert upward("models", line)
    assert not upward("guides", line)
    assert not upward("inference", line)


def test_rooms_of_the_benchmarks_import_only_those_below_them():
    level = {room: i for i, rooms in enumerate(ROOMS) for room in rooms.split()}
    folders = {path.parent.name for path in sources("benchmarks")} - {"benchmarks"}
    assert folders == set(level)
    for room in level:
        for path in sources(f"benchmarks/{room}"):
            names = imported(ast.parse(path.read_text("utf-8")))
            rooms = [n.split(".")[2] for n in names if n.startswith("priorzoo.benchmarks.")]
            above = [n for n in rooms if n != room and level[n] >= level[room]]
            assert not above, path


def test_no_rooms_import_each_other_in_a_circle():
    """A room is a folder of a floor, or a file that stands on it alone."""
    imports: dict[str, set[str]] = {}
    for floor in HOUSE:
        for path in sources(floor):
            home = ".".join((floor, *path.relative_to(ROOT / floor).with_suffix("").parts[:1]))
            for name in imported(ast.parse(path.read_text("utf-8"))):
                parts = name.removeprefix("priorzoo.").split(".")
                if name.startswith("priorzoo.") and parts[0] in HOUSE:
                    imports.setdefault(home, set()).add(".".join(parts[:2]))
    assert len(imports) > 30
    edges = {room: found - {room} for room, found in imports.items() if "__init__" not in room}
    TopologicalSorter(edges).prepare()  # raises an error that names the circle


@pytest.mark.parametrize("floor", FLOORS[:-1])
def test_heavy_packages_are_for_the_top_floor_alone(floor):
    for path in sources(floor):
        assert not packages(path.read_text("utf-8")) & TOP_FLOOR_ONLY, path


def test_torchvision_is_imported_only_inside_functions():
    """Beside a torch it was not built for it cannot be imported, and little here needs it."""
    loads = "import torchvision\nclass A:\n    from torchvision import datasets"
    assert "torchvision" in packages(loads, in_functions=False)
    assert "torchvision" not in packages("def f():\n    import torchvision", in_functions=False)
    for path in sources("benchmarks"):
        assert "torchvision" not in packages(path.read_text("utf-8"), in_functions=False), path


def test_every_folder_with_python_files_is_a_listed_package():
    """A folder that is not listed imports from an editable install and is not in the wheel."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    folders = {path.parent.relative_to(ROOT) for floor in HOUSE for path in sources(floor)}
    names = {".".join(("priorzoo", *folder.parts)) for folder in folders}
    assert set(listed["packages"]) == {n.replace("priorzoo.priorzoo", "priorzoo") for n in names}
    mapped = {f"priorzoo.{floor}": floor for floor in FLOORS}
    assert listed["package-dir"] == mapped | {"priorzoo": "priorzoo"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built by way of the sdist, as for a release, from a copy without the checkout's leftovers."""
    folder = tmp_path_factory.mktemp("release")
    tree = folder / "tree"
    tree.mkdir()
    for path in ROOT.iterdir():
        if path.is_file() and not path.name.startswith("."):
            shutil.copy(path, tree)
    for name in (*HOUSE, "tests"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, tree]
    build = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert build.returncode == 0, build.stdout + build.stderr
    (made,) = folder.glob("*.whl")
    return made


def test_the_wheel_holds_the_floors_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        held = {n for n in archive.namelist() if not n.split("/")[0].endswith(".dist-info")}
    code = {path.relative_to(ROOT).as_posix() for floor in HOUSE for path in sources(floor)}
    typed = {f"{floor}/py.typed" for floor in HOUSE}
    files = {f"priorzoo/{name.removeprefix('priorzoo/')}" for name in code | typed | DATA}
    assert held == files


def test_the_command_line_runs_from_the_unpacked_wheel(wheel, tmp_path):
    """Without the editable install, which is switched off by ignoring the site's start-up files."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    libraries = [path for path in sys.path if path.endswith("site-packages")]
    program = (
        f"import sys; sys.path[:0] = [{str(tmp_path)!r}, *{libraries!r}]\n"
        "from priorzoo.cli import main as cli\n"
        "print(cli.__file__, file=sys.stderr)\n"
        "sys.exit(cli.main(['list', 'recipes']))"
    )
    command = [sys.executable, "-I", "-S", "-c", program]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert str(tmp_path) in run.stderr
    assert "gmvae" in run.stdout


def test_no_file_names_a_path_of_one_machine():
    if (ROOT / ".git").exists():
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        names = [name for name in listed.stdout.split("\0") if name]
    else:  # an archive of the source, which holds nothing but the project's files
        kept = ("*.py", "*.md", "*.sh", "*.toml", "*.jsonl", "Makefile")
        names = [str(path.relative_to(ROOT)) for way in kept for path in ROOT.glob(way)]
        names += [
            str(path.relative_to(ROOT))
            for floor in ("models", "guides", "inference", "benchmarks", "priorzoo", "tests")
            for way in kept
            for path in (ROOT / floor).rglob(way)
        ]
    assert "pyproject.toml" in names
    found = []
    for name in names:
        path = ROOT / name
        text = path.read_bytes().decode("utf-8", "ignore") if path.is_file() else ""
        found += [f"{name}: {match.group()}" for match in MACHINE_PATH.finditer(text)]
    assert not found
