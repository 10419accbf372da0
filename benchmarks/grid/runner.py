"""Many cells in worker processes, of which one may fail or be killed and the others go on."""

import json
import os
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing import connection, get_context, parent_process
from multiprocessing.context import SpawnProcess
from pathlib import Path

import torch
from tqdm import tqdm

from priorzoo.benchmarks.grid.cells import Cell, work
from priorzoo.benchmarks.rows.files import FAILURES, Row, append_row, read_rows
from priorzoo.inference.saving import replace_file

ROWS = "rows.jsonl"


def run_grid(
    cells: Sequence[Cell],
    out: Path,
    *,
    jobs: int = 1,
    root: str | None = None,
    device: str = "auto",
    progress: bool = True,
) -> tuple[int, int]:
    """Run the cells that have no row yet, and append a row for each that finishes.

    A cell that fails leaves its error in ``failures.jsonl``. Whatever ends this process, the rows
    are whole, each cell has one at most, and the same call goes on with what is left.

    Args:
        cells: see :func:`plan`.
        out: folder of rows, runs, histories and charts.
        jobs: processes at a time.
        root, device: as in training.
        progress: whether to show a bar over the grid.

    Returns:
        How many cells were run, and how many of them failed.

    Raises:
        ValueError: for a folder that holds something else, or rows of other settings.
    """
    if jobs < 1:
        raise ValueError(f"Expected at least one job but got {jobs}.")
    check_folder(cells, out)
    out.mkdir(parents=True, exist_ok=True)
    mend(out / ROWS)
    done = {(row["cell"], row["seed"]) for row in rows_of(out)}
    left = [cell for cell in cells if (cell.key, cell.seed) not in done]
    failed = 0
    with tqdm(total=len(cells), initial=len(cells) - len(left), disable=not progress) as bar:
        for cell, row in _finished(left, out, jobs, root, device):
            if "error" in row:
                failed += 1
                bar.write(f"{cell.name}: {row['error'].splitlines()[-1]}")
            append_row(row, out / (FAILURES if "error" in row else ROWS))
            bar.set_postfix_str(cell.name)
            bar.update()
    return len(left), failed


def check_folder(cells: Sequence[Cell], out: Path) -> None:
    """Refuse a folder whose rows would not go together with those of the cells.

    Raises:
        ValueError: naming what differs.
    """
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not (out / ROWS).is_file()):
        raise ValueError(f"Expected a new folder or one of a grid but {out} holds something else.")
    for row in rows_of(out):
        alike = (cell for cell in cells if cell.recipe == row["recipe"])
        keys = {cell.key for cell in alike if cell.origin()["changes"] == row["changes"]}
        if row["budget"] != cells[0].budget or (keys and row["cell"] not in keys):
            other = f"{row['recipe']} with budget {row['budget']}, {row['steps']} steps"
            raise ValueError(
                f"Expected rows of the same settings but {out / ROWS} has {other} and other "
                "settings; choose another --out."
            )


def rows_of(out: Path) -> list[Row]:
    """The rows of a grid's folder, without a last one that is torn.

    Raises:
        ValueError: for rows of another format.
    """
    path = out / ROWS
    return read_rows(path, torn=True) if path.is_file() else []


def mend(path: Path) -> None:
    """Cut off a last line that was torn, so that the next begins on its own."""
    lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
    whole = b"".join(line for line in lines if line.endswith(b"\n"))
    replace_file(path, lambda file: file.write_bytes(whole))


def _finished(
    cells: Sequence[Cell], out: Path, jobs: int, root: str | None, device: str
) -> Iterator[tuple[Cell, Row]]:
    """Each cell as its process ends, with its row, which holds the ``error`` if it failed."""
    context = get_context("spawn")
    waiting = list(cells)
    running: dict[object, tuple[Cell, SpawnProcess]] = {}
    threads = max(1, torch.get_num_threads() // jobs)
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                cell = waiting.pop(0)
                given = (cell, out, root, device, threads)
                process = context.Process(target=_work, args=given, name=cell.name)
                process.start()
                running[process.sentinel] = cell, process
            for sentinel in connection.wait([process.sentinel for _, process in running.values()]):
                cell, process = running.pop(sentinel)
                process.join()
                killed = cell.failure(f"the process ended with status {process.exitcode}")
                yield cell, _made(out, cell) or killed
    finally:
        for _, process in running.values():
            process.terminate()
        for _, process in running.values():
            process.join()


def _work(cell: Cell, out: Path, root: str | None, device: str, threads: int) -> None:
    """Leave a cell's row in a file, from a process of its own that ends with its parent."""
    threading.Thread(target=_follow, daemon=True).start()
    torch.set_num_threads(threads)
    if "error" not in (_made(out, cell) or {"error": ""}):
        return  # it had finished, and its row was not written yet
    path = _file(out, cell)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    try:
        row = work(cell, out, root, device)
    except BaseException:
        row = cell.failure(traceback.format_exc())
    replace_file(path, lambda file: file.write_text(json.dumps(row)))


def _follow() -> None:
    parent = parent_process()
    if parent is not None:
        with suppress(OSError):
            parent.join()
        os._exit(1)


def _file(out: Path, cell: Cell) -> Path:
    return out / "runs" / f"{cell.name}.json"


def _made(out: Path, cell: Cell) -> Row | None:
    path = _file(out, cell)
    return json.loads(path.read_text()) if path.is_file() else None
