"""Many cells in worker processes, of which one may fail or be killed and the others go on."""

import json
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing import connection, get_context, parent_process
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from priorzoo.benchmarks.grid.cells import Cell, work
from priorzoo.benchmarks.grid.shared import LOCK, ROWS, Shared, mend, rows_of
from priorzoo.benchmarks.rows.files import Row
from priorzoo.benchmarks.rows.locks import holder, locked
from priorzoo.benchmarks.runs.interruption import handling, holding_back
from priorzoo.inference.saving import replace_file

LOG = logging.getLogger(__name__)
BUSY = 75  # the status of a process whose cell another has, as EX_TEMPFAIL
POLL = 0.5  # seconds between two looks at what other processes do
PATIENCE = 10.0  # seconds that the process of a cell has to end in


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
    are whole, each cell has one at most, and the same call goes on with what is left. Several
    processes may run the cells of one folder at the same time: each takes those that no other has.

    Args:
        cells: see :func:`plan`.
        out: folder of rows, runs, histories and charts.
        jobs: processes at a time.
        root, device: as in training.
        progress: whether to show a bar over the grid.

    Returns:
        How many cells were run here, and how many of all failed.

    Raises:
        ValueError: for a folder that holds something else, or rows of other settings.
        KeyboardInterrupt: for a signal, once the processes of the cells have ended.
    """
    if jobs < 1:
        raise ValueError(f"Expected at least one job but got {jobs}.")
    check_folder(cells, out)
    out.mkdir(parents=True, exist_ok=True)
    with locked(out / LOCK, wait=True):
        mend(out / ROWS)
    shared = Shared(out)
    left = [cell for cell in cells if not shared.state(cell)]
    taken = failed = 0
    with tqdm(total=len(cells), initial=len(cells) - len(left), disable=not progress) as bar:
        for cell, row in _finished(left, shared, jobs, root, device):
            if row is not None:
                taken += shared.append(cell, row)
            if shared.state(cell) == "failed":
                failed += 1
                bar.write(f"{cell.name}: {shared.error(cell)}")
            bar.set_postfix_str(cell.name)
            bar.update()
    return taken, failed


def check_folder(cells: Sequence[Cell], out: Path) -> None:
    """Refuse a folder whose rows would not go together with those of the cells.

    Raises:
        ValueError: naming what differs.
    """
    torn = {LOCK, f"{ROWS}.part"}  # what a kill may leave before there are rows
    others = {path.name for path in out.iterdir()} - torn if out.is_dir() else set()
    if out.is_file() or (others and not (out / ROWS).is_file()):
        raise ValueError(f"Expected a new folder or one of a grid but {out} holds something else.")
    budgets = {cell.budget for cell in cells}  # none for a shard without cells
    for row in rows_of(out):
        alike = (cell for cell in cells if cell.recipe == row["recipe"])
        keys = {cell.key for cell in alike if cell.origin()["changes"] == row["changes"]}
        if (budgets and row["budget"] not in budgets) or (keys and row["cell"] not in keys):
            other = f"{row['recipe']} with budget {row['budget']}, {row['steps']} steps"
            raise ValueError(
                f"Expected rows of the same settings but {out / ROWS} has {other} and other "
                "settings; choose another --out."
            )


def _finished(
    cells: Sequence[Cell], shared: Shared, jobs: int, root: str | None, device: str
) -> Iterator[tuple[Cell, Row | None]]:
    """Each cell as it ends, with its row, which holds the ``error`` if it failed.

    A cell that another process finished has None.
    """
    context, out = get_context("spawn"), shared.out
    waiting = list(cells)
    running: dict[Any, tuple[Cell, SpawnProcess]] = {}
    threads = max(1, torch.get_num_threads() // jobs)
    told = False
    try:
        while waiting or running:
            for cell in list(waiting):
                if len(running) == jobs:
                    break
                if shared.state(cell):
                    waiting.remove(cell)
                    yield cell, None
                elif not holder(_lock(out, cell)):
                    waiting.remove(cell)
                    given = (cell, out, root, device, threads)
                    process = context.Process(target=_work, args=given, name=cell.name)
                    with holding_back():  # the process leaves Ctrl-C to this one, which ends it
                        process.start()
                    running[process.sentinel] = cell, process
            if waiting and not running:  # other processes have these, and may be killed yet
                if not told:
                    LOG.warning("%s", _elsewhere(out, waiting))
                told = True
                time.sleep(POLL)
            ended = connection.wait(list(running), POLL) if running else []
            for sentinel in ended:
                cell, process = running.pop(sentinel)
                process.join()
                killed = cell.failure(f"the process ended with status {process.exitcode}")
                if process.exitcode == BUSY:
                    waiting.append(cell)
                else:
                    yield cell, _made(out, cell) or killed
    finally:
        _end([process for _, process in running.values()])


def _elsewhere(out: Path, cells: Sequence[Cell]) -> str:
    found = {holder(_lock(out, cell)) for cell in cells} - {""}
    return f"Waiting for {len(cells)} cells in {out}, which {', '.join(sorted(found))} runs."


def _end(processes: Sequence[SpawnProcess]) -> None:
    """End processes, with time for a last checkpoint."""
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + PATIENCE
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
        process.kill()
        process.join()


def _work(cell: Cell, out: Path, root: str | None, device: str, threads: int) -> None:
    """Leave a cell's row in a file, from a process of its own that ends with its parent."""
    threading.Thread(target=_follow, daemon=True).start()
    torch.set_num_threads(threads)
    path = _file(out, cell)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with handling(), locked(_lock(out, cell)):
            if "error" not in (_made(out, cell) or {"error": ""}):
                return  # it had finished, and its row was not written yet
            path.unlink(missing_ok=True)
            row = _row(cell, out, root, device)
            replace_file(path, lambda file: file.write_text(json.dumps(row)))
    except BlockingIOError:
        sys.exit(BUSY)
    except KeyboardInterrupt as error:
        sys.exit(128 + next(iter(error.args), signal.SIGINT))


def _row(cell: Cell, out: Path, root: str | None, device: str) -> Row:
    try:
        return work(cell, out, root, device)
    except KeyboardInterrupt:
        raise
    except BaseException:
        return cell.failure(traceback.format_exc())


def _follow() -> None:
    parent = parent_process()
    if parent is not None:
        with suppress(OSError):
            parent.join()
        os._exit(1)


def _file(out: Path, cell: Cell) -> Path:
    return out / "runs" / f"{cell.name}.json"


def _lock(out: Path, cell: Cell) -> Path:
    return out / "runs" / f"{cell.name}.lock"


def _made(out: Path, cell: Cell) -> Row | None:
    path = _file(out, cell)
    return json.loads(path.read_text()) if path.is_file() else None
