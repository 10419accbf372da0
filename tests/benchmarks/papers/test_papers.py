"""Every recipe that a paper's table names, for a step, from files like those of its data."""

import numpy as np
import pytest

from priorzoo.benchmarks.grid.cells import Cell, work
from priorzoo.benchmarks.grid.clusterings import CLUSTERINGS
from priorzoo.benchmarks.papers import PAPERS, RECIPES

LINES = {
    line.recipe: line
    for paper in PAPERS
    for line in reversed(paper.lines)
    if not line.optional and line.recipe in {*RECIPES, *CLUSTERINGS}
}
ALIKE = {  # which differ from another by their data, K or binarisation alone
    "dilokthanakul-reseeded-16",
    "factorial-annealed-dynamic",
    "factorial-annealed-omniglot",
    "sb-vae-annealed",
}
EACH = [pytest.param(r, marks=[pytest.mark.slow] if r in ALIKE else []) for r in LINES]
TRAIN, TEST = 240, 40
PARTS = ("train", "test")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A data root with as few rows as will do, in the shapes of the real ones."""
    folder, draw = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    both = TRAIN + TEST
    y = (np.arange(both) % 10).astype(np.uint8)
    digits = (draw.integers(0, 60, (both, 28, 28)) + 15 * y[:, None, None]).astype(np.uint8)
    for kind in ("MNIST", "FashionMNIST"):
        for stem, part in (("train", slice(TRAIN)), ("t10k", slice(TRAIN, both))):
            write_idx(folder / kind / "raw", stem, digits[part], y[part])
    drawn = {f"{k}_{p}": v for k, v in (("x", digits), ("y", y), ("alphabet", y)) for p in PARTS}
    first = {k: v[:TRAIN] if k.endswith("train") else v[TRAIN:] for k, v in drawn.items()}
    np.savez(folder / "omniglot28.npz", **first)
    faces = {"person": y, "pose": y % 4, "expression": y % 4, "eyes": y % 2}
    x, test = draw.integers(0, 255, (both, 60, 64), np.uint8), np.arange(both) >= TRAIN
    np.savez(folder / "cmu_faces.npz", x=x, is_test=test, **faces)
    parts = {"split_train": np.arange(200), "split_valid": np.arange(200, TRAIN)}
    frames = draw.integers(0, 255, (both, 28, 20), np.uint8)
    np.savez(folder / "freyfaces.npz", x=frames, **parts, split_test=np.arange(TRAIN, both))
    words, named = draw.poisson(1.0 + (np.arange(30) % 5 == (y % 5)[:, None])), np.arange(30)
    part = np.where(test, "test", "train")
    vocabulary = np.array([f"word{i}" for i in named])
    np.savez(folder / "bbc_news_bow.npz", x=words, y=y % 5, part=part, vocab=vocabulary)
    return folder


def write_idx(folder, stem, x, y):
    folder.mkdir(parents=True, exist_ok=True)
    for suffix, array in (("images-idx3", x), ("labels-idx1", y)):
        head = np.array([0x800 + array.ndim, *array.shape], ">i4").tobytes()
        (folder / f"{stem}-{suffix}-ubyte").write_bytes(head + array.tobytes())


@pytest.mark.parametrize("paper", PAPERS, ids=lambda paper: paper.name)
def test_a_line_s_changes_all_make_a_difference(paper):
    """Rows leave out those that make none, and would then not be of the line."""
    for line in paper.lines:
        if line.recipe in {*RECIPES, *CLUSTERINGS}:
            assert Cell(line.recipe, changes=line.changes).needed() == line.changes


@pytest.mark.parametrize("recipe", EACH)
def test_a_step_of_every_recipe_makes_a_whole_row(recipe, root, tmp_path):
    line = LINES[recipe]
    if recipe in CLUSTERINGS:
        data = {
            "data": line.changes.get("data", "mnist"),
            "clusters": 5,
            "components": 8,
            "rows": 200,
        }
        cell = Cell(recipe, 1, "quick", None, data | {"epochs": 0.5})
    else:
        own = RECIPES[recipe]
        split = {} if own.data == "pinwheel" else {"train": 200, "validation": 20}
        split |= {} if own.epochs is None else {"batch_size": 8}
        cell = Cell(recipe, 1, "quick", 1 if own.steps else 2, split, importance=line.importance)
    row = work(cell, tmp_path, str(root), "cpu")
    assert (row["format"], row["seed"], row["budget"]) == (2, 1, "quick")
    assert row["peak_mib"] > 0
    if recipe not in CLUSTERINGS:
        assert (tmp_path / row["history"]).stat().st_size > 0
        assert np.isfinite(list(row["terms"].values())).all()
    for measure in line.measures:
        if measure.path[0] in ("terms", "metrics", "stages", "importance"):
            assert measure.of(row) is not None, measure.title
