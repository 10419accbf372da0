"""What a recipe's stages are trained on: rows, labels, new pairs, and each stage's training."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from priorzoo.benchmarks.data.labels import keep_labels, keep_rows, repeat_labelled, unlike
from priorzoo.benchmarks.data.sets import Dataset
from priorzoo.benchmarks.recipes.building import build_pair, build_training, learning
from priorzoo.benchmarks.recipes.recipe import Recipe, Stage
from priorzoo.inference import StoredRows, Stream, Training
from priorzoo.inference.processes import Processes
from priorzoo.inference.randomness import derive


class Prepared:
    """The stages of a recipe, the main training last, with the rows of all of them on a device.

    Args:
        recipe, seed: what is trained, and the seed of everything that is random.
        rows: the data.
        where: device.
        processes: those that train together; each has all rows.

    Raises:
        ValueError: for settings that do not fit together.
    """

    def __init__(
        self, recipe: Recipe, rows: Dataset, where: torch.device, seed: int, processes: Processes
    ) -> None:
        self.recipe, self.rows, self.where, self.seed = recipe, rows, where, seed
        self.processes = processes
        if len(rows.x_test) == 0:
            raise ValueError(f"Expected test rows in {recipe.data} but got none.")
        if recipe.n_init < 1:
            raise ValueError(f"Expected at least one start but got n_init={recipe.n_init}.")
        self.x = rows.train.to(where)
        self.held = rows.valid.to(where)
        self.labels = self._labels()
        self.context = rows.beside(self.x, "train")
        self._given = self._repeated()
        self.stages = [*recipe.stages, Stage("", steps=recipe.steps, epochs=recipe.epochs)]

    def _labels(self) -> dict[str, Tensor]:
        recipe, rows = self.recipe, self.rows
        if recipe.labels:
            named = {site: labels for site, (labels, _) in rows.named.items()}
            return keep_rows(named, recipe.labelled, self.seed)
        if not recipe.labelled:
            return {}
        # Labels of named sites are one source's, coded alike: a class without training rows is told
        # with the scores.
        if problem := unlike(rows):
            raise ValueError(problem)
        return {"y": keep_labels(rows.y_train, recipe.labelled, self.seed)}

    def _repeated(self) -> tuple[Tensor | StoredRows, dict[str, Tensor], dict[str, Tensor]]:
        """Rows, labels and context, those of labelled rows as often as the recipe asks for."""
        stored, share = self.rows.stored, self.recipe.labelled_share
        if stored is None:
            rows, labels = repeat_labelled(torch.arange(len(self.x)), self.labels, share)
            if len(rows) == len(self.x):
                return self.x, labels, self.context
            rows = rows.to(self.where)
            context = {name: value[rows] for name, value in self.context.items()}
            return self.x[rows], labels, context
        if self.labels:
            raise ValueError(
                f"Expected rows in memory beside labelled={self.recipe.labelled} but "
                f"{self.rows.name} is read from files; train without labels, or on a .npz file."
            )
        return stored.batched(self.recipe.batch_size, self.seed), {}, {}

    def pair(self, seed: int) -> tuple[nn.Module, nn.Module]:
        """A new model and guide, of the parameters that this seed draws."""
        with Stream(seed):
            model, guide = build_pair(self.recipe, self.rows.shape)
        return model.to(self.where), guide.to(self.where)

    def trainings(self, model: nn.Module, guide: nn.Module) -> dict[int, Training]:
        """The training of each stage with steps, by its index; refuses lengths that do not fit."""
        found: dict[int, Training] = {}
        for index, stage in enumerate(self.stages):
            if stage.begin is None or stage.steps is not None or stage.epochs is not None:
                with learning(stage, model, guide):
                    seed = derive(self.seed, 1 + index) if stage.name else self.seed
                    found[index] = self.training(stage, model, guide, seed=seed)
                found[index].length(stage.steps, stage.epochs)
        return found

    def training(
        self, stage: Stage, model: nn.Module, guide: nn.Module, **settings: object
    ) -> Training:
        """The training of one stage, with these settings in place of the recipe's."""
        x, labels, context = self._given
        instead: dict[str, Any] = {
            name: getattr(stage, name)
            for name in ("objective", "kl", "schedule")
            if getattr(stage, name) is not None
        }
        lasts = {"steps": stage.steps, "epochs": stage.epochs}
        recipe = replace(self.recipe, **instead | lasts)
        own: dict[str, Any] = {"labels": labels, "transform": self.rows.unpacking}
        own |= {"context": context, "processes": self.processes}
        if len(self.held):
            told = self.rows.beside(self.held, "valid")
            own |= {"validation": self.held, "validation_context": told}
        own["patience"] = None if stage.name else recipe.patience
        return build_training(recipe, model, guide, x, **own | settings)
