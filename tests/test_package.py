"""The package as a user installs it: from the wheel, in an environment of its own."""

import os
import re
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
USER = """\
import torch
from priorzoo.guides import Code
from priorzoo.inference import fit
from priorzoo.models import MLP, VAE

model = VAE(MLP(2, 9, (4,)), code=2)
history = fit(model, Code(MLP(9, 4, (4,))), torch.rand(50, 9).round(), steps=3)
reveal_type(fit)
reveal_type(model)
fit(model, 3, [])
"""


def test_version_changelog_and_citation_agree():
    version = PROJECT["version"]
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    sections = re.findall(r"^## \[(.+?)\](?: - (\d{4}-\d\d-\d\d))?$", changelog, re.M)
    assert sections[0] == ("Unreleased", "")
    assert sections[1][0] == version
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    assert re.search(rf"^version: {re.escape(version)}$", citation, re.M)
    assert re.search(rf"^date-released: {sections[1][1]}$", citation, re.M)


def test_workflows_try_the_oldest_torch_and_the_pythons_that_are_promised():
    workflow = (ROOT / ".github" / "workflows" / "tests.yml").read_text("utf-8")
    (oldest,) = (each for each in PROJECT["dependencies"] if each.startswith("torch>="))
    assert f"torch=={oldest.removeprefix('torch>=')}.0 " in workflow
    promised = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    assert promised == re.findall(r'"(3\.\d+)"', workflow.partition("python: [")[2].split("]")[0])


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """An environment that has the wheel, and sees the libraries of this one."""
    folder = tmp_path_factory.mktemp("package")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list(folder.glob("priorzoo-*.tar.gz"))) == 1
    (wheel,) = folder.glob("priorzoo-*.whl")
    home = folder / "environment"
    venv.create(home, with_pip=False)
    (own,) = home.rglob("site-packages")
    others = [path for path in sys.path if Path(path).name == "site-packages"]
    (own / "libraries.pth").write_text("".join(f"{path}\n" for path in others))
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*install, "--target", own, wheel], check=True, capture_output=True)
    return home / ("Scripts" if os.name == "nt" else "bin") / "python"


def run(python, *words, folder):
    """A command in an environment without the editable install, whose hook lies in its folder."""
    return subprocess.run([python, *words], cwd=folder, capture_output=True, text=True)


@pytest.mark.slow
def test_the_wheel_is_imported_lists_and_trains(installed, tmp_path):
    program = "import priorzoo, priorzoo.models as m; print(m.__file__, priorzoo.__version__)"
    told = run(installed, "-c", program, folder=tmp_path)
    place, version = told.stdout.split()
    assert installed.parents[1] in Path(place).parents, told.stdout + told.stderr
    assert version == PROJECT["version"]
    listed = run(installed, "-m", "priorzoo", "list", folder=tmp_path)
    assert "digits-gmvae" in listed.stdout, listed.stderr
    words = ["train", "digits-gmvae", "--steps", "3", "--encoder.hidden", "[8]", "--out", "run"]
    trained = run(installed, "-m", "priorzoo", *words, folder=tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert (tmp_path / "run" / "model.safetensors").is_file()


@pytest.mark.slow
def test_mypy_finds_the_types_in_a_project_of_the_users(installed, tmp_path):
    (tmp_path / "mine.py").write_text(USER)
    words = ["--python-executable", installed, "--strict", "mine.py"]
    told = run(sys.executable, "-m", "mypy", *words, folder=tmp_path).stdout
    assert "import-untyped" not in told
    assert "import-not-found" not in told
    assert re.search(r'mine.py:8: note: Revealed type is "def \(model: torch.nn.modules', told), (
        told
    )
    assert 'mine.py:9: note: Revealed type is "priorzoo.models.vae.VAE"' in told
    assert re.search(r"mine.py:10: error: Argument 2 .* expected .?Module", told), told
