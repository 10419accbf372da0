"""Files of tables as a :class:`Frame`: CSV, TSV and Parquet, and arrays of ``.npz``."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from priorzoo.inference.data.tables.cells import MISSING, Frame, is_number
from priorzoo.inference.data.tables.frames import frame_of

if TYPE_CHECKING:
    from pyarrow import Table as ArrowTable

Arrays = Mapping[str, NDArray[np.generic]]
TABLES = (".csv", ".tsv", ".parquet")
ARRAYS = (".npz", ".npy")
ANNOTATED = (".h5ad",)
SEEN = 100_000  # characters at the start of a file by which its decimal point is known
# First bytes of files that are no text, and what they are of.
OTHERS = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "a zip or Excel file", b"PAR1": "Parquet"}
SUFFIXES = (*TABLES, *ARRAYS, *ANNOTATED)


def table_file(path: Path) -> Frame:
    """The columns of a ``.csv``, ``.tsv`` or ``.parquet`` file.

    Raises:
        ValueError: for a file that is empty, damaged or without names of columns.
        FileNotFoundError: if there is no file.
    """
    check_file(path)
    import pyarrow

    try:
        table = _parquet(path) if path.suffix.lower() == ".parquet" else _delimited(path)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        encoded = "UTF8" in reason or isinstance(error, UnicodeDecodeError)
        remedy = "save it as UTF-8" if encoded else "correct the file"
        raise ValueError(f"Expected a table in {path} but got: {reason}; {remedy}.") from error
    names = [" ".join(str(name).split()) for name in table.column_names]
    if path.suffix.lower() != ".parquet" and names and all(map(is_number, names)):
        raise ValueError(
            f"Expected the names of the columns in the first line of {path} but got numbers, "
            f"{', '.join(names[:4])}; add a line of names."
        )
    unnamed = [place for place, name in enumerate(names) if not name]
    for number, place in enumerate(unnamed):
        names[place] = f"unnamed{number + 1 if number else ''}"
    if len(set(names)) < len(names):  # refused there, by name
        return Frame.of([frame_of({name: [0]}).columns[name] for name in names], source=str(path))
    return frame_of(table.rename_columns(names), str(path))


def array_file(path: Path) -> Arrays:
    """The arrays of a ``.npz`` file by name; that of a ``.npy`` file as ``x``.

    Raises:
        ValueError: for a file that is damaged or holds Python objects.
        FileNotFoundError: if there is no file.
    """
    check_file(path)
    try:
        held = np.load(path, allow_pickle=False)
        return {"x": held} if isinstance(held, np.ndarray) else {k: held[k] for k in held.files}
    except (ValueError, OSError, EOFError, BadZipFile, KeyError) as error:
        raise ValueError(
            f"Expected arrays of numbers in {path} but got: {error}; write it by numpy.savez."
        ) from error


def check_file(path: Path) -> None:
    """Check that a file is there and not empty.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: for an empty one.
    """
    if not path.is_file():
        what = "it is a folder" if path.is_dir() else "there is none"
        raise FileNotFoundError(f"Expected a file {path} but {what}; check the path.")
    if path.stat().st_size == 0:
        raise ValueError(f"Expected a table in {path} but the file is empty; write it again.")


def _check_text(path: Path) -> None:
    """Refuse files that are no text by their first bytes."""
    with path.open("rb") as file:
        start = file.read(4)
    for first, kind in OTHERS.items():
        if start.startswith(first):
            raise ValueError(
                f"Expected lines of text in {path} but got {kind}; unpack it or save it as CSV, or "
                "give it the ending of its kind."
            )


def _parquet(path: Path) -> "ArrowTable":
    from pyarrow import parquet

    return parquet.read_table(path)


def _delimited(path: Path) -> "ArrowTable":
    """A table of pyarrow.csv: as text where the types of a column's cells differ."""
    _check_text(path)
    from pyarrow import ArrowInvalid, csv, string

    delimiter = _delimiter(path)
    parsing = csv.ParseOptions(delimiter=delimiter)
    missing: dict[str, Any] = {"null_values": list(MISSING), "strings_can_be_null": True}
    missing["decimal_point"] = _decimal_point(path) if delimiter == ";" else "."
    options = csv.ConvertOptions(**missing)
    try:
        return _closed(path, csv.read_csv(path, parse_options=parsing, convert_options=options))
    except ArrowInvalid as error:
        if "conversion error" not in str(error):
            raise
    with csv.open_csv(path, parse_options=parsing) as reader:
        types = dict.fromkeys(reader.schema.names, string())
    options = csv.ConvertOptions(column_types=types, **missing)
    return _closed(path, csv.read_csv(path, parse_options=parsing, convert_options=options))


def _closed(path: Path, table: "ArrowTable") -> "ArrowTable":
    """The table, whose last row goes on to the end of the file if a quote is never closed.

    Raises:
        ValueError: for such a row.
    """
    last = table.slice(max(0, table.num_rows - 1)).to_pydict()
    open_name = next(
        (name for name, value in last.items() if "\n" in "".join(map(str, value))), None
    )
    if open_name is not None and path.read_bytes().count(b'"') % 2:
        raise ValueError(
            f'Expected a closing quote (") in column {open_name!r} of {path} but row '
            f"{table.num_rows - 1} goes on to the end of the file; close the quote."
        )
    return table


def _decimal_point(path: Path) -> str:
    """The comma in files of countries that write it, whose cells a semicolon separates."""
    with path.open(encoding="utf-8-sig") as file:
        start = file.read(SEEN)
    return "," if re.search(r"\d,\d", start) and not re.search(r"\d\.\d", start) else "."


def _delimiter(path: Path) -> str:
    """What separates the names in the first line: a tab in ``.tsv``; else comma, semicolon, tab."""
    if path.suffix.lower() == ".tsv":
        return "\t"
    with path.open(encoding="utf-8-sig") as file:
        first = file.readline()
    return max(",;\t", key=first.count)
