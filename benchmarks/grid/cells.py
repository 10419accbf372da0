"""One cell of a grid: a recipe or baseline with its changes, its length and its seed."""

import hashlib
import json
import resource
import shlex
import sys
from collections.abc import Mapping
from dataclasses import MISSING, Field, asdict, dataclass, field, fields, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch

from priorzoo.benchmarks.charts import run_charts as plots
from priorzoo.benchmarks.data.sets import Dataset
from priorzoo.benchmarks.grid import clusterings as baselines
from priorzoo.benchmarks.grid.clusterings import BASELINES, Baseline
from priorzoo.benchmarks.papers.paper import Budget
from priorzoo.benchmarks.recipes.recipe import RECIPES, Recipe, Stage
from priorzoo.benchmarks.rows.files import FORMAT, read_value
from priorzoo.benchmarks.runs import run as runs
from priorzoo.benchmarks.scores import embedding
from priorzoo.cli.options import PROSE, add_recipe, new_parser, parse, read_recipe

SHOWN = (
    "clusters",
    "components",
    "embedding",
    "grid",
    "interpolations",
    "attributes",
    "samples",
    "words",
)
LENGTHS = {"steps", "epochs", "init_steps", "stages", "every", "curve"}  # hashed as resolved
WIDEST = 640  # pixels of a figure that goes with a row

