"""Training a recipe under one seed, in a folder that keeps all there is to know of the run."""

import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from priorzoo.benchmarks.data import sets as data
from priorzoo.benchmarks.data.fingerprints import fingerprint
from priorzoo.benchmarks.recipes.changes import written
from priorzoo.benchmarks.recipes.recipe import Recipe
from priorzoo.benchmarks.rows.locks import locked
from priorzoo.benchmarks.runs.course import Course
from priorzoo.benchmarks.runs.folder import LOCK, RESULT, Checkpoints, State, check_free
from priorzoo.benchmarks.runs.machine import machine, pick_device
from priorzoo.benchmarks.runs.reading import read_again, sources
from priorzoo.benchmarks.runs.reference import write_table
from priorzoo.benchmarks.runs.resuming import check_data, check_same, counted
from priorzoo.benchmarks.runs.scoring import score
from priorzoo.benchmarks.scores import registry
from priorzoo.benchmarks.scores.run import Result, Run
from priorzoo.inference import save
from priorzoo.inference.processes import ALONE, Processes
from priorzoo.inference.saving import replace_file


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
    replace_file(run.folder / RESULT, lambda file: file.write_text(text))
    return run
