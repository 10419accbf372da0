import math
import os
import re
import urllib.request
from urllib.error import URLError

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from priorzoo.benchmarks.data import labels as labels_
from priorzoo.benchmarks.data import sets as data


@pytest.fixture
def save(tmp_path):
    def write(stem="own", **arrays):
        np.savez(tmp_path / f"{stem}.npz", **arrays)
        return str(tmp_path / f"{stem}.npz")

    return write


def own(**changes):
    arrays = {
        "x_train": np.arange(12, dtype=np.uint8).reshape(6, 2),
        "y_train": np.array([0, 1, 2, 0, 1, 2], np.uint8),
        "x_test": np.array([[20.5, 21.0]]),
        "y_test": np.array([7]),
    }
    return {key: value for key, value in (arrays | changes).items() if value is not None}


def write_idx(root, kind, train, test):
    """Files as LeCun describes them: big-endian magic and sizes, then bytes."""
    folder = root / kind / "raw"
    folder.mkdir(parents=True)
    for stem, (x, y) in {"train": train, "t10k": test}.items():
        for suffix, array in (("images-idx3", x), ("labels-idx1", y)):
            head = np.array([0x800 + array.ndim, *array.shape], ">i4").tobytes()
            (folder / f"{stem}-{suffix}-ubyte").write_bytes(head + array.tobytes())


@pytest.fixture
def pictures():
    draw = np.random.default_rng(0)
    x = draw.integers(0, 256, (9, 3, 2), np.uint8)
    return (x[:7], np.arange(7, dtype=np.uint8)), (x[7:], np.array([8, 9], np.uint8))


# Splits and binarisation


def test_default_keeps_every_row_and_holds_nothing_out(save):
    got = data.load(save(**own()))
    assert (got.shape, got.binarise, got.vocabulary) == ((2,), "none", ())
    assert (got.x_train.shape, got.x_valid.shape, got.x_test.shape) == ((6, 2), (0, 2), (1, 2))
    assert got.x_train.dtype == got.x_test.dtype == torch.float32
    assert got.y_train.dtype == got.y_valid.dtype == got.y_test.dtype == torch.int64
    assert got.x_train[5].tolist() == [10, 11]  # integers are not scaled
    assert (got.x_test.tolist(), got.y_test.tolist()) == ([[20.5, 21.0]], [7])
    assert got.transform is None


@pytest.mark.parametrize(
    ("train", "validation", "fit", "held"),
    [
        (None, 2, [0, 1, 2, 0], [1, 2]),
        (4, 2, [0, 1, 2, 0], [1, 2]),
        (1, 2, [0], [1, 2]),
        (6, 0, [0, 1, 2, 0, 1, 2], []),
        (3, 0, [0, 1, 2], []),
    ],
)
def test_first_rows_train_and_last_are_held_out(save, train, validation, fit, held):
    got = data.load(save(**own()), train=train, validation=validation)
    assert (got.y_train.tolist(), got.y_valid.tolist()) == (fit, held)
    assert got.x_train[:, 0].tolist() == [0, 2, 4, 6, 8, 10][: len(fit)]
    assert got.x_valid[:, 0].tolist() == [0, 2, 4, 6, 8, 10][6 - len(held) :]


@pytest.mark.parametrize(("train", "validation"), [(5, 2), (7, 0), (0, 0), (None, 6), (3, -1)])
def test_split_that_does_not_fit_is_refused(save, train, validation):
    message = f"at most 6, .* but got train={train}, validation={validation}"
    with pytest.raises(ValueError, match=message):
        data.load(save(**own()), train=train, validation=validation)


def test_static_is_one_seeded_bernoulli_sample_of_every_row(save):
    path = save(x_train=np.full((400, 5), 0.25), x_test=np.full((400, 5), 0.75))
    before = torch.get_rng_state()
    one, again = (data.load(path, binarise="static", validation=100) for _ in range(2))
    other = data.load(path, binarise="static", validation=100, seed=1)
    assert torch.equal(before, torch.get_rng_state())
    for part in ("x_train", "x_valid", "x_test"):
        rows, p = getattr(one, part), 0.75 if part == "x_test" else 0.25
        assert rows.unique().tolist() == [0, 1]
        assert abs(rows.mean().item() - p) < 5 * math.sqrt(p * (1 - p) / rows.numel())
        assert torch.equal(rows, getattr(again, part))
        assert not torch.equal(rows, getattr(other, part))
    assert one.transform is None


