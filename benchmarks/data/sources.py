"""The catalogue of data sets, with a reader for each."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch

from priorzoo.benchmarks.data.archives import local
from priorzoo.benchmarks.data.parts import Array, Parts, Request, halves, select

CELEBA = {"gender": "Male", "glasses": "Eyeglasses", "smiling": "Smiling"}


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
    """Add a reader to the catalogue, under its own name."""

    def enter(read: Reader) -> Reader:
        CATALOGUE[read.__name__] = Source(summary, read, labels, number)
        return read

    return enter


@listed("1,797 digits, 8 x 8, of scikit-learn; needs no file")
def digits(request: Request) -> Parts:
    """Optical digits of Alpaydin and Kaynak, 1998, with scikit-learn; our split is fixed."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = fixed_order(len(x))
    return select("digits", x.reshape(-1, 8, 8), y, order[:1400], order[1400:], scale=16)


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
    return select("pinwheel", x.numpy(), y.numpy(), slice(10_000), slice(10_000, count))


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
    path, arrays = local(request, "omniglot28", "x_train", "x_test", f"{y}_train", f"{y}_test")
    order = fixed_order(len(arrays["x_train"]))
    train = arrays["x_train"][order], arrays[f"{y}_train"][order]
    return halves(path, train, (arrays["x_test"], arrays[f"{y}_test"]), scale=255)


@listed("624 faces, 60 x 64, of four factors", "person", "pose", "expression", "eyes")
def cmu_faces(request: Request) -> Parts:
    """``cmu_faces.npz``: ``x`` (624, 60, 64), ``is_test``, and a factor of variation as labels.

    Mitchell, "Machine Learning", 1997, chapter 4: 20 people, 4 poses, 4 expressions, sunglasses.
    """
    path, arrays = local(request, "cmu_faces", "x", "is_test", request.labels)
    order, test = fixed_order(len(arrays["x"])), arrays["is_test"].astype(bool)
    train = order[~test[order]]
    return select(path, arrays["x"], arrays[request.labels], train, test, scale=255)


@listed("182,732 faces, 64 x 64 x 3, of three attributes; from torchvision's files", *CELEBA)
def celeba(request: Request) -> Parts:
    """CelebA of Liu et al., 2015, as torchvision lays it out below the root; read, not fetched.

    The central 178 x 178 of each image at 64 x 64, in [0, 1] (Paquet, Ghaisas and Tieleman, 2018,
    have [-1, 1]), some 10 GB, and one attribute as labels.
    """
    whole = (_celeba(request.root, split) for split in ("train", "test"))
    train, test = ((x, attributes[CELEBA[request.labels]]) for x, attributes in whole)
    return halves(request.root / "celeba", train, test, scale=255)


@lru_cache(maxsize=2)
def _celeba(root: Path, split: str) -> tuple[Array, Mapping[str, Array]]:
    """Images, and attributes by name; cached, since each choice of labels needs them."""
    from torchvision import datasets

    box = (0, 20, 178, 198)
    try:
        source = datasets.CelebA(root, split)
        images = [np.asarray(image.resize((64, 64), box=box)) for image, _ in source]
    except (RuntimeError, OSError) as error:
        raise FileNotFoundError(
            f"No readable CelebA in {root / 'celeba'} ({error}); put torchvision's files there, "
            "or name the folder that holds celeba by PRIORZOO_DATA or --data-root."
        ) from error
    return np.stack(images), dict(zip(source.attr_names, source.attr.numpy().T, strict=False))


@listed("1,965 frames of one face, 28 x 20, unlabelled")
def freyfaces(request: Request) -> Parts:
    """``freyfaces.npz``: ``x`` (1965, 28, 20) and ``split_train``, ``split_valid``, ``split_test``.

    Roweis and Saul, 2000. The validation rows end the training rows, so ``validation=200``
    restores the split of sizes 1565, 200 and 200 of Tomczak and Welling, 2018.
    """
    path, arrays = local(request, "freyfaces", "x", "split_train", "split_valid", "split_test")
    train = np.concatenate([arrays["split_train"], arrays["split_valid"]])
    return select(path, arrays["x"], None, train, arrays["split_test"], scale=255)


@listed("2,225 articles as counts of 2,949 words, five topics")
def bbc_news(request: Request) -> Parts:
    """``bbc_news_bow.npz``: counts ``x``, topics ``y``, ``vocab``, and ``part`` (train, val, test).

    Greene and Cunningham, 2006, lemmatised and split by OCTIS. The validation rows end the
    training rows, so ``validation=334`` restores that split.
    """
    path, arrays = local(request, "bbc_news_bow", "x", "y", "part", "vocab")
    train, valid, test = (np.flatnonzero(arrays["part"] == p) for p in ("train", "val", "test"))
    made = select(path, arrays["x"], arrays["y"], np.concatenate([train, valid]), test)
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
    return select("blobs", x.numpy(), y.numpy(), slice(2_000), slice(2_000, 3_000))


def fixed_order(count: int) -> Array:
    """A fixed permutation, so that the first or last rows of a sorted file are a fair sample."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(0)).numpy()
