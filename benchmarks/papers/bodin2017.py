"""Bodin et al., "Nonparametric Inference for Auto-Encoding Variational Bayes", 2017."""

from argparse import Namespace
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import Tensor, nn

from priorzoo.benchmarks.charts.run_charts import Charts, charts, default_charts, picture_shape
from priorzoo.benchmarks.data.sets import Dataset
from priorzoo.benchmarks.papers.paper import BOUND, Line, Measure, Paper, lengths
from priorzoo.benchmarks.recipes import Changes, Recipe, digits, mlps, part
from priorzoo.benchmarks.rows.files import append_row
from priorzoo.benchmarks.rows.peaks import peak_mib
from priorzoo.benchmarks.runs.opening import open_run
from priorzoo.benchmarks.runs.reading import data_of
from priorzoo.benchmarks.scores.judge import judged, train_judge
from priorzoo.benchmarks.scores.registry import finish, prepare
from priorzoo.benchmarks.scores.run import Result, Run
from priorzoo.guides import Code, CodeAndPlace
from priorzoo.inference import Memory, Stream, codes, draw, remember
from priorzoo.inference.batch import Labels
from priorzoo.inference.memory import check_memory, interpolate
from priorzoo.inference.sites import evaluating
from priorzoo.models import MLP, VAE, Gaussian, NonparametricVAE

NEIGHBOURS = 10
RANKED = 5_000  # test rows among which neighbours are ranked, for trustworthiness
PAIRS = 500  # of training rows of two classes, to interpolate between
PIXELS = ("pca", "umap")
SHARED = ("data", "binarise", "train", "validation")
STEPS = 11  # pictures from end to end of an interpolation
SURE = 0.9  # probability of a class from which the classifier counts as confident
SIDE = 20  # of the grid of pictures over the plane
WAYS = 6  # interpolations that are drawn

SOURCE = "Bodin et al., Nonparametric Inference for Auto-Encoding Variational Bayes, 2017"
# Grey images, as in the paper, which is silent on the length of the training. Its "drop-out
# probability of 0.9" is the probability to keep a unit.
_plain = Recipe(
    summary="the baseline of the nonparametric VAE",
    paper=SOURCE,
    model=part(VAE, code=500),
    guide=part(Code),
    **mlps(500, 500, dropout=0.1),
    optimiser=part(torch.optim.Adam, lr=1e-3, fused=True),
    binarise="none",
    train=55_000,
    validation=5_000,
    batch_size=128,
    epochs=10,
)
_nonparametric = replace(_plain, model=part(NonparametricVAE, code=500), guide=part(CodeAndPlace))

RECIPES = {
    "digits-nonparametric": digits(
        "nonparametric VAE", part(NonparametricVAE, code=8), part(CodeAndPlace)
    ),
    "nonparametric-fashion": replace(
        _nonparametric,
        summary="nonparametric VAE of articles of clothing, 50 dimensions tied to a plane",
        model=part(NonparametricVAE, code=50),
        data="fashion_mnist",
    ),
    "nonparametric-frey": replace(
        _nonparametric,
        summary="nonparametric VAE of a face that moves, 20 dimensions tied to a plane",
        model=part(NonparametricVAE, code=20),
        likelihood=part(Gaussian, scale=0.2, spread="shared"),
        data="freyfaces",
        train=None,
        validation=200,
        epochs=300,
        every=100,
    ),
} | {
    f"{name}-{k}": replace(base, summary=f"{what} of {k} dimensions", model=part(kind, code=k))
    for k in (2, 10, 50, 500)
    for name, base, kind, what in (
        ("nonparametric", _nonparametric, NonparametricVAE, "nonparametric VAE"),
        ("plain-vae", _plain, VAE, "VAE with the nonparametric one's networks"),
    )
}


@prepare.register(NonparametricVAE)
def _(model: NonparametricVAE, run: Run, dataset: Dataset) -> None:
    check_memory(model, len(dataset.train), run.settings["memory"])


@finish.register(NonparametricVAE)
def _(model: NonparametricVAE, run: Run, dataset: Dataset, labels: Labels) -> Result:
    """Remembers training rows, in a file beside the model."""
    with Stream(run.seed, run.device):
        x = dataset.drawn(dataset.train.to(run.device))
    remember(model, run.guide, x, run.settings["memory"], seed=run.seed).save(run.folder)
    return {}


