"""``priorzoo export``: the predictions of a trained run as a file for other programs."""

from collections.abc import Sequence

import torch
from torch import Tensor

from priorzoo.benchmarks.runs.reference import read_written
from priorzoo.cli.options import Parser
from priorzoo.inference import export, load
from priorzoo.inference.data.tables.schema import Schema


def export_command(words: Sequence[str]) -> None:
    """Write the predictions of a run as a file that needs no Pyro to run, .onnx not even torch.

    usage: priorzoo export RUN FILE [--trust MODULE]

      RUN             run folder
      FILE            .onnx, or .pt2 of torch.export
      --trust MODULE  import classes from this module of yours, which runs its code

    Beside the rows x the file takes what the run on a table was told: observed (which cells are
    not missing), covariates and exposure, as read_table gives them.
    """
    settings = Parser("export", export_command).parse(words)
    pair = load(settings.run, trust=settings.trust or ())
    schema = read_written(settings.run)[0]
    told = {} if schema is None else beside(schema)
    names = export(*pair, settings.file, context=told or None)
    size = settings.file.stat().st_size
    taken = ", ".join(("x", *told))
    print(f"{settings.file}: {taken} -> {', '.join(names)}; {size / 1024:,.0f} KiB")


def beside(schema: Schema) -> dict[str, Tensor]:
    """What a row of a table has beside x, an example of each."""
    told = {}
    if any(column.missing for column in schema.data):
        told["observed"] = torch.ones(1, len(schema.data), dtype=torch.bool)
    if covariates := schema.of_kind("covariate"):
        told["covariates"] = torch.zeros(1, sum(len(c.categories) or 1 for c in covariates))
    if schema.of_kind("exposure") or schema.totals:
        told["exposure"] = torch.ones(1)
    return told
