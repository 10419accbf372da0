"""Training a recipe under one seed, in a folder that keeps all there is to know of the run."""

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from priorzoo.benchmarks.data import sets as data
from priorzoo.benchmarks.data.fingerprints import fingerprint
from priorzoo.benchmarks.data.labels import unlike, with_labels
from priorzoo.benchmarks.data.tables import is_table, load_table
from priorzoo.benchmarks.recipes.changes import written
from priorzoo.benchmarks.recipes.recipe import Recipe
from priorzoo.benchmarks.rows.locks import locked
from priorzoo.benchmarks.runs.course import Course
from priorzoo.benchmarks.runs.folder import (
    HISTORY,
    LOCK,
    REMEDY,
    RESULT,
    Checkpoints,
    State,
    check_free,
    history_of,
)
from priorzoo.benchmarks.runs.reference import write_table
from priorzoo.benchmarks.runs.resuming import check_data, check_same, counted
from priorzoo.benchmarks.runs.schemas import OF_RESULT
from priorzoo.benchmarks.scores import registry
from priorzoo.benchmarks.scores.run import Result, Run
from priorzoo.inference import Stream, check_pair, degeneracy, draw, evaluate, load, save
from priorzoo.inference import check_data as check_rows
from priorzoo.inference.data.tables.schema import Schema
from priorzoo.inference.files import read_json, read_lines
from priorzoo.inference.processes import ALONE, Processes
from priorzoo.inference.rebuilding import FAILURES
from priorzoo.inference.saving import replace_file, versions
from priorzoo.inference.schema import check
from priorzoo.models.contract import needed

DENSITIES = ("elbo", "log p(x)", "objective", "pseudo-likelihood", "reconstruction")
SPLIT = ("data", "binarise", "train", "validation")  # of its settings


def pick_device(name: str) -> torch.device:
    """``auto`` is the CUDA GPU where there is one, else the CPU.

    ``mps``, the GPU of a Mac, has no float64, which some models need: it has to be asked for.

    Raises:
        ValueError: for ``cuda`` or ``mps`` without such a GPU, or an unknown name.
    """
    present: dict[str, Callable[[], bool]] = {
        "cuda": torch.cuda.is_available,
        "mps": torch.backends.mps.is_available,
    }
    if name not in ("auto", "cpu", *present):
        raise ValueError(f"Expected a device among auto, cpu, cuda and mps but got {name!r}.")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name in present and not present[name]():
        raise ValueError(f"Expected a device for --device {name} but found none; use --device cpu.")
    return torch.device(name)


def read_data(
    settings: Mapping[str, Any],
    root: str | Path | None = None,
    *,
    seed: int,
    download: bool = False,
    schema: Schema | None = None,
) -> data.Dataset:
    """The data set, split, labelled and binarised as the settings of a recipe say.

    Args:
        settings: of a recipe.
        root, seed, download: as of :func:`data.load`.
        schema: that of a run, if other rows than those of its training are read.
    """
    reading = settings.get("reading") or {}
    if is_table(settings["data"], reading):
        split = {name: settings[name] for name in SPLIT if name != "data"}
        return load_table(settings["data"], reading, schema, seed=seed, **split)
    split = {name: settings[name] for name in SPLIT if name != "data"}

    def read(name: str) -> data.Dataset:
        return data.load(name, root, seed=seed, download=download, **split)

    return with_labels(read(settings["data"]), settings.get("labels") or {}, read)


def train(
    name: str,
    recipe: Recipe,
    folder: Path,
    *,
    seed: int = 0,
    device: str = "auto",
    data_root: str | Path | None = None,
    download: bool = False,
    overwrite: bool = False,
    resume: bool = False,
    progress: bool = False,
    command: str = "",
    checkpoints: int = 2,
    checkpoint_minutes: float = 10.0,
    dataset: data.Dataset | None = None,
    processes: Processes = ALONE,
) -> tuple[Run, data.Dataset]:
    """Train a recipe; its configuration, weights, history and result are written to a folder.

    What can be wrong with settings, pair or data is found before the folder is touched. On the way
    it holds checkpoints, from which ``resume`` goes on as if there had been no break, if wanted
    with another learning rate, ``clip`` or ``on_nonfinite``, which the result then says; of a
    finished run, ``resume`` repeats the scores. No other process can train in the folder at the
    same time. ``checkpoints`` and ``checkpoint_minutes`` are the settings of :class:`Checkpoints`.
    A ``dataset`` that was already read as the recipe says is not read again. Of ``processes`` that
    train together, the first alone reads and writes the folder and has metrics.

    Raises:
        FileExistsError: for a folder that already holds files, unless told to overwrite it.
        FileNotFoundError: where there is nothing to resume.
        BlockingIOError: where another process trains.
        KeyboardInterrupt: for SIGINT, SIGTERM and SIGHUP, once a checkpoint is saved.
        ValueError: for settings that do not fit, or that differ from the run's, as may the data.
    """
    saved = Checkpoints(folder, checkpoints, checkpoint_minutes)
    where, settings = pick_device(device), written(recipe)
    with ExitStack() as stack:
        there = processes.by_first(folder.is_dir)
        wanted = {"seed": seed, **settings} if resume else None
        kept = processes.by_first(lambda: _enter(stack, saved, overwrite, wanted))
        of = folder if resume else None
        if dataset is None:
            dataset = read_again(of, settings, data_root, seed=seed, download=download)
        if kept is not None:
            check_data(kept, fingerprint(dataset), folder)
        course = Course(recipe, dataset, where, seed, processes)
        result = _described(name, command, settings, course) | {"shape": list(dataset.shape)}
        result |= {"sources": sources(recipe, data_root)}
        registry.prepare(course.model, _run(folder, course, result), dataset)
        if kept is not None:
            course.restore(kept)
        elif not there:
            processes.by_first(lambda: _enter(stack, saved, overwrite, None, make=True))
        _train(course, saved, result, dataset, progress)
        run = _finish(_run(folder, course, result), dataset, course)
        if processes.is_first:
            saved.remove()
    return run, dataset


