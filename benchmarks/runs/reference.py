"""What a run keeps of its training rows, by which other rows are placed beside them."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from priorzoo.benchmarks.data.sets import Dataset
from priorzoo.benchmarks.scores.run import Run
from priorzoo.inference import Batch, Stream, codes, importance_bound, predictive
from priorzoo.inference.data.checks import admit
from priorzoo.inference.data.tables.schema import Schema
from priorzoo.inference.files import read_json
from priorzoo.inference.objectives.conjugate import bound
from priorzoo.inference.saving import replace_file
from priorzoo.inference.sites import evaluating

TABLE = "table.json"
ROWS = 2_000  # training rows that are looked at
PORTION = 500  # rows whose importance samples are drawn together
SAMPLES = 50
DRAWS = 10  # of a bound that is no importance-weighted one
QUANTILES = 1_001


@dataclass(frozen=True)
class Reference:
    """Of training rows: the plane in which their codes are drawn, and how probable they are.

    Args:
        center, axes: ``(D,)`` and ``(2, D)``: mean of the codes and their first principal
            directions; a code of two dimensions is its own place, and of one has a 0 beside it.
        log_p: quantiles of log p(x) for each observed cell, from 0 to 1, in nats; None if they were
            not computed.
    """

    center: list[float]
    axes: list[list[float]]
    log_p: list[float] | None = None

    @classmethod
    def of(cls, z: Tensor, per_cell: Tensor | None) -> "Reference":
        """From the codes ``(N, D)`` of rows and their log p(x) for each observed cell, ``(N,)``."""
        z = z.double().cpu()
        size = z.shape[1]
        center, axes = z.new_zeros(size), torch.eye(size, dtype=z.dtype)[:2]
        if size > 2:
            center = z.mean(0)
            axes = torch.linalg.svd(z - center, full_matrices=False).Vh[:2]
            axes = axes * axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()
        quantiles = None
        if per_cell is not None:
            places = torch.linspace(0, 1, QUANTILES, dtype=torch.float64)
            quantiles = per_cell.double().cpu().quantile(places).tolist()
        return cls(center.tolist(), axes.tolist(), quantiles)

    def place(self, z: Tensor) -> Tensor:
        """``(N, 2)``: where codes ``(N, D)`` are drawn."""
        center, axes = (torch.tensor(v, dtype=torch.float64) for v in (self.center, self.axes))
        found = (z.double().cpu() - center) @ axes.reshape(-1, len(center)).T
        return torch.nn.functional.pad(found, (0, 2 - found.shape[1]))

    def outlier(self, per_cell: Tensor) -> Tensor:
        """``(N,)``: share of the training rows that are more probable; 1 for an outlier."""
        assert self.log_p is not None
        known = torch.tensor(self.log_p, dtype=torch.float64)
        return 1 - torch.searchsorted(known, per_cell.double().cpu(), right=True) / len(known)


def refer(run: Run, dataset: Dataset) -> Reference | None:
    """The reference of a run's training rows; None of a pair without a code ``z``."""
    x = dataset.x_train[:ROWS].to(run.device)
    told = dataset.beside(x, "train")
    try:
        z = codes(run.model, run.guide, x, context=told)
    except ValueError:
        return None
    return Reference.of(z, log_p(run, x, told) / observed_cells(x, told))


def log_p(run: Run, x: Tensor, told: Mapping[str, Tensor], samples: int = SAMPLES) -> Tensor:
    """``(N,)``: the importance-weighted bound on log p of rows, in nats.

    With missing cells it is that of the observed ones. Of a pair with global variables it is the
    term of the ELBO that belongs to the row; of an NGGP mixture its predictive density given the
    clusters of the training rows.
    """
    parts = admit(run.model, x, context=told, on_device=True).split(PORTION)
    with Stream(run.seed, run.device):
        return torch.cat([_log_p(run, replace(part, size=None), samples) for part in parts]).cpu()


def _log_p(run: Run, batch: Batch, samples: int) -> Tensor:
    pair = predictive(run.model, run.guide)
    try:
        return importance_bound(*pair, batch.x, samples, context=batch.context).detach()
    except ValueError:  # of global sites
        objective = bound(run.model, run.guide)
    with torch.no_grad(), evaluating(run.model, run.guide):
        draws = [objective.held_out(batch) for _ in range(min(samples, DRAWS))]
    name = "pseudo-likelihood" if "pseudo-likelihood" in draws[0] else "elbo"
    return torch.stack([terms[name].expand(len(batch.x)) for terms in draws]).mean(0)


def observed_cells(x: Tensor, told: Mapping[str, Tensor]) -> Tensor:
    """``(N,)``: how many cells of each row are observed."""
    if "observed" in told:
        return told["observed"].sum(1).cpu()
    return torch.full((len(x),), x.shape[1])


def write_table(run: Run, dataset: Dataset) -> None:
    """Write the columns of a run's table and its reference to its folder."""
    if dataset.schema is None:
        return
    found = refer(run, dataset)
    held = {
        "schema": json.loads(dataset.schema.to_json()),
        "reference": None if found is None else asdict(found),
    }
    replace_file(run.folder / TABLE, lambda file: file.write_text(json.dumps(held) + "\n"))


def read_written(folder: Path) -> tuple[Schema | None, Reference | None]:
    """What :func:`write_table` left in the folder of a run; None for what there is not.

    Raises:
        ValueError: for a damaged file.
    """
    path = folder / TABLE
    if not path.is_file():
        return None, None
    try:
        held = cast(dict[str, Any], read_json(path))
        reference = held["reference"] and Reference(**held["reference"])
        return Schema.from_json(json.dumps(held["schema"])), reference
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"Expected the columns of a table in {path} but got {error!r}.") from error
