"""Settings for a table: network sizes, likelihood, and length of the training, by its size."""

import inspect
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch.optim import Adam
from torch.optim.lr_scheduler import CosineAnnealingLR

from priorzoo.benchmarks.data.tables import Reading
from priorzoo.benchmarks.papers import RECIPES
from priorzoo.benchmarks.papers.jiang2017 import begun_with_mixture
from priorzoo.benchmarks.papers.mehta2018 import begun_with_moves
from priorzoo.benchmarks.recipes.parts import unknown_name
from priorzoo.benchmarks.recipes.recipe import Part, Recipe, Stage, part
from priorzoo.benchmarks.tables.sizing import Rule, Sizing, thorough
from priorzoo.inference import centre_features
from priorzoo.inference.construction import locate
from priorzoo.inference.data.tables.schema import Schema, Table
from priorzoo.models import (
    MLP,
    Bernoulli,
    Categorical,
    Columns,
    Gaussian,
    LogNormal,
    NegativeBinomial,
    Ordinal,
    Poisson,
    StudentT,
    ZeroInflatedNegativeBinomial,
)

SMALL = "digits-"  # recipes of this name are small enough for any table
MODELS = tuple(name.removeprefix(SMALL) for name in RECIPES if name.startswith(SMALL))
CLUSTERS = 10
CELLS = 20_000  # from which on the number of clusters is found


def model_for(table: Table, clusters: int | None) -> str:
    """The model where none is named: the one that finds the number of clusters, if it can be found.

    In a table of few cells, clusters that overlap are merged into one; a Gaussian mixture with a
    given number of clusters keeps them apart.
    """
    return "nggp" if clusters is None and table.rows.numel() >= CELLS else "gmvae"


def base_of(model: str) -> str:
    """The name of the recipe that a model's settings start from.

    Raises:
        ValueError: for an unknown model, with the nearest one.
    """
    if model not in MODELS:
        raise ValueError(unknown_name("model", model, MODELS))
    return SMALL + model


def recipe_for(
    table: Table,
    path: str,
    model: str = "gmvae",
    *,
    clusters: int | None = None,
    code: int | None = None,
    steps: int | None = None,
    reading: Reading | None = None,
    sizing: Rule = thorough,
) -> Recipe:
    """The recipe of a model for a table.

    Args:
        table: its training rows.
        path: of its file or folder.
        model: a name of :data:`MODELS`.
        clusters: K; by default 10, or the most that an open number may reach.
        code: size of the code; by default 1.5 times the root of the number of columns, 2 to 10.
        steps: of the training proper; by default what suits the number of rows.
        reading: how the table is read, see :class:`Recipe`.
        sizing: :func:`thorough` or :func:`quick`, for widths, steps and batches.

    Mixtures begin with a plain VAE, see :func:`begun_with_mixture`; from random places the clusters
    of a small table stay together.

    Raises:
        ValueError: for an unknown model, or clusters that it does not have.
    """
    base = begun_with_moves(begun_with_mixture(RECIPES[base_of(model)]))
    rows, cells = table.rows.shape
    if code is None:
        code = min(10, max(2, round(1.5 * math.sqrt(cells))))
    if clusters is None:
        clusters = _fewest(base.model, rows)
    sized = sizing(rows, cells, steps, bool(base.moves))
    rate = sized.rate
    encoder, decoder = _networks(table, sized)
    stages = tuple(replace(s, steps=sized.stage) if s.steps else s for s in base.stages)
    return replace(
        base,
        summary=f"{base.summary.partition(' on the')[0]} on {path}",
        model=_sized(base.model, {"code": code, "clusters": clusters}),
        likelihood=likelihood_for(table.schema),
        encoder=encoder,
        decoder=decoder,
        data=path,
        reading=dict(reading or {}),
        binarise="none",
        train=None,
        optimiser=part(Adam, lr=rate, fused=True) if rate else base.optimiser,
        **_schedule(sized),
        validation=sized.validation,
        batch_size=sized.batch,
        stages=_centring(encoder, stages),
        steps=sized.steps,
        every=sized.every,
        patience=sized.patience,
    )


def _schedule(sized: Sizing) -> dict[str, Any]:
    if not sized.falls:
        return {}
    return {"schedule": part(CosineAnnealingLR, T_max=sized.steps), "schedule_unit": "step"}


def likelihood_for(schema: Schema) -> Part:
    """The likelihood of a table's columns, or of images."""
    if schema.shape:
        return part(Gaussian, scale=0.3, spread="shared")
    kinds = [(column.likelihood, len(column.categories)) for column in schema.data]
    known = list(dict.fromkeys(kinds))
    parts = [_of_columns(name, size, kinds.count((name, size))) for name, size in known]
    return part(Columns, likelihoods=parts, columns=[known.index(kind) for kind in kinds])


