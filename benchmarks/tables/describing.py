"""What each cluster of a run is: its size, what sets it apart, typical rows and neighbours."""

from dataclasses import dataclass

from torch import Tensor

from priorzoo.benchmarks.data.sets import Dataset
from priorzoo.benchmarks.tables.traits import Trait, traits_of
from priorzoo.inference.data.tables.kinds import Column
from priorzoo.inference.data.tables.schema import Schema, Table

TRAITS = 6  # of each cluster that are shown
LEAST = 0.2  # standard deviations from the mean of all rows that are worth a word
PROTOTYPES = 3
NEAREST = 2


@dataclass(frozen=True)
class Cluster:
    """One cluster of the rows that are described.

    Args:
        number: k.
        rows: how many rows have it as their most probable cluster.
        share: the mean of q(k | x).
        certainty: the mean of q(k | x) over its rows; 0 of an empty one.
        traits: what sets it apart, the most telling first.
        prototypes: numbers of the rows nearest to its mean code.
        nearest: the clusters with the nearest mean codes, and their distance in standard
            deviations of the codes within clusters.
        classes: shares of the labels of its rows, the largest first; empty without labels.
    """

    number: int
    rows: int
    share: float
    certainty: float
    traits: tuple[Trait, ...]
    prototypes: tuple[int, ...]
    nearest: tuple[tuple[int, float], ...]
    classes: tuple[tuple[str, float], ...] = ()


def describe(table: Table, q: Tensor, z: Tensor | None) -> list[Cluster]:
    """The clusters of rows, the largest first.

    Args:
        table: the rows.
        q: ``(N, K)`` cluster probabilities.
        z: ``(N, D)`` codes; None of a pair without.
    """
    q, assigned = q.double(), q.argmax(1)
    traits = traits_of(table, q)
    places = None if z is None else _means(q, z.double())
    spread = 1.0 if z is None or places is None else _spread(z.double(), places, assigned)
    found = []
    for k in range(q.shape[1]):
        own = assigned == k
        telling = [t for t in traits[k] if abs(t.score) >= LEAST][:TRAITS]
        found.append(
            Cluster(
                k,
                int(own.sum()),
                float(q[:, k].mean()),
                float(q[own, k].mean()) if own.any() else 0.0,
                tuple(telling),
                _prototypes(table, z, places, k, own),
                () if places is None else _nearest(places, k, spread, assigned),
                _classes(table, own),
            )
        )
    return sorted(found, key=lambda cluster: -cluster.rows)


def _means(q: Tensor, z: Tensor) -> Tensor:
    """``(K, D)``: mean code of each cluster."""
    return (q.T @ z) / q.sum(0).clamp(min=1e-9).unsqueeze(1)


def _spread(z: Tensor, places: Tensor, assigned: Tensor) -> float:
    """Standard deviation of a coordinate of the codes within clusters."""
    return max(float((z - places[assigned]).square().mean().sqrt()), 1e-9)


def _prototypes(
    table: Table, z: Tensor | None, places: Tensor | None, k: int, own: Tensor
) -> tuple[int, ...]:
    """The rows nearest to the mean code; of the nearest tenth, those with fewest missing cells."""
    if z is None or places is None:
        return ()
    rows = own.nonzero().flatten()
    rows = rows[(z[rows].double() - places[k]).square().sum(1).argsort()]
    if table.observed is not None:
        rows = rows[: max(PROTOTYPES, len(rows) // 10)]
        rows = rows[(~table.observed[rows]).sum(1).argsort(stable=True)]
    return tuple(rows[:PROTOTYPES].tolist())


def _nearest(
    places: Tensor, k: int, spread: float, assigned: Tensor
) -> tuple[tuple[int, float], ...]:
    distances = (places - places[k]).square().sum(1).sqrt() / spread
    used = [i for i in assigned.unique().tolist() if i != k]
    return tuple(
        (i, float(distances[i])) for i in sorted(used, key=distances.__getitem__)[:NEAREST]
    )


def _classes(table: Table, own: Tensor) -> tuple[tuple[str, float], ...]:
    if table.labels is None:
        return ()
    labels = table.labels[own & (table.labels >= 0)]
    if len(labels) == 0:
        return ()
    names, counts = table.schema.class_names, labels.bincount()
    order = counts.argsort(descending=True)[:PROTOTYPES].tolist()
    return tuple(
        (names[i] if i < len(names) else str(i), counts[i].item() / len(labels))
        for i in order
        if counts[i]
    )


def table_of(dataset: Dataset, rows: int) -> Table:
    """The first training rows of a data set that is no table, as one.

    Words have their names, and pixels their places.
    """
    names, shape = dataset.vocabulary, dataset.shape
    if names:
        schema = Schema(tuple(Column(name, "count") for name in names))
    elif len(shape) == 1:
        schema = Schema(tuple(Column(f"x{i}", "real") for i in range(shape[0])))
    else:
        schema = Schema(shape=shape)
    x = dataset.x_train[:rows]
    y = None if dataset.y_train is None else dataset.y_train[:rows]
    return Table(schema, x, labels=y)