@charts.register(NonparametricVAE)
def _(model: NonparametricVAE, run: Run, dataset: Dataset, x: Tensor, y: Tensor | None) -> Charts:
    """The charts of any model, then the plane, what it decodes to, and ways through it."""
    from priorzoo.benchmarks.charts import pictures
    from priorzoo.benchmarks.charts.planes import POINTS, draw_embedding

    yield from default_charts(model, run, dataset, x, y)
    memory = Memory.load(run.folder, model)
    known = dataset.drawn(dataset.train[:POINTS].to(run.device))
    u, u_test = (codes(model, run.guide, rows, site="u") for rows in (known, x))
    y_train = None if dataset.y_train is None else dataset.y_train[:POINTS]
    panels = {"training data": (u.cpu(), y_train), "test data": (u_test.cpu(), y)}
    pairs = min(WAYS, len(u) // 2)
    first, last = u[:pairs], u[pairs : 2 * pairs]
    ways = interpolate(first, last, STEPS).cpu() if pairs else None
    yield "embedding", lambda: draw_embedding(panels, ways)[0]
    if shape := picture_shape(dataset.shape):
        over = memory.sample_at(memory.grid(SIDE)).cpu()
        words = "Decoded grid over the plane", "Each picture decodes its place in the plane."
        yield "grid", lambda: pictures.draw_grid(over, shape, SIDE, None, (), (), *words)
        if pairs:
            between = memory.between(first, last).cpu()
            yield "interpolations", lambda: pictures.draw_ways(between, shape)


def neighbour_accuracy(known: Tensor, labels: Tensor, asked: Tensor, expected: Tensor) -> float:
    """Share of points ``(Q, D)`` with the label that most of their 10 neighbours have.

    Points of unknown label, -1, are left out.
    """
    from sklearn.neighbors import KNeighborsClassifier

    near, told = labels >= 0, expected >= 0
    judge = KNeighborsClassifier(NEIGHBOURS).fit(known[near].numpy(), labels[near].numpy())
    return float(judge.score(asked[told].numpy(), expected[told].numpy()))


def trustworthiness(x: Tensor, places: Tensor) -> float:
    """Whether neighbours in the plane are neighbours in x, from 0 to 1 (Venna & Kaski, 2001)."""
    from sklearn.manifold import trustworthiness as trust

    return float(trust(x[:RANKED].numpy(), places[:RANKED].numpy(), n_neighbors=NEIGHBOURS))


def plane_scores(dataset: Dataset, known: Tensor, asked: Tensor) -> dict[str, float]:
    """Both scores of places ``(N, D)`` of the training rows and ``(T, D)`` of the test rows."""
    assert dataset.y_train is not None
    assert dataset.y_test is not None
    return {
        "neighbour_accuracy": neighbour_accuracy(known, dataset.y_train, asked, dataset.y_test),
        "trustworthiness": trustworthiness(dataset.x_test, asked),
    }


def pixel_plane(dataset: Dataset, way: str, seed: int = 0) -> dict[str, float]:
    """The scores of the plane of ``pca`` or ``umap`` of the pixels themselves.

    UMAP (McInnes et al., 2018) has its defaults, learns from the training rows, and places the test
    rows afterwards. It needs ``umap-learn``, which nothing else does.
    """
    if way == "pca":
        from sklearn.decomposition import PCA

        made = PCA(2, random_state=seed)
    else:
        from umap import UMAP

        made = UMAP(random_state=seed, n_jobs=1)
    known = torch.from_numpy(made.fit_transform(dataset.x_train.numpy()))
    asked = torch.from_numpy(made.transform(dataset.x_test.numpy()))
    return plane_scores(dataset, known, asked)


class Interpolation:
    """The ways of a run between rows: through u where it has one, otherwise straight in z."""

    def __init__(self, run: Run, x: Tensor) -> None:
        self.run = run
        planar = isinstance(run.model, NonparametricVAE)
        self.memory = Memory.load(run.folder, run.model) if planar else None
        self.site = "z" if self.memory is None else "u"
        self.points = codes(run.model, run.guide, x, site=self.site)

    def between(self, first: Tensor, last: Tensor, steps: int = STEPS) -> Tensor:
        """``(Q, steps, P)`` between the rows of indices ``(Q,)`` and ``(Q,)``."""
        lines = interpolate(self.points[first], self.points[last], steps)
        places = lines.flatten(0, 1)
        z = places if self.memory is None else self.memory.codes_at(places)
        return draw(self.run.model, len(z), given={"z": z}).unflatten(0, lines.shape[:2])


def confidence(judge: nn.Module, x: Tensor) -> Tensor:
    """The largest probability that the classifier gives a class, of rows ``(N, P)``."""
    return judged(judge, x).amax(-1)


def different_pairs(labels: Tensor, count: int = PAIRS) -> tuple[Tensor, Tensor]:
    """Indices of rows of two classes, the same at every call."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    first, last = order[: len(order) // 2 * 2].chunk(2)
    apart = (labels[first] != labels[last]) & (labels[first] >= 0) & (labels[last] >= 0)
    return first[apart][:count], last[apart][:count]


def score_plane(run: Run, dataset: Dataset, judge: nn.Module) -> Result:
    """Scores of the plane of a nonparametric VAE, which is that of u, or of the codes of a VAE.

    - ``direct`` and ``through_plane``: log p(x | z) in nats per test row, z at its posterior mean
      and z as it follows from the place u alone;
    - :func:`plane_scores`;
    - ``confident_between`` and ``confident_throughout``: share of interpolated pictures of which
      the judge is confident, and of interpolations of which it is all the way;
      ``confident_ends`` and ``confident_data`` are the same of their ends and of the test rows.
    """
    assert dataset.y_train is not None
    x = dataset.x_test
    ways = Interpolation(run, dataset.x_train)
    asked = codes(run.model, run.guide, x, site=ways.site)
    direct = _nats(run.model, codes(run.model, run.guide, x), x)
    found: Result = {"site": ways.site, "dimensions": ways.points.shape[1], "direct": direct}
    if ways.memory is not None:
        found["through_plane"] = _nats(run.model, ways.memory.codes_at(asked), x)
        found["memories"] = len(ways.memory.places)
    found |= plane_scores(dataset, ways.points, asked)
    between = ways.between(*different_pairs(dataset.y_train))
    sure = confidence(judge, between.flatten(0, 1)).unflatten(0, between.shape[:2]) > SURE
    inner = sure[:, 1:-1]
    confident = {"between": inner, "throughout": inner.all(1), "ends": sure[:, [0, -1]]}
    confident["data"] = confidence(judge, x) > SURE
    return found | {f"confident_{k}": v.float().mean().item() for k, v in confident.items()}


def _nats(model: nn.Module, z: Tensor, x: Tensor) -> float:
    """Mean of log p(x | z) over rows."""
    assert isinstance(model, VAE | NonparametricVAE)
    with torch.no_grad(), evaluating(model):
        parts = zip(z.split(500), x.split(500), strict=True)
        logs = [model.likelihood(model.decoder(a)).log_prob(b) for a, b in parts]
    return torch.cat(logs).mean().item()


def _judged(run: Run, dataset: Dataset, quick: bool) -> Result:
    """What a row of the table has beside its scores."""
    return score_plane(run, dataset, train_judge(dataset, epochs=1 if quick else 3))


def peak(memories: int = 60_000, queries: int = 10_000, code: int = 500) -> dict[str, float]:
    """Most memory that a new process ever holds which places so many queries, in GiB.

    That of Python, its libraries and the arrays themselves included. The system counts it as no
    less than what the process that asks has held.
    """
    with get_context("spawn").Pool(1) as pool:
        held = pool.apply(_place, (memories, queries, code))
    return {"memories": memories, "queries": queries, "code": code, "peak_gib": held / 2**10}


def _place(memories: int, queries: int, code: int) -> float:
    model = NonparametricVAE(MLP(code, 1, ()), code=code)
    memory = Memory(model, torch.randn(memories, 2), torch.randn(memories, code))
    memory.codes_at(torch.randn(queries, 2))
    held = peak_mib()
    if held is None:
        raise ValueError("Expected a system that counts memory but got Windows; leave out --peak.")
    return held


def draw_runs(named: dict[str, Run], dataset: Dataset, folder: Path, shown: int = 4) -> list[Path]:
    """The paper's figures 3 and 4 over several runs: their planes, and ways between the same data.

    Of codes of more than two dimensions, which have no plane, the two largest components are shown.
    """
    from priorzoo.benchmarks.charts import axes, pictures, planes

    assert dataset.y_train is not None
    x, y = dataset.x_test[: planes.POINTS], dataset.y_test
    with axes.look():
        panels = axes.new_row(len(named), "Latent codes in the plane, by class", planes.POINT)
        for ax, (name, run) in zip(panels, named.items(), strict=True):
            seen = Interpolation(run, x)
            planes.draw_embedding({name: (seen.points, y)}, symbol=seen.site, axes=[ax])
    ends = dataset.values(dataset.train[torch.cat(different_pairs(dataset.y_train, shown))])
    first, last = torch.arange(2 * shown).chunk(2)
    between = [Interpolation(run, ends).between(first, last) for run in named.values()]
    ways = torch.stack(between, 1).flatten(0, 1)
    paths = [folder / "planes.png", folder / "interpolations.png"]
    with axes.look():
        axes.save(panels[0], paths[0])
        axes.save(pictures.draw_ways(ways, dataset.shape, list(named) * shown), paths[1])
    return paths


def embedding(settings: Namespace) -> None:
    """Score the planes of run folders, append their rows to a file, and draw all of them.

    usage: priorzoo bench embedding RUN ... [--OPTION VALUE ...]

      RUNS ...               run folders of one data set
      --rows FILE            file of rows to append to
      --figures FOLDER       folder for charts over all the runs
      --pixels pca|umap ...  planes of the pixels beside
      --peak                 measure the memory of a full plane
      --data-root DIR        folder of the data sets
      --trust MODULE         import classes from this module of yours, which runs its code

    Raises:
        ValueError: for no runs, and for runs of different data.
        FileNotFoundError: for a folder that holds no run.
    """
    if not settings.runs:
        raise ValueError("Expected run folders but got none; name those of one data set.")
    opened = {
        folder.name: open_run(folder, "cpu", trust=settings.trust or ()) for folder in settings.runs
    }
    first, *others = opened.values()
    if any(run.settings[k] != first.settings[k] for run in others for k in SHARED):
        raise ValueError(f"Expected runs that agree in {', '.join(SHARED)}; score others apart.")
    dataset = data_of(first, settings.data_root)
    more: Result = {"peak": peak()} if settings.peak else {}
    if settings.pixels:
        planes = {way: pixel_plane(dataset, way, first.seed) for way in settings.pixels}
        more["pixels"] = {"seed": first.seed, **planes}
    judge = train_judge(dataset)
    for run in opened.values():
        found = score_plane(run, dataset, judge) | more
        print(run.folder, {k: round(v, 4) if isinstance(v, float) else v for k, v in found.items()})
        if settings.rows is not None:
            append_row(run.row | {"embedding": found}, settings.rows)
    if settings.figures is not None:
        for path in draw_runs(opened, dataset, settings.figures):
            print(path)


_PLANE = (
    Measure("10 nearest neighbours", ("embedding", "neighbour_accuracy")),
    Measure("trustworthiness", ("embedding", "trustworthiness")),
    Measure("reconstruction, nats", ("terms", "reconstruction"), digits=1),
    Measure("at the code's mean, nats", ("embedding", "direct"), digits=1),
    Measure("through the plane, nats", ("embedding", "through_plane"), digits=1),
    Measure("confident in between", ("embedding", "confident_between")),
)
_STOPPED = "MNIST, 500 dimensions, gradients stopped at the code"


def _line(title: str, recipe: str, changes: Changes) -> Line:
    return Line(title, recipe, lengths(0.1, 10, 200), changes, _PLANE, {"embedding": _judged})


PAPER = Paper(
    "bodin2017",
    "A plane tied to the code",
    SOURCE,
    (
        *(
            _line(f"MNIST, {what} of {k} dimensions", f"{name}-{k}", {})
            for k in (2, 10, 50, 500)
            for name, what in (("nonparametric", "tied to a plane, code"), ("plain-vae", "code"))
        ),
        _line(_STOPPED, "nonparametric-500", {"model.stop_gradient": True}),
        _line("Fashion-MNIST, 50 dimensions", "nonparametric-fashion", {}),
        Line("Frey faces, 20 dimensions", "nonparametric-frey", lengths(5, 300, 300), {}, (BOUND,)),
    ),
    "The paper has pictures and no values.",
    recipes=RECIPES,
    commands={"embedding": embedding},
)
