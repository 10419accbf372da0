"""What brings rows: arrays, data sets, loaders and other iterables of batches."""

from collections.abc import Iterable, Mapping
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from priorzoo.inference.batch import Batch, Context, Labels, Transform, binarises, in_precision
from priorzoo.inference.data.accepts import Accepts
from priorzoo.inference.data.beside import as_labels, beside_of, check_labels
from priorzoo.inference.data.checks import in_unit
from priorzoo.inference.data.missing import blank
from priorzoo.inference.data.pixels import Pixels
from priorzoo.inference.data.stored.rows import StoredRows
from priorzoo.inference.data.tensors import as_tensor, check_count, check_finite
from priorzoo.inference.data.transformed import applied

Iterables = Iterable[object]
WORDS = "rows alone, mappings such as {'x': rows, 'exposure': values}, or Batch(x, labels=...)"


def opened(
    data: object, batch_size: int, size: int | None = None
) -> tuple[Tensor | Iterables, int | None]:
    """Rows in memory as a tensor, or an iterable of batches; and the number of data, if known.

    A list of numbers in any depth or of vectors is rows, and a list of matrices is batches. A
    ``TensorDataset`` of rows alone is its rows. Rows of other data sets come in batches, in a new
    random order in each pass; those of an ``IterableDataset`` in its own order.

    Raises:
        ValueError: for data that are neither.
    """
    if isinstance(data, StoredRows):
        return data, size or data.size
    if isinstance(data, TensorDataset) and len(data.tensors) == 1:
        return as_tensor(data.tensors[0], "x"), size
    if isinstance(data, IterableDataset):
        return cast(Iterables, DataLoader(data, batch_size)), size
    if isinstance(data, Dataset):
        if not hasattr(data, "__len__") or len(data) == 0:
            raise ValueError(
                "Expected a data set with a length of at least 1 but got "
                f"{type(data).__name__} of none; give rows, or batches and size=N."
            )
        return cast(Iterables, DataLoader(data, batch_size, shuffle=True)), size or len(data)
    if isinstance(data, DataLoader) or _has_batches(data):
        return cast(Iterables, data), size
    return as_tensor(data, "x"), size


def _has_batches(data: object) -> bool:
    """Whether an object that is no data set gives batches, and is not itself rows."""
    if isinstance(data, (Tensor, np.ndarray, str, bytes)):
        return False
    if hasattr(data, "__array__") or hasattr(data, "toarray"):  # data frames, sparse matrices
        return False
    if isinstance(data, Mapping):
        raise ValueError(
            f"Expected rows, or an iterable of batches, but got a {type(data).__name__} of "
            f"{list(data)}; give the rows, and what belongs to them as context={{name: values}}."
        )
    if not isinstance(data, (list, tuple)):
        return hasattr(data, "__iter__")
    first = data[0] if len(data) else 0
    if isinstance(first, (Mapping, Batch)):
        return True
    if isinstance(first, (list, tuple)):  # a batch in a sequence, or a row of numbers
        return len(first) == 0 or isinstance(first[0], (Tensor, np.ndarray))
    return isinstance(first, (Tensor, np.ndarray)) and first.ndim > 1