def test_static_sample_of_a_row_does_not_depend_on_the_split(save):
    path = save(x_train=np.full((40, 5), 0.5), x_test=np.full((10, 5), 0.5))
    whole = data.load(path, binarise="static")
    parts = data.load(path, binarise="static", train=20, validation=10)
    assert torch.equal(parts.x_train, whole.x_train[:20])
    assert torch.equal(parts.x_valid, whole.x_train[30:])
    assert torch.equal(parts.x_test, whole.x_test)


def test_dynamic_leaves_the_rows_and_draws_at_every_use(save):
    path = save(x_train=np.full((40, 50), 0.5), x_test=np.full((1, 50), 0.5))
    got = data.load(path, binarise="dynamic")
    assert (got.x_train == 0.5).all()
    one, two = got.transform(got.x_train), got.transform(got.x_train)
    assert one.unique().tolist() == [0, 1]
    assert not torch.equal(one, two)


@pytest.mark.parametrize("binarise", ["static", "dynamic"])
def test_rows_outside_the_unit_interval_are_not_binarised(save, binarise):
    path = save(x_train=np.zeros((2, 3)), x_test=np.array([[0.0, -1.0, 2.0]]))
    with pytest.raises(ValueError, match=r"Expected values in \[0, 1\] .* has \[-1, 2\]; scale"):
        data.load(path, binarise=binarise)


def test_unknown_binarisation_is_refused(save):
    with pytest.raises(ValueError, match=r"'none', 'static', 'dynamic'.* got 'fixed'"):
        data.load(save(**own()), binarise="fixed")


# The catalogue


def test_digits_are_all_there_once():
    got = data.load("digits")
    assert (got.shape, len(got.x_train), len(got.x_test)) == ((8, 8), 1400, 397)
    x, y = load_digits(return_X_y=True)
    rows = torch.cat([got.x_train, got.x_test]) * 16
    found = torch.cat([rows, torch.cat([got.y_train, got.y_test])[:, None]], 1)
    assert sorted(found.tolist()) == sorted(np.c_[x, y].tolist())
    assert got.y_train[:10].tolist() == [6, 5, 5, 7, 9, 9, 8, 4, 6, 8]  # the split never changes


def test_pinwheel_turns_back_into_one_blob():
    """With its arc undone, a point is (1 + .3 a, .05 b), a and b standard normal."""
    got = data.load("pinwheel")
    assert (got.shape, got.x_train.shape) == ((2,), (10_000, 2))
    assert torch.cat([got.y_train, got.y_test]).bincount().tolist() == [2400] * 5
    point = torch.view_as_complex(got.x_train)
    length = point.abs()  # up to .05² b² / 2 the abscissa, by which the arc turned it
    angle = got.y_train * (2 * math.pi / 5) + length.exp() / 4
    blob = point * torch.polar(torch.ones(10_000), angle)
    assert blob.real.mean().item() == pytest.approx(1, abs=0.015)
    assert blob.real.std().item() == pytest.approx(0.3, abs=0.01)
    assert blob.imag.mean().item() == pytest.approx(0, abs=0.005)
    assert blob.imag.std().item() == pytest.approx(0.05, abs=0.005)