Row = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """What makes one row.

    Args:
        recipe: a name of ``RECIPES`` or ``BASELINES``.
        seed: of everything that is random.
        budget: which of the lengths it has.
        length: in the recipe's unit, steps or epochs; of a baseline, rows. None for its own.
        changes: settings that differ from the recipe's, by option.
        plane, importance: see :class:`Line`.
    """

    recipe: str
    seed: int = 0
    budget: Budget = "standard"
    length: float | None = None
    changes: Mapping[str, str] = field(default_factory=dict)
    plane: bool = False
    importance: int = 0

    @cached_property
    def key(self) -> str:
        """A stable hash of all that the row depends on, but its seed and its machine."""
        changes = {name: value for name, value in self.changes.items() if name not in LENGTHS}
        parts = [self.recipe, _definition(self.recipe), changes, *self._lengths()]
        text = json.dumps(runs.plain(parts), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def _lengths(self) -> list[Any]:
        if self.recipe in BASELINES:
            return [self.baseline().rows, self.baseline().epochs]
        recipe = self.resolved()
        found = [recipe.steps, recipe.epochs, recipe.init_steps if recipe.n_init > 1 else None]
        for stage in recipe.stages:
            found += [stage.steps, stage.epochs]
        return [None if length is None else float(length) for length in found]

    @property
    def name(self) -> str:
        """Of its folder and files."""
        return f"{self.recipe}-{self.key}-seed{self.seed}"

    @property
    def command(self) -> str:
        """What makes the row again, for any seed."""
        changes = [f"{name}={value}" for name, value in self.changes.items()]
        sets = ["--set", *changes] if changes else []
        return shlex.join(["priorzoo", "bench", self.recipe, "--budget", self.budget, *sets])

    def origin(self) -> Row:
        """What a row says of its cell."""
        return {
            "format": FORMAT,
            "cell": self.key,
            "budget": self.budget,
            "changes": {name: read_value(text) for name, text in self.changes.items()},
        }

    def resolved(self) -> Recipe:
        """The recipe with the changes, as long as it shall be.

        Raises:
            ValueError: for changes that the recipe does not know.
        """
        return _resolved(self.recipe, tuple(self.changes.items()), self.length)

    def needed(self) -> dict[str, str]:
        """The changes that make a difference: what a recipe says itself is none.

        Raises:
            ValueError: for changes that the recipe does not know.
        """
        settings = self._settings()

        def without(name: str) -> "Cell":
            return replace(self, changes={k: v for k, v in self.changes.items() if k != name})

        return {k: v for k, v in self.changes.items() if without(k)._settings() != settings}

    def _settings(self) -> Recipe | Baseline:
        return self.baseline() if self.recipe in BASELINES else self.resolved()

    def baseline(self) -> Baseline:
        """The settings of a baseline."""
        parser = new_parser(self.recipe, "a clustering without a probabilistic program")
        for item in fields(Baseline):
            parser.add_argument(f"--{item.name}", type=item.type, default=item.default)
        found = parse(parser, _options(self.changes))
        settings = Baseline(**{item.name: found[item.name] for item in fields(Baseline)})
        if self.length is None:
            return settings
        share = min(1.0, self.length / Baseline.rows)
        return replace(settings, rows=round(self.length), epochs=share * settings.epochs)


@cache
def _resolved(name: str, changes: tuple[tuple[str, str], ...], length: float | None) -> Recipe:
    base = RECIPES[name]
    parser = new_parser(name, base.summary)
    add_recipe(parser, base)
    recipe = read_recipe(base, parse(parser, _options(dict(changes))))
    own = {"steps", "epochs"} & dict(changes).keys()
    return recipe if own or length is None else lengthened(recipe, length)


def lengthened(recipe: Recipe, length: float) -> Recipe:
    """The recipe as long as asked for in its own unit, and its stages in proportion."""
    own = recipe.steps if recipe.epochs is None else recipe.epochs
    assert own is not None
    share = length / own
    every = recipe.every
    if recipe.steps is not None and every is not None:
        every = min(every, max(1, round(length / 10)))
    return replace(
        recipe,
        steps=None if recipe.steps is None else max(1, round(length)),
        epochs=None if recipe.epochs is None else length,
        every=every,
        init_steps=max(1, round(recipe.init_steps * min(1.0, share))),
        stages=tuple(_shorter(stage, share) for stage in recipe.stages),
    )


def _shorter(stage: Stage, share: float) -> Stage:
    return replace(
        stage,
        steps=None if stage.steps is None else max(1, round(stage.steps * share)),
        epochs=None if stage.epochs is None else stage.epochs * share,
    )


def trained(row: Row) -> Row:
    """A row of ``priorzoo train`` as one of a grid, its changes read from its command.

    >>> trained({"recipe": "m2", "seed": 0, "command": "priorzoo train m2 --steps 9"})["changes"]
    {'steps': 9}
    """
    changes: dict[str, str] = {}
    words = shlex.split(row["command"])[3:]
    while words:
        name, equals, value = words.pop(0).removeprefix("--").partition("=")
        changes[name] = value if equals or not words else words.pop(0)
    more: Row = {"peak_mib": None, "history": None, "figures": []}
    cell = Cell(row["recipe"], row["seed"], changes=changes)
    return more | row | replace(cell, changes=cell.needed()).origin()


def work(cell: Cell, out: Path, root: str | None, device: str) -> Row:
    """Train and score a cell, and leave its run, history and figures in a folder.

    A run that was interrupted goes on from its checkpoint.
    """
    origin = cell.origin() | {"command": cell.command}
    if cell.recipe in BASELINES:
        row = baselines.run(cell.recipe, cell.baseline(), cell.seed, root)
        return {**row, **origin, "peak_mib": _peak("cpu"), "history": None, "figures": []}
    folder = out / "runs" / cell.name
    resume = (folder / "checkpoint.safetensors").is_file()
    recipe = cell.resolved()
    run, rows = runs.train(
        cell.recipe,
        recipe,
        folder,
        seed=cell.seed,
        device=device,
        data_root=root,
        resume=resume,
        overwrite=not resume and (folder / "history.jsonl").is_file(),
        command=cell.command,
    )
    row = run.result | origin | {"peak_mib": _peak(run.device.type)}
    if cell.plane:
        judge = embedding.train_judge(rows, epochs=1 if cell.budget == "quick" else 3)
        row["embedding"] = embedding.score(run, rows, judge)
    if cell.importance:
        row["importance"] = runs.score(run, rows, cell.importance)["terms"]
    history = out / "history" / f"{cell.name}.jsonl"
    history.parent.mkdir(exist_ok=True)
    history.write_bytes((folder / "history.jsonl").read_bytes())
    row["history"] = history.relative_to(out).as_posix()
    row["figures"] = _figures(cell, run, rows, out)
    return row


def _figures(cell: Cell, run: runs.Run, rows: Dataset, out: Path) -> list[str]:
    """Small copies of the figures that a page shows, for the first seed."""
    from PIL import Image

    kept: list[str] = []
    for path in plots.draw_run(run, rows) if cell.seed == 0 else []:
        if path.stem.startswith(SHOWN):
            copy = out / "figures" / f"{cell.name}-{path.stem}.png"
            copy.parent.mkdir(exist_ok=True)
            with Image.open(path) as picture:
                picture.thumbnail((WIDEST, 2 * WIDEST))
                picture.convert("RGB").quantize(64).save(copy, optimize=True)
            kept.append(copy.relative_to(out).as_posix())
    return kept


def _peak(device: str) -> float:
    """The most memory that the process has held, on the GPU where it trained there, in MiB."""
    if device == "cuda":
        return round(torch.cuda.max_memory_allocated() / 2**20, 1)
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 1)


def _definition(name: str) -> Row:
    """What a recipe says itself, so that a new field with a default changes no hash."""
    if name in BASELINES:
        return asdict(Baseline())
    recipe = RECIPES[name]
    own = [item.name for item in fields(Recipe) if getattr(recipe, item.name) != _default(item)]
    return {k: v for k, v in asdict(recipe).items() if k in own and k not in PROSE | LENGTHS}


def _default(item: Field[Any]) -> Any:
    return item.default if item.default_factory is MISSING else item.default_factory()


def _options(changes: Mapping[str, str]) -> list[str]:
    return [f"--{name}={value}" for name, value in changes.items()]
