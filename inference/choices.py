"""The values of discrete sites, and values that a caller fixes sites at."""

from collections.abc import Mapping, Sequence

import pyro.distributions as dist
import torch
from torch import Tensor

from priorzoo.inference.data.tensors import as_tensor, check_finite
from priorzoo.inference.sites import Site, is_local


def choices_of(fn: dist.TorchDistribution) -> Tensor:
    """``(K, *event_shape)``: all values of a discrete distribution, in the order of enumeration."""
    return fn.enumerate_support(expand=False).reshape(-1, *fn.event_shape)


def shape_for(site: Site, rows: int) -> torch.Size:
    """The shape of a site's value where plate ``data``, at dim -1, has this number of rows."""
    event = site["fn"].event_shape
    batch = site["value"].shape[: site["value"].dim() - len(event)]
    return torch.Size((*batch[:-1], rows, *event)) if is_local(site) else site["value"].shape


def fixed_value(
    sites: Mapping[str, Site], name: str, value: int | float | Tensor, rows: int
) -> Tensor:
    """A value to fix a site at, in the site's shape for this number of rows.

    Args:
        sites: those of a program that was run on one row.
        name: of the site.
        value: one value, or one for each row. A discrete site whose values are vectors, such as
            one-hot, takes the number of a value, from 0, as well.
        rows: how many.

    Raises:
        ValueError: for an unknown site, a value of another shape or type, and one that a discrete
            site cannot have.
    """
    if name not in sites:
        raise ValueError(f"Expected one of the sites {list(sites)} but got {name!r}; name one.")
    fn, shape = sites[name]["fn"], shape_for(sites[name], rows)
    told = torch.tensor(value) if isinstance(value, (int, float)) else as_tensor(value, name)
    check_finite(told.reshape(1, -1), name)
    if fn.has_enumerate_support:
        return _choice(sites[name], name, told, shape)
    return _converted(told, sites[name]["value"], shape, name)


def _choice(site: Site, name: str, told: Tensor, shape: torch.Size) -> Tensor:
    """A value of a discrete site, told by itself or, if it is a vector, by its number."""
    fn, like, choices = site["fn"], site["value"], choices_of(site["fn"])
    if not fn.event_shape:
        fixed = _converted(told, like, shape, name)
        if not fn.support.check(fixed).all():
            raise ValueError(f"Expected {name} {_range(choices)} but got {_shown(told)}.")
        return fixed
    events, last = len(fn.event_shape), len(choices) - 1
    found: list[Tensor] = []
    if told.shape[-events:] == fn.event_shape and _expands(told.shape, shape):
        vectors = told.to(like).expand(shape)
        if fn.support.check(vectors).all():
            found.append(vectors)
    if _expands(told.shape, shape[:-events]) and bool(((told >= 0) & (told <= last)).all()):
        numbers = told.to(like.device, torch.int64)
        if bool((numbers == told.to(like.device)).all()):
            found.append(choices[numbers.expand(shape[:-events])])
    if len(found) == 2 and not torch.equal(*found):
        raise ValueError(
            f"Expected {name} as vectors or as their numbers but got {_shown(told)}, which may be "
            f"either; give vectors of shape {tuple(shape)}."
        )
    if not found:
        raise ValueError(
            f"Expected {name} from 0 to {last}, the number of one of its vectors, or vectors of "
            f"shape {tuple(shape)} in its support, but got {_shown(told)}; number from 0."
        )
    return found[0]


def _converted(told: Tensor, like: Tensor, shape: torch.Size, name: str) -> Tensor:
    fixed = told.to(like.device, like.dtype)
    same = like.is_floating_point() or bool((fixed.to(told.dtype) == told.to(fixed.device)).all())
    if not same or not _expands(told.shape, shape):
        raise ValueError(
            f"Expected {name} as {like.dtype} of shape {tuple(shape)}, or that expands to it, but "
            f"got {told.dtype} of shape {tuple(told.shape)}; give one value, or one for each row."
        )
    return fixed.expand(shape)


def _expands(shape: Sequence[int], wanted: Sequence[int]) -> bool:
    pairs = zip(reversed(shape), reversed(wanted), strict=False)
    return len(shape) <= len(wanted) and all(side in (1, other) for side, other in pairs)


def _range(choices: Tensor) -> str:
    values = choices.tolist()
    if values == list(range(len(values))):
        return f"from 0 to {len(values) - 1}"
    return f"among {values}"


def _shown(told: Tensor) -> str:
    if told.numel() == 1:
        return str(told.item())
    return str(told.tolist()) if told.numel() < 20 else f"values of shape {tuple(told.shape)}"
