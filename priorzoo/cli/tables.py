"""``priorzoo predict`` and ``describe``: clusters of a user's rows, and what they are."""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from priorzoo.benchmarks.data.tables import dataset_of, read
from priorzoo.benchmarks.runs.opening import open_run
from priorzoo.benchmarks.runs.reading import data_of, place_of, read_data
from priorzoo.benchmarks.runs.reference import Reference, read_written
from priorzoo.benchmarks.scores import registry
from priorzoo.benchmarks.scores.run import Run
from priorzoo.benchmarks.tables.describing import describe, table_of
from priorzoo.benchmarks.tables.page import Description
from priorzoo.benchmarks.tables.predicting import predict, schema_of, write_columns
from priorzoo.cli.options import Parser, print_next, quoted, require, trusting
from priorzoo.inference import codes
from priorzoo.inference.data.tables.refusing import of_new_rows
from priorzoo.inference.data.tables.schema import Table

ROWS = 20_000  # of a run on no table that are described


def predict_command(words: Sequence[str]) -> None:
    """Predict clusters, codes, probabilities and missing cells of the rows of a file.

    usage: priorzoo predict RUN FILE [--out clusters.csv]

      RUN                     run folder
      FILE                    of the kind that the run was trained on
      --out FILE              .csv or .parquet; RUN/clusters.csv if left out
      --layer NAME            of an AnnData, in place of X
      --importance-samples N  of the bound on log p(x) [50]
      --device NAME           auto, cpu, cuda or mps [auto]
      --trust MODULE          import classes from this module of yours, which runs its code

    Columns of the output: row, cluster, p_K (probability of each cluster), code_D, map_0 and map_1
    (principal components of the codes), log_p (bound on log p(x), nats), outlier (share of the
    training rows that are more probable), and for each column with missing cells imputed_NAME and
    doubt_NAME: a standard deviation, or the probability of all other categories.
    """
    settings = Parser("predict", predict_command).parse(words)
    if settings.run is None or settings.file is None:
        raise ValueError("Expected a run folder and a file: priorzoo predict RUN FILE.")
    if settings.importance_samples < 1:
        raise ValueError(
            f"Expected --importance-samples of at least 1 but got {settings.importance_samples}."
        )
    run = open_run(settings.run, settings.device, trust=settings.trust or ())
    out: Path = settings.out or run.folder / "clusters.csv"
    if out.suffix not in (".csv", ".parquet"):
        raise ValueError(f"Expected --out FILE.csv or FILE.parquet but got {out}.")
    table = _table(run, settings)
    found = predict(run, table, settings.importance_samples)
    if found.clusters is not None:
        counts = found.clusters.bincount()
        sizes = ", ".join(f"{k}: {n:,}" for k, n in enumerate(counts.tolist()) if n)
        print(f"{len(table):,} rows; rows in each cluster: {sizes}")
    write_columns(found.columns(), out)
    print(out)
    print_next(f"priorzoo describe {quoted(settings.run)}{trusting(settings.trust)}")


def describe_command(words: Sequence[str]) -> None:
    """Describe the clusters of a run: sizes, what sets them apart, typical rows, neighbours.

    usage: priorzoo describe RUN [--out DIR]

      RUN              run folder
      --data FILE      other rows than those that the run was trained on
      --out DIR        of index.html, clusters.csv and traits.csv; RUN/description if left out
      --data-root DIR  folder of the data sets
      --device NAME    auto, cpu, cuda or mps [auto]
      --trust MODULE   import classes from this module of yours, which runs its code
    """
    settings = Parser("describe", describe_command).parse(words)
    if settings.run is None:
        raise ValueError("Expected a run folder: priorzoo describe RUN.")
    require("jinja2", "PIL")
    run = open_run(settings.run, settings.device, trust=settings.trust or ())
    description = _described(run, settings)
    print("\n".join(description.lines()), flush=True)
    page = description.write(Path(settings.out or run.folder / "description"))
    print(page)


def _described(run: Run, settings: argparse.Namespace) -> Description:
    table = _rows(run, settings)
    parts = dict.fromkeys(("train", "valid", "test"), table)
    rows, dataset = table.rows.to(run.device), dataset_of("", parts)
    q = registry.probabilities(run.model, run, dataset, rows)
    if q is None:
        name = type(run.model).__name__
        raise ValueError(f"Expected a run with clusters but {name} has none; train another model.")
    if registry.has_rest(run.model) and not (q.argmax(1) == q.shape[1] - 1).any():
        q = q[:, :-1]  # the probability of none of the clusters
    try:
        z = codes(run.model, run.guide, rows, context=dataset.beside(rows)).cpu()
    except ValueError:  # of a pair without a code z
        z = None
    reference = read_written(run.folder)[1]
    if reference is None and z is not None:
        reference = Reference.of(z, None)
    data = str(settings.data or run.settings["data"])
    facts = {
        "data": f"{data}, {len(table):,} rows",
        "model": type(run.model).__name__,
        "guide": type(run.guide).__name__,
        "trained": f"{run.result['steps']:,} steps, seed {run.seed}",
        "held-out ELBO": f"{run.result['terms']['elbo']:.2f} nats a row",
    }
    places = None if z is None or reference is None else reference.place(z)
    title = f"Clusters of {Path(data).name}"
    return Description(title, facts, table, describe(table, q, z), q, places)


def _rows(run: Run, settings: argparse.Namespace) -> Table:
    """The rows to describe: of a table all of its file, in its order."""
    schema = schema_of(run)
    if schema is not None:
        name = str(settings.data or place_of(run))
        return read(name, _reading(run), schema)
    if settings.data is None:
        return table_of(data_of(run, settings.data_root), ROWS)
    chosen = {**run.settings, "data": str(settings.data), "train": None, "validation": 0}
    return table_of(read_data(chosen, settings.data_root, seed=run.seed), ROWS)


def _table(run: Run, settings: argparse.Namespace) -> Table:
    """The rows of a file, as the run's table was read."""
    schema = schema_of(run)
    as_they_are = {"scaling": "none", "columns": "*=gaussian"}
    reading = as_they_are if schema is None else _reading(run)
    if settings.layer is not None:
        reading = {**reading, "layer": settings.layer}
    try:
        table = read(str(settings.file), reading, schema)
    except ValueError as error:
        raise ValueError(of_new_rows(str(error), "fit a run with --columns")) from error
    if schema is None:
        if table.rows[0].numel() != math.prod(run.shape):
            raise ValueError(
                f"Expected rows of shape {run.shape} in {settings.file}, as the run in "
                f"{run.folder} was trained on {run.settings['data']}, but got "
                f"{table.rows[0].numel()} columns; give such rows, or the run of this table."
            )
        print(
            "warning: the run was not trained on a table; rows are read as they are.",
            file=sys.stderr,
        )
    return table


def _reading(run: Run) -> dict[str, str]:
    """How the run's table was read; what is told of its columns is in its schema."""
    return {k: v for k, v in run.settings.get("reading", {}).items() if k != "columns"}
