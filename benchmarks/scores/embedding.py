"""How good a plane is: ``python -m priorzoo.benchmarks.scores.embedding RUN ... [--rows FILE]``.

Scores run folders of nonparametric VAEs, whose plane is that of u, and of plain VAEs, whose plane
is the code itself: neighbours, what comes back through the plane, and interpolations. The rows
are those of the runs with an ``embedding`` more.
"""

import argparse
import resource
import sys
from collections.abc import Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from priorzoo.benchmarks.charts import pictures
from priorzoo.benchmarks.charts.axes import new_row, save
from priorzoo.benchmarks.charts.planes import POINTS, draw_embedding
from priorzoo.benchmarks.data.sets import Dataset
from priorzoo.benchmarks.rows.files import append_row
from priorzoo.benchmarks.runs import run as runs
from priorzoo.benchmarks.runs.run import Run
from priorzoo.inference import Memory, Stream, codes, draw
from priorzoo.inference.memory import straight
from priorzoo.inference.pairs import evaluating
from priorzoo.models import MLP, ConvEncoder, NonparametricVAE

NEIGHBOURS = 10
RANKED = 5_000  # test rows among which neighbours are ranked, for trustworthiness
PAIRS = 500  # of training rows of two classes, to interpolate between
PIXELS = ("pca", "umap")
SHARED = ("data", "binarise", "train", "validation")
STEPS = 11  # pictures from end to end
SURE = 0.9  # probability of a class from which the classifier counts as confident


def neighbour_accuracy(known: Tensor, labels: Tensor, asked: Tensor, expected: Tensor) -> float:
    """Share of points ``(Q, D)`` with the label that most of their 10 neighbours have."""
    from sklearn.neighbors import KNeighborsClassifier

    judge = KNeighborsClassifier(NEIGHBOURS).fit(known.numpy(), labels.numpy())
    return float(judge.score(asked.numpy(), expected.numpy()))


def trustworthiness(x: Tensor, places: Tensor) -> float:
    """Whether neighbours in the plane are neighbours in x, from 0 to 1 (Venna & Kaski, 2001)."""
    from sklearn.manifold import trustworthiness as trust

    kept = x[:RANKED].numpy(), places[:RANKED].numpy()
    return float(trust(*kept, n_neighbors=NEIGHBOURS))


def plane_scores(rows: Dataset, known: Tensor, asked: Tensor) -> dict[str, float]:
    """Both figures of places ``(N, D)`` of the training rows and ``(T, D)`` of the test rows."""
    assert rows.y_train is not None
    assert rows.y_test is not None
    return {
        "neighbour_accuracy": neighbour_accuracy(known, rows.y_train, asked, rows.y_test),
        "trustworthiness": trustworthiness(rows.x_test, asked),
    }


def pixel_plane(rows: Dataset, way: str, seed: int = 0) -> dict[str, float]:
    """The scores of the plane of ``pca`` or ``umap`` of the pixels themselves.

    UMAP (McInnes et al., 2018) has its defaults, learns from the training rows, and places the test
    rows afterwards. It needs ``umap-learn``, which nothing else does.
    """
    if way == "pca":
        from sklearn.decomposition import PCA

        made: Any = PCA(2, random_state=seed)
    else:
        from umap import UMAP

        made = UMAP(random_state=seed, n_jobs=1)
    known = torch.from_numpy(made.fit_transform(rows.x_train.numpy()))
    asked = torch.from_numpy(made.transform(rows.x_test.numpy()))
    return plane_scores(rows, known, asked)


class Interpolation:
    """The ways of a run between data: through u where it has one, otherwise straight in z."""

    def __init__(self, run: Run, x: Tensor) -> None:
        self.run = run
        self.memory = None
        if isinstance(run.model, NonparametricVAE):
            self.memory = Memory.load(run.folder, run.model)
        self.site = "z" if self.memory is None else "u"
        self.points = codes(run.model, run.guide, x, site=self.site)

    def between(self, first: Tensor, last: Tensor, steps: int = STEPS) -> Tensor:
        """``(Q, steps, P)`` between the rows of indices ``(Q,)`` and ``(Q,)``."""
        ends = self.points[first], self.points[last]
        if self.memory is not None:
            return self.memory.between(*ends, steps)
        z = straight(*ends, steps)
        return draw(self.run.model, z[..., 0].numel(), given={"z": z.flatten(0, 1)}).unflatten(
            0, z.shape[:2]
        )


def train_judge(rows: Dataset, epochs: int = 3) -> nn.Module:
    """A small convolutional classifier of the training rows, which no run has part in."""
    assert rows.y_train is not None
    classes = int(rows.y_train.max()) + 1
    with Stream(0):
        judge = ConvEncoder(rows.x_train.shape[1], classes, rows.shape, (16, 32), (128,))
        optimiser = torch.optim.Adam(judge.parameters(), 1e-3)
        for _ in range(epochs):
            for index in torch.randperm(len(rows.x_train)).split(128):
                loss = nn.functional.cross_entropy(judge(rows.x_train[index]), rows.y_train[index])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
    return judge


def confidence(judge: nn.Module, x: Tensor) -> Tensor:
    """The largest probability that the classifier gives a class, of rows ``(N, P)``."""
    with torch.no_grad():
        return torch.cat([judge(part).softmax(-1).amax(-1) for part in x.split(2_000)])


