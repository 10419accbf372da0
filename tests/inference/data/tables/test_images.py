import numpy as np
import pytest
import torch
from PIL import Image

from priorzoo.inference.data.tables.reading import read_table


def paint(path, size=(6, 5), mode="L", value=100):
    """An image of height and width in one value, or in that many red."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fill = value if mode in ("L", "1", "I;16", "P") else (value, *[0] * (len(mode) - 1))
    Image.new(mode, size[::-1], fill).save(path)


def test_folders_are_classes(tmp_path):
    for name, value in {"b/1.png": 51, "a/2.png": 102, "a/1.png": 0, ".hidden/1.png": 7}.items():
        paint(tmp_path / name, value=value)
    (tmp_path / "notes.txt").write_text("no image")
    table = read_table(tmp_path)
    assert table.names == ("a/1.png", "a/2.png", "b/1.png")
    assert table.schema.class_names == ("a", "b")
    assert table.labels.tolist() == [0, 0, 1]
    assert table.schema.shape == (6, 5)
    expected = torch.tensor([0.0, 0.4, 0.2]).repeat_interleave(30).reshape(3, 30)
    torch.testing.assert_close(table.rows, expected)


def test_colour_and_size(tmp_path):
    paint(tmp_path / "1.png", mode="RGB", value=255)
    paint(tmp_path / "2.png", size=(8, 8), value=255)
    table = read_table(tmp_path, size=(4, 3))
    assert table.schema.shape == (4, 3, 3)
    assert table.labels is None
    first, second = table.rows.reshape(2, 4, 3, 3)
    torch.testing.assert_close(first[0, 0], torch.tensor([1.0, 0.0, 0.0]))
    torch.testing.assert_close(second, torch.ones(4, 3, 3))
    again = read_table(tmp_path, schema=table.schema)  # resized without being told
    torch.testing.assert_close(again.rows, table.rows)


def test_a_stated_mode_converts_all(tmp_path):
    paint(tmp_path / "1.png", mode="RGBA", value=255)
    assert read_table(tmp_path, mode="L").schema.shape == (6, 5)
    assert read_table(tmp_path, mode="RGB").schema.shape == (6, 5, 3)


REFUSED = {
    "alpha": ({"mode": "RGBA"}, {}, r"grey or RGB images but .*2\.png has mode RGBA; say --mode"),
    "16 bits": ({"mode": "I;16"}, {"mode": "L"}, r"8 bits but .*2\.png has mode I;16"),
    "sizes": ({"size": (7, 5)}, {}, r"one size, 6 x 5 as in .*1\.png, but .*2\.png is 7 x 5"),
    "mode": ({}, {"mode": "HSV"}, r"--mode among \('L', 'RGB'\) but got 'HSV'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_images_are_refused(name, tmp_path):
    how, settings, message = REFUSED[name]
    paint(tmp_path / "1.png")
    paint(tmp_path / "2.png", **how)
    with pytest.raises(ValueError, match=message) as refused:
        read_table(tmp_path, **settings)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("data", [b"", b"no image", None])
def test_broken_images_are_refused(data, tmp_path):
    paint(tmp_path / "1.png", size=(40, 40))
    whole = (tmp_path / "1.png").read_bytes()
    (tmp_path / "2.png").write_bytes(whole[: len(whole) // 2] if data is None else data)
    with pytest.raises(ValueError, match=r"Expected an image in .*2\.png") as refused:
        read_table(tmp_path)
    assert "\n" not in str(refused.value)


def test_large_images_must_be_resized(tmp_path):
    paint(tmp_path / "1.png", size=(300, 200))
    with pytest.raises(ValueError, match="up to 128 x 128 but got 300 x 200; say --size"):
        read_table(tmp_path)
    assert read_table(tmp_path, size=(30, 20)).schema.shape == (30, 20)


def test_classes_that_the_training_did_not_have(tmp_path):
    paint(tmp_path / "one" / "a" / "1.png")
    paint(tmp_path / "two" / "b" / "1.png")
    schema = read_table(tmp_path / "one").schema
    with pytest.raises(ValueError, match=r"classes of the training, a, but got b/1\.png"):
        read_table(tmp_path / "two", schema=schema)


def test_an_empty_folder(tmp_path):
    with pytest.raises(ValueError, match=r"Expected images \(\.png"):
        read_table(tmp_path)


def test_bytes_are_divided_by_255():
    x = np.random.default_rng(0).integers(0, 256, (4, 3, 5), dtype=np.uint8)
    table = read_table(x)
    assert table.schema.shape == (3, 5)
    np.testing.assert_allclose(table.rows, x.reshape(4, 15) / 255, rtol=1e-6)
    with pytest.raises(ValueError, match=r"images of shape \(3, 5\)"):
        read_table(x[:, :2], schema=table.schema)
    with pytest.raises(ValueError, match="within"):
        read_table(x.astype(np.float32) - 300)


def test_images_further_down_are_refused(tmp_path):
    for name in ("train/a/0.png", "train/a/.thumbnails/0.png", "0.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (3, 3)).save(tmp_path / name)
    with pytest.raises(
        ValueError, match=r"got 1 further down, the first is .*0\.png; give the fol"
    ):
        read_table(tmp_path)
    assert read_table(tmp_path / "train").names == ("a/0.png",)
    assert len(read_table(tmp_path / "train" / "a")) == 1
