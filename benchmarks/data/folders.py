"""Folders of files that are larger than memory, as data sets."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from priorzoo.benchmarks.data.parts import Parts, Request, halves
from priorzoo.inference import StoredRows
from priorzoo.inference.data.stored.parquet import column_names

SAMPLE = 20_000  # training rows in memory, for charts, stages and moves
LABEL = "y"
WHOLE = 2**27  # bytes of all files up to which the whole of them makes their fingerprint
BLOCKS, BLOCK = 1024, 2**16  # of larger files together, and their bytes


def folder(path: Path, _: Request) -> Parts:
    """Rows to train on and to test with, in files of a folder.

    The rows to train on stay in ``train.parquet``, in the ``.parquet`` files of a folder ``train``,
    or in ``x_train.npy`` or ``x_train.zarr``; they are read in pieces. Those to test with are read
    into memory from ``test.parquet``, ``test``, ``x_test.npy`` or ``x_test.zarr``. A column ``y``,
    or ``y_train.npy`` and ``y_test.npy`` (or ``.zarr``), holds labels.

    Raises:
        FileNotFoundError: where one of the two parts is missing.
        ValueError: for files that cannot be read.
    """
    train, test = (_part(path, name) for name in ("train", "test"))
    first = next(train.batched(min(SAMPLE, train.size), 0).passes()).batch
    held = next(iter(test.in_order(test.size))).batch
    known, tested = (
        (batch.x.numpy(), batch.labels[LABEL].numpy() if batch.labels else None)
        for batch in (first, held)
    )
    return replace(halves(path, known, tested), stored=train.without_labels())


def stored_fingerprint(stored: StoredRows) -> str:
    """Of the sizes and contents of the files: ``1000 rows [20] 9f86d081884c7d65``.

    The whole of files up to 128 MiB together counts. Of larger ones, all bytes of which would take
    as long as a pass over the data, 1,024 blocks of 64 KiB count that are spread evenly over them,
    and the footers of Parquet files, with the smallest and largest value and the compressed size of
    each column of each row group. A change elsewhere is not noticed.
    """
    digest = hashlib.sha256()
    paths = sorted({inside for file in stored.files for inside in _files(file.path)})
    sizes = [path.stat().st_size for path in paths]
    blocks = None if sum(sizes) <= WHOLE else max(2, BLOCKS // len(paths))
    for path, size in zip(paths, sizes, strict=True):
        digest.update(f"{path.name} {size} ".encode())
        with path.open("rb") as file:
            parts = _all(size) if blocks is None else _some(file, size, blocks)
            for start, count in parts:
                file.seek(start)
                digest.update(file.read(count))
    return f"{stored.size} rows {list(stored.shape)} {digest.hexdigest()[:16]}"


def _files(path: Path) -> list[Path]:
    return [each for each in path.rglob("*") if each.is_file()] if path.is_dir() else [path]


def _all(size: int) -> list[tuple[int, int]]:
    return [(start, BLOCK) for start in range(0, size, BLOCK)]


def _some(file: BinaryIO, size: int, blocks: int) -> list[tuple[int, int]]:
    """Starts and lengths of blocks of a file, and of the footer of a Parquet file."""
    spread = np.linspace(0, max(0, size - BLOCK), blocks).astype(int).tolist()
    parts = [(start, BLOCK) for start in spread]
    if file.name.endswith(".parquet"):  # the footer, its length in 4 bytes, and "PAR1"
        file.seek(size - 8)
        footer = 8 + int.from_bytes(file.read(4), "little")
        parts.append((max(0, size - footer), footer))
    return parts


def _part(path: Path, name: str) -> StoredRows:
    for kind in (".npy", ".zarr"):
        array, beside = path / f"x_{name}{kind}", path / f"y_{name}{kind}"
        if array.exists():
            return StoredRows(array, labels={LABEL: beside.name} if beside.exists() else {})
    for found in (path / f"{name}.parquet", path / name):
        if found.exists():
            labels = {LABEL: LABEL} if LABEL in column_names(found) else {}
            return StoredRows(found, labels=labels)
    raise FileNotFoundError(
        f"Expected {name}.parquet, a folder {name} of such files, x_{name}.npy or x_{name}.zarr in "
        f"{path} but there is none; write the rows to one of them."
    )
