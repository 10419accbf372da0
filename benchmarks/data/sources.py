"""Where the rows come from: a reader for every data set of the catalogue, and for a user's file."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from priorzoo.benchmarks.data.members import Header, header, members, opened, rows, stored, whole
from priorzoo.inference.data.stored.rows import StoredRows
from priorzoo.inference.data.tensors import as_tensor, check_finite

Array = NDArray[Any]
Half = tuple[Array, Array | None]  # rows, and their labels if there are any
Chosen = slice | Array  # which rows
KEYS = ("x_train", "x_test", "y_train", "y_test")  # of a user's file
CELEBA = {"gender": "Male", "glasses": "Eyeglasses", "smiling": "Smiling"}


@dataclass(frozen=True, eq=False)
class Parts:
    """A data set as its source splits it: finite rows ``(N, ...)``, float32, and labels, int64.

    The rows to train on may be bytes, whose values are those of the bytes divided by ``scale``.
    Where the rows to train on are ``stored`` in files, ``x_train`` and ``y_train`` are a sample.
    """

    x_train: Tensor
    x_test: Tensor
    y_train: Tensor | None
    y_test: Tensor | None
    vocabulary: tuple[str, ...] = ()
    stored: StoredRows | None = None
    scale: float = 1


@dataclass(frozen=True)
class Request:
    """What a reader may need: the data root, the labels wanted, a seed, and leave to download."""

    root: Path
    labels: str = ""
    seed: int = 0
    download: bool = False


Reader = Callable[[Request], Parts]


@dataclass(frozen=True)
class Source:
    """An entry of the catalogue.

    ``labels`` are asked for as ``name:labels``, or else the first; where there is a ``number`` of
    clusters, it is asked for as ``name:number``, or else this one.
    """

    summary: str
    read: Reader
    labels: tuple[str, ...] = ()
    number: str = ""


CATALOGUE: dict[str, Source] = {}


def listed(summary: str, *labels: str, number: str = "") -> Callable[[Reader], Reader]:
    """Enters a reader in the catalogue, under its own name."""

    def enter(read: Reader) -> Reader:
        CATALOGUE[read.__name__] = Source(summary, read, labels, number)
        return read

    return enter


@listed("1,797 digits, 8 x 8, of scikit-learn; needs no file")
def digits(request: Request) -> Parts:
    """Optical digits of Alpaydin and Kaynak, 1998, with scikit-learn; our split is fixed."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = _order(len(x))
    return _select("digits", x.reshape(-1, 8, 8), y, order[:1400], order[1400:], scale=16)


@listed("12,000 points of five arcs in the plane; needs no file")
def pinwheel(request: Request) -> Parts:
    r"""Five arcs in the plane: 10,000 points to train on and 2,000 to test with, label = arc.

    A point :math:`(1 + .3 a, .05 b)` with a, b normal is turned clockwise by
    :math:`2 \pi y / 5 + \exp(1 + .3 a) / 4`: Johnson et al., "Composing graphical models with
    neural networks", 2016, also the synthetic data of Dilokthanakul et al., 2016. Unlike in the
    code of Johnson et al. the coordinates are not multiplied by 10.
    """
    count, generator = 12_000, torch.Generator().manual_seed(request.seed)
    y = torch.randperm(count, generator=generator) % 5
    radial, tangential = torch.randn(2, count, generator=generator)
    length, width = 1 + 0.3 * radial, 0.05 * tangential
    angle = y * (2 * math.pi / 5) + length.exp() / 4
    cos, sin = angle.cos(), angle.sin()
    x = torch.stack([length * cos + width * sin, width * cos - length * sin], -1)
    return _select("pinwheel", x.numpy(), y.numpy(), slice(10_000), slice(10_000, count))


@listed("70,000 digits, 28 x 28; can be downloaded")
def mnist(request: Request) -> Parts:
    """The digits of LeCun et al., 1998."""
    return _idx("MNIST", request)


@listed("70,000 articles of clothing, 28 x 28; can be downloaded")
def fashion_mnist(request: Request) -> Parts:
    """The articles of Xiao et al., 2017."""
    return _idx("FashionMNIST", request)


