"""Data sets in memory: flat rows, a stated binarisation, and the split a protocol asks for."""

import difflib
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from priorzoo.benchmarks.data.archives import archive
from priorzoo.benchmarks.data.folders import folder
from priorzoo.benchmarks.data.parts import Parts, Request
from priorzoo.benchmarks.data.sources import CATALOGUE, Source
from priorzoo.inference import StoredRows
from priorzoo.inference.batch import binarised
from priorzoo.inference.data.pictures import flat_rows
from priorzoo.inference.data.tables.schema import Schema

PORTION = 10_000  # rows that are drawn or converted at a time
Binarise = Literal["none", "static", "dynamic"]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Rows ``(N, P)``, float32, and labels ``(N,)``, int64, or None where there are none.

    ``train`` and ``valid``, the rows to train on and to validate with, may be bytes, which become
    float32 by :attr:`unpacking` in each batch; ``x_train`` and ``x_valid`` are all their values.

    ``shape`` is that of one row as an image, ``(28, 28)`` or ``(64, 64, 3)``, or ``(P,)`` for
    points, counts and tables.
    The validation part may have no rows. ``vocabulary`` names the P columns of word counts, and
    ``named`` holds further labels of the rows to train on and to test with, by the site they are
    for. Where the rows to train on are ``stored`` in files, ``x_train`` is a sample of them.
    ``context`` holds what model and guide are told beside the rows of each part, ``train``,
    ``valid`` and ``test``, and ``schema`` the columns of a table.
    """

    name: str
    train: Tensor
    y_train: Tensor | None
    valid: Tensor
    y_valid: Tensor | None
    x_test: Tensor
    y_test: Tensor | None
    shape: tuple[int, ...]
    binarise: Binarise
    vocabulary: tuple[str, ...] = ()
    named: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    stored: StoredRows | None = None
    scale: float = 1
    context: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    schema: Schema | None = None

    @property
    def transform(self) -> Callable[[Tensor], Tensor] | None:
        """What to do to every batch of values: a fresh Bernoulli sample if ``dynamic``."""
        return transform_of(self.binarise)

    @property
    def unpacking(self) -> Callable[[Tensor], Tensor] | None:
        """What to do to every batch of ``train`` or ``valid``, or of values, as it is drawn."""
        if self.train.is_floating_point():
            return self.transform
        return Unpacked(self.scale, self.binarise == "dynamic")

    @property
    def x_train(self) -> Tensor:
        """The rows to train on, ``(N, P)``, float32; made anew at every use if they are bytes."""
        return self.values(self.train)

    @property
    def x_valid(self) -> Tensor:
        """The rows to validate with, ``(V, P)``, float32."""
        return self.values(self.valid)

    def values(self, x: Tensor) -> Tensor:
        """The values, float32, of rows: bytes divided by ``scale``, and others as they are."""
        return Unpacked(self.scale)(x)

    def beside(self, x: Tensor, part: str = "test") -> dict[str, Tensor]:
        """What is told beside the first rows of a part, as many as there are in x, where x is."""
        told = self.context.get(part, {})
        return {name: value[: len(x)].to(x.device) for name, value in told.items()}

    def drawn(self, x: Tensor) -> Tensor:
        """Rows as a batch of them is drawn, with random numbers of the caller's stream."""
        return x if self.unpacking is None else self.unpacking(x)


@dataclass(frozen=True)
class Unpacked:
    """A transform of rows that are stored as bytes; rows of floats are values already.

    Args:
        scale: by which bytes are divided.
        binarise: whether to draw binary values with the values as probabilities.
    """

    scale: float = 1
    binarise: bool = False

    def __call__(self, x: Tensor) -> Tensor:
        values = x if x.is_floating_point() else x.to(torch.float32).div_(self.scale)
        return binarised(values) if self.binarise else values


def transform_of(binarise: Binarise) -> Callable[[Tensor], Tensor] | None:
    """What to do to every batch of rows as it is drawn: a Bernoulli sample if ``dynamic``."""
    return binarised if binarise == "dynamic" else None


def load(
    name: str,
    root: str | Path | None = None,
    *,
    binarise: Binarise = "none",
    validation: int = 0,
    train: int | None = None,
    seed: int = 0,
    download: bool = False,
) -> Dataset:
    """Read a data set into memory.

    Args:
        name: of the catalogue, perhaps with a choice of labels, ``cmu_faces:pose``; or the path of
            a ``.npz`` with ``x_train``, ``x_test`` and perhaps ``y_train``, ``y_test``, in an order
            in which the first and the last rows to train on are a fair sample; or that of a folder
            of files that are larger than memory, see :func:`folder`.
        root: the folder of the files; see :func:`data_root`.
        binarise: ``static`` draws one Bernoulli sample of every row, here and once; ``dynamic``
            leaves the rows as they are and draws at every use, by :attr:`Dataset.transform`.
        validation: how many rows at the end of the source's training rows to hold out.
        train: how many rows to train on, from the first; by default all that are not held out.
        seed: of the static binarisation and of generated data; no other random state is touched.
        download: whether torchvision may fetch ``mnist`` and ``fashion_mnist``.

    Raises:
        ValueError: for an unknown name, a split that does not fit, arrays that are malformed or
            not finite, and a binarisation of rows outside [0, 1].
        FileNotFoundError: if the files are not there.
        ConnectionError: if a download fails.
    """
    if binarise not in (known := get_args(Binarise)):
        raise ValueError(f"Expected binarise to be one of {known} but got {binarise!r}.")
    source, labels = _find(name)
    parts = source.read(Request(data_root(root), labels, seed, download))
    if parts.stored is not None:
        return _stored(name, parts, parts.stored, binarise, validation, train)
    fit, held = split(len(parts.x_train), train, validation)
    (flat, shape), (flat_test, _) = (
        flat_rows(rows, f"{part} of {name}")
        for part, rows in (("x_train", parts.x_train), ("x_test", parts.x_test))
    )
    _check_range(name, binarise, parts.scale, flat, flat_test)
    x, x_test, scale = flat, flat_test, parts.scale
    if binarise == "static":
        generator = torch.Generator().manual_seed(seed)
        x, x_test = (_drawn_once(rows, scale, generator) for rows in (x, x_test))
        scale = 1
    y, held_y = (None if parts.y_train is None else parts.y_train[rows] for rows in (fit, held))
    told = (shape, binarise, parts.vocabulary)
    found = Dataset(name, x[fit], y, x[held], held_y, x_test, parts.y_test, *told)
    return replace(found, scale=scale)


