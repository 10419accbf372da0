"""Clusters and densities of tables with missing cells, ours beside those of other libraries."""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorzoo.comparisons.rivals import FITS, SHAPES, WIDE, Rival
from priorzoo.comparisons.tables import TABLES, Classed, Labels, Rows, with_gaps
from priorzoo.estimators import Clusterer
from priorzoo.inference.saving import versions

Row = dict[str, Any]
OURS = "priorzoo"
OTHER = 1_000  # added to a seed by which settings are chosen
TEST = 5  # one row in so many is held out
DENSITIES = ("mean imputation, GaussianMixture", "mean imputation, BayesianGaussianMixture")


def compare(
    names: Sequence[str],
    shares: Sequence[float],
    seeds: Sequence[int],
    root: Path,
    before: Sequence[Mapping[str, Any]] = (),
) -> Iterator[Row]:
    """Rows of all methods, for each seed, table and share of missing cells.

    A method sees the training rows without labels. Ours has its default settings; the covariances
    of the mixtures are chosen by log p of rows that are held out under another seed.

    Args:
        names: of :data:`TABLES`.
        shares: of the cells that are removed at random.
        seeds: of the split, the removal and the methods.
        root: folder of the data sets.
        before: rows of an earlier call, which are left out, and whose settings are kept.
    """
    done = {(row["table"], row["missing"], row["seed"]) for row in before}
    kept: dict[tuple[str, float], dict[str, str]] = {}
    for row in before:
        if row["method"] in DENSITIES:
            kept.setdefault((row["table"], row["missing"]), {})[row["method"]] = row["chosen"]
    tables = {name: TABLES[name](root) for name in names}
    for seed, (name, table), share in itertools.product(seeds, tables.items(), shares):
        if (name, share, seed) in done:
            continue
        if (name, share) not in kept:
            kept[name, share] = _chosen(table, share)
        for row in list(_methods(table, share, seed, kept[name, share])):  # all of a seed or none
            yield {"measure": "tables", "table": name, "missing": share, **row}


def _methods(table: Classed, share: float, seed: int, settings: dict[str, str]) -> Iterator[Row]:
    clusters = len(np.unique(table.labels))
    for method in (OURS, *FITS):
        if method.endswith("k-prototypes") and not table.mixed:
            continue
        begun = time.perf_counter()
        labels, nats = _run(table, method, settings.get(method, ""), share, seed, clusters)
        yield {
            "method": method,
            "chosen": settings.get(method, ""),
            "seed": seed,
            "clusters": clusters,
            "rows": len(table),
            "columns": table.x.shape[1],
            "ari": _agreement(table, labels, seed),
            "nats": nats,
            "seconds": round(time.perf_counter() - begun, 2),
            "versions": versions(),
        }


def _run(
    table: Classed, method: str, setting: str, share: float, seed: int, clusters: int
) -> tuple[Any, float | None]:
    """Clusters of the training rows, and mean log p of the test rows where it is comparable."""
    x, test = _split(table, share, seed)
    if method == OURS:
        ours = Clusterer(n_components=clusters, likelihood=table.likelihood, random_state=seed)
        labels = ours.fit(x).labels_
        return labels, ours.score(test) if table.density else None
    rival = Rival(method, clusters, seed, setting or SHAPES[0])
    labels = rival.fit(x)
    scored = table.density and method in DENSITIES
    return labels, rival.score(test) if scored else None


def _chosen(table: Classed, share: float) -> dict[str, str]:
    """The covariances of the mixtures, by log p of held-out rows."""
    clusters = len(np.unique(table.labels))
    x, test = _split(table, share, OTHER)
    found: dict[str, str] = {}
    for method in DENSITIES:
        if table.x.shape[1] > WIDE:
            found[method] = "diag"
        elif not table.mixed:

            def of_rival(shape: str, method: str = method) -> float:
                rival = Rival(method, clusters, OTHER, shape)
                rival.fit(x)
                return rival.score(test)

            found[method] = _best(SHAPES, of_rival)
    return found


def _best(choices: Sequence[str], score: Callable[[str], float]) -> str:
    scores = [score(choice) for choice in choices]
    return choices[int(np.argmax(scores))]


def _split(table: Classed, share: float, seed: int) -> tuple[Rows, Rows]:
    """Training and test rows, both with gaps."""
    train, test = _places(len(table), seed)
    return (
        with_gaps(table.take(train), share, seed),
        with_gaps(table.take(test), share, seed + 1),
    )


def _places(rows: int, seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    order = np.random.default_rng(seed).permutation(rows)
    return order[rows // TEST :], order[: rows // TEST]


def _agreement(table: Classed, labels: Labels, seed: int) -> float:
    from sklearn.metrics import adjusted_rand_score

    train, _ = _places(len(table), seed)
    return float(adjusted_rand_score(table.labels[train], labels))
