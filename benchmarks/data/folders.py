"""Folders of files that are larger than memory, as data sets."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from priorzoo.benchmarks.data.sources import Parts, Request, halves
from priorzoo.inference import StoredRows
from priorzoo.inference.data.stored.files import column_names

SAMPLE = 20_000  # training rows in memory, for charts, stages and moves
LABEL = "y"
BLOCKS, BLOCK = 64, 2**16  # of a file that make its fingerprint, and their bytes


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
    """Of the sizes of the files and of 64 blocks spread evenly over each: ``1000 rows 9f86d081``.

    It is not of all bytes, which would take as long as a pass over the data.
    """
    digest = hashlib.sha256()
    for path in sorted({file.path for file in stored.files}):
        size = path.stat().st_size
        digest.update(f"{path.name} {size} ".encode())
        with path.open("rb") as file:
            for start in np.linspace(0, max(0, size - BLOCK), BLOCKS).astype(int).tolist():
                file.seek(start)
                digest.update(file.read(BLOCK))
    return f"{stored.size} rows {list(stored.shape)} {digest.hexdigest()[:16]}"


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
