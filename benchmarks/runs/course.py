"""The whole training of a recipe: restarts, stages, and the main training."""

import inspect
import json
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from priorzoo.benchmarks.data.fingerprints import fingerprint
from priorzoo.benchmarks.data.sets import Dataset
from priorzoo.benchmarks.recipes.building import learning
from priorzoo.benchmarks.recipes.recipe import Part, Recipe
from priorzoo.benchmarks.runs.folder import HISTORY, Checkpoints, State, clear
from priorzoo.benchmarks.runs.keeping import Keeping
from priorzoo.benchmarks.runs.prepared import Prepared
from priorzoo.inference import Stream, Training, check_data, evaluate, load
from priorzoo.inference.construction import locate_function
from priorzoo.inference.processes import ALONE, Processes
from priorzoo.inference.randomness import derive
from priorzoo.inference.saving import configuration, replace_file
from priorzoo.inference.schema import Number, Whole, check, optional
from priorzoo.inference.training.checkpoints import pack
from priorzoo.inference.training.comparing import check_parameters, resume
from priorzoo.inference.trust import homes

LOG = logging.getLogger(__name__)
Row = dict[str, Any]
MOVES = 2**16  # the seeds of moves between steps come after those of stages
JUDGED = 5_000  # training rows by which restarts are judged where none are held out


