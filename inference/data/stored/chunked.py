"""Arrays in folders of compressed chunks: Zarr."""

from collections.abc import Sequence
from pathlib import Path

from priorzoo.inference.data.stored.files import NpyFile, Rows
from priorzoo.inference.failures import first_line


class ZarrFile(NpyFile):
    """Rows of a Zarr array ``(N, ...)``, read by whole chunks; otherwise as a ``.npy`` file.

    Raises:
        ImportError: without zarr.
        ValueError: for a folder that holds no array of numbers.
    """

    @staticmethod
    def mapped(path: Path) -> Rows:
        """See :meth:`NpyFile.mapped`."""
        try:
            import zarr
        except ImportError as error:
            raise ImportError(
                "Expected zarr to read Zarr arrays but it is missing; pip install 'priorzoo[zarr]'."
            ) from error
        if not path.exists():
            raise FileNotFoundError(f"Expected a Zarr array at {path} but it does not exist.")
        try:
            return zarr.open_array(path, mode="r")
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = first_line(error)
            raise ValueError(
                f"Expected a Zarr array at {path} but got: {reason}; name the folder of one array."
            ) from error

    @staticmethod
    def least(array: Rows) -> int:
        """Rows of a chunk, or of a shard of chunks."""
        parts: Sequence[int] | None = getattr(array, "shards", None) or getattr(
            array, "chunks", None
        )
        return int(parts[0]) if parts else 1