def _enter(
    stack: ExitStack,
    saved: Checkpoints,
    overwrite: bool,
    settings: Mapping[str, Any] | None,
    make: bool = False,
) -> State | None:
    """Lock an existing folder until the stack ends; returns the saved state of a run to resume.

    Args:
        stack, saved: where the lock is kept, and the checkpoints of the folder.
        overwrite: whether a run in the folder may be replaced.
        settings: those of the run to resume, None for a new one.
        make: whether to create the folder.
    """
    if make:
        saved.folder.mkdir(parents=True, exist_ok=True)
    if saved.folder.is_dir():
        stack.enter_context(locked(saved.folder / LOCK))
    if settings is None:
        check_free(saved.folder, overwrite)
        return None
    kept = saved.load()
    return kept | {"changed": check_same(kept, settings, saved.folder)}


def _described(name: str, command: str, settings: Result, course: Course) -> Result:
    """The part of a result that is known before the training."""
    described = {"recipe": name, "command": command, "settings": settings, "seed": course.seed}
    described |= {"fingerprint": course.fingerprint, **machine(course.where)}
    count = course.processes.count
    return described | ({"processes": count} if count > 1 else {})


def _run(folder: Path, course: Course, result: Result) -> Run:
    """What there is of a run that is being trained."""
    return Run(folder, course.model, course.guide, result, course.history)


def _train(
    course: Course, saved: Checkpoints, result: Result, dataset: data.Dataset, progress: bool
) -> None:
    """Train, with the scores of the test rows where the recipe asks for them."""
    folder = saved.folder

    def watch() -> Result:
        return score(_run(folder, course, result), dataset, processes=course.processes)

    def judge() -> Result:
        run, scores = _run(folder, course, result), watch()
        if not course.processes.is_first:
            return scores
        return scores | registry.optional(
            "baseline of the stage",
            lambda: registry.code_scores(run.model, run, dataset, dataset.x_test),
        )

    how = {"judge": judge, "watch": watch}
    course.run(folder, result["settings"], progress, **how, checkpoints=saved)


def read_again(
    folder: Path | None, settings: Mapping[str, Any], root: str | Path | None, **how: Any
) -> data.Dataset:
    """The data of the run in a folder, if there is one.

    Raises:
        ValueError: where they cannot be read as they were, saying that they have changed.
    """
    try:
        return read_data(settings, root, **how)
    except ValueError as error:
        if folder is None:
            raise
        raise ValueError(f"The data of the run in {folder} have changed: {error}") from error


def sources(recipe: Recipe, root: str | Path | None) -> dict[str, str]:
    """Absolute paths of the user's own data and of the data root, unless it is the default one."""
    found: dict[str, str] = {}
    if data.own_path(recipe.data) is not None or is_table(recipe.data, recipe.reading):
        found["data"] = str(data.expanded(recipe.data).absolute())
    if root is not None or os.environ.get("PRIORZOO_DATA"):
        found["root"] = str(data.data_root(root).absolute())
    return found


def place_of(run: Run) -> str:
    """The name or path of a run's data: where they were, if they are still there."""
    known = (run.result.get("sources") or {}).get("data", "")
    there = Path(known).is_absolute() and Path(known).exists()
    return known if there else str(run.settings["data"])


def data_of(run: Run, root: str | Path | None = None, download: bool = False) -> data.Dataset:
    """The data of a run, found from any working directory.

    Raises:
        ValueError: where they cannot be read as they were, saying that they have changed.
    """
    settings = {**run.settings, "data": place_of(run)}
    known = (run.result.get("sources") or {}).get("root", "")
    if root is None and Path(known).is_absolute() and Path(known).is_dir():
        root = known
    return read_again(run.folder, settings, root, seed=run.seed, download=download)


