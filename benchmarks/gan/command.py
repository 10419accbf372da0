"""``priorzoo bench infogan``: InfoGAN, and runs of this zoo whose samples are judged alike."""

import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from priorzoo.benchmarks.data import sets as data
from priorzoo.benchmarks.data.sets import Dataset
from priorzoo.benchmarks.gan.networks import Sizes
from priorzoo.benchmarks.gan.training import InfoGAN
from priorzoo.benchmarks.rows.files import append_row
from priorzoo.benchmarks.runs.machine import machine
from priorzoo.benchmarks.runs.opening import open_run
from priorzoo.benchmarks.scores import metrics, registry
from priorzoo.benchmarks.scores.judge import judged, sample_scores, train_judge
from priorzoo.inference import Stream, cluster_probabilities, draw, enumerates

SHOWN = 8  # samples of a category in the figure


class Drawn(NamedTuple):
    """Samples of a trained model, and what is needed to judge them.

    Args:
        name: of the recipe.
        samples: ``(K, S, P)``, S from each category.
        probabilities: ``(N, K)`` of the categories, given the test rows.
        settings: of the model and its training, for the row of results.
    """

    name: str
    samples: Tensor
    probabilities: Tensor
    settings: Mapping[str, Any]


def measure_infogan(settings: Namespace) -> None:
    """Train InfoGAN, and judge its samples, and those of runs of this zoo, by a classifier.

    usage: priorzoo bench infogan [--OPTION VALUE ...]

      --data NAME        of grey images with labels [fashion_mnist]
      --seeds A,B        [10]
      --steps N          in all, after those of a checkpoint in --out; 0 for the runs alone [3000]
      --channels N       of the layer next to the image; the paper has 64 [32]
      --batch-size N     the paper has 128 [64]
      --samples N        of each category, for the classifier [500]
      --beside RUN ...   folders of trained runs with clusters, on the same data
      --out DIR          folder of checkpoints [runs/infogan]
      --figures FOLDER   folder for a figure of the first seed and the runs
      --rows FILE        file of rows to append to
      --data-root DIR    folder of the data sets

    Raises:
        ValueError: for data without labels, and for runs on other data or without clusters.
    """
    dataset = data.load(settings.data, settings.data_root, validation=0, binarise="none")
    if dataset.y_train is None or dataset.y_test is None or len(dataset.shape) != 2:
        raise ValueError(f"Expected grey images with labels but {settings.data} has none.")
    count = int(settings.samples)
    beside = [_of_run(folder, settings, count) for folder in settings.beside or ()]
    judge = train_judge(dataset)
    right = judged(judge, dataset.x_test).argmax(-1) == dataset.y_test
    told = {"judge_accuracy": right.double().mean().item(), "samples": count}
    shown: list[Drawn] = []
    for seed in map(int, settings.seeds if int(settings.steps) else ()):
        drawn, more = _trained(settings, dataset, seed, count)
        shown += [drawn] if not shown else []
        _tell(_row(drawn, judge, dataset) | told | more, settings)
    for drawn, more in beside:
        shown.append(drawn)
        _tell(_row(drawn, judge, dataset) | told | more, settings)
    if settings.figures is not None:
        print(draw_beside(shown, dataset, Path(settings.figures) / "samples.png"))


