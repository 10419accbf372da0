"""A run: a recipe trained under one seed, and the folder that holds all there is to know of it."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from priorzoo.benchmarks.data import sets as data
from priorzoo.benchmarks.scores import factorial
from priorzoo.benchmarks.scores import metrics
from priorzoo.benchmarks.scores import nggp
from priorzoo.benchmarks.scores import sticks
from priorzoo.benchmarks.runs.course import Course
from priorzoo.benchmarks.recipes.recipe import Recipe
from priorzoo.guides import FactorialCode
from priorzoo.inference import (
    Stream,
    check_data,
    cluster_probabilities,
    codes,
    degeneracy,
    enumerates,
    evaluate,
    load,
    predictive,
    remember,
    save,
)
from priorzoo.inference.memory import check_memory
from priorzoo.inference.pairs import Labels
from priorzoo.inference.saving import replace_file, versions
from priorzoo.models import FactorialMixture, NGGPMixture, NonparametricVAE, StickBreakingVAE

Result = dict[str, Any]
READ = ("settings", "shape", "seed", "metrics")  # of result.json, when a run is opened again
FITTED = 20_000  # training rows whose codes k-means sees
SPLIT = ("data", "binarise", "train", "validation")  # of its settings


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
    def site(self) -> str:
        """The site of the clusters, or of the first factor's."""
        return "r_1" if isinstance(self.model, FactorialMixture) else "y"

    @property
    def story(self) -> nn.Module:
        """What to draw new rows from: the model, or what its guide has learnt of its globals."""
        pruned = {"prune": True} if isinstance(self.guide, FactorialCode) else {}
        return predictive(self.model, self.guide, **pruned)[0]

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
    """The data set, split, labelled and binarised as the settings of a recipe say."""
    split = {name: settings[name] for name in SPLIT if name != "data"}
    split |= {"root": root, "seed": seed, "download": download}
    rows = data.load(settings["data"], **split)
    return data.with_labels(rows, settings.get("labels") or {}, **split)


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
    resume: bool = False,
    progress: bool = False,
    command: str = "",
) -> tuple[Run, data.Dataset]:
    """Train a recipe, and write ``config.json``, ``model.safetensors``, ``history.jsonl`` and
    ``result.json`` into a folder.

    What can be wrong with settings, pair or data is found before the folder is touched. On the way
    it holds a checkpoint, from which ``resume`` goes on as if there had been no break.

    Raises:
        FileExistsError: for a folder that already holds files, unless told to overwrite it.
        FileNotFoundError: where there is nothing to resume.
        ValueError: for settings that do not fit together.
    """
    if folder.is_file():
        raise FileExistsError(f"Expected a folder but {folder} is a file; choose another --out.")
    if not resume and folder.exists() and any(folder.iterdir()):
        if not overwrite:
            raise FileExistsError(
                f"Expected a new folder but {folder} already holds files; choose another --out, or "
                "add --overwrite, or --resume to go on where a run was interrupted."
            )
        if not any((folder / name).is_file() for name in ("config.json", "history.jsonl")):
            raise FileExistsError(
                f"Expected a run to overwrite but {folder} holds other files; choose another --out."
            )
    where = pick_device(device)
    settings = plain(asdict(recipe))
    rows = read_data(settings, data_root, seed=seed, download=download)
    course = Course(recipe, rows, where, seed)
    if isinstance(course.model, NonparametricVAE):
        check_memory(course.model, len(rows.x_train), recipe.memory)
    if resume:
        course.restore(folder, settings)
    else:
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
    result: Result = {
        "recipe": name,
        "command": command,
        "settings": settings,
        "shape": list(rows.shape),
        "seed": seed,
        "device": torch.cuda.get_device_name(where) if where.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }

    def now() -> Run:
        return Run(folder, course.model, course.guide, result, course.history)

    course.run(
        folder,
        settings,
        progress,
        judge=lambda: score(now(), rows) | score_codes(now(), rows),
        watch=lambda: score(now(), rows),
    )
    save(folder, course.model, course.guide)
    if isinstance(course.model, NonparametricVAE):
        x = rows.x_train.to(where)
        with Stream(seed, where):
            x = x if rows.transform is None else rows.transform(x)
        remember(course.model, course.guide, x, recipe.memory, seed=seed).save(folder)
    run = now()
    result |= {"steps": course.step, "seconds": round(course.seconds, 1)} | score(run, rows)
    result["metrics"] |= judge_factors(run, rows, course.labels)
    if isinstance(course.model, NGGPMixture) and rows.vocabulary:
        result["words"] = nggp.top_words(course.model, rows.vocabulary, rows.x_test)
    staged = [row for row in course.history if row["split"] == "test" and "stage" in row]
    if staged:
        result["stages"] = {row["stage"]: row for row in staged}
    text = json.dumps(result, indent=2) + "\n"
    replace_file(folder / "result.json", lambda file: file.write_text(text))
    return run, rows


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
    if isinstance(run.model, FactorialMixture) and isinstance(run.guide, FactorialCode):
        return {"terms": terms, "metrics": factorial.score(run.model, run.guide, x, rows)}
    if isinstance(run.model, StickBreakingVAE):
        return {"terms": terms, "metrics": sticks.score(run.model, run.guide, rows, x)}
    if not enumerates(run.model, run.guide, x):
        return {"terms": terms, "metrics": {}}
    probabilities = cluster_probabilities(run.model, run.guide, x).cpu()
    own = {}
    if isinstance(run.model, NGGPMixture):
        probabilities, own = probabilities[:, nggp.there(run.model)], nggp.score(run.model)
    figures = metrics.score(probabilities, rows.y_test) | own
    if run.settings.get("labelled") and rows.y_test is not None:
        figures["accuracy"] = (probabilities.argmax(-1) == rows.y_test).double().mean().item()
    return {"terms": terms, "metrics": figures, "warning": degeneracy(probabilities)}


