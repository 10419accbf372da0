"""Folders of files that are larger than memory, as data sets."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from priorzoo.benchmarks.data.sources import Parts, Request, halves
from priorzoo.inference import StoredRows
from priorzoo.inference.data.stored.files import column_names

SAMPLE = 20_000  # training rows in memory, for charts, stages and moves
LABEL = "y"
WHOLE = 2**27  # bytes of all files up to which the whole of them makes their fingerprint
BLOCKS, BLOCK = 1024, 2**16  # of larger files together, and their bytes


def folder(path: Path, _: Request) -> Parts:
    """Rows to train on and to test with, in files of a folder.

    The rows to train on stay in ``train.parquet``, in the ``.parquet`` files of a folder ``train``,
    or in ``x_train.npy``; they are read in pieces. Those to test with are read into memory from
    ``test.parquet``, ``test`` or ``x_test.npy``. A column ``y``, or ``y_train.npy`` and
    ``y_test.npy``, holds labels.

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
    paths = sorted({file.path for file in stored.files})
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
    array, beside = path / f"x_{name}.npy", path / f"y_{name}.npy"
    if array.is_file():
        return StoredRows(array, labels={LABEL: beside.name} if beside.is_file() else {})
    for found in (path / f"{name}.parquet", path / name):
        if found.exists():
            labels = {LABEL: LABEL} if LABEL in column_names(found) else {}
            return StoredRows(found, labels=labels)
    raise FileNotFoundError(
        f"Expected {name}.parquet, a folder {name} of such files, or x_{name}.npy in {path} but "
        "there is none; write the rows to one of them."
    )