def _of_columns(name: str, categories: int, columns: int) -> Part:
    """The likelihood of some columns, by its name on the command line."""
    own = {"spread": "column", "scale": 0.5, "rows": columns}
    counted = {"spread": "column", "rows": columns}
    made = {
        "gaussian": part(Gaussian, **own),
        "student-t": part(StudentT, **own),
        "log-normal": part(LogNormal, **own),
        "poisson": part(Poisson),
        "negative-binomial": part(NegativeBinomial, **counted),
        "zero-inflated-negative-binomial": part(ZeroInflatedNegativeBinomial, **counted),
        "bernoulli": part(Bernoulli),
        "categorical": part(Categorical, categories=categories),
        "ordinal": part(Ordinal, categories=categories, rows=columns),
    }
    return made[name]


def chosen(recipe: Recipe, table: Table) -> dict[str, str]:
    """What was chosen, by what it is: lines for the user."""
    args = recipe.model.init_args
    guide, steps = recipe.guide.class_path.rpartition(".")[2], recipe.steps
    rows, cells = table.rows.shape
    clusters = f", clusters {args['clusters']}" if "clusters" in args else ""
    stages = "".join(f", after {s.steps:,} of stage {s.name}" for s in recipe.stages if s.steps)
    hidden = " x ".join(str(width) for width in recipe.encoder.init_args.get("hidden", ()))
    test = max(1, rows // 10)
    return {
        "rows": f"{rows:,}, of which {test:,} are test and {recipe.validation:,} validation rows",
        "model": f"{recipe.model.class_path.rpartition('.')[2]} with guide {guide}, code of "
        f"{args.get('code')}{clusters}",
        "networks": f"{cells:,} inputs, hidden layers {hidden or 'none'}",
        "likelihood": _likelihoods(recipe.likelihood),
        "training": f"{steps:,} steps of {recipe.batch_size} rows{stages}; the best of the "
        "validation bound is kept"
        if recipe.patience
        else f"{steps:,} steps of {recipe.batch_size} rows{stages}",
    }


def _likelihoods(likelihood: Part) -> str:
    """The likelihood in words, of a table with the number of columns of each."""
    args = likelihood.init_args
    if "likelihoods" not in args:
        return _named(likelihood)
    names = [each.class_path.rpartition(".")[2] for each in args["likelihoods"]]
    counts = Counter(names[place] for place in args["columns"])
    return ", ".join(f"{name} of {count:,} columns" for name, count in counts.items())


def _named(likelihood: Part) -> str:
    args = ", ".join(f"{name} {value}" for name, value in likelihood.init_args.items())
    return f"{likelihood.class_path.rpartition('.')[2]} {args}".rstrip()


def _networks(table: Table, sized: Sizing) -> tuple[Part, Part]:
    """Encoder and decoder, told of missing cells and covariates.

    The outputs of a decoder of tanh for a row far from the others stay near theirs.
    """
    told = {} if table.covariates is None else {"covariates": table.covariates.shape[1]}
    read = {} if table.observed is None else {"masked": True}
    if told or read:
        read["centred"] = True
    encoder = part(MLP, hidden=sized.hidden, activation=sized.reading, **told, **read)
    return encoder, part(MLP, hidden=sized.hidden[::-1], activation="tanh", **told)


def _centring(encoder: Part, stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
    """The stages, of which the first begins with the means that a centred encoder subtracts."""
    if not encoder.init_args.get("centred"):
        return stages
    begin = part(centre_features)
    if stages and stages[0].begin is None:
        return replace(stages[0], begin=begin), *stages[1:]
    return Stage("means", begin=begin), *stages


def _sized(model: Part, sizes: Mapping[str, Any]) -> Part:
    """A model's part with other sizes, as far as its class takes them.

    Raises:
        ValueError: for a number of clusters below one.
    """
    taken = inspect.signature(locate(model.class_path)).parameters
    given = {name: value for name, value in sizes.items() if name in taken}
    if "start" in model.init_args and "clusters" in given:
        given["start"] = min(model.init_args["start"], given["clusters"])
    for name, value in given.items():
        if value < 1:
            raise ValueError(f"Expected {name} of at least 1 but got {value}.")
    return replace(model, init_args={**model.init_args, **given})


def _fewest(model: Part, rows: int) -> int:
    """The clusters of a model: those of its recipe if more than 10, fewer for few rows.

    Of an open number, it is the most that there may be.
    """
    if "start" in model.init_args:
        return int(model.init_args["clusters"])
    return min(max(CLUSTERS, model.init_args.get("clusters", 0)), max(2, rows // 20))
