"""Many cells in worker processes, of which one may fail or be killed and the others go on."""

import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from priorzoo.benchmarks.grid.cells import Cell
from priorzoo.benchmarks.grid.places import Place, Pool, Workers
from priorzoo.benchmarks.grid.processes import Processes
from priorzoo.benchmarks.grid.shared import LOCK, ROWS, Shared, mend, rows_of
from priorzoo.benchmarks.rows.files import Row
from priorzoo.benchmarks.rows.locks import holder, locked
from priorzoo.inference.progress import Progress

LOG = logging.getLogger(__name__)
POLL = 0.5  # seconds between two looks at what other processes do


def run_grid(
    cells: Sequence[Cell],
    out: Path,
    *,
    jobs: int | None = None,
    root: str | None = None,
    device: str = "auto",
    progress: bool = True,
    pool: Pool | None = None,
) -> tuple[int, int]:
    """Run the cells that have no row yet, and append a row for each that finishes.

    A cell that fails leaves its error in ``failures.jsonl``. Whatever ends this process, the rows
    are whole, each cell has one at most, and the same call goes on with what is left. Several
    processes may run the cells of one folder at the same time: each takes those that no other has.

    Args:
        cells: see :func:`plan`.
        out: folder of rows, runs, histories and charts.
        jobs: cells at a time; as many as the pool takes if None, one in processes.
        root, device: as in training.
        progress: whether to show a bar over the grid.
        pool: what starts the workers; :class:`Processes` of this machine if None.

    Returns:
        How many cells were run here, and how many of all failed.

    Raises:
        ValueError: for a folder that holds something else, or rows of other settings.
        KeyboardInterrupt: for a signal, once the processes of the cells have ended.
    """
    if jobs is not None and jobs < 1:
        raise ValueError(f"Expected at least one job but got {jobs}.")
    check_folder(cells, out)
    out.mkdir(parents=True, exist_ok=True)
    with locked(out / LOCK, wait=True):
        mend(out / ROWS)
    shared, place = Shared(out), Place(out, root, device)
    left = [cell for cell in cells if not shared.state(cell)]
    if not left:
        return 0, 0
    taken = failed = 0
    with (
        Progress(shown=progress, total=len(cells), initial=len(cells) - len(left)) as bar,
        (pool or Processes()).open(place, jobs) as workers,
    ):
        for cell, row in _finished(left, shared, place, workers):
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
    cells: Sequence[Cell], shared: Shared, place: Place, workers: Workers
) -> Iterator[tuple[Cell, Row | None]]:
    """Each cell as it ends, with its row, which holds the ``error`` if it failed.

    A cell that another process finished has None.
    """
    waiting, told = list(cells), False
    while waiting or workers.running:
        for cell in list(waiting):
            if not workers.room:
                break
            if shared.state(cell):
                waiting.remove(cell)
                yield cell, None
            elif not holder(place.lock(cell)):
                waiting.remove(cell)
                workers.start(cell)
        if waiting and not workers.running:  # other processes have these, and may be killed yet
            if not told:
                LOG.warning("%s", _elsewhere(place, waiting))
            told = True
            time.sleep(POLL)
        for cell, row in workers.ended(POLL):
            if row is None:
                waiting.append(cell)
            else:
                yield cell, row


def _elsewhere(place: Place, cells: Sequence[Cell]) -> str:
    found = {holder(place.lock(cell)) for cell in cells} - {""}
    return f"Waiting for {len(cells)} cells in {place.out}, which {', '.join(sorted(found))} runs."
