"""Clusters, codes, probabilities and imputed cells of rows, and files of them."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from priorzoo.benchmarks.data.tables import dataset_of
from priorzoo.benchmarks.rows.spreadsheets import inert
from priorzoo.benchmarks.runs.reference import (
    Reference,
    log_p,
    observed_cells,
    read_written,
)
from priorzoo.benchmarks.scores import registry
from priorzoo.benchmarks.scores.run import Run
from priorzoo.inference import codes
from priorzoo.inference.data.tables.schema import Schema, Table
from priorzoo.inference.imputation import impute

Values = Mapping[str, NDArray[np.generic]]
DIGITS = 6  # of imputed columns, in units of the column's scale


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a run says of N rows.

    Args:
        names: of the rows, or their numbers.
        probabilities: ``(N, K)`` of the clusters; None of a model without clusters.
        fresh: whether the last of them is that of none of the clusters, but of a new one.
        codes: ``(N, D)``; None of a pair without.
        places: ``(N, 2)``: the codes in the plane of the training rows' principal components.
        log_p: ``(N,)``: of the observed cells, in nats, in the units of the table, see
            :func:`priorzoo.benchmarks.runs.reference.log_p`.
        outlier: ``(N,)``: share of the training rows that are more probable for each observed cell.
        imputed: columns with missing cells, filled by the posterior predictive means or the most
            probable categories, and their doubt, in the units of the table.
    """

    names: tuple[str, ...]
    probabilities: Tensor | None
    fresh: bool
    codes: Tensor | None
    places: Tensor | None
    log_p: Tensor
    outlier: Tensor | None
    imputed: Values

    @property
    def clusters(self) -> Tensor | None:
        """``(N,)``: the most probable cluster of each row."""
        return None if self.probabilities is None else self.probabilities.argmax(1)

    def columns(self) -> dict[str, NDArray[np.generic]]:
        """The columns of the file, by name."""
        found: dict[str, NDArray[np.generic]] = {"row": np.array(self.names, dtype=object)}
        if self.clusters is not None:
            found["cluster"] = self.clusters.numpy()
        wide = {"p": self.probabilities, "code": self.codes, "map": self.places}
        for name, values in wide.items():
            if values is not None:
                found |= {f"{name}_{i}": column.numpy() for i, column in enumerate(values.T)}
        if self.fresh and self.probabilities is not None:
            found["p_new"] = found.pop(f"p_{self.probabilities.shape[1] - 1}")
        found["log_p"] = self.log_p.numpy()
        if self.outlier is not None:
            found["outlier"] = self.outlier.numpy()
        return found | dict(self.imputed)


def predict(run: Run, table: Table, samples: int) -> Prediction:
    """What a run says of the rows of a table.

    Args:
        run: trained.
        table: read by the run's schema.
        samples: of the bound on log p(x).
    """
    rows, told = table.rows.to(run.device), {k: v.to(run.device) for k, v in table.context.items()}
    dataset = dataset_of("", dict.fromkeys(("train", "valid", "test"), table))
    q = registry.probabilities(run.model, run, dataset, rows)
    schema, reference = read_written(run.folder)
    try:
        z = codes(run.model, run.guide, rows, context=told).cpu()
    except ValueError:  # of a pair without a code z
        z = None
    nats = log_p(run, rows, told, samples)
    per_cell = nats / observed_cells(rows, told)
    if reference is None and z is not None:
        reference = Reference.of(z, per_cell)
    places = None if z is None or reference is None else reference.place(z)
    outlier = None
    if reference is not None and reference.log_p is not None:
        outlier = reference.outlier(per_cell)
    if schema is not None and not schema.shape:
        nats = nats - schema.log_scale(table.observed, len(table))
    names = table.names or tuple(map(str, range(len(table))))
    filled = imputed(run, table, rows, told) if schema else {}
    fresh = registry.has_rest(run.model)
    return Prediction(names, q, fresh, z, places, nats, outlier, filled)


def imputed(run: Run, table: Table, rows: Tensor, told: Mapping[str, Tensor]) -> Values:
    """The columns with missing cells, these filled, in the units of the table.

    Beside each is its doubt, see :class:`priorzoo.inference.imputation.Imputed`.
    """
    if table.observed is None:
        return {}
    filled = impute(run.model, run.guide, rows, context=told, seed=run.seed)
    values = table.schema.decode(filled.values)
    found: dict[str, NDArray[np.generic]] = {}
    for place, column in enumerate(table.schema.data):
        if table.observed[:, place].all():
            continue
        cells, doubt = values[column.name], filled.doubt[:, place].double().cpu().numpy()
        scale = 1.0 if column.categories else column.scale
        if cells.dtype.kind == "f":
            digits = DIGITS - int(np.floor(np.log10(scale)))
            cells = np.round(cells.astype(np.float64), digits)
        found |= {f"imputed_{column.name}": cells, f"doubt_{column.name}": doubt * scale}
    return found


def write_columns(columns: Values, out: Path) -> None:
    """Write columns as ``.csv`` or ``.parquet``.

    Text of a ``.csv`` that a spreadsheet would take for a formula gets an apostrophe before it.

    Raises:
        ValueError: for another ending.
    """
    if out.suffix not in (".csv", ".parquet"):
        raise ValueError(f"Expected --out FILE.csv or FILE.parquet but got {out}.")
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".parquet":
        import pyarrow
        from pyarrow import parquet

        plain = {name: values.tolist() for name, values in columns.items()}
        parquet.write_table(pyarrow.table(plain), out)
        return
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([inert(name) for name in columns])
        lists = [values.tolist() for values in columns.values()]
        writer.writerows([_written(cell) for cell in row] for row in zip(*lists, strict=True))


def _written(cell: object) -> object:
    """Text made inert, and floats with 10 significant digits."""
    return f"{cell:.10g}" if isinstance(cell, float) else inert(cell)


def schema_of(run: Run) -> Schema | None:
    """The columns of the table that a run was trained on; None of another run."""
    return read_written(run.folder)[0]
