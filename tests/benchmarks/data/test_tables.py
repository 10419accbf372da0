import numpy as np
import pandas as pd
import pytest
import torch

from priorzoo.benchmarks.data.fingerprints import differing, fingerprint
from priorzoo.benchmarks.data.tables import image_size, is_table, load_table, read


@pytest.fixture
def path(tmp_path):
    """A file of 50 rows with a missing cell, a covariate, a weight and labels."""
    rng = np.random.default_rng(0)
    columns = {"a": rng.normal(size=50), "b": rng.poisson(3, 50), "sex": rng.choice(["f", "m"], 50)}
    frame = pd.DataFrame(columns | {"w": rng.random(50) + 1, "kind": rng.choice(["x", "y"], 50)})
    frame.loc[7, "a"] = None
    frame.to_csv(tmp_path / "mine.csv", index=False)
    return str(tmp_path / "mine.csv")


READING = {"columns": "sex=covariate,w=weight,kind=label"}


def test_parts_of_a_table_are_disjoint_and_keep_what_is_beside_their_rows(path):
    dataset = load_table(path, READING, validation=10)
    whole = read(path, READING)
    assert [len(x) for x in (dataset.x_train, dataset.x_valid, dataset.x_test)] == [35, 10, 5]
    for part, x, y in (
        ("train", dataset.x_train, dataset.y_train),
        ("valid", dataset.x_valid, dataset.y_valid),
        ("test", dataset.x_test, dataset.y_test),
    ):
        places = [int((whole.rows == row).all(1).nonzero()[0]) for row in x]
        torch.testing.assert_close(y, whole.labels[places])
        told = dataset.beside(x, part)
        torch.testing.assert_close(told["observed"], whole.observed[places])
        torch.testing.assert_close(told["covariates"], whole.covariates[places])
        assert ("weights" in told) == (part == "train")
    every = torch.cat([dataset.x_train, dataset.x_valid, dataset.x_test])
    torch.testing.assert_close(every.sort(0).values, whole.rows.sort(0).values)
    assert dataset.vocabulary == ()  # which is of words alone


def test_other_rows_are_read_by_the_columns_of_the_training(path):
    dataset = load_table(path, READING)
    other = load_table(path, {}, dataset.schema)
    assert len(other.x_test) == len(other.x_train) == 50
    assert other.schema == dataset.schema


def test_fingerprints_tell_other_masks_and_covariates_apart(path):
    first = load_table(path, READING)
    context = {part: dict(told) for part, told in first.context.items()}
    context["test"]["observed"] = ~context["test"]["observed"]
    before = fingerprint(first)
    first.context["test"]["observed"][0, 0] ^= True
    assert len(differing(before, fingerprint(first))) == 1


def test_what_is_a_table(tmp_path):
    assert is_table("mine.csv", {})
    assert not is_table(str(tmp_path), {})
    (tmp_path / "1.png").touch()
    assert is_table(str(tmp_path), {})
    assert is_table("mine.npz", {"scaling": "auto"})
    assert not is_table("mine.npz", {})
    assert not is_table("digits", {})


def test_sizes_of_images():
    assert image_size("32x24") == (32, 24)
    assert image_size("16") == (16, 16)
    for text in ("0", "a", "1x2x3", "x"):
        with pytest.raises(ValueError, match="Expected a size such as 32x32"):
            image_size(text)


BAD = {
    "unknown": ({"columns": "a=real", "sheet": "1"}, "Expected reading.columns.* but got sheet"),
    "scaling": ({"scaling": "max"}, "Expected scaling among auto.* but got 'max'"),
    "mode": ({"mode": "CMYK"}, "Expected mode among L, RGB but got 'CMYK'"),
}


@pytest.mark.parametrize("name", BAD)
def test_settings_of_reading_are_checked(path, name):
    reading, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        load_table(path, reading)


def test_too_many_validation_rows_are_refused(path):
    with pytest.raises(ValueError, match="validation"):
        load_table(path, READING, validation=45)