class CheckedBatches:
    """Converts and checks each batch of an iterable, without synchronisation with a GPU.

    Batches on the CPU are refused at once. Of those on a GPU a flag there says whether one was
    wrong; :class:`Steps` reads it together with the terms.

    Args:
        model: its likelihood says which rows it accepts; read with the first batch.
        transform: applied to each batch.
        device: where batches go.
    """

    def __init__(self, model: nn.Module, transform: Transform | None, device: torch.device) -> None:
        self.model, self.transform, self.device = model, transform, device
        self.own = transform is not None and not binarises(transform)
        self.refused = torch.zeros((), dtype=torch.bool, device=device)
        self._accepts: Accepts | None = None
        self._takes_bytes: bool | None = None  # unknown before the first batch

    def __call__(self, given: object, size: int) -> Batch:
        """The batch on the device, transformed."""
        x, context, labels = _named(given)
        if x.dim() == 0 or len(x) == 0:
            raise ValueError(
                f"Expected batches of at least one row but got shape {tuple(x.shape)}; give rows "
                "(B, P), such as those of DataLoader(data, batch_size=100)."
            )
        x, beside = blank(x, beside_of(context, len(x), self._finite), "a batch")
        if self._accepts is None:
            self._accepts = Accepts.of(self.model, beside)
        labels = self._labels(labels, x, self._accepts)
        if not self.own:
            beside = self._accepts.aligned(beside)
            x = self._converted(self._accepts, x, beside)
        of_bytes = x.dtype is torch.uint8
        x = x.to(self.device, non_blocking=True)
        beside = {name: value.to(self.device) for name, value in beside.items()}
        if self.transform is not None:
            x = applied(self.transform, x, "a batch")
        if self.own:
            self._accepts.check_layout(x, "a batch")
            if not (of_bytes and self._accept_all_bytes(self._accepts)):
                self._vet(self._accepts, self._accepts.filled(x, beside))
        labels = {name: label.to(self.device) for name, label in labels.items()}
        return in_precision(self.model, Batch(x, size, labels, beside), self.transform)

    def _labels(self, labels: Labels, x: Tensor, accepts: Accepts) -> Labels:
        """The labels of a batch as integers, checked if they are on the CPU."""
        found = {name: as_labels(label, name) for name, label in labels.items()}
        for name, label in found.items():
            if name not in accepts.choices:
                raise ValueError(
                    f"Expected labels of the Categorical sites {list(accepts.choices)} but got "
                    f"labels of {name!r}; name one of them."
                )
            if label.device.type == "cpu" or label.shape != x.shape[:1]:
                check_labels(label, name, accepts.choices[name], x)
        return found

    def _converted(self, accepts: Accepts, x: Tensor, beside: Context) -> Tensor:
        made = accepts.converted(x, "a batch", exact=x.device.type == "cpu")
        if x.device.type != "cpu":
            self._flag(accepts.same(x, made))
        made = accepts.filled(made, beside)
        self._vet(accepts, made)
        return made

    def _vet(self, accepts: Accepts, x: Tensor) -> None:
        if x.device.type == "meta":
            return
        good = accepts.accepts(x)
        if binarises(self.transform):
            good = good & in_unit(x)
        if x.device.type != "cpu":
            self._flag(good)
        elif not good:
            accepts.check(x, "a batch")
            raise ValueError(
                f"Expected batches within [0, 1] to binarise but got values from {x.min():g} to "
                f"{x.max():g}; rescale them, or leave the transform out."
            )

    def _accept_all_bytes(self, accepts: Accepts) -> bool:
        """Whether :class:`Pixels` makes accepted values of any bytes, which need no check then."""
        if self._takes_bytes is None and isinstance(self.transform, Pixels):
            values = self.transform.values().to(self.device, accepts.dtype)
            each = values.reshape(-1, *[1] * len(accepts.shape))
            self._takes_bytes = bool(accepts.accepts(each.expand(-1, *accepts.shape)))
        return bool(self._takes_bytes)

    def _finite(self, value: Tensor, name: str) -> None:
        if value.device.type == "cpu":
            check_finite(value, name)
        elif value.device.type != "meta":
            self._flag(value.isfinite().all())

    def _flag(self, good: Tensor) -> None:
        self.refused = self.refused | ~good.to(self.refused.device)


def _named(given: object) -> tuple[Tensor, Mapping[str, object], Labels]:
    """Rows, context and labels of a batch.

    Raises:
        ValueError: for a batch with a tensor that has no name, whose meaning is unknown.
    """
    if isinstance(given, Batch):
        return as_tensor(given.x, "x of a batch"), given.context, given.labels
    if isinstance(given, Mapping) and "x" in given:
        context = {name: value for name, value in given.items() if name != "x"}
        return as_tensor(given["x"], "x of a batch"), context, {}
    several = isinstance(given, (list, tuple)) and not _is_row_of_numbers(given)
    if several and len(cast(list[object], given)) == 1:
        return as_tensor(cast(list[object], given)[0], "a batch"), {}, {}
    if isinstance(given, Mapping) or several:
        parts = cast(list[object], given)
        found = list(parts) if isinstance(given, Mapping) else f"{len(parts)} tensors"
        raise ValueError(
            f"Expected batches that are {WORDS}, but got {found}; give each tensor beside the rows "
            "a name."
        )
    return as_tensor(given, "a batch"), {}, {}


def _is_row_of_numbers(given: list[object] | tuple[object, ...]) -> bool:
    """Whether a list is itself an array of numbers, and no sequence of tensors."""
    first = given[0] if given else None
    while isinstance(first, (list, tuple)) and first:
        first = first[0]
    return isinstance(first, (int, float))


def check_size(size: int | None) -> int:
    """Check the number of data that an iterable stands for.

    Raises:
        ValueError: if it is missing or no positive whole number.
    """
    if size is None:
        raise ValueError(
            "Expected the size of the data with an iterable of batches but got none; give size=N."
        )
    check_count(size, "size")
    return size