def machine(where: torch.device) -> Result:
    """The machine and the versions that a row of results was made with."""
    return {
        "device": torch.cuda.get_device_name(where) if where.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }


def _finish(run: Run, dataset: data.Dataset, course: Course) -> Run:
    """Save the pair, complete the result of its run, and write that beside it."""
    processes, result = course.processes, run.result
    if processes.is_first:
        save(run.folder, run.model, run.guide)
        write_table(run, dataset)
    result |= {"steps": course.step, "seconds": round(course.seconds, 1)}
    result |= counted(run.history) | score(run, dataset, processes=processes)
    if not processes.is_first:
        return run
    more = dict(registry.finish(run.model, run, dataset, course.labels))
    result["metrics"] |= more.pop("metrics", {})
    result |= more
    staged = [row for row in run.history if row["split"] == "test" and "stage" in row]
    if staged:
        result["stages"] = {row["stage"]: row for row in staged}
    text = json.dumps(result, indent=2) + "\n"
    replace_file(run.folder / "result.json", lambda file: file.write_text(text))
    return run


def score(
    run: Run,
    dataset: data.Dataset,
    importance_samples: int = 0,
    processes: Processes = ALONE,
    progress: bool = False,
) -> Result:
    """Score the test rows, with the progress of the importance samples if wanted.

    Where the binarisation is dynamic, everything sees one and the same draw of each row. Several
    processes share the rows for the terms; the first alone has the rest.

    Returns:
        ``terms`` of the bound in nats per datum; ``metrics``, see :func:`registry.scores`; and
        where there are clusters a ``warning``: what is wrong with them or with the labels, or None.
    """
    model, x = run.model, dataset.x_test.to(run.device)
    told = dataset.beside(x)
    check_rows(model, x, "x_test", context=told)
    with Stream(run.seed, x.device):
        x = dataset.drawn(x)
    how: dict[str, Any] = {
        "importance_samples": importance_samples,
        "seed": run.seed,
        "context": told,
        "processes": processes,
        "progress": progress,
    }
    terms = _in_units_of_the_table(evaluate(model, run.guide, x, **how), dataset)
    if not processes.is_first:
        return {"terms": terms, "metrics": {}}
    found: Result = {"terms": terms, "metrics": registry.scores(model, run, dataset, x)}
    q = registry.probabilities(model, run, dataset, x)
    return found if q is None else found | {"warning": unlike(dataset) or degeneracy(q)}


def _in_units_of_the_table(terms: dict[str, float], dataset: data.Dataset) -> dict[str, float]:
    """Terms of scaled rows as those of the rows of the table, whose density is another."""
    if dataset.schema is None or dataset.schema.shape:
        return terms
    rows = len(dataset.x_test)
    shift = dataset.schema.log_scale(dataset.context["test"].get("observed"), rows).mean().item()
    return {name: value - shift * (name in DENSITIES) for name, value in terms.items()}


def open_run(folder: Path, device: str = "auto", *, trust: Sequence[str] = ()) -> Run:
    """The run that :func:`train` left in a folder.

    Args:
        folder, device: as in :func:`pick_device`.
        trust: modules whose classes may be imported, beside those of priorzoo and torch.nn.

    Raises:
        FileNotFoundError: for a folder that is missing or half-written.
        ValueError: for one that is damaged, or of a newer format.
    """
    model, guide = load(folder, pick_device(device), trust=trust)
    if not os.path.lexists(folder / RESULT):
        raise FileNotFoundError(
            f"Expected {RESULT} in {folder} but it is half-written; train again."
        )
    try:
        result: Any = read_json(folder / RESULT)
        check(OF_RESULT, result, "the result", folder / RESULT, REMEDY)
        history = history_of(read_lines(folder / HISTORY))
    except ValueError as error:
        raise ValueError(
            f"Expected the result and history of a run in {folder} but they are damaged: {error}"
        ) from error
    run = Run(folder, model, guide, result, history)
    _check_program(run)
    return run


def _check_program(run: Run) -> None:
    """Check on two rows that the pair of a run works, and that its rows are of the run's shape.

    Raises:
        ValueError: if not, which a change of its configuration by hand may bring about.
    """
    if needed(run.model) | needed(run.guide):
        return
    try:
        with Stream(0, run.device):
            check_pair(run.model, run.guide)
            width = draw(run.model, 2).flatten(1).shape[1]
    except FAILURES as error:
        said = " ".join(str(error).split())
        raise ValueError(
            f"Expected a pair that works in {run.folder} but got {said:.300}; train it again."
        ) from error
    if width != math.prod(run.shape):
        raise ValueError(
            f"Expected rows of shape {run.shape}, as {RESULT} in {run.folder} says, but the model "
            f"has {width} values in a row; train it again."
        )


def plain(value: object) -> Result:
    """Settings as JSON writes them."""
    return json.loads(json.dumps(value))
