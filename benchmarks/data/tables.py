"""Tables, files and folders of images as data sets: shuffled once, and split."""

from collections.abc import Mapping
from dataclasses import replace
from typing import cast, get_args

import torch

from priorzoo.benchmarks.data.sets import Binarise, Dataset, expanded, split
from priorzoo.benchmarks.data.sources import CATALOGUE
from priorzoo.inference.data.tables.files import ANNOTATED, TABLES
from priorzoo.inference.data.tables.images import Mode, is_image_folder
from priorzoo.inference.data.tables.reading import read_table
from priorzoo.inference.data.tables.schema import Scaling, Schema, Table

TEST = 10  # one row in so many is held out for the scores
KNOWN = ("columns", "scaling", "layer", "size", "mode")
Reading = Mapping[str, str]


def is_table(name: str, reading: Reading) -> bool:
    """Whether the name of a data set is the path of a table or of a folder of images.

    Arrays are, if it is told how to read them; else they are already split. The name of a data set
    is no path: a folder of that name is ``./mnist``.
    """
    if name in CATALOGUE and not reading:
        return False
    path = expanded(name)
    return bool(reading) or path.suffix.lower() in (*TABLES, *ANNOTATED) or is_image_folder(path)


def read(name: str, reading: Reading, schema: Schema | None = None) -> Table:
    """The table at a path.

    Args:
        name: the path.
        reading: ``columns``, ``scaling``, ``layer``, ``size`` (``32x32``) and ``mode``, see
            :func:`read_table`.
        schema: that of a training.

    Raises:
        ValueError: for a setting that cannot be read, and as :func:`read_table`.
    """
    if unknown := reading.keys() - set(KNOWN):
        raise ValueError(f"Expected reading.{', '.join(KNOWN)} but got {', '.join(unknown)}.")
    for setting, choices in (("scaling", get_args(Scaling)), ("mode", get_args(Mode))):
        if reading.get(setting, choices[0]) not in choices:
            raise ValueError(
                f"Expected {setting} among {', '.join(choices)} but got {reading[setting]!r}."
            )
    return read_table(
        name,
        columns=reading.get("columns", ""),
        schema=schema,
        scaling=cast(Scaling, reading.get("scaling", "auto")),
        layer=reading.get("layer"),
        size=image_size(reading["size"]) if "size" in reading else None,
        mode=cast(Mode | None, reading.get("mode")),
    )


def image_size(text: str) -> tuple[int, int]:
    """Height and width from ``32x24``, or ``32`` for a square.

    Raises:
        ValueError: for another text.
    """
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() and int(side) > 0 for side in sides):
        raise ValueError(f"Expected a size such as 32x32, height and width, but got {text!r}.")
    return int(sides[0]), int(sides[-1])


def load_table(
    name: str,
    reading: Reading,
    schema: Schema | None = None,
    *,
    binarise: Binarise = "none",
    validation: int = 0,
    train: int | None = None,
    seed: int = 0,
    table: Table | None = None,
) -> Dataset:
    """A table as a data set.

    The rows are shuffled, always in the same order, and one in ten is held out for the scores.

    Args:
        name, reading: see :func:`read`.
        schema: that of a training, whose rows are other ones: all of these are test rows too.
        binarise, seed: of images, as in :func:`load`; tables are never binarised.
        train, validation: how many rows to train on, all that are left if None, and to hold out.
        table: the table, if it was read already.

    Raises:
        ValueError: for too few rows, and as :func:`read_table`.
    """
    table = read(name, reading, schema) if table is None else table
    if schema is None and len(table) < 2:
        raise ValueError(
            f"Expected at least 2 rows in {name}, one to hold out, but got 1; add rows."
        )
    if table.schema.shape and binarise == "static":
        generator = torch.Generator().manual_seed(seed)
        table = replace(table, rows=torch.bernoulli(table.rows, generator=generator))
    how = binarise if table.schema.shape else "none"
    if schema is not None:
        parts = {"train": table, "valid": table.take(torch.arange(0)), "test": table}
        return dataset_of(name, parts, how)
    order = torch.randperm(len(table), generator=torch.Generator().manual_seed(0))
    test = max(1, len(table) // TEST)
    fit, held = split(len(table) - test, train, validation)
    places = {"train": order[:-test][fit], "valid": order[:-test][held], "test": order[-test:]}
    return dataset_of(name, {part: table.take(rows) for part, rows in places.items()}, how)


def dataset_of(name: str, parts: Mapping[str, Table], binarise: Binarise = "none") -> Dataset:
    """A data set of the tables of its parts ``train``, ``valid`` and ``test``."""
    train, valid, test = (parts[part] for part in ("train", "valid", "test"))
    schema = train.schema
    context = {part: dict(table.context) for part, table in parts.items()}
    if train.weights is not None:
        context["train"]["weights"] = train.weights
    return Dataset(
        name,
        train.rows,
        train.labels,
        valid.rows,
        valid.labels,
        test.rows,
        test.labels,
        schema.shape or (train.rows.shape[1],),
        binarise,
        context=context,
        schema=schema,
    )