def different_pairs(labels: Tensor, count: int = PAIRS) -> tuple[Tensor, Tensor]:
    """Indices of rows of two classes, drawn once and for all."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    first, last = order[: len(order) // 2 * 2].chunk(2)
    apart = labels[first] != labels[last]
    return first[apart][:count], last[apart][:count]


def score(run: Run, rows: Dataset, judge: nn.Module) -> dict[str, Any]:
    """What there is to say of the plane of a run; nats are per test row, at the mean code."""
    x = rows.x_test
    model: Any = run.model

    def nats(z: Tensor) -> float:
        with torch.no_grad(), evaluating(run.model):
            parts = zip(z.split(500), x.split(500), strict=True)
            return (
                torch.cat([model.likelihood(model.decoder(a)).log_prob(b) for a, b in parts])
                .mean()
                .item()
            )

    assert rows.y_train is not None
    ways = Interpolation(run, rows.x_train)
    asked = codes(run.model, run.guide, x, site=ways.site)
    found: dict[str, Any] = {"site": ways.site, "dimensions": ways.points.shape[1]}
    found["direct"] = nats(codes(run.model, run.guide, x))
    if ways.memory is not None:
        found["through_plane"] = nats(ways.memory.codes_at(asked))
        found["memories"] = len(ways.memory.places)
    found |= plane_scores(rows, ways.points, asked)
    between = ways.between(*different_pairs(rows.y_train))
    sure = confidence(judge, between.flatten(0, 1)).unflatten(0, between.shape[:2]) > SURE
    inner = sure[:, 1:-1].float()
    found["confident_between"] = inner.mean().item()
    found["confident_throughout"] = inner.amin(1).mean().item()
    found["confident_ends"] = sure[:, [0, -1]].float().mean().item()
    found["confident_data"] = (confidence(judge, x) > SURE).float().mean().item()
    return found


def peak(memories: int = 60_000, queries: int = 10_000, code: int = 500) -> dict[str, float]:
    """Most memory that a new process ever holds which places so many queries, in GiB; on Linux.

    That of Python, its libraries and the arrays themselves included. The system counts it as no
    less than what the process that asks has held.
    """
    with get_context("spawn").Pool(1) as pool:
        held = pool.apply(_place, (memories, queries, code))
    return {"memories": memories, "queries": queries, "code": code, "peak_gib": held / 2**20}


def _place(memories: int, queries: int, code: int) -> int:
    model = NonparametricVAE(MLP(code, 1, ()), code=code)
    memory = Memory(model, torch.randn(memories, 2), torch.randn(memories, code))
    memory.codes_at(torch.randn(queries, 2))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def draw_runs(named: dict[str, Run], rows: Dataset, folder: Path, shown: int = 4) -> list[Path]:
    """The paper's figures 3 and 4 over several runs: their planes, and ways between the same data.

    Of codes of more than two dimensions, which have no plane, the two largest components are shown.
    """
    assert rows.y_train is not None
    x, y = rows.x_test[:POINTS], rows.y_test
    panels = new_row(len(named))
    for ax, (name, run) in zip(panels, named.items(), strict=True):
        site = "u" if isinstance(run.model, NonparametricVAE) else "z"
        places = codes(run.model, run.guide, x, site=site)
        draw_embedding({name: (places, y)}, symbol=site, axes=[ax])
    save(panels[0], folder / "planes.png")
    ends = rows.x_train[torch.cat(different_pairs(rows.y_train, shown))]
    first, last = torch.arange(2 * shown).chunk(2)
    between = [Interpolation(run, ends).between(first, last) for run in named.values()]
    ways = torch.stack(between, 1).flatten(0, 1)
    save(pictures.draw_ways(ways, rows.shape, list(named) * shown), folder / "interpolations.png")
    return [folder / "planes.png", folder / "interpolations.png"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Score run folders, append their rows to a file, and draw figures over all of them.

    Returns 0 if all went well, 2 for bad input.
    """
    parser = argparse.ArgumentParser(prog="python -m priorzoo.benchmarks.scores.embedding")
    parser.add_argument("runs", nargs="+", type=Path, help="run folders of one data set")
    parser.add_argument("--rows", type=Path, help="file of rows to append to")
    parser.add_argument("--figures", type=Path, help="folder for figures over all the runs")
    parser.add_argument("--pixels", nargs="*", default=[], choices=PIXELS, help="planes beside")
    parser.add_argument("--peak", action="store_true", help="measure the memory of a full plane")
    parser.add_argument("--data-root", help="folder of the data sets")
    try:
        _run(parser.parse_args(arguments))
    except (ValueError, FileNotFoundError) as error:
        print(f"embedding: error: {error}", file=sys.stderr)
        return 2
    return 0


def _run(settings: argparse.Namespace) -> None:
    opened = {folder.name: runs.open_run(folder, "cpu") for folder in settings.runs}
    first, *others = opened.values()
    if any(run.settings[k] != first.settings[k] for run in others for k in SHARED):
        raise ValueError(f"Expected runs that agree in {', '.join(SHARED)}; score others apart.")
    rows = runs.read_data(first.settings, settings.data_root, seed=first.result["seed"])
    more: dict[str, Any] = {"peak": peak()} if settings.peak else {}
    if settings.pixels:
        seed = first.result["seed"]
        more["pixels"] = {"seed": seed, **{k: pixel_plane(rows, k, seed) for k in settings.pixels}}
    judge = train_judge(rows)
    for run in opened.values():
        found = score(run, rows, judge) | more
        print(run.folder, {k: round(v, 4) if isinstance(v, float) else v for k, v in found.items()})
        if settings.rows is not None:
            append_row(run.result | {"embedding": found}, settings.rows)
    if settings.figures is not None:
        for path in draw_runs(opened, rows, settings.figures):
            print(path)


if __name__ == "__main__":
    sys.exit(main())
