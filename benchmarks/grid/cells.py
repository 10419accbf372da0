"""One cell of a grid: a recipe or clustering with its changes, its length and its seed."""

import hashlib
import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch

from priorzoo.benchmarks.charts import run_charts as charts
from priorzoo.benchmarks.data.sets import Dataset
from priorzoo.benchmarks.grid import clusterings
from priorzoo.benchmarks.grid.clusterings import CLUSTERINGS, Clustering
from priorzoo.benchmarks.papers import RECIPES
from priorzoo.benchmarks.papers.paper import Budget, Extra
from priorzoo.benchmarks.recipes.changes import PROSE, apply, as_text, change, differences
from priorzoo.benchmarks.recipes.recipe import Changes, Recipe, Stage
from priorzoo.benchmarks.rows.files import FORMAT
from priorzoo.benchmarks.rows.peaks import peak_mib
from priorzoo.benchmarks.runs import run as runs
from priorzoo.benchmarks.runs.folder import CHECKPOINT, HISTORY, RESULT
from priorzoo.benchmarks.runs.scoring import score
from priorzoo.benchmarks.scores.run import Run

SHOWN = re.compile("clusters|components|embedding|grid|interpolations|attributes|samples|words")
LENGTHS = {"steps", "epochs", "init_steps", "stages", "every", "curve"}  # hashed as resolved
WIDEST = 640  # pixels of a chart that goes with a row

Row = dict[str, Any]
Timed = TypeVar("Timed", Recipe, Stage)