class Course:
    """Builds a recipe's pair and takes it through all that the recipe asks for, in order.

    What can be wrong with settings, pair or data is found here, before :meth:`run`.

    Args:
        recipe, seed: what to train, and the seed of everything that is random.
        rows: the data.
        where: device.
        processes: those that train together; each has all rows.

    Raises:
        ValueError: for settings that do not fit together.
    """

    def __init__(
        self,
        recipe: Recipe,
        rows: Dataset,
        where: torch.device,
        seed: int,
        processes: Processes = ALONE,
    ) -> None:
        self.processes = processes
        self.recipe, self.rows, self.where, self.seed = recipe, rows, where, seed
        self.prepared = prepared = Prepared(recipe, rows, where, seed, processes)
        self.stages = prepared.stages
        self.x, self.labels = prepared.x, prepared.labels
        self.model, self.guide = self.prepared.pair(seed)
        x_test = rows.x_test.to(where)
        check_data(self.model, x_test, "x_test", context=rows.beside(x_test))
        self.trainings = self.prepared.trainings(self.model, self.guide)
        self._trust = homes(configuration(self.model, self.guide))  # named by who trains
        self.history: list[Row] = []
        self.step, self.seconds = 0, 0.0
        self.fingerprint = fingerprint(rows)
        # How many starts have been tried, the best bound of them and its pair.
        self._starts = (0, -float("inf"), (self.model, self.guide))
        self._begun: State | None = None

    def restore(self, kept: State) -> None:
        """Take up what :meth:`Checkpoints.load` found of an interrupted or finished run.

        What is kept must be of the same data, and its settings may differ in what is ``changed``.
        """
        folder, rows = Path(kept["place"]), kept["history"]
        stages, starts = Whole(0, len(self.stages) - 1), Whole(0, self.recipe.n_init)
        check(optional(stages), kept["stage"], "stage", folder, "train again")
        begun = kept["training"] is not None or kept["stage"] != 0 or "starts" in kept
        if begun and kept.get("changed"):
            step = kept["before"] + (kept["training"] or {"step": 0})["step"]
            rows = [*rows, {"step": step, "split": "resume", "changed": kept["changed"]}]
        if self.processes.is_first:
            text = "".join(f"{json.dumps(row)}\n" for row in rows)
            replace_file(folder / HISTORY, lambda part: part.write_text(text))
        if kept["stage"] is None:
            if self.processes.is_first:
                own = nn.ModuleList((self.model, self.guide)).state_dict()
                self.model, self.guide = load(folder, self.where, trust=self._trust)
                found = nn.ModuleList((self.model, self.guide)).state_dict()
                check_parameters(found, own, f"pair in {folder}")
            self.processes.level(self.model, self.guide)
            kept = kept | {"stage": len(self.stages)}
        self.history = rows
        if not begun:
            LOG.warning("No step had been kept in %s; the training begins anew.", folder)
            return
        if "starts" in kept:
            first, best, parameters = kept["starts"]
            pair = nn.ModuleList((self.model, self.guide))
            check(starts, first, "starts", folder, "train again")
            check(Number(finite=False), best, "bound", folder, "train again")
            check_parameters(parameters, pair.state_dict(), f"starts of {folder}")
            pair.load_state_dict(parameters)
            self._starts, self.seconds = (first, best, (self.model, self.guide)), kept["spent"]
            return
        self.step, self.seconds, self._begun = kept["before"], kept["spent"], kept

    def run(
        self,
        folder: Path,
        settings: Mapping[str, Any],
        progress: bool = False,
        judge: Callable[[], Row] | None = None,
        watch: Callable[[], Row] | None = None,
        checkpoints: Checkpoints | None = None,
    ) -> None:
        """Train, and leave history and checkpoints in a folder on the way.

        The last checkpoint stays, for whoever removes it once the result is written.

        Args:
            folder, settings: where, and what a run that resumes must be equal in.
            progress: whether to show a bar.
            judge: called after each stage but the last, for a row of its own.
            watch: the same at every row of the history, with the recipe's ``curve``.
            checkpoints: of that folder; as many and as often as by default if None.

        Raises:
            KeyboardInterrupt: with the number of a signal that came, once a checkpoint is saved.
        """
        self._folder = folder
        self._checkpoints = checkpoints or Checkpoints(folder)
        self._settings = json.dumps({"seed": self.seed, **settings})
        if self._begun is None and not self._starts[0]:
            self._save(self._state(0, None))
            if self.processes.is_first:
                clear(folder)
        first = 0 if self._begun is None else self._begun["stage"]
        if self._begun is None and self.recipe.n_init > 1:
            self._choose(progress)
        for index, stage in enumerate(self.stages[first:], first):
            if stage.begin is not None and self._begun is None:
                done = self._call(stage.begin, derive(self.seed, 1 + index))
                self._record({"step": self.step, "split": "begin", "stage": stage.name} | done)
            if index in self.trainings:
                with learning(stage, self.model, self.guide):
                    self._train(index, progress, watch)
            if judge is not None and stage.name:
                self._record({"step": self.step, "split": "test", "stage": stage.name} | judge())

    def _record(self, row: Row) -> None:
        self.history.append(row)
        if not self.processes.is_first:
            return
        with (self._folder / HISTORY).open("a") as file:
            file.write(json.dumps(row) + "\n")

    def _save(self, state: State) -> None:
        if self.processes.is_first:
            self._checkpoints.save(pack(state))

    def _state(self, stage: int, training: Training | None) -> State:
        state: State = {"settings": self._settings, "data": self.fingerprint, "stage": stage}
        state |= {"rows": len(self.history), "before": self.step, "spent": self.seconds}
        return state | {"training": None if training is None else training.state()}

    def _train(self, index: int, progress: bool, watch: Callable[[], Row] | None) -> None:
        stage, training = self.stages[index], self.trainings[index]
        marks = {"stage": stage.name} if stage.name else {}
        total = training.length(stage.steps, stage.epochs)
        keeping = Keeping(
            self._checkpoints, lambda: pack(self._state(index, training)), self.processes
        )
        watched = watch if self.recipe.curve else None
        moved = bool(self.recipe.moves) and not stage.name
        slow = moved or watched is not None or training.validation is not None

        def mark(row: Row) -> None:
            self._record(row | {"step": self.step + row["step"]} | marks)

        def checkpoint() -> None:
            if watched is not None:
                with training.averaged():
                    scores = watched()
                mark({"step": training.step, "split": "test"} | scores)
            if moved and training.step < total and not training.stopped:
                self._move(training.step, total, mark)
                training.moved()
            keeping.save()

        training.record, training.checkpoint = mark, checkpoint
        training.due, training.pause = keeping.due, lambda: keeping.pause(slow)
        if self._begun is not None:
            resume(training, self._begun["training"], self._folder)
            self._begun = None
        with keeping:
            training.run_to(total, progress=progress)
        self.step += training.step
        self.seconds += training.seconds

    def _move(self, step: int, total: int, record: Callable[[Row], None]) -> None:
        """What the recipe does to model and guide between two steps, and rows of what it did."""
        for name, chosen in self.recipe.moves.items():
            begun = time.perf_counter()
            done = self._call(chosen, derive(self.seed, MOVES + step), step / total)
            self.seconds += time.perf_counter() - begun
            if done:
                record({"step": step, "split": "moves", "moves": name, **done})

    def _call(self, chosen: Part, seed: int, share: float = 0.0) -> Row:
        """Call a function of the recipe on model, guide and rows; returns what it did.

        ``share`` of the training is over.
        """
        function = locate_function(chosen.class_path)
        labels = {site: label.to(self.where) for site, label in self.labels.items()}
        offered: dict[str, object] = {"labels": labels, "context": self.prepared.context}
        offered |= {"transform": self.rows.unpacking, "done": share}
        named = inspect.signature(function).parameters
        settings = {name: offered[name] for name in offered if name in named}
        settings |= {"seed": seed, **chosen.init_args}

        def call() -> Row:
            with Stream(seed, self.where):
                x = self.rows.values(self.x)
                return function(self.model, self.guide, x, **settings) or {}

        done = self.processes.by_first(call)
        self.processes.level(self.model, self.guide)
        return done

    def _choose(self, progress: bool) -> None:
        """Short runs from several starts, of which the one with the best bound goes on."""
        first, best, chosen = self._starts
        held, part = self.prepared.held, "valid"
        if not len(held):
            held, part = self.x[:JUDGED], "train"
        told = self.rows.beside(held, part)
        drawn = self.rows.unpacking
        for start in range(first, self.recipe.n_init):
            seed = self.seed if start == 0 else derive(self.seed, -start)
            self.model, self.guide = pair = self.prepared.pair(seed)
            training = self.prepared.training(self.stages[-1], *pair, seed=seed, patience=None)
            training.run(self.recipe.init_steps, progress=progress)
            how: dict[str, Any] = {"transform": drawn, "seed": self.seed, "context": told}
            terms = evaluate(self.model, self.guide, held, processes=self.processes, **how)
            self._record({"step": self.recipe.init_steps, "split": "init", "start": start, **terms})
            self.seconds += training.seconds
            if terms["elbo"] > best:
                best, chosen = terms["elbo"], (self.model, self.guide)
            done = [start + 1, best, nn.ModuleList(chosen).state_dict()]
            self._save(self._state(0, None) | {"starts": done})
        self.model, self.guide = chosen
        self.trainings = self.prepared.trainings(self.model, self.guide)
