"""The rows of a grid, to which several processes append."""

from pathlib import Path

from priorzoo.benchmarks.grid.cells import Cell
from priorzoo.benchmarks.rows.files import FAILURES, Row, append_row, read_rows
from priorzoo.benchmarks.rows.locks import locked
from priorzoo.benchmarks.rows.schemas import LINE, SEED
from priorzoo.inference.saving import replace_file
from priorzoo.inference.schema import Record, check

ROWS, LOCK = "rows.jsonl", "rows.lock"
OF_CELL = Record({"cell": LINE, "seed": SEED})
FAILED = Record({"cell": LINE, "seed": SEED, "error": LINE})


def rows_of(out: Path) -> list[Row]:
    """The rows of a grid's folder, without a last one that is torn.

    Raises:
        ValueError: for rows of another format.
    """
    path = out / ROWS
    return _read(path, OF_CELL) if path.is_file() else []


def mend(path: Path) -> None:
    """Cut off a last line that was torn, so that the next begins on its own."""
    lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
    whole = b"".join(line for line in lines if line.endswith(b"\n"))
    if not path.is_file() or len(whole) < path.stat().st_size:
        replace_file(path, lambda file: file.write_bytes(whole))


class Shared:
    """The rows of a grid's folder, to which several processes append.

    Args:
        out: the folder.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self._before = len(self._failures())
        self._done: set[tuple[str, int]] = set()
        self._read = (-1, -1)  # size and time of the file when it was read

    def state(self, cell: Cell) -> str:
        """``done`` for a cell with a row, ``failed`` for one that failed since, else empty."""
        stat = (self.out / ROWS).stat()
        if self._read != (seen := (stat.st_size, stat.st_mtime_ns)):
            self._done = {(row["cell"], row["seed"]) for row in rows_of(self.out)}
            self._read = seen
        if (cell.key, cell.seed) in self._done:
            return "done"
        return "failed" if self.error(cell) else ""

    def error(self, cell: Cell) -> str:
        """The last line of the error of a cell that failed since this was made."""
        for row in self._failures()[self._before :]:
            if (row["cell"], row["seed"]) == (cell.key, cell.seed):
                return row["error"].splitlines()[-1]
        return ""

    def append(self, cell: Cell, row: Row) -> bool:
        """Append the row of a cell unless another process has; returns whether this one did."""
        with locked(self.out / LOCK, wait=True):
            if self.state(cell):
                return False
            path = self.out / (FAILURES if "error" in row else ROWS)
            mend(path)
            append_row(row, path)
        return True

    def _failures(self) -> list[Row]:
        path = self.out / FAILURES
        return _read(path, FAILED) if path.is_file() else []


def _read(path: Path, schema: Record) -> list[Row]:
    rows = read_rows(path, torn=True)
    for row in rows:
        check(schema, row, "row", path, "drop the line")
    return rows
