"""Checks of data and labels before they are used."""

import torch
from pyro import poutine
from torch import Tensor, nn

from priorzoo.inference.batch import Context, Transform
from priorzoo.inference.pairs import without_side_effects
from priorzoo.inference.sites import site_of
from priorzoo.models.contract import accepted, check_context


def check_data(
    model: nn.Module,
    x: Tensor,
    name: str = "x",
    transform: Transform | None = None,
    context: Context | None = None,
) -> None:
    """Check that the model's likelihood accepts the rows, and that context has as many rows.

    Args:
        x: rows ``(N, P)``.
        name: name of the data in error messages.
        transform: applied to each batch. If it is None or ``torch.bernoulli``, all rows are checked
            as they are; otherwise the first 100 rows are transformed and checked.
        context: keyword arguments of the programs beside x, each ``(N, ...)``.

    Raises:
        ValueError: for no rows, a wrong shape or dtype, NaN or infinity, or values outside the
            support of the likelihood.
    """
    check_context(context or {}, len(x))
    one = {key: value[:1] for key, value in (context or {}).items()}
    with without_side_effects(model):
        if transform is not None and transform is not torch.bernoulli:
            x = transform(x[:100])
        site = site_of(poutine.trace(model).get_trace(size=1, **accepted(model, one)), "x")
    fn = site["fn"]
    if x.dim() != 1 + len(fn.event_shape) or x.shape[1:] != fn.event_shape:
        expected = ", ".join(["N", *map(str, fn.event_shape)])
        raise ValueError(
            f"Expected {name} of shape ({expected}) but got {tuple(x.shape)}; reshape the data or "
            "build the networks for it."
        )
    if x.dtype != site["value"].dtype:
        raise ValueError(
            f"Expected {name} of type {site['value'].dtype} like the networks but got {x.dtype}; "
            f"convert it by {name}.to({site['value'].dtype})."
        )
    if len(x) == 0:
        raise ValueError(f"Expected {name} with at least one row but got none.")
    if not x.isfinite().all():
        raise ValueError(
            f"Expected finite values in {name} but got NaN or infinity; clean the data."
        )
    if not fn.support.check(x).all():
        likelihood = type(getattr(fn, "base_dist", fn)).__name__
        raise ValueError(
            f"Expected {name} within {fn.support} for {likelihood} but got values from "
            f"{x.min():g} to {x.max():g}; rescale the data or choose another likelihood."
        )


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
        raise ValueError("Expected rows in memory beside labels but got an iterable of batches.")
    if label.shape != (len(data),) or label.is_floating_point():
        raise ValueError(
            f"Expected one integer label of {name!r} for each row, shape ({len(data)},), but got "
            f"{label.dtype} of shape {tuple(label.shape)}."
        )
    if label.min() < -1 or label.max() >= choices:
        raise ValueError(
            f"Expected labels of {name!r} from 0 to {choices - 1}, or -1 for unknown, but got "
            f"values from {int(label.min())} to {int(label.max())}."
        )
