"""Paquet et al., "A Factorial Mixture Prior for Compositional Deep Generative Models", 2018."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from pyro import poutine
from torch import Tensor, nn

from priorzoo import inference
from priorzoo.benchmarks.charts import run_charts
from priorzoo.benchmarks.charts.run_charts import Charts
from priorzoo.benchmarks.data.sets import Dataset
from priorzoo.benchmarks.papers.paper import (
    BOUND,
    LIKELIHOOD,
    Line,
    Measure,
    Paper,
    lengths,
    metric,
)
from priorzoo.benchmarks.recipes import Part, Recipe, Stage, cosine, digits, mlps, part
from priorzoo.benchmarks.scores import metrics, registry
from priorzoo.benchmarks.scores.run import Result, Run
from priorzoo.guides import FactorialCode
from priorzoo.inference import KL, ConjugateAdam, ConjugateELBO, Linear, cluster_probabilities, draw
from priorzoo.inference.batch import Labels
from priorzoo.inference.sites import site_of
from priorzoo.models import ConvDecoder, ConvEncoder, Dirichlet, FactorialMixture, Gaussian
from priorzoo.models.factorial import FactorialPredictive, factors

if TYPE_CHECKING:
    from matplotlib.axes import Axes

JUDGED = 1_000  # drawn rows that the regressions see
MEAN = 100  # samples that the mean of a cluster is taken over, as in the paper
SAMPLES = 6  # of a cluster that are drawn beside it
SHOWN = 10  # clusters along one side of a grid


def place_factors(
    model: nn.Module,
    guide: nn.Module,
    x: Tensor,
    *,
    seed: int,
    labels: Labels,
    rows: int = 10_000,
    rounds: int = 20,
) -> None:
    """Put a factorial mixture's components at clusters of the codes, see :func:`seed_components`.

    Args:
        model, guide: a pair with conjugate globals, in place.
        x: rows ``(N, P)``.
        seed: unused, as the numbers drawn are those of the caller's stream.
        labels: known values ``(N,)`` of sites, -1 for unknown.
        rows: how many of the rows the components begin from, from the first.
        rounds: of variational Bayes of the codes.
    """
    known = {site: label[:rows] for site, label in labels.items()}
    inference.seed_components(ConjugateELBO(model, guide), x[:rows], known, rounds)


_CONV = {"channels": [32, 32, 32, 64, 64, 64, 64, 64], "strides": [1, 2, 1, 2, 1, 2, 1, 1]}
_PLACE, _GLOBALS = part(place_factors), ("guide.weights", "guide.components")
_PRIOR = Stage("prior", begin=_PLACE, steps=20_000, learn=_GLOBALS)


def _pretrained(
    steps: int, kl: Mapping[str, KL] | None = None, schedule: Part | None = None
) -> tuple[Stage, Stage]:
    """The stages of a recipe whose components are placed after so many steps."""
    how: dict[str, Any] = {"objective": part(inference.Pretraining), "schedule": schedule}
    return Stage("pretraining", steps=steps, kl=kl, **how), Stage("prior", begin=_PLACE)


def _labelled(*names: str) -> dict[str, Any]:
    """Labels of these names for the first factors, and penalties that tie the clusters to them."""
    tied = partial(part, inference.Classification, weight=1000.0)
    sites = {f"r_{i}": name for i, name in enumerate(names, 1)}
    return {"labels": sites, "penalties": {name: tied(site=site) for site, name in sites.items()}}


_factorial = Recipe(
    summary="one Gaussian mixture with conjugate SVI, the structured VAE, on binary digits",
    paper="Paquet et al., A Factorial Mixture Prior for Compositional Generative Models, 2018",
    model=part(FactorialMixture, code=64, clusters=512),
    guide=part(FactorialCode),
    encoder=part(ConvEncoder, **_CONV, hidden=[]),
    decoder=part(ConvDecoder, **_CONV, hidden=[]),
    objective=part(ConjugateELBO),
    optimiser=part(ConjugateAdam, lr=1e-4, fused=True),
    binarise="static",
    stages=(_pretrained(100_000)[0], _PRIOR),
    batch_size=64,
    steps=200_000,
    every=5_000,
    published={"elbo, K = 512, 320,000 steps": -85.77},
)

_shorter = replace(
    _factorial,
    summary="one Gaussian mixture on binary digits, with falling step size and averaged weights",
    optimiser=part(ConjugateAdam, lr=1e-3, fused=True),
    # The globals' rate, which falls by itself, ends at a hundredth of that as well.
    schedule=cosine([1e-3, 0.01]),
    schedule_unit="step",
    average=0.999,
    precision="bf16",
    stages=_pretrained(6_000, schedule=part(torch.optim.lr_scheduler.ConstantLR, factor=1.0)),
    train=55_000,
    validation=5_000,
    steps=20_000,
    every=1_000,
)

_faces = replace(
    _factorial,
    summary="faces of three factors: eyes and pose, 40 % of them labelled, and a free one",
    model=part(FactorialMixture, code=48, clusters=[2, 4, 16]),
    likelihood=part(Gaussian, scale=0.1),
    **mlps(512, 256),
    kl={f"z_{i}": KL(weight=Linear(20, 1, steps=500)) for i in (1, 2, 3)},
    **_labelled("eyes", "pose"),
    optimiser=part(ConjugateAdam, lr=1e-3, rate=0.05, delay=200.0, fused=True),
    data="cmu_faces:eyes",
    binarise="none",
    labelled=200,
    stages=_pretrained(300, {}),
    batch_size=50,
    steps=1_000,
    every=250,
    published={},
)

RECIPES = {
    "factorial": _factorial,
    "factorial-omniglot": replace(
        _factorial,
        summary="one Gaussian mixture with conjugate SVI, on binary characters",
        model=part(FactorialMixture, code=64, clusters=256),
        data="omniglot28",
        published={"elbo, K = 256, 320,000 steps, another split": -90.89},
    ),
    "factorial-annealed": _shorter,
    "factorial-annealed-dynamic": replace(
        _shorter,
        summary="the same, on digits that are binarised anew in each batch",
        binarise="dynamic",
    ),
    "factorial-annealed-omniglot": replace(
        _shorter,
        summary="the same, on binary characters of Omniglot",
        model=part(FactorialMixture, code=64, clusters=256),
        data="omniglot28",
        train=None,
        validation=1_000,
        published={"elbo, K = 256, 320,000 steps, another split": -90.89},
    ),
    "factorial-faces": _faces,
    "factorial-faces-free": replace(
        _faces,
        summary="faces of two factors without labels",
        model=part(FactorialMixture, code=48, clusters=[16, 16]),
        kl={},
        **_labelled(),
        data="cmu_faces",
        labelled=0,
    ),
    "factorial-celeba": replace(
        _factorial,
        summary="faces of five factors: gender, glasses, smile (40 % labelled) and two free ones",
        model=part(FactorialMixture, code=320, clusters=[2, 2, 2, 64, 64]),
        likelihood=part(Gaussian, scale=0.2, spread="bounded"),
        encoder=part(ConvEncoder, channels=[128, 256, 512, 1024], hidden=[]),
        decoder=part(ConvDecoder, channels=[128, 256, 512, 1024], hidden=[]),
        kl={f"z_{i}": KL(weight=Linear(20, 1, fraction=0.5)) for i in range(1, 6)},
        **_labelled("gender", "glasses", "smiling"),
        optimiser=part(ConjugateAdam, lr=1e-4, forgetting=0.52, fused=True),
        data="celeba",
        binarise="none",
        labelled=65_108,
        stages=(_PRIOR,),
        steps=300_000,
        published={"accuracy of gender": 0.97, "of glasses": 0.99, "of smiling": 0.91},
    ),
    "digits-factorial": digits(
        "structured VAE",
        part(FactorialMixture, code=8, clusters=16),
        part(FactorialCode),
        ", with conjugate SVI",
        objective=part(ConjugateELBO),
        optimiser=part(ConjugateAdam, lr=1e-3, rate=0.05, delay=500.0, fused=True),
        stages=_pretrained(1_000),
        steps=2_000,
    ),
}


@registry.scores.register(FactorialMixture)
def score_factors(
    model: FactorialMixture, run: Run, dataset: Dataset, x: Tensor
) -> dict[str, float]:
    """Metrics of each factor, under its site's name where there are several or named labels.

    ``used`` counts the components that the posterior keeps, to which a datum or more was added.
    ``accuracy`` is that of the most probable cluster where clusters are clamped to labels.
    """
    guide = run.guide
    if not isinstance(guide, FactorialCode):
        return registry.cluster_scores(model, run, dataset, x)
    story = FactorialPredictive(model, guide)
    sites = [f"r_{i}" for i, *_ in factors(model.code, model.clusters)]
    alone = len(sites) == 1 and not dataset.named
    found: dict[str, float] = {}
    for i, site in enumerate(sites, 1):
        q = cluster_probabilities(model, guide, x, site).cpu()
        labels = dataset.y_test if len(sites) == 1 else None
        labels = dataset.named[site][1] if site in dataset.named else labels
        own = metrics.score(q, labels) | {"used": float(story.used(i).sum())}
        if site in dataset.named and labels is not None:
            own |= metrics.accuracy(q, labels)
        found |= own if alone else {f"{site}.{name}": value for name, value in own.items()}
    return found


@registry.code_scores.register(FactorialMixture)
def _(model: FactorialMixture, run: Run, dataset: Dataset, x: Tensor) -> Result:
    """Its codes are one for each factor, and k-means of them has no one number of clusters."""
    return {}


@registry.finish.register(FactorialMixture)
def _(model: FactorialMixture, run: Run, dataset: Dataset, labels: Labels) -> Result:
    """Judges the factors where they have labels."""
    if not (dataset.named and labels):
        return {}
    with inference.Stream(run.seed, run.device):
        return {"metrics": judge_factors(run, dataset, labels)}


def judge_factors(run: Run, dataset: Dataset, known: Labels) -> dict[str, float]:
    """What logistic regressions on the pixels say, for each factor with labels.

    ``agreement``: how often one that was fit to all real training rows sees in a drawn row what the
    factor was held at, all labelled factors being held at values drawn evenly (as people did in the
    paper's table 1). ``judge``: its accuracy on real test rows. ``regression``: that of one fit to
    the labels that the model had, to which the factor's own ``accuracy`` compares.

    Args:
        run, dataset: a run of a factorial mixture, and its data.
        known: the labels that the model had, by site, -1 for unknown.
    """
    model = run.model
    assert isinstance(model, FactorialMixture)
    sizes = {f"r_{i}": k for i, k, _ in factors(model.code, model.clusters)}
    held = {site: torch.randint(sizes[site], (JUDGED,)) for site in dataset.named}
    drawn = draw(run.story, JUDGED, given=dict(held)).cpu()
    found: dict[str, float] = {}
    for site, (labels, test) in dataset.named.items():
        kept, asked = known[site].cpu() >= 0, test >= 0
        if not (kept.any() and asked.any()):
            continue
        real = _regression(dataset.values(dataset.train[labels >= 0]), labels[labels >= 0])
        own = _regression(dataset.values(dataset.train[kept]), labels[kept])
        found[f"{site}.agreement"] = real(drawn, held[site])
        found[f"{site}.judge"] = real(dataset.x_test[asked], test[asked])
        found[f"{site}.regression"] = own(dataset.x_test[asked], test[asked])
    return found


def _regression(x: Tensor, labels: Tensor) -> Callable[[Tensor, Tensor], float]:
    """The accuracy on rows and their labels of a logistic regression that is fit to these.

    It sees the first hundred principal components of the pixels. For labels of one class, it is a
    classifier that always says that class.
    """
    from sklearn.decomposition import PCA
    from sklearn.dummy import DummyClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    made = DummyClassifier()
    if len(labels.unique()) > 1:
        components = min(100, len(x) // 2)
        made = make_pipeline(PCA(components, random_state=0), LogisticRegression(max_iter=5000))
    made.fit(x.numpy(), labels.numpy())
    return lambda rows, truth: float(made.score(rows.numpy(), truth.numpy()))


@run_charts.charts.register(FactorialMixture)
def _(model: FactorialMixture, run: Run, dataset: Dataset, x: Tensor, y: Tensor | None) -> Charts:
    if isinstance(run.guide, FactorialCode):
        yield from run_charts.common_charts(run, dataset, x)
        yield from factor_charts(model, run.guide, run, run_charts.picture_shape(dataset.shape))
    else:
        yield from run_charts.default_charts(model, run, dataset, x, y)


def factor_charts(
    model: FactorialMixture, guide: FactorialCode, run: Run, picture: tuple[int, ...]
) -> Charts:
    """Weights of each factor, and for pictures the clusters of each and grids of the first two.

    Args:
        model, guide, run: the trained pair and its run, whose labels name the factors.
        picture: shape of the rows, empty for what is no picture.
    """
    called = {f"r_{i}": f"factor {i}" for i, *_ in factors(model.code, model.clusters)}
    called |= run.settings.get("labels") or {}
    shown = {}
    for i, site in enumerate(called, 1):
        shares, used = weights(model, guide, i)
        yield f"weights_{i}", partial(draw_weights, shares, used, factor=called[site])
        order = shares.where(used, 0.0).argsort(descending=True, stable=True)
        shown[site] = order[: min(SHOWN, int(used.sum()))].tolist()
        if picture and shown[site]:
            drawn = (draw(run.story, MEAN, given={site: k}).cpu() for k in shown[site])
            made = torch.stack([*drawn])  # (clusters, 100, P), the other factors drawn too
            heads = [f"{k}:  {shares[k]:.1%}" for k in shown[site]]
            yield f"clusters_{i}", partial(draw_moments, made, heads, picture, called[site])
    if picture and len(called) > 1 and shown["r_1"] and shown["r_2"]:
        down, across = sorted(shown["r_1"]), sorted(shown["r_2"])
        sides = {called["r_1"]: down, called["r_2"]: across}
        made, caption = attribute_grid(model, run.story, down, across), "Only the two factors vary."
        yield "grid", partial(draw_pairs, made, sides, picture, caption)
        made, caption = mean_grid(run.story, down, across), "Means of samples of each pair."
        yield "means", partial(draw_pairs, made, sides, picture, caption)


def weights(model: FactorialMixture, guide: FactorialCode, i: int) -> tuple[Tensor, Tensor]:
    """Posterior mean weights ``(K_i,)`` of a factor, and which components are not pruned."""
    story = FactorialPredictive(model, guide)
    (counts,) = Dirichlet.usual(guide.weights[i - 1].detach())
    return (counts / counts.sum()).float().cpu(), story.used(i).cpu()


def mean_grid(story: nn.Module, down: Sequence[int], across: Sequence[int]) -> Tensor:
    """``(len(down) * len(across), P)``: means of 100 decoded draws of each pair of clusters of the
    first and of the second factor, the other factors drawn too; the paper's figure 8.
    """
    drawn = (draw(story, MEAN, given={"r_1": k, "r_2": j}) for k in down for j in across)
    return torch.stack([rows.mean(0).cpu() for rows in drawn])


def attribute_grid(
    model: FactorialMixture, story: nn.Module, down: Sequence[int], across: Sequence[int]
) -> Tensor:
    """``(len(down) * len(across), P)``: clusters of the first factor down, of the second across.

    Everything else is held: each further factor has one code for the whole grid, and the codes of a
    row or of a column are alike in it; the paper's figures 1 and 6.
    """
    sides = [torch.tensor(list(down)), torch.tensor(list(across))]
    places = torch.cartesian_prod(*(torch.arange(len(side)) for side in sides)).T
    given: dict[str, Tensor | int] = {}
    for i, _, _ in factors(model.code, model.clusters):
        if i > 2:
            given[f"z_{i}"] = _codes(story, i, 1).expand(places.shape[1], -1)
            continue
        side, place = sides[i - 1], places[i - 1]
        given[f"r_{i}"] = side[place]
        given[f"z_{i}"] = _codes(story, i, len(side), side.to(model.unit.device))[place]
    return draw(story, places.shape[1], given=given).cpu()


def _codes(story: nn.Module, i: int, count: int, clusters: Tensor | None = None) -> Tensor:
    """``(count, D)`` draws of a factor's code, of these clusters if given."""
    given = {} if clusters is None else {f"r_{i}": clusters}
    with torch.no_grad():
        trace = poutine.trace(poutine.condition(story, data=given)).get_trace(size=count)
    return site_of(trace, f"z_{i}")["value"]


def draw_weights(shares: Tensor, used: Tensor, factor: str = "component") -> "Axes":
    """Posterior mean weights ``(K,)``, the heaviest first; a grey ground marks pruned components,
    whose own bars may be too low to be seen.
    """
    from priorzoo.benchmarks.charts.axes import HUES, LEGIBLE, OTHERS, new_axes

    order = shares.argsort(descending=True, stable=True)
    clusters, kept = len(order), int(used.sum())
    words = "Weights of the mixture components", "Components on grey ground are pruned."
    ax = new_axes(min(8.0, 4 + 0.1 * clusters), 2.5, *words)
    ax.bar(range(clusters), shares[order].tolist(), color=HUES[0], width=0.9)
    for rank in (~used[order]).nonzero().flatten().tolist():
        ax.axvspan(rank - 0.5, rank + 0.5, color=OTHERS, linewidth=0, zorder=0)
    few = clusters <= 2 * LEGIBLE
    ax.set_xticks(range(clusters) if few else [], order.tolist() if few else [], fontsize="small")
    ax.set(xlabel=f"{factor}, by weight", ylabel="posterior mean weight")
    ax.set_title(f"{kept} of {clusters} components in use, {clusters - kept} pruned", size="medium")
    ax.margins(x=0.02)
    return ax


def draw_moments(
    samples: Tensor, names: Sequence[str], shape: Sequence[int], factor: str = "component"
) -> "Axes":
    """A row a cluster: mean and standard deviation of ``(K, S, P)`` samples, then six of them.

    Deviations are the brighter the larger they are, the largest of all white (figure 4).
    """
    from priorzoo.benchmarks.charts.pictures import draw_grid

    shown, spread = samples[:, :SAMPLES], samples.std(1, keepdim=True)
    tiles = torch.cat([samples.mean(1, keepdim=True), spread / spread.max(), shown], 1)
    heads = ["mean", "sd", "samples", *[""] * (shown.shape[1] - 1)]
    words = "Decoded clusters", "Bright places of sd: where the samples of a cluster differ most."
    ax = draw_grid(tiles.flatten(0, 1), shape, len(heads), None, names, heads, *words)
    ax.set_ylabel(f"{factor}, weight")
    return ax


def draw_pairs(
    grid: Tensor, sides: Mapping[str, Sequence[int]], shape: Sequence[int], caption: str = ""
) -> "Axes":
    """Pictures ``(rows * columns, P)`` of pairs of components of two factors.

    Args:
        grid: row by row.
        sides: the components of the factor that varies down, and of that which varies across.
        shape: of a picture.
        caption: how to read it.
    """
    from priorzoo.benchmarks.charts.pictures import draw_grid

    first, second = sides
    rows, heads = ([str(k) for k in side] for side in sides.values())
    title = f"Pairs of components of {first} and {second}"
    ax = draw_grid(grid, shape, len(heads), None, rows, heads, title, caption)
    ax.set(xlabel=second, ylabel=first)
    ax.xaxis.set_label_position("top")
    return ax


_KL = tuple(Measure(f"KL[{k}], nats", ("terms", f"kl[{k}_1]"), digits=2) for k in "zr")
_LONG, _FACES = lengths(20, None, 200_000), lengths(20, 1_000, 1_000)


def _late(published: float, incomparable: str = "") -> tuple[Measure, ...]:
    """The bound after the longest training, beside the paper's."""
    protocol = "test ELBO after 320,000 iterations"
    return BOUND.beside({320_000: published}, protocol, incomparable=incomparable), *_KL


def _judged(site: str, name: str) -> Iterator[Measure]:
    """How well a factor with labels is assigned and drawn."""
    yield metric(f"{site}.accuracy", f"assignment of {name}")
    yield metric(f"{site}.regression", f"regression for {name}, same labels")
    yield metric(f"{site}.judge", f"regression for {name}, all labels")
    yield metric(f"{site}.agreement", f"drawn {name} as asked")


def _faster(k: int) -> Line:
    """A line at a larger step size, after which the number of clusters is compared."""
    title = f"binary MNIST, {_ONE}, learning rate .001, K = {k}"
    changes = {"optimiser.lr": 0.001} | ({} if k == 512 else {"model.clusters": k})
    return Line(title, "factorial", lengths(20, 3_000, 200_000), changes, (BOUND, *_KL))


def _annealed(title: str, recipe: str, k: int, usual: int = 512) -> Line:
    """A line of a recipe whose step size falls; 5,000 importance samples are for a GPU."""
    changes = {} if k == usual else {"model.clusters": k}
    measures = (BOUND, LIKELIHOOD, _SAMPLES, *_KL)
    title, lasts = f"{title}, annealed, K = {k}", lengths(20, 2_000, 20_000)
    return Line(title, recipe, lasts, changes, measures, importance=10)


_SAMPLES = Measure("importance samples", ("importance_samples",), digits=0)
_ONE, _LABELLED = "one factor", "eyes, pose and a free factor, 40 % labelled"
_FIVE = "CelebA: gender, glasses, smile and two free factors, 40 % labelled"
_OMNIGLOT = _late(-90.89, "our split of Omniglot is another")
_EYES = (*_judged("r_1", "eyes"), *_judged("r_2", "pose"))
_ACCURACIES = {"assignment of gender": 0.97, "of glasses": 0.99, "of smile": 0.91}
_CELEBA = tuple(
    metric(f"r_{i}.accuracy", title, published=accuracy)
    for i, (title, accuracy) in enumerate(_ACCURACIES.items(), 1)
)
PAPER = Paper(
    "paquet2018",
    "Factorial mixtures with conjugate SVI",
    "Paquet et al., A Factorial Mixture Prior for Compositional Deep Generative Models, 2018",
    (
        Line(f"binary MNIST, {_ONE}, K = 512", "factorial", _LONG, {}, _late(-85.77)),
        *map(_faster, (1, 8, 32, 128, 512)),
        *(_annealed("binary MNIST", "factorial-annealed", k) for k in (1, 512)),
        *(_annealed("dynamic MNIST", "factorial-annealed-dynamic", k) for k in (1, 512)),
        _annealed("Omniglot, our split", "factorial-annealed-omniglot", 256, 256),
        Line(f"binary Omniglot, {_ONE}, K = 256", "factorial-omniglot", _LONG, {}, _OMNIGLOT),
        Line(f"CMU faces: {_LABELLED}", "factorial-faces", _FACES, {}, _EYES),
        Line("CMU faces: two factors without labels", "factorial-faces-free", _FACES, {}, (BOUND,)),
        Line(_FIVE, "factorial-celeba", lengths(20, None, 300_000), {}, _CELEBA, optional=True),
    ),
    sweep="factorial",
    recipes=RECIPES,
)