def test_pinwheel_follows_the_seed():
    one, again, other = (data.load("pinwheel", seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one.x_train, again.x_train)
    assert not torch.equal(one.x_train, other.x_train)


@pytest.mark.parametrize(("name", "kind"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_idx_files_are_read_as_torchvision_lays_them_out(tmp_path, pictures, name, kind):
    write_idx(tmp_path, kind, *pictures)
    (x_train, y_train), (x_test, y_test) = pictures
    for download in (False, True):  # nothing is fetched where the files are there
        got = data.load(name, tmp_path, validation=2, download=download)
        assert got.shape == (3, 2)
        np.testing.assert_allclose(got.x_train, x_train[:5].reshape(5, 6) / 255, rtol=1e-6)
        np.testing.assert_allclose(got.x_valid, x_train[5:].reshape(2, 6) / 255, rtol=1e-6)
        np.testing.assert_allclose(got.x_test, x_test.reshape(2, 6) / 255, rtol=1e-6)
        assert got.y_train.tolist() + got.y_valid.tolist() == y_train.tolist()
        assert got.y_test.tolist() == y_test.tolist()


def test_missing_idx_files_say_where_and_how(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"MNIST.raw.*PRIORZOO_DATA or --data-root.*--download"
    ):
        data.load("mnist", tmp_path)
    assert not list(tmp_path.iterdir())


def test_truncated_idx_file_is_not_a_traceback_of_torchvision(tmp_path, pictures):
    write_idx(tmp_path, "MNIST", *pictures)
    file = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    os.truncate(file, 40)
    with pytest.raises(FileNotFoundError, match="No readable MNIST"):
        data.load("mnist", tmp_path)


def test_failed_download_is_one_line(tmp_path, monkeypatch):
    def unplugged(*args, **kwargs):
        raise URLError("Name or service not known")

    monkeypatch.setattr(urllib.request, "urlopen", unplugged)
    with pytest.raises(
        ConnectionError, match=r"Could not download.*service not known.*network"
    ) as e:
        data.load("fashion_mnist", tmp_path, download=True)
    assert "\n" not in str(e.value)


def test_omniglot_offers_characters_and_alphabets(save, tmp_path):
    x = np.arange(6, dtype=np.uint8).reshape(6, 1, 1) * 51
    y = np.arange(6, dtype=np.uint16)
    train = {"x_train": x, "y_train": y, "alphabet_train": y // 3}
    save("omniglot28", **train, x_test=x[:2], y_test=y[:2], alphabet_test=y[:2] + 8)
    characters, alphabets = (
        data.load(name, tmp_path) for name in ("omniglot28", "omniglot28:alphabet")
    )
    torch.testing.assert_close(characters.x_train[:, 0], characters.y_train * 0.2)
    assert sorted(characters.y_train.tolist()) == [0, 1, 2, 3, 4, 5] != characters.y_train.tolist()
    assert torch.equal(alphabets.y_train, characters.y_train // 3)
    assert (characters.y_test.tolist(), alphabets.y_test.tolist()) == ([0, 1], [8, 9])


def test_cmu_faces_offers_its_four_factors(save, tmp_path):
    x = np.arange(5, dtype=np.uint8).reshape(5, 1, 1) * 51
    factors = {
        key: np.arange(5) * (i + 1) for i, key in enumerate(data.CATALOGUE["cmu_faces"].labels)
    }
    save("cmu_faces", x=x, is_test=np.array([0, 1, 0, 0, 1], np.uint8), **factors)
    assert torch.equal(
        data.load("cmu_faces", tmp_path).y_train, data.load("cmu_faces:person", tmp_path).y_train
    )
    for i, factor in enumerate(("person", "pose", "expression", "eyes")):
        got = data.load(f"cmu_faces:{factor}", tmp_path)
        torch.testing.assert_close(got.x_train[:, 0], got.y_train / (i + 1) / 5)
        assert sorted(got.y_train.tolist()) == [k * (i + 1) for k in (0, 2, 3)]
        assert got.y_test.tolist() == [k * (i + 1) for k in (1, 4)]


def test_freyfaces_end_their_training_rows_with_the_validation_rows(save, tmp_path):
    x = np.arange(5, dtype=np.uint8).reshape(5, 1, 1) * 51
    save("freyfaces", x=x, split_train=[4, 0], split_valid=[3], split_test=[1, 2])
    got = data.load("freyfaces", tmp_path, validation=1)
    torch.testing.assert_close(got.x_train[:, 0], torch.tensor([0.8, 0.0]))
    torch.testing.assert_close(got.x_valid[:, 0], torch.tensor([0.6]))
    torch.testing.assert_close(got.x_test[:, 0], torch.tensor([0.2, 0.4]))
    assert got.y_train is got.y_valid is got.y_test is None


def test_bbc_news_are_counts_with_a_vocabulary(save, tmp_path):
    x = np.array([[0, 9], [1, 0], [2, 0], [3, 0]], np.uint8)
    part = np.array(["val", "train", "test", "train"])
    save("bbc_news_bow", x=x, y=np.arange(4), part=part, vocab=np.array(["tax", "goal"]))
    got = data.load("bbc_news", tmp_path, validation=1)
    assert (got.vocabulary, got.shape) == (("tax", "goal"), (2,))
    assert got.x_train.tolist() == [[1, 0], [3, 0]]
    assert got.x_valid.tolist() == [[0, 9]]
    assert (got.y_train.tolist(), got.y_valid.tolist(), got.y_test.tolist()) == ([1, 3], [0], [2])


def test_catalogue_can_be_listed():
    assert {"digits", "mnist", "fashion_mnist", "pinwheel"} <= set(data.CATALOGUE)
    for source in data.CATALOGUE.values():
        assert source.summary
        assert "\n" not in source.summary


@pytest.mark.parametrize("name", ["omniglot28", "cmu_faces:pose", "freyfaces", "bbc_news"])
def test_missing_file_says_where_and_how(tmp_path, name):
    stem = name.partition(":")[0]
    with pytest.raises(
        FileNotFoundError, match=f"No {stem}.*npz in .*PRIORZOO_DATA or --data-root"
    ):
        data.load(name, tmp_path, download=True)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mnsit", "got 'mnsit'; did you mean 'mnist'?"),
        ("Fashion-MNIST", "did you mean 'fashion_mnist'?"),
        ("xyzzy", "choose from digits, pinwheel, mnist"),
        ("cmu_faces:poze", "labels that cmu_faces has but got 'poze'; did you mean 'pose'?"),
        ("cmu_faces:", "choose from person, pose, expression, eyes."),
        ("mnist:pose", "Expected no choice of labels but got 'mnist:pose'; write 'mnist'."),
    ],
)
def test_unknown_name_is_met_with_the_nearest(name, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        data.load(name)


# The folder


def test_root_goes_before_environment_before_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PRIORZOO_DATA", str(tmp_path / "named"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert data.data_root(tmp_path) == tmp_path
    assert data.data_root("~/sets") == tmp_path / "home" / "sets"
    assert data.data_root() == tmp_path / "named"
    monkeypatch.delenv("PRIORZOO_DATA")
    assert data.data_root() == tmp_path / "cache" / "priorzoo"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert data.data_root() == tmp_path / "home" / ".cache" / "priorzoo"


# A user's file


def test_pictures_are_flattened_and_their_shape_kept(save):
    x = np.arange(24.0).reshape(2, 3, 4)
    got = data.load(save(x_train=x, x_test=x[:1]))
    assert got.shape == (3, 4)
    np.testing.assert_array_equal(got.x_train, x.reshape(2, 12))
    assert got.y_train is got.y_valid is got.y_test is None


def test_one_row_will_do(save):
    got = data.load(save(x_train=np.ones((1, 1), bool), x_test=np.zeros((1, 1), ">f8")))
    assert (got.x_train.tolist(), got.x_test.tolist()) == ([[1]], [[0]])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_train": None}, "Expected x_train in .* got only y_train, x_test, y_test; name"),
        ({"x_test": None}, "Expected x_test in"),
        ({"x_train": np.array([[1, None]])}, "plain numbers in x_train .* not of dtype object"),
        ({"x_train": np.array([["a", "b"]])}, "Expected numbers in x_train .* got dtype <U1"),
        ({"x_train": np.zeros((0, 2))}, r"N > 0, in x_train .* got shape \(0, 2\)"),
        ({"x_test": np.zeros((0, 2))}, r"N > 0, in x_test .* got shape \(0, 2\)"),
        ({"x_train": np.zeros(6)}, r"rows \(N, ...\).* got shape \(6,\)"),
        ({"x_test": np.zeros((1, 3))}, r"shape \(2,\) in x_test .* got \(3,\); give both"),
        ({"x_test": np.array([[0, np.nan]])}, "x_test .* infinity in 1 of 1 rows, first in row 0"),
        (
            {"x_test": np.array([[0, 0], [-np.inf, 0]]), "y_test": None},
            "1 of 2 rows, first in row 1",
        ),
        ({"x_test": np.array([[0, 1e300]])}, "finite numbers in x_test"),
        ({"y_train": np.arange(5)}, r"shape \(6,\) in y_train .* got int64 of shape \(5,\)"),
        ({"y_test": np.arange(2)}, r"shape \(1,\) in y_test .* got int64 of shape \(2,\)"),
        ({"y_train": np.eye(6, dtype=int)}, r"y_train .* of shape \(6, 6\)"),
        ({"y_train": np.zeros(6)}, "Expected integers .* got float64"),
    ],
)
def test_malformed_file_is_refused(save, changes, message):
    with pytest.raises(ValueError, match=message) as e:
        data.load(save(**own(**changes)))
    assert "own.npz" in str(e.value)


def test_file_that_is_no_archive_is_refused(tmp_path):
    path = tmp_path / "text.npz"
    path.write_text("x_train")
    with pytest.raises(ValueError, match=r"Expected a .npz archive but .*text.npz is none"):
        data.load(str(path))


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("place", [0.3, 0.5])
def test_damaged_archive_is_refused(tmp_path, write, place):
    """Its directory, at the end, is whole, and the arrays before it are not."""
    path = tmp_path / "own.npz"
    draw = np.random.default_rng(0)
    write(path, **own(x_train=draw.normal(size=(600, 2)), y_train=None))
    text = bytearray(path.read_bytes())
    start = int(place * len(text))
    text[start : start + 40] = bytes(40)
    path.write_bytes(text)
    with pytest.raises(ValueError, match=r"whole \.npz archive but .*own\.npz is damaged") as e:
        data.load(str(path))
    assert "\n" not in str(e.value)


def test_missing_file_of_a_user_is_named_in_full(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"No file {tmp_path}.gone.npz; give the path"):
        data.load("gone.npz")


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_first_and_last_are_one_data_set(save, channels):
    last = np.random.default_rng(0).random((7, 28, 20, channels)).astype("float32")
    first = np.ascontiguousarray(last.transpose(0, 3, 1, 2))
    sets = [data.load(save(x_train=x, x_test=x[:2])) for x in (last, first)]
    for got in sets:
        assert got.shape == ((28, 20) if channels == 1 else (28, 20, 3))
        np.testing.assert_array_equal(got.x_train, last.reshape(7, -1))
        np.testing.assert_array_equal(got.x_test, last[:2].reshape(2, -1))


def test_pictures_whose_channels_may_be_at_either_end_are_refused(save):
    x = np.zeros((4, 3, 8, 3))
    with pytest.raises(
        ValueError, match=r"x_train of .*own\.npz but got rows of shape \(3, 8, 3\)"
    ):
        data.load(save(x_train=x, x_test=x))


# Unknown labels


def test_a_label_below_unknown_is_refused(save):
    with pytest.raises(ValueError, match=r"-1 for unknown, in y_train .* got -2, first in row 1"):
        data.load(save(**own(y_train=np.array([-1, -2, 0, 0, 0, 0]))))
    kept = data.load(save(**own(y_train=np.array([-1, 2, 0, 0, 0, 0]))))
    assert kept.y_train.tolist() == [-1, 2, 0, 0, 0, 0]


def test_labels_to_keep_are_chosen_from_known_ones():
    labels = torch.tensor([-1, 0, 1, -1, 0, 1, -1, -1, 0, 1])
    kept = labels_.keep_labels(labels, 4, seed=0)
    assert [(kept == k).sum().item() for k in (-1, 0, 1)] == [6, 2, 2]
    assert (kept[kept >= 0] == labels[kept >= 0]).all()
    with pytest.raises(ValueError, match="label -1, unknown, for all"):
        labels_.keep_labels(torch.full((5,), -1), 2, seed=0)
    for count in range(7):
        several = labels_.keep_rows({"r_1": labels, "r_2": labels}, count, seed=0)
        assert (several["r_1"] >= 0).sum() == (several["r_2"] >= 0).sum() == count
    with pytest.raises(ValueError, match="at most 6, the training rows whose label is known"):
        labels_.keep_rows({"r_1": labels}, 7, seed=0)


@pytest.mark.parametrize(
    ("train", "test", "strange"),
    [
        ([0, 1, 2, 0, 1, 2], [1, 2, 3], "from 0 to 2, but some test rows have 3"),
        ([1, 2, 3, 1, 2, 3], [0, 1, -1], "from 1 to 3, but some test rows have 0"),
        ([0, 1, 2, 0, 1, 2], [2, -1, 0], None),
        ([-1] * 6, [0, 1, 2], None),
        ([0, 1, 2, 0, 1, 2], [-1] * 3, None),
    ],
)
def test_a_test_set_coded_unlike_the_training_set_is_noticed(save, train, test, strange):
    x = np.zeros((6, 2))
    path = save(x_train=x, y_train=np.array(train), x_test=x[:3], y_test=np.array(test))
    for validation in (0, 2):
        said = labels_.unlike(data.load(path, validation=validation))
        assert (said is None) if strange is None else (strange in said)