@dataclass(frozen=True)
class Cell:
    """What makes one row.

    Args:
        recipe: a name of ``RECIPES`` or ``CLUSTERINGS``.
        seed: of everything that is random.
        budget: which of the lengths it has.
        length: in the recipe's unit, steps or epochs; of a clustering, rows. None for its own.
        changes: settings that differ from the recipe's, see :func:`apply`.
        extra, importance: see :class:`Line`.
        asked: whether the number of importance samples was asked for, and is not its line's.
    """

    recipe: str
    seed: int = 0
    budget: Budget = "standard"
    length: float | None = None
    changes: Changes = field(default_factory=dict)
    extra: Mapping[str, Extra] = field(default_factory=dict)
    importance: int = 0
    asked: bool = False

    @cached_property
    def key(self) -> str:
        """A stable hash of all that the row depends on, but its seed and its machine."""
        changes = {name: value for name, value in self.changes.items() if name not in LENGTHS}
        parts = [self.recipe, _definition(self.recipe), changes, *self._lengths()]
        text = json.dumps(parts, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def _lengths(self) -> list[float | None]:
        if self.recipe in CLUSTERINGS:
            return [self.clustering().rows, self.clustering().epochs]
        recipe = self.resolved()
        found = [recipe.steps, recipe.epochs, recipe.init_steps if recipe.n_init > 1 else None]
        found += [length for stage in recipe.stages for length in (stage.steps, stage.epochs)]
        return [None if length is None else float(length) for length in found]

    @property
    def name(self) -> str:
        """Of its folder and files."""
        return f"{self.recipe}-{self.key}-seed{self.seed}"

    @property
    def command(self) -> str:
        """What makes the row again, for any seed."""
        changes = [f"{name}={as_text(value)}" for name, value in self.changes.items()]
        sets = ["--set", *changes] if changes else []
        samples = ["--importance-samples", str(self.importance)] if self.asked else []
        words = ["priorzoo", "bench", self.recipe, "--budget", self.budget, *samples, *sets]
        return shlex.join(words)

    def origin(self) -> Row:
        """What a row says of its cell."""
        changes = dict(self.changes)
        return {"format": FORMAT, "cell": self.key, "budget": self.budget, "changes": changes}

    def failure(self, error: str) -> Row:
        """The row of a cell that could not be made."""
        said = {"recipe": self.recipe, "seed": self.seed, "command": self.command}
        return {**self.origin(), **said, "error": error}

    def resolved(self) -> Recipe:
        """The recipe with the changes, as long as it shall be.

        Raises:
            ValueError: for changes that the recipe does not know.
        """
        recipe = apply(RECIPES[self.recipe], self.changes)
        own = self.changes.keys() & {"steps", "epochs"}
        return recipe if own or self.length is None else lengthened(recipe, self.length)

    def needed(self) -> dict[str, object]:
        """The changes that make a difference: what a recipe says itself is none.

        Raises:
            ValueError: for changes that the recipe does not know.
        """
        if self.recipe in CLUSTERINGS:
            own = asdict(change(Clustering(), self.changes))
            return {k: own[k] for k in self.changes if own[k] != getattr(Clustering, k)}
        base = RECIPES[self.recipe]
        found = differences(base, apply(base, self.changes))
        if self.length is not None:  # a length that is asked for stands in place of the budget's
            found |= {k: v for k, v in self.changes.items() if k in ("steps", "epochs")}
        return found

    def clustering(self) -> Clustering:
        """The settings of a clustering."""
        settings = change(Clustering(), self.changes)
        if self.length is None:
            return settings
        share = min(1.0, self.length / Clustering.rows)
        return replace(settings, rows=round(self.length), epochs=share * settings.epochs)


def lengthened(recipe: Recipe, length: float) -> Recipe:
    """The recipe as long as asked for in its own unit, and its stages in proportion."""
    own = recipe.steps if recipe.epochs is None else recipe.epochs
    assert own is not None
    share = length / own
    every = recipe.every
    if recipe.steps is not None and every is not None:
        every = min(every, max(1, round(length / 10)))
    stages = tuple(_scaled(stage, share) for stage in recipe.stages)
    init_steps = max(1, round(recipe.init_steps * min(1.0, share)))
    return replace(_scaled(recipe, share), every=every, init_steps=init_steps, stages=stages)


def _scaled(timed: Timed, share: float) -> Timed:
    steps = None if timed.steps is None else max(1, round(timed.steps * share))
    epochs = None if timed.epochs is None else timed.epochs * share
    return replace(timed, steps=steps, epochs=epochs)


def work(cell: Cell, out: Path, root: str | None, device: str) -> Row:
    """Train and score a cell, and leave its run, history and charts in a folder.

    A run that was interrupted goes on from its checkpoint.
    """
    row: Row = {"history": None, "figures": []}
    if cell.recipe in CLUSTERINGS:
        row |= clusterings.run(cell.recipe, cell.clustering(), cell.seed, root)
        return row | cell.origin() | {"command": cell.command, "peak_mib": _peak("cpu")}
    folder = out / "runs" / cell.name
    resume = any((folder / name).is_file() for name in (CHECKPOINT, RESULT))
    how: dict[str, Any] = {"seed": cell.seed, "device": device, "data_root": root}
    how |= {"resume": resume, "overwrite": not resume}
    run, dataset = runs.train(cell.recipe, cell.resolved(), folder, command=cell.command, **how)
    row |= run.row | cell.origin() | {"peak_mib": _peak(run.device.type)}
    row |= {key: of(run, dataset, cell.budget == "quick") for key, of in cell.extra.items()}
    if cell.importance:
        row["importance"] = score(run, dataset, cell.importance)["terms"]
        row["importance_samples"] = cell.importance
    row["history"] = f"history/{cell.name}.jsonl"
    (out / "history").mkdir(exist_ok=True)
    (out / row["history"]).write_bytes((folder / HISTORY).read_bytes())
    row["figures"] = _charts(cell, run, dataset, out)
    return row


def _charts(cell: Cell, run: Run, dataset: Dataset, out: Path) -> list[str]:
    """Small copies of the charts that a page shows, for the first seed."""
    from PIL import Image

    kept: list[str] = []
    for path in charts.draw_run(run, dataset) if cell.seed == 0 else []:
        if SHOWN.match(path.name):
            kept.append(f"figures/{cell.name}-{path.stem}.png")
            (out / "figures").mkdir(exist_ok=True)
            with Image.open(path) as picture:
                picture.thumbnail((WIDEST, 2 * WIDEST))
                picture.convert("RGB").quantize(64).save(out / kept[-1], optimize=True)
    return kept


def _peak(device: str) -> float | None:
    """The most memory that the process has held, on the GPU where it trained there, in MiB."""
    if device == "cuda":
        return round(torch.cuda.max_memory_allocated() / 2**20, 1)
    peak = peak_mib()
    return None if peak is None else round(peak, 1)


def _definition(name: str) -> Row:
    """What a recipe says itself, so that a new field with a default changes no hash."""
    if name in CLUSTERINGS:
        return asdict(Clustering())
    own = asdict(RECIPES[name])
    plain = asdict(Recipe("", RECIPES[name].model, RECIPES[name].guide))
    kept = {k: v for k, v in own.items() if v != plain[k] or k in ("model", "guide")}
    return {k: v for k, v in kept.items() if k not in PROSE | LENGTHS}
