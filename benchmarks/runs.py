"""A run: a recipe trained under one seed, and the folder that holds all there is to know of it."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from priorzoo.benchmarks import data, metrics, sticks
from priorzoo.benchmarks.building import build_pair
from priorzoo.benchmarks.recipes import Part, Recipe
from priorzoo.inference import (
    ELBO,
    Stream,
    Training,
    check_data,
    cluster_probabilities,
    evaluate,
    load,
    save,
)
from priorzoo.inference.saving import locate, versions
from priorzoo.models import StickBreakingVAE

Result = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """A trained pair with what it was trained by and on.

    ``result`` is what ``result.json`` holds, ``history`` the rows of ``history.jsonl``.
    """

    folder: Path
    model: nn.Module
    guide: nn.Module
    result: Result
    history: list[Result]

    @property
    def settings(self) -> Mapping[str, Any]:
        """The resolved settings of the recipe."""
        settings: Mapping[str, Any] = self.result["settings"]
        return settings

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one row as a picture."""
        return tuple(self.result["shape"])

    @property
    def clusters(self) -> int:
        """Number K of clusters that the guide tells apart; 0 without."""
        return int(self.result["metrics"].get("clusters", 0))

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.model.parameters()).device


def pick_device(name: str) -> torch.device:
    """``auto`` is the GPU where there is one.

    Raises:
        ValueError: for ``cuda`` without a GPU, or an unknown name.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f"Expected a device among auto, cpu and cuda but got {name!r}.")
    present = torch.cuda.is_available()
    if name == "cuda" and not present:
        raise ValueError(
            "Expected a CUDA device for --device cuda but found none; use --device cpu."
        )
    return torch.device("cuda" if name == "cuda" or (name == "auto" and present) else "cpu")


def read_data(
    settings: Mapping[str, Any], root: str | None = None, *, seed: int, download: bool = False
) -> data.Dataset:
    """The data set, split and binarised as the settings of a recipe say."""
    return data.load(
        settings["data"],
        root,
        binarise=settings["binarise"],
        train=settings["train"],
        validation=settings["validation"],
        seed=seed,
        download=download,
    )


def train(
    name: str,
    recipe: Recipe,
    folder: Path,
    *,
    seed: int = 0,
    device: str = "auto",
    data_root: str | None = None,
    download: bool = False,
    overwrite: bool = False,
    progress: bool = False,
    command: str = "",
) -> tuple[Run, data.Dataset]:
    """Train a recipe, and write ``config.json``, ``model.safetensors``, ``history.jsonl`` and
    ``result.json`` into a folder.

    What can be wrong with settings, pair or data is found before the folder is touched.

    Raises:
        FileExistsError: for a folder that already holds files, unless told to overwrite it.
        ValueError: for settings that do not fit together.
    """
    if folder.exists() and any(folder.iterdir()):
        if not overwrite:
            raise FileExistsError(
                f"Expected a new folder but {folder} already holds files; choose another --out or "
                "add --overwrite."
            )
        if not any((folder / name).is_file() for name in ("config.json", "history.jsonl")):
            raise FileExistsError(
                f"Expected a run to overwrite but {folder} holds other files; choose another --out."
            )
    where = pick_device(device)
    settings = plain(asdict(recipe))
    rows = read_data(settings, data_root, seed=seed, download=download)
    with Stream(seed):
        model, guide = build_pair(recipe, rows.shape)
    model.to(where)
    guide.to(where)
    history: list[Result] = []

    def record(row: Result) -> None:
        history.append(row)
        with (folder / "history.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")

    training = _training(recipe, model, guide, rows, where, seed=seed, record=record)
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    training.run(recipe.steps, recipe.epochs, progress=progress)
    save(folder, model, guide)
    result: Result = {
        "recipe": name,
        "command": command,
        "settings": settings,
        "shape": list(rows.shape),
        "seed": seed,
        "steps": training.step,
        "seconds": round(training.seconds, 1),
        "device": torch.cuda.get_device_name(where) if where.type == "cuda" else "cpu",
        "versions": versions(),
    }
    run = Run(folder, model, guide, result, history)
    result |= score(run, rows)
    (folder / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    return run, rows


def _training(
    recipe: Recipe,
    model: nn.Module,
    guide: nn.Module,
    rows: data.Dataset,
    where: torch.device,
    **settings: Any,
) -> Training:
    if len(rows.x_test) == 0:
        raise ValueError(f"Expected test rows in {recipe.data} but got none.")
    check_data(model, rows.x_test.to(where), "x_test")
    schedule = recipe.schedule
    return Training(
        model,
        guide,
        rows.x_train.to(where),
        objective=ELBO(model, guide, recipe.kl, recipe.particles),
        optimiser=lambda parameters: _make(recipe.optimiser, Optimizer, parameters),
        schedule=None if schedule is None else lambda o: _make(schedule, LRScheduler, o),
        batch_size=recipe.batch_size,
        transform=rows.transform,
        clip=recipe.clip,
        precision=recipe.precision,
        every=recipe.every,
        validation=rows.x_valid.to(where) if len(rows.x_valid) else None,
        patience=recipe.patience,
        **settings,
    )


def score(run: Run, rows: data.Dataset, importance_samples: int = 0) -> Result:
    """``terms`` of the bound on the test rows, and ``metrics`` of their clustering if there is one.

    Where the binarisation is dynamic, both see one and the same draw of each row.
    """
    x, seed = rows.x_test.to(run.device), int(run.result["seed"])
    check_data(run.model, x, "x_test")
    if rows.transform is not None:
        with Stream(seed, x.device):
            x = rows.transform(x)
    terms = evaluate(run.model, run.guide, x, importance_samples=importance_samples, seed=seed)
    if "kl[y]" not in terms:
        if isinstance(run.model, StickBreakingVAE):
            return {"terms": terms, "metrics": sticks.score(run.model, run.guide, rows, x)}
        return {"terms": terms, "metrics": {}}
    probabilities = cluster_probabilities(run.model, run.guide, x).cpu()
    return {"terms": terms, "metrics": metrics.score(probabilities, rows.y_test)}


def open_run(folder: Path, device: str = "auto") -> Run:
    """The run that :func:`train` left in a folder.

    Raises:
        FileNotFoundError: for a folder that is missing or half-written.
    """
    model, guide = load(folder, pick_device(device))
    if not (folder / "result.json").is_file():
        raise FileNotFoundError(
            f"Expected result.json in {folder} but it is half-written; train again."
        )
    result = json.loads((folder / "result.json").read_text())
    lines = (folder / "history.jsonl").read_text().splitlines()
    return Run(folder, model, guide, result, [json.loads(line) for line in lines])


def plain(value: Any) -> Any:
    """Nested mappings and sequences as JSON writes them."""
    return json.loads(json.dumps(value))


def _make(chosen: Part, family: type, first: Any) -> Any:
    """An optimiser of parameters, or a schedule of an optimiser."""
    return locate(chosen.class_path, family)(first, **chosen.init_args)
