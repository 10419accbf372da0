"""Supports of distributions, compared by the values that they contain instead of their class."""

from typing import Any, NamedTuple

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor
from torch.distributions import Distribution, transforms

# Pairs of constraints with the same set of values, up to boundaries of probability zero.
ALIASES = {
    type(constraints.softplus_lower_cholesky): type(constraints.lower_cholesky),
    type(constraints.positive_semidefinite): type(constraints.positive_definite),
}
# Of torch 2.7 and newer; before, the support of a mixture is that of its components.
OF_MIXTURES = getattr(constraints, "MixtureSameFamilyConstraint", ())
WRAPPERS = (dist.Independent, dist.MaskedDistribution, dist.ExpandedDistribution)


class Region(NamedTuple):
    """A set of tensors of one shape.

    If each element has an interval of its own, ``kind`` is ``reals`` or ``integers``, and the lower
    and the upper bounds are ``numbers``. For other sets, such as the simplex, it is the class of
    the constraint, with its attributes as ``numbers``. Stacked sets of several kinds are ``parts``.
    """

    kind: object
    numbers: tuple[Tensor, ...] = ()
    parts: tuple["Region", ...] = ()

    @property
    def is_box(self) -> bool:
        """Whether each element has an interval of its own."""
        return self.kind in ("reals", "integers")

    @property
    def is_known(self) -> bool:
        """Whether the set is a constraint of torch or Pyro with a defined set of values."""
        if self.is_box or self.parts:
            return all(part.is_known for part in self.parts)
        module = getattr(self.kind, "__module__", "")
        dependent = self.kind is type(constraints.dependent)
        return module.startswith(("torch.", "pyro.")) and not dependent

    def same(self, other: "Region") -> bool:
        """Whether both contain the same values, up to boundaries of probability zero."""
        sizes = [(r.kind, len(r.numbers), len(r.parts)) for r in (self, other)]
        if sizes[0] != sizes[1]:
            return False
        numbers = zip(self.numbers, other.numbers, strict=True)
        parts = zip(self.parts, other.parts, strict=True)
        close = all(torch.allclose(a.double(), b.double()) for a, b in numbers)
        return close and all(a.same(b) for a, b in parts)


def same_support(
    one: dist.TorchDistribution, other: dist.TorchDistribution, drawn: Tensor, by_other: Tensor
) -> bool:
    """Whether two distributions have the same support, given a draw of each in the same shape.

    Sets that neither torch nor Pyro define are assumed equal if each contains the draw of the other
    distribution. A set that cannot be checked is assumed to contain every value.
    """
    first, second = region_of(one, drawn), region_of(other, by_other)
    if first.is_known and second.is_known:
        return first.same(second)
    return _contains(one, by_other) and _contains(other, drawn)


def describe(fn: dist.TorchDistribution) -> str:
    """The support of a distribution in words, on one line."""
    try:
        if fn.has_enumerate_support:
            return f"{len(fn.enumerate_support(expand=False))} values"
        support = fn.support
        return f"that of {type(fn).__name__}" if support is None else in_words(support)
    except NotImplementedError:  # values that differ between rows, or no support
        return f"that of {type(fn).__name__}"


def in_words(constraint: constraints.Constraint) -> str:
    """The values that a constraint allows, on one line.

    >>> in_words(constraints.independent(constraints.unit_interval, 1))
    'numbers from 0 to 1'
    >>> in_words(constraints.positive), in_words(constraints.nonnegative_integer)
    ('numbers above 0', 'whole numbers from 0')
    """
    while isinstance(constraint, constraints.independent):
        constraint = constraint.base_constraint
    if isinstance(constraint, type(constraints.boolean)):
        return "0 or 1"
    bounds = _bounds(constraint)
    if bounds is None or any(torch.as_tensor(bound).numel() != 1 for bound in bounds):
        return " ".join(str(constraint).split())
    low, high = (f"{float(bound):g}" for bound in bounds)
    words = ["whole numbers" if constraint.is_discrete else "numbers"]
    if low != "-inf":
        open_end = isinstance(constraint, type(constraints.positive))
        words.append(f"{'above' if open_end else 'from'} {low}")
    if high != "inf":
        open_end = isinstance(constraint, type(constraints.less_than(0.0)))
        words.append(f"{'below' if open_end else 'to'} {high}")
    return " ".join(words)