def _idx(kind: str, request: Request) -> Parts:
    """``MNIST`` or ``FashionMNIST`` as torchvision lays them out below the root, in [0, 1]."""
    from torchvision import datasets

    read = partial(getattr(datasets, kind), request.root, download=request.download)
    folder = request.root / kind / "raw"
    try:
        train, test = read(train=True), read(train=False)
    except (RuntimeError, ValueError, AssertionError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[-1]
        if request.download:
            raise ConnectionError(
                f"Could not download or read {kind} in {folder} ({reason}); "
                "check the network, or put its four IDX files there."
            ) from error
        raise FileNotFoundError(
            f"No readable {kind} in {folder} ({reason}); name the folder that holds {kind} by "
            "PRIORZOO_DATA or --data-root, or fetch it with --download (download=True)."
        ) from error
    first, last = ((part.data.numpy(), part.targets.numpy()) for part in (train, test))
    return halves(folder, first, last, scale=255)


@listed("32,460 drawings of 1,623 characters, 28 x 28", "character", "alphabet")
def omniglot28(request: Request) -> Parts:
    """``omniglot28.npz``: ``x``, ``y`` (character) and ``alphabet``, each ``_train`` and ``_test``.

    The drawings of Lake et al., 2015, reduced to 28 x 28, 15 of 20 per character to train on.
    The split is not that of Burda et al., 2015: nats are not comparable with theirs.
    """
    y = "y" if request.labels == "character" else request.labels
    path, arrays = _local(request, "omniglot28", "x_train", "x_test", f"{y}_train", f"{y}_test")
    order = _order(len(arrays["x_train"]))
    train = arrays["x_train"][order], arrays[f"{y}_train"][order]
    return halves(path, train, (arrays["x_test"], arrays[f"{y}_test"]), scale=255)


@listed("624 faces, 60 x 64, of four factors", "person", "pose", "expression", "eyes")
def cmu_faces(request: Request) -> Parts:
    """``cmu_faces.npz``: ``x`` (624, 60, 64), ``is_test``, and a factor of variation as labels.

    Mitchell, "Machine Learning", 1997, chapter 4: 20 people, 4 poses, 4 expressions, sunglasses.
    """
    path, arrays = _local(request, "cmu_faces", "x", "is_test", request.labels)
    order, test = _order(len(arrays["x"])), arrays["is_test"].astype(bool)
    train = order[~test[order]]
    return _select(path, arrays["x"], arrays[request.labels], train, test, scale=255)


@listed("182,732 faces, 64 x 64 x 3, of three attributes; from torchvision's files", *CELEBA)
def celeba(request: Request) -> Parts:
    """CelebA of Liu et al., 2015, as torchvision lays it out below the root; read, not fetched.

    The central 178 x 178 of each picture at 64 x 64, in [0, 1] (Paquet, Ghaisas and Tieleman, 2018,
    have [-1, 1]), some 10 GB, and one attribute as labels.
    """
    whole = (_celeba(request.root, split) for split in ("train", "test"))
    train, test = ((x, attributes[CELEBA[request.labels]]) for x, attributes in whole)
    return halves(request.root / "celeba", train, test, scale=255)


@lru_cache(maxsize=2)
def _celeba(root: Path, split: str) -> tuple[Array, Mapping[str, Array]]:
    """Pictures, and attributes by name; kept, since each choice of labels wants them."""
    from torchvision import datasets

    box = (0, 20, 178, 198)
    try:
        source = datasets.CelebA(root, split)
        pictures = [np.asarray(picture.resize((64, 64), box=box)) for picture, _ in source]
    except (RuntimeError, OSError) as error:
        raise FileNotFoundError(
            f"No readable CelebA in {root / 'celeba'} ({error}); put torchvision's files there, "
            "or name the folder that holds celeba by PRIORZOO_DATA or --data-root."
        ) from error
    return np.stack(pictures), dict(zip(source.attr_names, source.attr.numpy().T, strict=False))


@listed("1,965 frames of one face, 28 x 20, unlabelled")
def freyfaces(request: Request) -> Parts:
    """``freyfaces.npz``: ``x`` (1965, 28, 20) and ``split_train``, ``split_valid``, ``split_test``.

    Roweis and Saul, 2000. The validation rows end the training rows, so ``validation=200``
    restores the split of sizes 1565, 200 and 200 of Tomczak and Welling, 2018.
    """
    path, arrays = _local(request, "freyfaces", "x", "split_train", "split_valid", "split_test")
    train = np.concatenate([arrays["split_train"], arrays["split_valid"]])
    return _select(path, arrays["x"], None, train, arrays["split_test"], scale=255)


@listed("2,225 articles as counts of 2,949 words, five topics")
def bbc_news(request: Request) -> Parts:
    """``bbc_news_bow.npz``: counts ``x``, topics ``y``, ``vocab``, and ``part`` (train, val, test).

    Greene and Cunningham, 2006, lemmatised and split by OCTIS. The validation rows end the
    training rows, so ``validation=334`` restores that split.
    """
    path, arrays = _local(request, "bbc_news_bow", "x", "y", "part", "vocab")
    train, valid, test = (np.flatnonzero(arrays["part"] == p) for p in ("train", "val", "test"))
    made = _select(path, arrays["x"], arrays["y"], np.concatenate([train, valid]), test)
    return replace(made, vocabulary=tuple(arrays["vocab"].tolist()))


@listed("3,000 points of separated clusters, blobs:K for K of them; needs no file", number="8")
def blobs(request: Request) -> Parts:
    """2,000 rows to train on and 1,000 to test with, of Gaussian clusters of deviation .35.

    Their number is the choice of labels. Centres are normal of deviation 1.25 in 16 dimensions.
    """
    clusters, generator = int(request.labels), torch.Generator().manual_seed(request.seed)
    centres = 1.25 * torch.randn(clusters, 16, generator=generator)
    y = torch.randperm(3_000, generator=generator) % clusters
    x = centres[y] + 0.35 * torch.randn(3_000, 16, generator=generator)
    return _select("blobs", x.numpy(), y.numpy(), slice(2_000), slice(2_000, 3_000))


def archive(path: Path, request: Request) -> Parts:
    """A user's ``.npz``: ``x_train``, ``x_test`` and perhaps ``y_train``, ``y_test``; unscaled."""
    if not path.is_file():
        raise FileNotFoundError(f"No file {path.absolute()}; give the path of a .npz file.")
    with opened(path) as file:
        found = _present(path, file, "x_train", "x_test")
        headers = {key: header(file, key) for key in KEYS if key in found}
        _check_headers(path, headers)
        rows_of = {key: rows(file, key) for key in KEYS[:2]}
        y_train, y_test = (
            _labels(whole(file, key), headers[f"x{key[1:]}"].shape[0], f"{key} of {path}")
            if key in headers
            else None
            for key in KEYS[2:]
        )
    return Parts(rows_of["x_train"], rows_of["x_test"].to(torch.float32), y_train, y_test)


def _check_headers(path: Path, headers: Mapping[str, Header]) -> None:
    """Refuse by shape and type what cannot be rows and labels, before anything is read."""
    for key in KEYS[:2]:
        _check_rows(headers[key].shape, f"{key} of {path}")
        as_tensor(np.empty((0, 1), headers[key].dtype), f"{key} of {path}")
    _check_alike(path, headers["x_train"].shape, headers["x_test"].shape)
    for key in KEYS[2:]:
        if key in headers:
            count = headers[f"x{key[1:]}"].shape[0]
            _check_labels(headers[key].dtype, headers[key].shape, count, f"{key} of {path}")


def _local(request: Request, stem: str, *keys: str) -> tuple[Path, dict[str, Array]]:
    path = request.root / f"{stem}.npz"
    if not path.is_file():
        raise FileNotFoundError(
            f"No {path.name} in {request.root}; put it there (it has no download), "
            "or name its folder by PRIORZOO_DATA or --data-root."
        )
    return path, _read(path, *keys)


def _read(path: Path, *keys: str) -> dict[str, Array]:
    with opened(path) as file:
        _present(path, file, *keys)
        return {key: whole(file, key) for key in keys}


def _present(path: Path, file: ZipFile, *keys: str) -> list[str]:
    """The names of all arrays, among which these must be."""
    found = members(file)
    if missing := [key for key in keys if key not in found]:
        raise ValueError(
            f"Expected {', '.join(missing)} in {path} but got only "
            f"{', '.join(found) or 'an empty file'}; name the arrays in numpy.savez."
        )
    return found


def _order(count: int) -> Array:
    """A fixed permutation, so that the first or last rows of a sorted file are a fair sample."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(0)).numpy()


def _select(
    where: object, x: Array, y: Array | None, train: Chosen, test: Chosen, scale: float = 1
) -> Parts:
    first, last = ((x[rows], None if y is None else y[rows]) for rows in (train, test))
    return halves(where, first, last, scale)


def halves(where: object, train: Half, test: Half, scale: float = 1) -> Parts:
    """Checks the arrays and makes tensors of them, whose values are divided by ``scale``."""
    named = (("train", *train), ("test", *test))
    x_train, x_test = (_rows(x, f"x_{part} of {where}") for part, x, _ in named)
    _check_alike(where, x_train.shape, x_test.shape)
    y_train, y_test = (
        None if y is None else _labels(y, len(x), f"y_{part} of {where}") for part, x, y in named
    )
    x_train = x_train.div_(scale) if x_train.is_floating_point() else x_train
    x_test = x_test.to(torch.float32).div_(scale)
    return Parts(x_train, x_test, y_train, y_test, scale=scale)


def _rows(x: Array, what: str) -> Tensor:
    found = as_tensor(x, what)
    _check_rows(x.shape, what)
    made = stored(found)
    check_finite(made, what)
    return made


def _check_rows(shape: Sequence[int], what: str) -> None:
    if len(shape) < 2 or 0 in shape:
        raise ValueError(
            f"Expected rows (N, ...), N > 0, in {what} but got shape {tuple(shape)}; give some."
        )


def _check_alike(where: object, train: Sequence[int], test: Sequence[int]) -> None:
    if train[1:] != test[1:]:
        raise ValueError(
            f"Expected rows of shape {tuple(train[1:])} in x_test of {where}, as in x_train, but "
            f"got {tuple(test[1:])}; give both one shape."
        )


def _labels(y: Array, count: int, what: str) -> Tensor:
    _check_labels(y.dtype, y.shape, count, what)
    labels = torch.from_numpy(y.astype(np.int64))
    if (labels < -1).any():
        raise ValueError(
            f"Expected labels from 0, or -1 for unknown, in {what} but got {int(labels.min())}, "
            f"first in row {int((labels < -1).nonzero()[0])}; number the classes from 0."
        )
    return labels


def _check_labels(dtype: np.dtype[Any], shape: Sequence[int], count: int, what: str) -> None:
    if dtype.kind not in "bui" or tuple(shape) != (count,):
        raise ValueError(
            f"Expected integers of shape ({count},) in {what}, one a row, "
            f"but got {dtype} of shape {tuple(shape)}."
        )
