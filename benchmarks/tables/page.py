"""Descriptions of clusters as text, as tables, and as one page that loads nothing else."""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from priorzoo.benchmarks.tables.describing import Cluster
from priorzoo.benchmarks.tables.predicting import Values, write_columns
from priorzoo.benchmarks.tables.traits import Trait, figure
from priorzoo.inference.data.tables.schema import Table

HUES: tuple[str, ...] = (
    "#4269d0",
    "#efb118",
    "#ff725c",
    "#6cc5b0",
    "#3ca951",
    "#ff8ab7",
    "#a463f2",
    "#97bbf5",
)
HUES += ("#9c6b4e", "#9498a0")
GOLDEN = 137.5  # degrees
POINTS = 1_500  # of the map
COLUMNS = 8  # of a prototype that are shown
MISSING = "\N{EN DASH}"
SIDE = 96  # pixels of an image on the page


@dataclass(frozen=True, eq=False)
class Description:
    """The clusters of a run with what their page shows.

    Args:
        title: of the page.
        facts: a line each.
        table: the rows.
        clusters: see :func:`describe`.
        q: ``(N, K)`` cluster probabilities.
        places: ``(N, 2)`` of the map; None without codes.
    """

    title: str
    facts: Mapping[str, str]
    table: Table
    clusters: Sequence[Cluster]
    q: Tensor
    places: Tensor | None

    def lines(self) -> list[str]:
        """The description as text, a paragraph for each cluster that has rows."""
        found: list[str] = []
        for cluster in self.clusters:
            if cluster.rows:
                found += [*self._paragraph(cluster), ""]
        empty = [str(cluster.number) for cluster in self.clusters if not cluster.rows]
        return [*found, f"without rows: clusters {', '.join(empty)}"] if empty else found[:-1]

    def _paragraph(self, cluster: Cluster) -> list[str]:
        share = 100 * cluster.rows / len(self.table)
        lines = [f"cluster {cluster.number}: {cluster.rows:,} rows, {share:.1f} %"]
        if cluster.classes:
            said = ", ".join(f"{name} {100 * part:.0f} %" for name, part in cluster.classes)
            lines.append(f"  labels: {said}")
        lines += [f"  {sign(trait)} {trait.text}" for trait in cluster.traits]
        if not cluster.traits:
            lines.append("  no column sets it apart")
        if cluster.prototypes:
            lines.append(f"  typical rows: {', '.join(map(self.name, cluster.prototypes))}")
        if cluster.nearest:
            near = ", ".join(f"{k} (distance {far:.1f})" for k, far in cluster.nearest)
            lines.append(f"  nearest clusters: {near}")
        return lines

    def name(self, row: int) -> str:
        """The name of a row, or its number."""
        return self.table.names[row] if self.table.names else str(row)

    def write(self, out: Path) -> Path:
        """Write ``index.html``, ``clusters.csv`` and ``traits.csv``; returns the page."""
        out.mkdir(parents=True, exist_ok=True)
        write_columns(self._cluster_columns(), out / "clusters.csv")
        write_columns(self._trait_columns(), out / "traits.csv")
        page = out / "index.html"
        page.write_text(self.page(), encoding="utf-8")
        return page

    def _cluster_columns(self) -> Values:
        near = [", ".join(str(k) for k, _ in c.nearest) for c in self.clusters]
        typical = ["; ".join(map(self.name, c.prototypes)) for c in self.clusters]
        words = ["; ".join(f"{sign(t)} {t.text}" for t in c.traits) for c in self.clusters]
        columns: dict[str, Sequence[object]] = {
            "cluster": [c.number for c in self.clusters],
            "rows": [c.rows for c in self.clusters],
            "share": [c.share for c in self.clusters],
            "certainty": [c.certainty for c in self.clusters],
            "description": words,
            "typical_rows": typical,
            "nearest_clusters": near,
        }
        if any(c.classes for c in self.clusters):
            columns["label"] = [c.classes[0][0] if c.classes else "" for c in self.clusters]
        return {name: np.array(values) for name, values in columns.items()}

    def _trait_columns(self) -> Values:
        pairs = [(c.number, trait) for c in self.clusters for trait in c.traits]
        columns: dict[str, Sequence[object]] = {
            "cluster": [k for k, _ in pairs],
            "column": [t.name for _, t in pairs],
            "category": [t.category for _, t in pairs],
            "in_cluster": [t.here for _, t in pairs],
            "in_all_rows": [t.all for _, t in pairs],
            "score": [t.score for _, t in pairs],
        }
        return {name: np.array(values) for name, values in columns.items()}

    def page(self) -> str:
        """The page as HTML."""
        from jinja2 import StrictUndefined, Template

        text = Path(__file__).with_name("description.html").read_text("utf-8")
        template = Template(
            text, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        used = [cluster for cluster in self.clusters if cluster.rows]
        return template.render(
            title=self.title,
            facts=self.facts,
            cards=[self._card(cluster) for cluster in used],
            empty=[cluster.number for cluster in self.clusters if not cluster.rows],
            points=self._points(),
            names=self.name,
            written=written,
            most=max((cluster.rows for cluster in used), default=1),
            total=len(self.table),
        )

    def _card(self, cluster: Cluster) -> dict[str, Any]:
        top = max((abs(trait.score) for trait in cluster.traits), default=1.0)
        return {
            "cluster": cluster,
            "hue": hue(cluster.number),
            "categories": any(trait.category for trait in cluster.traits),
            "bars": [(t, sign(t), round(100 * abs(t.score) / top)) for t in cluster.traits],
            "prototypes": self._prototypes(cluster),
            "texts": {column.name for column in self.table.schema.data if column.categories},
            "images": self._images(cluster),
        }

    def _prototypes(self, cluster: Cluster) -> tuple[list[str], list[list[str]]]:
        """Columns and the rows of a table; none of images."""
        data = self.table.schema.data
        if not data or not cluster.prototypes:
            return [], []
        shown = list(dict.fromkeys(trait.name for trait in cluster.traits))
        rest = [column.name for column in data if column.name not in shown]
        names = [*shown, *rest][:COLUMNS]
        rows = torch.tensor(cluster.prototypes)
        values = self.table.schema.decode(self.table.rows[rows])
        known = self.table.observed
        places = {column.name: place for place, column in enumerate(data)}
        body = []
        for i, row in enumerate(cluster.prototypes):
            missing = {n for n in names if known is not None and not known[row, places[n]]}
            cells = [MISSING if n in missing else written(values[n][i]) for n in names]
            body.append([self.name(row), *cells])
        return ["row", *names], body

    def _images(self, cluster: Cluster) -> list[tuple[str, str]]:
        """The mean image of a cluster and its prototypes, as data and words; none of a table."""
        shape = self.table.schema.shape
        if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] != 3):
            return []
        weights = self.q[:, cluster.number].to(self.table.rows)
        mean = weights @ self.table.rows / weights.sum().clamp(min=1e-9)
        found = [(as_png(mean, shape), f"mean image of cluster {cluster.number}")]
        for row in cluster.prototypes:
            found.append((as_png(self.table.rows[row], shape), f"typical: {self.name(row)}"))
        return found

    def _points(self) -> list[tuple[float, float, str, str]]:
        """Places in a square of 100, with hue and words; evenly spaced rows if there are many."""
        if self.places is None or len(self.places) == 0:
            return []
        rows = torch.linspace(0, len(self.places) - 1, min(POINTS, len(self.places))).long()
        low, high = self.places.amin(0), self.places.amax(0)
        unit = 4 + 92 * (self.places[rows] - low) / (high - low).clamp(min=1e-9)
        clusters = self.q[rows].argmax(1).tolist()
        points = zip(unit.tolist(), rows.tolist(), clusters, strict=True)
        return [
            (round(x, 2), round(100 - y, 2), hue(k), f"{self.name(row)}: cluster {k}")
            for (x, y), row, k in points
        ]


def sign(trait: Trait) -> str:
    """Whether a cluster has more or less than all rows."""
    return "+" if trait.score > 0 else "-"


def hue(number: int) -> str:
    """The colour of a cluster; beyond the first ten, turned by the golden angle each time."""
    if number < len(HUES):
        return HUES[number]
    return f"hsl({GOLDEN * number % 360:.0f} 60% {40 + 12 * (number % 3)}%)"


def written(value: object) -> str:
    """A cell of a table as text, numbers with 4 digits."""
    if isinstance(value, float) and math.isfinite(value):
        return figure(value, 4)
    return str(value)


def as_png(x: Tensor, shape: Sequence[int]) -> str:
    """An image of values in [0, 1] as a data URI."""
    from PIL import Image

    pixels = (x.clamp(0, 1) * 255).round().to(torch.uint8).reshape(*shape).numpy()
    image = Image.fromarray(pixels)
    scale = max(1, SIDE // max(image.size))
    file = io.BytesIO()
    large = image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
    large.save(file, "png", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
