"""N2D: its parts in their order, and what is said without UMAP."""

import sys
from dataclasses import asdict
from types import ModuleType

import numpy as np
import pytest
from sklearn.decomposition import PCA

from priorzoo.benchmarks.grid.clusterings import Clustering, n2d
from priorzoo.benchmarks.grid.planning import plan
from priorzoo.benchmarks.rows.files import RESULTS, read_rows
from priorzoo.cli import main as cli

ROWS, CLUSTERS = 300, 3


@pytest.fixture(scope="module")
def prototypes():
    """Noisy copies of three images of 8 x 8 pixels, to learn from and to ask for."""
    draw = np.random.default_rng(0)
    images = draw.random((CLUSTERS, 64)) > 0.5
    y = np.arange(ROWS) % CLUSTERS
    x = np.clip(images[y] + 0.1 * draw.standard_normal((ROWS, 64)), 0, 1).astype(np.float32)
    return x[:200], x[200:], y[200:]


class Principal(PCA):
    """Stands in for UMAP, whose compilation takes longer than all tests of a file may."""

    asked = {}

    def __init__(self, n_components, random_state, **others):
        Principal.asked = others
        super().__init__(n_components, random_state=random_state)


def found(x, asked, seed=0):
    return n2d(Clustering("", CLUSTERS, epochs=20), x, asked, seed)


def same(q, y):
    """Whether clusters are the classes, but for their names."""
    pairs = set(zip(q.argmax(1).tolist(), y.tolist(), strict=True))
    return len(pairs) == CLUSTERS == len({k for k, _ in pairs}) == len({c for _, c in pairs})


def test_clusters_that_are_far_apart_are_found_in_rows_not_learned_from(prototypes, monkeypatch):
    x, asked, y = prototypes
    module = ModuleType("umap")
    module.UMAP = Principal
    monkeypatch.setitem(sys.modules, "umap", module)
    q = found(x, asked)
    assert q.shape == (len(asked), CLUSTERS)
    np.testing.assert_allclose(q.sum(1), 1)
    assert same(q, y)
    np.testing.assert_array_equal(found(x, asked), q)
    assert Principal.asked == {"n_neighbors": 20, "min_dist": 0.0, "n_jobs": 1}


@pytest.mark.slow
def test_umap_itself_finds_them(prototypes):
    pytest.importorskip("umap")
    x, asked, y = prototypes
    assert same(found(x, asked), y)


def test_without_umap_one_line_names_the_extra(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "umap", None)
    words = ["bench", "n2d", "--set", "data=digits", "--out", str(tmp_path / "out")]
    assert cli.main(words) == 2
    said = "umap is not installed; run: pip install 'priorzoo[umap]'"
    assert capsys.readouterr().err == f"priorzoo bench: error: {said}\n"
    assert not (tmp_path / "out").exists()


def test_the_committed_rows_are_what_the_paper_s_lines_make_now():
    """Their settings, which the lines state, and not options of a command that someone typed."""
    rows = [row for row in read_rows(RESULTS / "baselines.jsonl") if row["recipe"] == "n2d"]
    cells = {cell.key: cell for cell in plan(["mcconville2021"], [10], {}, "standard")}
    assert rows
    for row in rows:
        assert row["settings"] == asdict(cells[row["cell"]].clustering())
