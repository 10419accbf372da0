"""Labels and context beside rows: by name, as tensors with a value for each row."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from priorzoo.inference.batch import Batch, Context, in_precision
from priorzoo.inference.data.accepts import device_of
from priorzoo.inference.data.tensors import as_tensor, check_finite
from priorzoo.models.contract import WEIGHTS, check_context


def by_name(given: Mapping[str, Tensor] | None, what: str) -> Mapping[str, Tensor]:
    """Labels or context, none if None.

    Raises:
        ValueError: for values without names.
    """
    if given is not None and not isinstance(given, Mapping):
        raise ValueError(
            f"Expected {what} by name but got {type(given).__name__}; give "
            f"{what}={{name: a value for each row}}."
        )
    if given and not given.keys().isdisjoint(("x", "size")):
        raise ValueError(
            f"Expected {what} beside x but got values for {', '.join(sorted(given))}; x and size "
            "are told by the call itself."
        )
    return given or {}


def context_of(model: nn.Module, context: Context | None, rows: int) -> dict[str, Tensor]:
    """Context beside rows that the model draws, on its device and in its precision.

    Raises:
        ValueError: for values that are no numbers, or another number of them.
    """
    found = beside_of(by_name(context, "context"), rows, check_finite)
    batch = in_precision(model, Batch(torch.empty(rows), None, {}, found))
    return dict(batch.to(device_of(model, torch.device("cpu"))).context)


def beside_of(
    context: Mapping[str, object], rows: int, check: Callable[[Tensor, str], None]
) -> dict[str, Tensor]:
    """Context as tensors with a value for each row; ``check`` checks the values of each.

    Raises:
        ValueError: for another number of values.
    """
    found = {name: as_tensor(value, f"context {name!r}") for name, value in context.items()}
    for name, value in found.items():
        if value.dim() == 0:
            raise ValueError(
                f"Expected context {name!r} with a value for each of {rows} rows but got one "
                "number; repeat it."
            )
        check(value, f"context {name!r}")
    check_context(found, rows)
    if "exposure" in found:
        _check_exposure(found["exposure"])
    if WEIGHTS in found:
        found[WEIGHTS] = _as_weights(found[WEIGHTS])
    return found


def _check_exposure(value: Tensor) -> None:
    if value.device.type == "cpu" and not bool((value > 0).all()):
        raise ValueError(
            f"Expected context 'exposure' above 0 but got values from {value.min():g} to "
            f"{value.max():g}; correct them, or drop these rows."
        )


def _as_weights(value: Tensor) -> Tensor:
    """Weights ``(N,)`` of rows as floats.

    Raises:
        ValueError: for another shape, and on the CPU for negative weights or none above 0.
    """
    if value.dim() != 1:
        raise ValueError(
            f"Expected context 'weights' of shape ({len(value)},) but got {tuple(value.shape)}; "
            "give a number for each row."
        )
    if value.device.type == "cpu" and not (bool((value >= 0).all()) and bool(value.any())):
        raise ValueError(
            f"Expected context 'weights' of at least 0, some above, but got values from "
            f"{value.min():g} to {value.max():g}; correct them."
        )
    return value if value.is_floating_point() else value.to(torch.get_default_dtype())


def as_labels(value: object, name: str) -> Tensor:
    """Labels ``(N,)`` of a site as int64, from integers or booleans ``(N,)`` or ``(N, 1)``.

    Raises:
        ValueError: for numbers that are no integers.
    """
    label = as_tensor(value, f"labels of {name!r}")
    if label.is_floating_point():
        raise ValueError(
            f"Expected one integer label of {name!r} for each row but got {label.dtype} of shape "
            f"{tuple(label.shape)}; give integers, -1 for unknown."
        )
    column = label.dim() == 2 and label.shape[1] == 1
    return (label.squeeze(1) if column else label).to(torch.int64)


def check_labels(label: Tensor, name: str, choices: int, data: object) -> None:
    """Check that labels are valid for a site with K values.

    Args:
        label: ``(N,)`` integers, -1 for unknown.
        name: name of the site.
        choices: K.
        data: the rows that the labels belong to.

    Raises:
        ValueError: if the data are not rows in memory, or the labels have a wrong length or dtype,
            or values outside -1 to K - 1.
    """
    if not isinstance(data, Tensor):
        raise ValueError(
            "Expected rows in memory beside labels but got an iterable of batches; give a tensor."
        )
    if label.shape != (len(data),) or label.is_floating_point():
        raise ValueError(
            f"Expected one integer label of {name!r} for each row, shape ({len(data)},), but got "
            f"{label.dtype} of shape {tuple(label.shape)}; give -1 for unknown labels."
        )
    bad = (label < -1) | (label >= choices)
    if bad.any():
        raise ValueError(
            f"Expected labels of {name!r} from 0 to {choices - 1}, or -1 for unknown, but got "
            f"values from {int(label.min())} to {int(label.max())}, first in row "
            f"{int(bad.nonzero()[0])}; number the classes from 0, or build more clusters."
        )