def region_of(fn: Distribution, value: Tensor) -> Region:
    """The support of a distribution for values in the shape of this one."""
    if isinstance(fn, WRAPPERS):
        return region_of(fn.base_dist, value)
    if hasattr(fn, "component_distribution"):
        parts, events = fn.component_distribution, len(fn.event_shape)
        return _union(region_of(parts, value.unsqueeze(-1 - events)), events)
    if isinstance(fn, dist.TransformedDistribution):
        base = fn.base_dist
        found = region_of(base, value.new_empty(base.batch_shape + base.event_shape))
        for transform in fn.transforms:
            found = _image(found, transform, value)
        return found
    try:
        support = fn.support
    except NotImplementedError:
        return Region(None)
    return Region(None) if support is None else _region(support, value)


def _region(constraint: constraints.Constraint, value: Tensor) -> Region:
    if isinstance(constraint, constraints.independent):
        return _region(constraint.base_constraint, value)
    if isinstance(constraint, OF_MIXTURES):
        events = constraint.event_dim
        return _union(_region(constraint.base_constraint, value.unsqueeze(-1 - events)), events)
    if isinstance(constraint, constraints.stack | constraints.cat):
        return _joined(constraint, value)
    bounds = _bounds(constraint)
    if bounds is None:
        numbers = [torch.as_tensor(n) for n in vars(constraint).values() if not isinstance(n, str)]
        return Region(ALIASES.get(type(constraint), type(constraint)), tuple(numbers))
    ends = (torch.as_tensor(bound, device=value.device) for bound in bounds)
    numbers = [torch.broadcast_tensors(end, value)[0] for end in ends]
    return Region("integers" if constraint.is_discrete else "reals", tuple(numbers))


def _bounds(constraint: constraints.Constraint) -> tuple[Any, Any] | None:
    if isinstance(constraint, type(constraints.boolean)):
        return 0, 1
    unbounded = isinstance(constraint, type(constraints.real) | type(constraints.integer))
    bounded = hasattr(constraint, "lower_bound") or hasattr(constraint, "upper_bound")
    if not unbounded and (constraint.event_dim or not bounded):
        return None
    inf = torch.inf
    return getattr(constraint, "lower_bound", -inf), getattr(constraint, "upper_bound", inf)


def _joined(constraint: Any, value: Tensor) -> Region:
    """The region of parts that are stacked or concatenated along a dimension."""
    dim = constraint.dim % value.dim() - value.dim()
    stacked = isinstance(constraint, constraints.stack)
    values = value.unbind(dim) if stacked else value.split(constraint.lengths, dim)
    found = tuple(map(_region, constraint.cseq, values))
    first, *others = found
    if all(region.is_box and region.kind == first.kind for region in found):
        join = torch.stack if stacked else torch.cat
        lower, upper = zip(*(region.numbers for region in found), strict=True)
        return Region(first.kind, (join(lower, dim), join(upper, dim)))
    if all(first.same(region) for region in others):
        return first
    return Region(("parts", dim, tuple(map(len, values))), parts=found)


def _union(region: Region, events: int) -> Region:
    """The union over components, which are along the dimension left of the event."""
    if not region.is_box:
        return region
    lower, upper = region.numbers
    return Region(region.kind, (lower.amin(-1 - events), upper.amax(-1 - events)))


def _image(region: Region, transform: transforms.Transform, value: Tensor) -> Region:
    """The image of a region: of intervals, computed from their ends; otherwise the codomain."""
    if region.kind == "reals" and _is_elementwise(transform) and transform.bijective:
        ends = [transform(end.to(value).expand_as(value)) for end in region.numbers]
        if not any(end.isnan().any() for end in ends):
            return Region("reals", (torch.minimum(*ends), torch.maximum(*ends)))
    if isinstance(transform, transforms.ComposeTransform):
        for part in transform.parts:
            region = _image(region, part, value)
        return region
    return _region(transform.codomain, value)


def _is_elementwise(transform: transforms.Transform) -> bool:
    if isinstance(transform, transforms.IndependentTransform):
        return _is_elementwise(transform.base_transform)
    if isinstance(transform, transforms.ComposeTransform):
        return all(map(_is_elementwise, transform.parts))
    if isinstance(transform, transforms.StackTransform | transforms.CatTransform):
        return all(map(_is_elementwise, transform.transforms))
    return isinstance(transform, transforms.AffineTransform) or transform.domain.event_dim == 0


def _contains(fn: Distribution, value: Tensor) -> bool:
    try:
        return fn.support is None or bool(fn.support.check(value).all())
    except (NotImplementedError, ValueError):
        return True
