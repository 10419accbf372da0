"""The whole of a recipe's training: restarts, stages, and the training proper."""

import inspect
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from priorzoo.benchmarks.data.sets import Dataset, keep_labels, keep_rows, repeat_labelled
from priorzoo.benchmarks.recipes.building import build_pair, build_training
from priorzoo.benchmarks.recipes.recipe import Part, Recipe, Stage
from priorzoo.inference import Stream, Training, check_data, evaluate
from priorzoo.inference.saving import configuration, locate_function
from priorzoo.inference.training.checkpoints import load_state, save_state

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

    Raises:
        ValueError: for settings that do not fit together.
    """

    def __init__(self, recipe: Recipe, rows: Dataset, where: torch.device, seed: int) -> None:
        self.recipe, self.rows, self.where, self.seed = recipe, rows, where, seed
        if len(rows.x_test) == 0:
            raise ValueError(f"Expected test rows in {recipe.data} but got none.")
        if recipe.n_init < 1:
            raise ValueError(f"Expected at least one start but got n_init={recipe.n_init}.")
        self.x = rows.x_train.to(where)
        self.held = rows.x_valid.to(where)
        self.labels = {}
        if recipe.labels:
            named = {site: labels for site, (labels, _) in rows.named.items()}
            self.labels = keep_rows(named, recipe.labelled, seed)
        elif recipe.labelled:
            self.labels = {"y": keep_labels(rows.y_train, recipe.labelled, seed)}
        self.given = repeat_labelled(self.x, self.labels, recipe.labelled_share)
        own = Stage("", steps=recipe.steps, epochs=recipe.epochs)
        self.stages = [*recipe.stages, own]
        self.model, self.guide = self._pair(seed)
        check_data(self.model, rows.x_test.to(where), "x_test")
        self.trainings = self._trainings()
        configuration(self.model, self.guide)
        self.history: list[Row] = []
        self.step, self.seconds = 0, 0.0
        self._begun: Mapping[str, Any] | None = None

    def restore(self, folder: Path, settings: Mapping[str, Any]) -> None:
        """Take up what the checkpoint of an interrupted run of the same settings says.

        Raises:
            FileNotFoundError: for a folder without a checkpoint.
            ValueError: for a checkpoint of other settings or another seed.
        """
        state = load_state(folder / "checkpoint.safetensors")
        given = {"seed": self.seed, **settings}
        kept = json.loads(state["settings"])
        other = sorted(name for name in given if kept.get(name) != given[name])
        if other:
            raise ValueError(
                f"Expected the settings of the run in {folder} but {', '.join(other)} differ; "
                "resume with the same, or train anew elsewhere."
            )
        lines = (folder / "history.jsonl").read_text().splitlines()[: state["rows"]]
        (folder / "history.jsonl").write_text("".join(f"{line}\n" for line in lines))
        self.history = [json.loads(line) for line in lines]
        self.step, self.seconds, self._begun = state["before"], state["spent"], state

    def run(
        self,
        folder: Path,
        settings: Mapping[str, Any],
        progress: bool = False,
        judge: Callable[[], Row] | None = None,
        watch: Callable[[], Row] | None = None,
    ) -> None:
        """Train, and leave history and checkpoints in a folder on the way.

        Args:
            folder, settings: where, and what a run that resumes must be equal in.
            progress: whether to show a bar.
            judge: called after each stage but the last, for a row of its own.
            watch: the same at every row of the history, with the recipe's ``curve``.
        """

        def record(row: Row) -> None:
            self.history.append(row)
            with (folder / "history.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")

        begun = self._begun
        if begun is None and self.recipe.n_init > 1:
            self._choose(record, progress)
        for index, stage in enumerate(self.stages):
            taken_up = begun is not None and begun["stage"] == index
            if begun is not None and index < begun["stage"]:
                continue
            if stage.begin is not None and not taken_up:
                done = self._begin(stage.begin, index) or {}
                record({"step": self.step, "split": "begin", "stage": stage.name} | done)
            if not trains(stage):
                self._judge(judge, stage, record)
                continue

            def keep(training: Training, index: int = index) -> None:
                state = {
                    "settings": json.dumps({"seed": self.seed, **settings}),
                    "stage": index,
                    "rows": len(self.history),
                    "before": self.step,
                    "spent": self.seconds,
                    "training": training.state(),
                }
                save_state(folder / "checkpoint.safetensors", state)

            with Learning(stage, self.model, self.guide):
                taken = begun if taken_up else None
                self._train(index, record, keep, progress, taken, watch)
            self._judge(judge, stage, record)
        (folder / "checkpoint.safetensors").unlink(missing_ok=True)

    def _train(
        self,
        index: int,
        record: Callable[[Row], None],
        keep: Callable[[Training], None],
        progress: bool,
        state: Mapping[str, Any] | None,
        watch: Callable[[], Row] | None,
    ) -> None:
        stage, training = self.stages[index], self.trainings[index]
        assert training is not None
        marks = {"stage": stage.name} if stage.name else {}

        def mark(row: Row) -> None:
            record(row | {"step": self.step + row["step"]} | marks)

        def checkpoint() -> None:
            if self.recipe.curve and watch is not None:
                mark({"step": training.step, "split": "test"} | watch())
            if own and training.step < total and not training.stopped:
                self._move(training.step, mark)
            keep(training)

        own = not stage.name
        training.record, training.checkpoint = mark, checkpoint
        total = training.length(stage.steps, stage.epochs)
        if state is not None:
            training.restore(state["training"])
        if training.step < total:
            training.run(total - training.step, progress=progress)
        self.step += training.step
        self.seconds += training.seconds

    def _move(self, step: int, record: Callable[[Row], None]) -> None:
        """What the recipe does to model and guide between two steps, and rows of what it did."""
        for name, chosen in self.recipe.moves.items():
            seed, move = derive(self.seed, MOVES + step), locate_function(chosen.class_path)
            settings = {"seed": seed, "transform": self.rows.transform, **chosen.init_args}
            begun = time.perf_counter()
            with Stream(seed, self.where):
                done = move(self.model, self.guide, self.x, **settings)
            self.seconds += time.perf_counter() - begun
            record({"step": step, "split": "moves", "moves": name, **done})

    def _judge(
        self, judge: Callable[[], Row] | None, stage: Stage, record: Callable[[Row], None]
    ) -> None:
        if judge is not None and stage.name:
            record({"step": self.step, "split": "test", "stage": stage.name} | judge())

    def _choose(self, record: Callable[[Row], None], progress: bool) -> None:
        """Short runs from several starts, of which the one with the best bound goes on."""
        best = -float("inf")
        chosen: dict[str, Any] = {}
        held = self.held if len(self.held) else self.x[:JUDGED]
        for start in range(self.recipe.n_init):
            seed = self.seed if start == 0 else derive(self.seed, -start)
            self.model, self.guide = self._pair(seed)
            training = self._training(self.stages[-1], seed=seed, patience=None)
            training.run(self.recipe.init_steps, progress=progress)
            terms = evaluate(
                self.model, self.guide, held, transform=self.rows.transform, seed=self.seed
            )
            record({"step": self.recipe.init_steps, "split": "init", "start": start, **terms})
            self.seconds += training.seconds
            if terms["elbo"] > best:
                best, chosen = terms["elbo"], {"model": self.model, "guide": self.guide}
        self.model, self.guide = chosen["model"], chosen["guide"]
        self.trainings = self._trainings()

    def _begin(self, chosen: Part, index: int) -> Row | None:
        seed, begin = derive(self.seed, 1 + index), locate_function(chosen.class_path)
        settings = dict(chosen.init_args)
        named = inspect.signature(begin).parameters
        if "labels" in named:
            settings["labels"] = {site: label.to(self.where) for site, label in self.labels.items()}
        if "transform" in named:
            settings["transform"] = self.rows.transform
        with Stream(seed, self.where):
            done: Row | None = begin(self.model, self.guide, self.x, seed=seed, **settings)
            return done

    def _pair(self, seed: int) -> tuple[nn.Module, nn.Module]:
        with Stream(seed):
            model, guide = build_pair(self.recipe, self.rows.shape)
        return model.to(self.where), guide.to(self.where)

    def _trainings(self) -> list[Training | None]:
        """That of each stage; None for one that takes no step. A bad length is found here."""
        found: list[Training | None] = []
        for index, stage in enumerate(self.stages):
            if not trains(stage):
                found.append(None)
                continue
            with Learning(stage, self.model, self.guide):
                seed = derive(self.seed, 1 + index) if stage.name else self.seed
                training = self._training(stage, seed=seed)
            training.length(stage.steps, stage.epochs)
            found.append(training)
        return found

    def _training(self, stage: Stage, **settings: object) -> Training:
        x, labels = self.given
        own = {} if stage.name else {"patience": self.recipe.patience}
        return build_training(
            self.recipe,
            self.model,
            self.guide,
            x,
            stage,
            labels=labels,
            transform=self.rows.transform,
            validation=self.held if len(self.held) else None,
            **(own | settings),
        )


class Learning:
    """Inside ``with``, only the parameters that a stage names learn."""

    def __init__(self, stage: Stage, model: nn.Module, guide: nn.Module) -> None:
        self.stage = stage
        self.parameters = dict(nn.ModuleDict({"model": model, "guide": guide}).named_parameters())

    def __enter__(self) -> None:
        self.before = {name: p.requires_grad for name, p in self.parameters.items()}
        if not self.stage.learn:
            return
        for prefix in self.stage.learn:
            if not any(name.startswith(prefix) for name in self.parameters):
                raise ValueError(
                    f"Expected stage {self.stage.name!r} to name parameters to learn but none "
                    f"begins with {prefix!r}; there are {', '.join(self.parameters)}."
                )
        for name, parameter in self.parameters.items():
            parameter.requires_grad_(self.before[name] and name.startswith(tuple(self.stage.learn)))

    def __exit__(self, *_: object) -> None:
        for name, parameter in self.parameters.items():
            parameter.requires_grad_(self.before[name])


def trains(stage: Stage) -> bool:
    """Whether a stage takes steps, or only begins."""
    return not (stage.begin is not None and stage.steps is None and stage.epochs is None)


def derive(seed: int, index: int) -> int:
    """A seed for the part of a run with this index, unlike those of its neighbours."""
    return int(np.random.SeedSequence([seed, index % 2**32]).generate_state(1)[0])
