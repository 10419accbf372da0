"""Opening the files of a path, a folder or a list, which are of one kind."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from priorzoo.inference.data.stored.chunked import ZarrFile
from priorzoo.inference.data.stored.files import File, Names, NpyFile
from priorzoo.inference.data.stored.parquet import ParquetFile

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
KINDS: Mapping[str, Callable[[Path, Names, int], File]] = {
    ".npy": NpyFile,
    ".parquet": ParquetFile,
    ".zarr": ZarrFile,
}


def opened_files(paths: Paths, names: Names, piece: int) -> list[File]:
    """Files whose rows have one shape.

    Args:
        paths: a file, a folder, or several.
        names: what their columns are.
        piece: rows that are read at a time.

    Raises:
        FileNotFoundError: for a missing file.
        ValueError: for no files, another kind, or rows of several shapes.
    """
    files = [KINDS[path.suffix](path, names, piece) for path in _found(paths)]
    for file in files:
        if file.shape != files[0].shape:
            raise ValueError(
                f"Expected rows of shape {files[0].shape}, as in {files[0].path}, but {file.path} "
                f"has {file.shape}; give files with the same columns."
            )
    return files


def _found(paths: Paths) -> list[Path]:
    several = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    found: list[Path] = []
    for path in map(Path, several):
        path = path.expanduser()
        if path.is_dir() and path.suffix != ".zarr":  # which is a folder itself
            inside = [each for each in sorted(path.iterdir()) if each.suffix in KINDS]
            found += [each for each in inside if each.name[0] not in "._"]
        elif path.exists():
            found.append(path)
        else:
            raise FileNotFoundError(f"Expected rows in {path} but it does not exist.")
    if not found or {path.suffix for path in found} - KINDS.keys():
        others = ", ".join(str(path) for path in found if path.suffix not in KINDS)
        raise ValueError(
            f"Expected files that end in {' or '.join(KINDS)} but got {others or 'none'}; convert "
            "them."
        )
    return found
