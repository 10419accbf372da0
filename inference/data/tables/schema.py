"""The columns of a table, and the rows that a model is given for them and what it gives back."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from priorzoo.inference.data.tables.cells import Cells, Frame
from priorzoo.inference.data.tables.coding import coded, decoded, one_hot, quantities
from priorzoo.inference.data.tables.kinds import (
    DEFAULTS,
    Column,
    Kind,
    finite,
    infer,
    listed,
    robust,
    uncounted,
)
from priorzoo.inference.data.tables.listing import column_lines
from priorzoo.inference.data.tables.refusing import check_exposure
from priorzoo.inference.data.tables.said import match_said, only_one

Scaling = Literal["auto", "standard", "robust", "none"]


@dataclass(frozen=True, eq=False)
class Table:
    """Rows as a model takes them, with what belongs beside them.

    Args:
        schema: of the columns.
        rows: ``(N, P)`` float32, a column for each of data, scaled, categories by their codes. Or
            images, flat. A missing cell holds a value that the likelihood accepts.
        observed: ``(N, P)`` bool; None where no cell is missing.
        labels: ``(N,)`` int64, -1 for unknown; None without.
        covariates: ``(N, C)`` float32, scaled, text in one column for each category; None without.
        exposure: ``(N,)`` positive, divided by its median over the training rows; None without.
        weights: ``(N,)``, divided by their mean over the training rows; None without.
        names: of the rows: their identifier, or the file of an image; empty without.
    """

    schema: "Schema"
    rows: Tensor
    observed: Tensor | None = None
    labels: Tensor | None = None
    covariates: Tensor | None = None
    exposure: Tensor | None = None
    weights: Tensor | None = None
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def context(self) -> dict[str, Tensor]:
        """What model and guide are told beside the rows, by its keyword."""
        told = {name: getattr(self, name) for name in ("observed", "exposure", "covariates")}
        return {name: value for name, value in told.items() if value is not None}

    def take(self, rows: Tensor) -> "Table":
        """The table of some rows, by their numbers ``(M,)``."""
        tensors = {name: v[rows] for name, v in vars(self).items() if isinstance(v, Tensor)}
        names = tuple(self.names[row] for row in rows.tolist()) if self.names else ()
        return replace(self, names=names, **cast(dict[str, Any], tensors))


@dataclass(frozen=True)
class Schema:
    """The columns of a table, as they were in the training rows.

    Args:
        columns: in their order in the table.
        shape: of an image, ``(H, W)`` or ``(H, W, C)``; empty of a table.
        classes: names of the classes of an image; those of a table are its label's categories.
        totals: median total of a row of counts, where the totals are the exposure; 0 elsewhere.
        notes: what was left out, a line each.
    """

    columns: tuple[Column, ...] = ()
    shape: tuple[int, ...] = ()
    classes: tuple[str, ...] = ()
    totals: float = 0.0
    notes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def data(self) -> tuple[Column, ...]:
        """The columns of x, in the order of the columns of :attr:`Table.rows`."""
        return tuple(column for column in self.columns if column.is_data)

    @property
    def label(self) -> Column | None:
        """The column of labels, if there is one."""
        return next((column for column in self.columns if column.kind == "label"), None)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes in the order of their numbers; none without labels."""
        return self.label.categories if self.label else self.classes

    def of_kind(self, kind: Kind) -> tuple[Column, ...]:
        """The columns of a kind."""
        return tuple(column for column in self.columns if column.kind == kind)

    def encode(self, frame: Frame) -> Table:
        """The rows of a frame, whose columns are found by name, in any order.

        Columns without a name are those of data by position. Labels and weights may be left out.

        Raises:
            ValueError: in one line with column and row, for a missing column, and for cells that
                the training rows could not have had: see :func:`coded`.
        """
        frame = self._aligned(frame)
        made = np.full((frame.rows, len(self.data)), np.nan)
        for place, column in enumerate(self.data):
            made[:, place] = coded(column, frame.columns[column.name], frame.source)
        known = ~np.isnan(made)
        if not known.any(1).all():
            row = int((~known.any(1)).argmax())
            raise ValueError(
                f"Expected a value in each row of {frame.source} but all data cells of row {row} "
                "are missing; drop the row."
            )
        fill = np.array([1.0 if column.kind == "positive" else 0.0 for column in self.data])
        rows = torch.from_numpy(np.where(known, made, fill)).float()
        observed = None if known.all() else torch.from_numpy(known)
        return replace(Table(self, rows, observed), **self._beside(frame, rows, known))

    def decode(self, rows: Tensor) -> dict[str, NDArray[np.generic]]:
        """Values of data ``(N, P)`` in the units of the table, by the name of the column.

        Categories are rounded to the nearest code; numbers are not rounded.
        """
        values = rows.detach().cpu().double().numpy()
        return {column.name: decoded(column, values[:, i]) for i, column in enumerate(self.data)}

    def log_scale(self, observed: Tensor | None, rows: int) -> Tensor:
        """``(N,)``: what log p of scaled values exceeds that of the table's own units by, in nats.

        Args:
            observed: ``(N, P)`` bool; None for all.
            rows: N.
        """
        logs = torch.tensor([column.scale for column in self.data], dtype=torch.float64).log()
        if observed is None:
            return logs.sum().expand(rows)
        return observed.double().cpu() @ logs

    def with_totals(self, frame: Frame) -> "Schema":
        """The schema of counts with the total of a row as its exposure."""
        counts = [finite(frame.columns[column.name], frame.source) for column in self.data]
        return replace(self, totals=float(np.median(np.nansum(np.stack(counts), 0))))

    def lines(self) -> list[str]:
        """A table of the columns as text: kind, range, share missing, likelihood and scaling."""
        return column_lines(self.columns, self.totals > 0)

    def to_json(self) -> str:
        """All of the schema, as :meth:`from_json` reads it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Schema":
        """The schema that :meth:`to_json` wrote.

        Raises:
            ValueError: for another text.
        """
        try:
            held = json.loads(text)
            columns = tuple(
                Column(**{**column, "categories": tuple(column["categories"])})
                for column in held.pop("columns")
            )
            lists = {k: tuple(held[k]) for k in ("shape", "classes", "notes")}
            return cls(columns, **{**held, **lists})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(
                f"Expected the schema of a table but it is damaged ({error!r}); train again."
            ) from error

    def _aligned(self, frame: Frame) -> Frame:
        """The frame with the names of the schema.

        Raises:
            ValueError: naming the columns that are missing.
        """
        needed = [c.name for c in self.columns if c.is_data or c.kind in ("covariate", "exposure")]
        if not frame.named and any(name not in frame.columns for name in needed):
            for names in ([column.name for column in self.columns], needed):
                if len(names) == len(frame.columns):
                    columns = dict(zip(names, frame.columns.values(), strict=True))
                    return replace(frame, columns=columns)
        missing = [name for name in needed if name not in frame.columns]
        if missing:
            alike = {name.casefold(): name for name in frame.columns}
            other = next((alike[n.casefold()] for n in missing if n.casefold() in alike), None)
            rename = "" if other is None else f"rename {other!r}, or "
            may = all(column.is_data for column in self.columns if column.name in missing)
            empty = ", with empty cells for unknown values" if may else ""
            raise ValueError(
                f"Expected the columns of the training in {frame.source} but there is no "
                f"{listed(missing)}; {rename}add {'it' if len(missing) == 1 else 'them'}{empty}."
            )
        return frame

    def _beside(self, frame: Frame, rows: Tensor, known: NDArray[np.bool_]) -> dict[str, Any]:
        """Labels, covariates, exposure and weights of the rows, None for what there is not."""
        found: dict[str, Tensor] = {}
        label, weight = self.label, next(iter(self.of_kind("weight")), None)
        if label and label.name in frame.columns:
            codes = coded(label, frame.columns[label.name], frame.source)
            found["labels"] = torch.from_numpy(np.where(np.isnan(codes), -1, codes)).long()
        if covariates := self.of_kind("covariate"):
            parts = [one_hot(c, frame.columns[c.name], frame.source) for c in covariates]
            found["covariates"] = torch.from_numpy(np.concatenate(parts, 1)).float()
        for exposure in self.of_kind("exposure"):
            values = quantities(exposure, frame.columns[exposure.name], frame.source)
            found["exposure"] = torch.from_numpy(values).float()
        if self.totals:
            totals = (rows * torch.from_numpy(known)).sum(1)
            if not (totals > 0).all():
                raise ValueError(
                    f"Expected a positive total of the counts of each row of {frame.source}, which "
                    f"is its exposure, but row {int((totals <= 0).int().argmax())} has none; drop "
                    "the row."
                )
            found["exposure"] = totals / self.totals
        if weight and weight.name in frame.columns:
            values = quantities(weight, frame.columns[weight.name], frame.source)
            found["weights"] = torch.from_numpy(values).float()
        return found


def infer_schema(
    frame: Frame,
    said: Mapping[str, str] | None = None,
    scaling: Scaling = "auto",
    alike: bool = False,
) -> Schema:
    """The schema of the columns of training rows.

    Args:
        frame: of the training rows.
        said: kinds and likelihoods by the name or pattern of columns, see :func:`read_said`.
        scaling: of real columns: ``standard`` by mean and standard deviation, ``robust`` by median
            and interquartile range, or ``none``; ``auto`` is robust where tails are heavy.
        alike: whether the columns are of one kind, as those of a matrix: counts if all values are
            whole numbers from 0.

    Raises:
        ValueError: in one line with column and row, for a column that cannot be used as said.
    """
    if scaling not in get_args(Scaling):
        raise ValueError(f"Expected scaling among {get_args(Scaling)} but got {scaling!r}.")
    told = match_said(said or {}, frame.columns)
    found = [infer(cells, told.get(name), frame.source) for name, cells in frame.columns.items()]
    if alike:
        found = _alike(found, told)
    else:
        found = [c if c.name in told else uncounted(c, frame.columns[c.name]) for c in found]
    columns = [_scaled(column, frame.columns[column.name], scaling, frame) for column in found]
    kinds = {column.name: column.kind for column in columns}
    for one in ("label", "exposure", "weight"):
        only_one(kinds, one)
    check_exposure(kinds, frame.source)
    schema = Schema(tuple(columns), notes=tuple(_notes(columns)))
    if not schema.data:
        raise ValueError(
            f"Expected at least one column of data in {frame.source} but got none: "
            f"{'; '.join(schema.notes) or listed(list(kinds))}. Say what they are by --columns "
            "NAME=KIND."
        )
    return schema


def _alike(columns: Sequence[Column], said: Mapping[str, str]) -> list[Column]:
    """The columns of a matrix, where nothing is said of them, with one kind and likelihood."""
    free = [c for c in columns if c.is_data and c.name not in said]
    if any(not column.numeric for column in free):
        return list(columns)
    whole = [c.kind in ("count", "binary", "ordinal") and (c.low or 0) >= 0 for c in free]
    if all(whole) and any(column.kind != "binary" for column in free):
        one: dict[str, Any] = {"kind": "count", "likelihood": DEFAULTS["count"]}
    elif all(whole):
        return list(columns)
    else:
        heavy = 2 * sum(column.likelihood == "student-t" for column in free) > len(free)
        one = {"kind": "real", "likelihood": "student-t" if heavy else "gaussian"}
    names = {column.name for column in free}
    return [replace(c, **one, categories=()) if c.name in names else c for c in columns]


def _notes(columns: Sequence[Column]) -> list[str]:
    """One line for each reason for which columns are left out."""
    found: dict[str, list[str]] = {}
    for column in columns:
        if column.kind == "ignore" and column.reason != "as told":
            found.setdefault(column.reason.partition(":")[0], []).append(column.name)
    return [f"left out: {listed(names)} ({reason})" for reason, names in found.items()]


def _scaled(column: Column, cells: Cells, scaling: Scaling, frame: Frame) -> Column:
    """The column with its scaling, from the cells of the training rows."""
    beside = column.kind in ("exposure", "weight", "covariate")
    if column.kind not in ("real", "positive") and (not beside or column.categories):
        return column
    present = finite(cells, frame.source)[cells.present]
    if column.kind in ("exposure", "weight"):
        middle = np.median(present) if column.kind == "exposure" else present.mean()
        return replace(column, scale=float(middle) if middle > 0 else 1.0)
    if scaling == "none":
        return column
    if column.kind == "positive":
        if present.min() <= 0:
            quantities(column, cells, frame.source)  # says which row
        return replace(column, scale=float(np.exp(np.log(present).mean())))
    how = scaling if scaling != "auto" else "auto"
    heavy = how == "robust" or (how == "auto" and column.likelihood == "student-t")
    loc, scale = robust(present) if heavy else (float(present.mean()), float(present.std()))
    return replace(column, loc=loc, scale=scale if scale > 0 else 1.0)
