"""CelebA from torchvision's files, here with a few pictures, to a recipe's run."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from priorzoo.benchmarks.charts import run_charts as plots
from priorzoo.benchmarks.data import sets as data
from priorzoo.benchmarks.papers import RECIPES
from priorzoo.benchmarks.recipes.recipe import part
from priorzoo.benchmarks.runs import run as runs
from priorzoo.models import ConvDecoder, ConvEncoder, FactorialMixture

SPLITS = [0] * 8 + [1] * 2 + [2] * 4  # train, valid, test
NAMES = ("Smiling", "Young", "Eyeglasses", "Male")
TABLES = {
    "list_attr_celeba.txt": NAMES,
    "identity_CelebA.txt": (),
    "list_bbox_celeba.txt": ("x_1", "y_1", "width", "height"),
    "list_landmarks_align_celeba.txt": ("lefteye_x", "lefteye_y"),
    "list_eval_partition.txt": (),
}
QUARTERS = np.array([[40, 90], [140, 200]])


def picture(index):
    """178 x 218, red but for the central square, whose quarters have greys of their own."""
    pixels = np.zeros((218, 178, 3), np.uint8)
    pixels[..., 0] = 255
    pixels[20:198] = (QUARTERS + index).repeat(89, 0).repeat(89, 1)[..., None]
    return Image.fromarray(pixels)


def attributes(index):
    """-1 or 1 for each name; the bits of the index."""
    return [1 if index >> bit & 1 else -1 for bit in range(len(NAMES))]


@pytest.fixture
def celeba(tmp_path, monkeypatch):
    """The root of a tree as torchvision lays it out, whose check sums are not asked for."""
    folder = tmp_path / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True)
    columns = {
        "list_attr_celeba.txt": attributes,
        "list_eval_partition.txt": lambda index: [SPLITS[index]],
    }
    for name, header in TABLES.items():
        width = max(1, len(header))
        values = columns.get(name, lambda index, width=width: [index] * width)
        lines = [" ".join([f"{i:06}.jpg", *map(str, values(i))]) for i in range(len(SPLITS))]
        head = [str(len(SPLITS)), " ".join(header) + " "] if header else []
        (folder / name).write_text("\n".join([*head, *lines]) + "\n")
    for index in range(len(SPLITS)):
        picture(index).save(folder / "img_align_celeba" / f"{index:06}.jpg", quality=95)
    monkeypatch.setattr(datasets.CelebA, "file_list", [("", None, name) for name in TABLES])
    return tmp_path


def test_the_central_square_is_read_at_64_by_64(celeba):
    """Each quarter fills a quarter, and of the red around it no row or column is left."""
    rows = data.load("celeba", celeba)
    assert rows.shape == (64, 64, 3)
    assert (len(rows.x_train), len(rows.x_test)) == (8, 4)
    for x, first in ((rows.x_train, 0), (rows.x_test, 10)):
        for index, found in enumerate(255 * x.reshape(-1, 64, 64, 3), first):
            grey = torch.from_numpy((QUARTERS + index).repeat(32, 0).repeat(32, 1)).float()
            inside = torch.ones(64, 64, dtype=torch.bool)
            inside[[0, 30, 31, 32, 33, 63]] = inside[:, [30, 31, 32, 33]] = False
            assert ((found - grey[..., None]).abs().amax(-1)[inside] < 4).all()
            edges = found[[0, 63]].mean(1)  # red, which has no blue, would pull these apart
            assert ((edges[:, 0] - edges[:, 2]).abs() < 40).all()


def test_labels_are_found_by_name(celeba):
    for label, name in (("gender", "Male"), ("glasses", "Eyeglasses"), ("smiling", "Smiling")):
        rows = data.load(f"celeba:{label}", celeba)
        bit = NAMES.index(name)
        assert rows.y_train.tolist() == [i >> bit & 1 for i in range(8)]
        assert rows.y_test.tolist() == [i >> bit & 1 for i in range(10, 14)]
    with pytest.raises(ValueError, match="did you mean 'smiling'"):
        data.load("celeba:smile", celeba)


@pytest.mark.parametrize(
    "missing",
    ["", "list_attr_celeba.txt", "list_eval_partition.txt", "img_align_celeba/000012.jpg"],
)
def test_what_is_not_there_is_said(celeba, missing):
    (celeba / "celeba" / missing).rename(celeba / "elsewhere")
    with pytest.raises(FileNotFoundError, match=r"No readable CelebA in .*celeba.*--data-root"):
        data.load("celeba:smiling", celeba)


def test_its_recipe_trains_on_it(celeba, tmp_path):
    recipe = RECIPES["factorial-celeba"]
    small = {"channels": [2, 2, 3, 3], "hidden": []}
    recipe = replace(
        recipe,
        model=part(FactorialMixture, code=10, clusters=[2, 2, 2, 3, 3]),
        encoder=part(ConvEncoder, **small),
        decoder=part(ConvDecoder, **small),
        stages=tuple(replace(stage, steps=3) for stage in recipe.stages),
        labelled=6,
        batch_size=4,
        steps=6,
        every=3,
    )
    run, rows = runs.train("celeba", recipe, tmp_path / "run", data_root=str(celeba))
    assert [tuple(rows.named[f"r_{i}"][1].tolist()) for i in (1, 2, 3)] == [
        (1, 1, 1, 1),
        (0, 0, 1, 1),
        (0, 1, 0, 1),
    ]
    assert {f"r_{i}.accuracy" for i in (1, 2, 3)} <= set(run.result["metrics"])
    assert "r_4.accuracy" not in run.result["metrics"]
    assert run.result["metrics"]["r_1.judge"] == 0  # no picture to train on has a man
    terms = run.result["terms"]
    kls = [terms[f"kl[{kind}_{i}]"] for i in range(1, 6) for kind in "rz"]
    assert terms["elbo"] == pytest.approx(terms["reconstruction"] - sum(kls))
    names = {path.stem for path in plots.draw_run(run, rows)}
    assert {"grid", "weights_5", "clusters_1", "reconstructions", "samples"} <= names
