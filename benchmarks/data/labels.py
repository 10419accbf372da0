"""Labels that a training may see: some rows of each class, or of several sites."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from priorzoo.benchmarks.data.sets import Dataset


def keep_rows(labels: Mapping[str, Tensor], count: int, seed: int) -> dict[str, Tensor]:
    """All labels ``(N,)`` of so many rows of known ones, drawn at random, and -1 for the others.

    Raises:
        ValueError: for more rows than there are.
    """
    size = len(next(iter(labels.values())))
    if not 0 <= count <= size:
        raise ValueError(f"Expected labelled from 0 to the {size} training rows but got {count}.")
    known = torch.stack([label >= 0 for label in labels.values()]).any(0)
    if count > int(known.sum()):
        raise ValueError(
            f"Expected labelled of at most {int(known.sum())}, the training rows whose label is "
            f"known, but got {count}; ask for fewer."
        )
    order = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
    kept = torch.zeros(size, dtype=torch.bool)
    kept[order[known[order]][:count]] = True
    return {site: label.where(kept, -1) for site, label in labels.items()}


def keep_labels(labels: Tensor | None, count: int, seed: int) -> Tensor:
    """Labels ``(N,)`` of so many rows, equally many of each class, and -1 for the others.

    Raises:
        ValueError: without labels, or with fewer of a class than asked for.
    """
    if labels is None:
        raise ValueError("Expected labelled training rows but the data set has no labels.")
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    classes = labels[labels >= 0].unique()
    if len(classes) == 0:
        raise ValueError("Expected labelled training rows but got the label -1, unknown, for all.")
    share, rest = divmod(count, len(classes))
    kept = torch.full_like(labels, -1)
    for rank, label in enumerate(classes):
        rows = order[labels[order] == label]
        wanted = share + (rank < rest)
        if wanted > len(rows):
            raise ValueError(
                f"Expected {wanted} rows of class {int(label)} to keep their label but there are "
                f"{len(rows)}; ask for fewer than {count}."
            )
        kept[rows[:wanted]] = label
    return kept


def unlike(dataset: Dataset) -> str | None:
    """What is wrong if test rows have classes that no training row has, or None."""
    named = {"": (dataset.y_train, dataset.y_test), **dataset.named}
    for site, (train, test) in named.items():
        if train is None or test is None or not (train >= 0).any():
            continue
        parts = [train] if site or dataset.y_valid is None else [train, dataset.y_valid]
        known = torch.cat(parts)
        strange = test[(test >= 0) & ~torch.isin(test, known)].unique().tolist()
        if strange:
            seen = known[known >= 0]
            return (
                f"Expected classes of the training rows{f' of {site}' if site else ''}, from "
                f"{int(seen.min())} to {int(seen.max())}, but some test rows have "
                f"{', '.join(map(str, strange[:5]))}; code both alike, or -1 for unknown."
            )
    return None


def repeat_labelled(
    x: Tensor, labels: Mapping[str, Tensor], share: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Rows and labels with the labelled rows as often as makes them a share of all, at least once.

    Args:
        x: rows ``(N, P)``.
        labels: each ``(N,)``, with -1 for unknown.
        share: in [0, 1); it is reached, and passed by less than one more copy of them.

    Raises:
        ValueError: for a share outside its range, or above 0 without labels.
    """
    if not 0 <= share < 1:
        raise ValueError(f"Expected labelled_share in [0, 1) but got {share}.")
    if share == 0:
        return x, dict(labels)
    known = torch.zeros(len(x), dtype=torch.bool)
    for label in labels.values():
        known |= label >= 0
    count = int(known.sum())
    if count == 0:
        raise ValueError(f"Expected labels for labelled_share={share} but none is known.")
    copies = max(1, math.ceil(share / (1 - share) * (len(x) - count) / count))
    rows = torch.cat([torch.arange(len(x)), known.nonzero().squeeze(-1).repeat(copies - 1)])
    return x[rows], {site: label[rows] for site, label in labels.items()}


def with_labels(
    dataset: Dataset, names: Mapping[str, str], read: Callable[[str], Dataset]
) -> Dataset:
    """The same rows with further labels: for each site the name of those it wants.

    Args:
        dataset: of :func:`load`.
        names: such as ``{"r_1": "eyes"}``.
        read: :func:`load` with the settings with which the rows were loaded.

    Raises:
        ValueError: for labels that the data set lacks.
    """
    stem, named = dataset.name.partition(":")[0], {}
    for site, name in names.items():
        other = read(f"{stem}:{name}")
        if other.y_train is None or other.y_test is None:
            raise ValueError(f"Expected labels {name!r} in {stem} but it has none.")
        named[site] = other.y_train, other.y_test
    return replace(dataset, named=named)