def judge_factors(run: Run, rows: data.Dataset, known: Labels) -> dict[str, float]:
    """See :func:`factorial.judge`; nothing of a run without labels by name."""
    if not (rows.named and known and isinstance(run.model, FactorialMixture)):
        return {}
    assert isinstance(run.guide, FactorialCode)
    with Stream(int(run.result["seed"]), run.device):
        return factorial.judge(run.model, run.guide, rows, known)


def score_codes(run: Run, rows: data.Dataset) -> Result:
    """``k-means`` of the codes of the test rows, K as in the model, fit to those of training rows.

    The baseline that an autoencoder is, where a stage ends with one.
    """
    from sklearn.cluster import KMeans

    clusters = getattr(run.model, "clusters", None)
    if clusters is None or rows.y_test is None or isinstance(run.model, FactorialMixture):
        return {}
    if isinstance(run.model, NGGPMixture):
        clusters = int(run.model.active.sum())
    z, z_test = (
        codes(run.model, run.guide, x.to(run.device)).cpu().numpy()
        for x in (rows.x_train[:FITTED], rows.x_test)
    )
    means = KMeans(clusters, n_init=5, random_state=int(run.result["seed"])).fit(z)
    assigned = torch.as_tensor(means.predict(z_test)).long()
    certain = torch.nn.functional.one_hot(assigned, clusters).double()
    return {"k-means": metrics.score(certain, rows.y_test)}


def open_run(folder: Path, device: str = "auto") -> Run:
    """The run that :func:`train` left in a folder.

    Raises:
        FileNotFoundError: for a folder that is missing or half-written.
        ValueError: for one that is damaged, or of a newer format.
    """
    model, guide = load(folder, pick_device(device))
    if not (folder / "result.json").is_file():
        raise FileNotFoundError(
            f"Expected result.json in {folder} but it is half-written; train again."
        )
    try:
        result = json.loads((folder / "result.json").read_text())
        lines = (folder / "history.jsonl").read_text().splitlines()
        run = Run(folder, model, guide, result, [json.loads(line) for line in lines])
        missing = [name for name in READ if name not in result]
        missing += [name for name in SPLIT if name not in run.settings]
        if missing:
            raise KeyError(*missing)
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"Expected the result and history of a run in {folder} but they are damaged "
            f"({error!r}); train the run again."
        ) from error
    return run


def plain(value: Any) -> Any:
    """Nested mappings and sequences as JSON writes them."""
    return json.loads(json.dumps(value))