def _trained(
    settings: Namespace, dataset: Dataset, seed: int, count: int
) -> tuple[Drawn, dict[str, Any]]:
    """InfoGAN under one seed, from its checkpoint if there is one."""
    height, width = dataset.shape
    sizes = Sizes(height, width, int(settings.channels))
    gan = InfoGAN(sizes, int(settings.batch_size), seed)
    file = Path(settings.out) / f"{settings.data}-seed{seed}.safetensors"
    if file.exists():
        gan.load(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    begun, before = time.perf_counter(), gan.step
    gan.train(dataset.values(dataset.train), int(settings.steps), file)
    seconds = round(time.perf_counter() - begun, 1) if not before else None
    what = {"data": settings.data, "model": asdict(sizes), "batch_size": gan.batch}
    drawn = Drawn("infogan", gan.samples(count), gan.recognised(dataset.x_test), what)
    options = {"data": settings.data, "steps": settings.steps, "channels": settings.channels}
    options |= {"batch-size": settings.batch_size}
    command = " ".join(f"--{name} {value}" for name, value in options.items())
    said = {"seed": seed, "steps": gan.step, "seconds": seconds}
    return drawn, said | {"command": f"priorzoo bench infogan {command}"}


def _of_run(folder: Path, settings: Namespace, count: int) -> tuple[Drawn, dict[str, Any]]:
    """Samples of the clusters of a trained run, and what else its row says.

    Of a model for which a row may belong to no cluster, only clusters with rows are kept, and their
    probabilities are normalised.
    """
    run = open_run(folder, "cpu")
    if run.settings["data"] != settings.data:
        wanted = f"Expected a run on {settings.data}"
        raise ValueError(f"{wanted} but {folder} is on {run.settings['data']}; choose another.")
    dataset = data.load(settings.data, settings.data_root, binarise=run.settings["binarise"])
    with Stream(run.seed):
        x = dataset.drawn(dataset.x_test)
        if not enumerates(run.model, run.guide, x):
            raise ValueError(f"Expected a run with clusters but {folder} has none to draw from.")
        q = cluster_probabilities(run.model, run.guide, x)
        kept = torch.arange(q.shape[1])
        if registry.has_rest(run.model):
            q = q[:, :-1]
            kept = q.argmax(-1).unique()
        q = q[:, kept] / q[:, kept].sum(-1, keepdim=True)
        each = [draw(run.story, count, given={run.site: int(k)}) for k in kept]
    drawn = Drawn(run.result["recipe"], torch.stack(each), q, run.settings)
    said = ("seed", "steps", "seconds", "changes", "command")
    return drawn, {name: run.result[name] for name in said if name in run.result}


def _row(drawn: Drawn, judge: nn.Module, dataset: Dataset) -> dict[str, Any]:
    """A row of results: scores of the model's clusters of the test rows, and of its samples."""
    assert dataset.y_test is not None
    found = metrics.score(drawn.probabilities, dataset.y_test)
    kept = ("clusters", "used_clusters", "accuracy_majority", "accuracy_hungarian", "nmi")
    scores = {name: found[name] for name in kept}
    scores |= sample_scores(judge, drawn.samples, drawn.probabilities, dataset.y_test)
    return {
        "kind": "samples",
        "recipe": drawn.name,
        "settings": dict(drawn.settings),
        "metrics": scores,
    }


def _tell(row: dict[str, Any], settings: Namespace) -> None:
    """Print a row, and append it to the file of rows."""
    row |= machine(torch.device("cpu"))
    said = {name: round(value, 4) for name, value in row["metrics"].items()}
    print(row["recipe"], row["seed"], said, flush=True)
    if settings.rows is not None:
        append_row(row, settings.rows)


def draw_beside(shown: Sequence[Drawn], dataset: Dataset, path: Path) -> Path:
    """Samples of the categories of several models side by side, a row a category, by classes."""
    from priorzoo.benchmarks.charts import axes, pictures

    assert dataset.y_test is not None
    caption = (
        "A row is a category, of more than 20 the fullest, and shows samples of it, with the most "
        "frequent class of its test images. Good: all samples of a row are of that class, and all "
        "classes occur."
    )
    with axes.look():
        panels = axes.new_row(len(shown), "Samples of each category, by its class", caption)
        most = max(min(drawn.probabilities.shape[1], axes.LEGIBLE) for drawn in shown)
        axes.figure_of(panels[0]).set_figheight(0.42 * most + 1.2)
        for ax, drawn in zip(panels, shown, strict=True):
            rows = _ordered(drawn, dataset.y_test, axes.LEGIBLE)
            images = torch.cat([drawn.samples[k, :SHOWN] for k, _ in rows])
            names = [f"class {label}" for _, label in rows]
            pictures.draw_grid(images, dataset.shape, SHOWN, ax, names).set_anchor("N")
            used = len(drawn.probabilities.argmax(-1).unique())
            ax.set_title(f"{drawn.name}, {used} categories in use")
        return axes.save(panels[0], path)


def _ordered(drawn: Drawn, labels: Tensor, most: int) -> list[tuple[int, int]]:
    """The fullest categories with their classes, in the order of these."""
    assigned, count = drawn.probabilities.argmax(-1), drawn.probabilities.shape[1]
    table = metrics.contingency(assigned, labels, count)
    classes = labels[labels >= 0].unique()[table.argmax(-1)].tolist()
    sizes = table.sum(-1)
    fullest = sizes.argsort(descending=True, stable=True)[: min(most, int((sizes > 0).sum()))]
    return sorted(((k, classes[k]) for k in fullest.tolist()), key=lambda pair: pair[1])