def _stored(
    name: str,
    parts: Parts,
    stored: StoredRows,
    binarise: Binarise,
    validation: int,
    train: int | None,
) -> Dataset:
    """A data set whose rows to train on are read from files."""
    if train is not None or binarise == "static":
        raise ValueError(
            f"Expected all rows of the files in {name}, drawn anew in each batch or not at all, "
            f"but got train={train}, binarise={binarise!r}; write the rows that you want to files."
        )
    (sample, shape), (x_test, _) = (
        flat_rows(x, name) for x in (Unpacked(parts.scale)(parts.x_train), parts.x_test)
    )
    held = sample[:0]
    if validation:
        stored, last = stored.split(validation)
        held = flat_rows(next(last.in_order(validation)).batch.x.to(sample), name)[0]
    _check_range(name, binarise, 1, sample, x_test)
    tested = parts.y_train, held, None, x_test, parts.y_test
    return Dataset(name, sample, *tested, shape, binarise, stored=stored)


def data_root(root: str | Path | None = None) -> Path:
    """``root``, else ``$PRIORZOO_DATA``, else ``priorzoo`` in ``$XDG_CACHE_HOME``, ``~/.cache``."""
    if root is not None:
        return Path(root).expanduser()
    if named := os.environ.get("PRIORZOO_DATA"):
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "priorzoo"


def expanded(name: str) -> Path:
    """The path of a name, in which ``~`` is the home folder of a user that this machine has."""
    with suppress(RuntimeError):
        return Path(name).expanduser()
    return Path(name)


def own_path(name: str) -> Path | None:
    """The absolute path of a file or folder of the user's; None for the name of a data set.

    A folder of a data set's name is ``./mnist``: what ``mnist`` means does not change with the
    working directory.
    """
    if name in CATALOGUE:
        return None
    path = expanded(name)
    return path.absolute() if path.is_dir() or name.endswith(".npz") else None


def _find(name: str) -> tuple[Source, str]:
    if (path := own_path(name)) is not None:
        if path.is_dir():
            return Source("a folder of yours", partial(folder, path)), ""
        return Source("a file of yours", partial(archive, path)), ""
    stem, colon, labels = name.partition(":")
    if stem not in CATALOGUE:
        hint = nearest(stem, CATALOGUE)
        raise ValueError(f"Expected a data set or the path of a .npz but got {stem!r}; {hint}")
    source = CATALOGUE[stem]
    if not colon:
        return source, next(iter(source.labels), source.number)
    if source.number:
        if not labels.isdecimal() or not 1 <= int(labels) <= 1_000:
            raise ValueError(f"Expected 1 to 1000 clusters, as in {stem}:8, but got {name!r}.")
    elif not source.labels:
        raise ValueError(f"Expected no choice of labels but got {name!r}; write {stem!r}.")
    elif labels not in source.labels:
        hint = nearest(labels, source.labels)
        raise ValueError(f"Expected labels that {stem} has but got {labels!r}; {hint}")
    return source, labels


def nearest(name: str, known: Iterable[str]) -> str:
    """The nearest of the known names, whatever its case, or all of them: the end of an error."""
    names = {one.lower(): one for one in known}
    near = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    return f"did you mean {names[near[0]]!r}?" if near else f"choose from {', '.join(known)}."


def split(count: int, train: int | None, validation: int) -> tuple[slice, slice]:
    """Which of so many rows are trained on, from the first, and which are held out, at the end.

    Raises:
        ValueError: for more than there are.
    """
    keep = count - validation if train is None else train
    if validation < 0 or keep < 1 or keep + validation > count:
        raise ValueError(
            f"Expected train >= 1, validation >= 0 and their sum at most {count}, the training "
            f"rows there are, but got train={train}, validation={validation}."
        )
    return slice(keep), slice(count - validation, count)


def _check_range(name: str, binarise: Binarise, scale: float, *parts: Tensor) -> None:
    if binarise == "none":
        return
    unpacked = Unpacked(scale)
    ends = [unpacked(torch.stack(torch.aminmax(x))) for x in parts]
    low, high = min(end[0].item() for end in ends), max(end[1].item() for end in ends)
    if low < 0 or high > 1:
        raise ValueError(
            f"Expected values in [0, 1] to binarise but {name} has [{low:g}, {high:g}]; "
            "scale the rows, or use binarise='none'."
        )


def _drawn_once(x: Tensor, scale: float, generator: torch.Generator) -> Tensor:
    """One Bernoulli sample of each row, as bytes where the rows are bytes."""
    made, unpacked = torch.empty_like(x), Unpacked(scale)
    for given, drawn in zip(x.split(PORTION), made.split(PORTION), strict=True):
        drawn.copy_(torch.bernoulli(unpacked(given), generator=generator))
    return made
