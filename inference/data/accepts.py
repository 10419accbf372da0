"""Which rows a model's likelihood accepts: their shape, dtype and support."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn
from weakref import WeakKeyDictionary

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor, nn
from torch.distributions import constraints

from priorzoo.inference.batch import Context
from priorzoo.inference.data.missing import OBSERVED
from priorzoo.inference.data.pictures import flat_rows
from priorzoo.inference.data.tensors import check_finite
from priorzoo.inference.failures import FAILURES, first_line
from priorzoo.inference.randomness import Stream
from priorzoo.inference.sites import evaluating, latent_sites, site_of
from priorzoo.inference.supports import in_words
from priorzoo.models.contract import accepted, needed
from priorzoo.models.observation import cells, filled


@dataclass(frozen=True)
class Accepts:
    """Which rows a model's likelihood accepts.

    Args:
        shape: of one row.
        dtype: of the rows.
        fn: the distribution of x, of one row.
        choices: K of each Categorical site, which may have labels.
    """

    shape: torch.Size
    dtype: torch.dtype
    fn: Any
    choices: Mapping[str, int]

    @classmethod
    def of(cls, model: nn.Module, context: Context | None = None) -> "Accepts":
        """Read from a row that the model draws.

        Raises:
            ValueError: for a model that cannot be run, or that draws no ``x``.
        """
        place = device_of(model, torch.device("cpu"))
        one = {key: value[:1].to(place) for key, value in (context or {}).items()}
        if OBSERVED not in needed(model):  # whole rows are drawn
            one.pop(OBSERVED, None)
        given = accepted(model, one)
        name = type(model).__name__
        try:
            with (
                evaluating(model),
                torch.no_grad(),
                Stream(0, place),
                pyro.validation_enabled(False),
            ):
                trace = poutine.trace(model).get_trace(size=1, **given)
        except FAILURES as error:
            raise ValueError(f"{name} cannot run on size=1: {first_line(error)}") from error
        try:
            site = site_of(trace, "x")
        except KeyError as error:
            raise ValueError(
                f"Expected a model that samples a site 'x' but {name} has no site {error}; name "
                "the data's site x."
            ) from error
        choices = {
            name: len(other["fn"].enumerate_support(expand=False))
            for name, other in latent_sites(trace).items()
            if isinstance(other["fn"], dist.Categorical)
        }
        return cls(site["fn"].event_shape, site["value"].dtype, site["fn"], choices)

    @classmethod
    def remembered(cls, model: nn.Module, context: Context) -> "Accepts":
        """:meth:`of`, read once for as long as the model has the same modules and precision."""
        parts = (*map(id, model.modules()), *{(p.dtype, p.device) for p in model.parameters()})
        known = _KNOWN.get(model)
        if known is None or known[0] != parts:
            known = _KNOWN[model] = parts, cls.of(model, context)
        return known[1]

    def shaped(self, x: Tensor, name: str = "x") -> Tensor:
        """Rows in the shape that the likelihood accepts; pictures become flat rows.

        Raises:
            ValueError: for another shape, or no rows.
        """
        pictures = x.dim() > 2 and len(self.shape) == 1 and x.shape[1:].numel() == self.shape[0]
        rows = flat_rows(x, name)[0] if pictures else x
        if rows.dim() != 1 + len(self.shape) or rows.shape[1:] != self.shape:
            expected = ", ".join(["N", *map(str, self.shape)])
            raise ValueError(
                f"Expected {name} of shape ({expected}) but got {tuple(x.shape)}; reshape the data "
                "or build the networks for it."
            )
        if len(rows) == 0:
            raise ValueError(f"Expected {name} with at least one row but got none; give some.")
        return rows

    def converted(self, x: Tensor, name: str = "x", *, exact: bool = True) -> Tensor:
        """Rows in the shape and dtype that the likelihood accepts.

        Args:
            x: rows, or pictures.
            name: name of the rows in error messages.
            exact: whether to check :meth:`same`, which synchronises with a GPU.

        Raises:
            ValueError: for another shape, or numbers that would change in this dtype.
        """
        rows = self.shaped(x, name)
        made = rows.to(self.dtype)
        if exact and not bool(self.same(rows, made)):
            raise ValueError(
                f"Expected {name} of type {self.dtype} like the networks but got {rows.dtype} with "
                f"values that it cannot hold; convert it by {name}.to({self.dtype})."
            )
        return made

    def filled(self, x: Tensor, context: Context) -> Tensor:
        """Rows with a value of the support in their missing cells, if the context has a mask."""
        observed = context.get(OBSERVED)
        return x if observed is None else filled(x, observed, self.fn)

    def aligned(self, context: Context) -> dict[str, Tensor]:
        """The context with its mask, if any, in the shape that the likelihood accepts."""
        mask = {n: self.shaped(value, n) for n, value in context.items() if n == OBSERVED}
        return {**context, **mask}

    def same(self, rows: Tensor, made: Tensor) -> Tensor:
        """Whether a conversion changed no value by more than the rounding of floats, 0-dim."""
        large = rows.dtype in (torch.int32, torch.int64)
        exact = large if made.is_floating_point() else rows.dtype != made.dtype
        if not exact or rows.device.type == "meta":
            return torch.ones((), dtype=torch.bool)
        return (made.to(rows.dtype) == rows).all()

    def accepts(self, x: Tensor) -> Tensor:
        """Whether all rows are finite, not too large and in the support, 0-dim, on their device."""
        if x.numel() == 0:
            return torch.ones((), dtype=torch.bool, device=x.device)
        low, high = x.aminmax()  # NaN if any value is
        within = (low >= -self.largest) & (high <= self.largest)
        support = self.fn.support
        if cells(support) is constraints.real:
            return within
        inside: Tensor = support.check(x).all()
        return within & inside

    @property
    def largest(self) -> float:
        """The largest value of which the sum of squares over a row is a number of the dtype."""
        if not self.dtype.is_floating_point:
            return math.inf
        return math.sqrt(torch.finfo(self.dtype).max / max(1, self.shape.numel()))

    def check(self, x: Tensor, name: str = "x") -> None:
        """Check shape, dtype and values of converted rows, or of what a transform made.

        Raises:
            ValueError: for rows that the likelihood does not accept, naming the first of them.
        """
        self.check_layout(x, name)
        if x.device.type != "meta" and not bool(self.accepts(x)):
            self.refuse(x, name)

    def check_layout(self, x: Tensor, name: str = "x") -> None:
        """Check the shape and dtype of what a transform made.

        Raises:
            ValueError: for another shape or dtype.
        """
        expected = ", ".join(["N", *map(str, self.shape)])
        if x.dim() != 1 + len(self.shape) or x.shape[1:] != self.shape:
            raise ValueError(
                f"Expected {name} of shape ({expected}) but got {tuple(x.shape)} from the "
                "transform; reshape there."
            )
        if x.dtype != self.dtype:
            raise ValueError(
                f"Expected {name} of type {self.dtype} like the networks but got {x.dtype} from "
                f"the transform; convert it there by .to({self.dtype})."
            )

    def refuse(self, x: Tensor, name: str) -> NoReturn:
        """Raise the error that says what is wrong with the values."""
        check_finite(x, name)
        large = x.abs() > self.largest
        if large.any():
            place = ", ".join(map(str, large.nonzero()[0].tolist()))
            raise ValueError(
                f"Expected {name} up to {self.largest:.1g}, whose squares {self.dtype} can hold, "
                f"but got {x[large][0].item():g} at ({place}); rescale the data."
            )
        support = self.fn.support
        each = cells(support).check(x)
        each = each if each.shape == x.shape else support.check(x)
        place = (~each).nonzero()[0].tolist()
        where = f"row {place[0]}" + (f", column {place[1]}" if len(place) > 1 else "")
        found = x
        of_column = getattr(cells(support), "of", None)
        if of_column is not None:  # each column has a support of its own
            support, found = of_column(place[1]), x[:, place[1]]
        low, high = found.min().item(), found.max().item()
        bytes_ = low >= 0 and 1 < high <= 255
        pixels = " (bytes: transform=Pixels())" if bytes_ else ""
        raise ValueError(
            f"Expected {name} to hold {in_words(support)} for "
            f"{type(getattr(self.fn, 'base_dist', self.fn)).__name__} but got values from {low:g} "
            f"to {high:g}; rescale the data or choose another likelihood{pixels}. The first such "
            f"value, {x[tuple(place)].flatten()[0].item():g}, is in {where}."
        )


def device_of(model: nn.Module, otherwise: torch.device) -> torch.device:
    """Where the parameters are, if there are any."""
    return next((p.device for p in getattr(model, "parameters", list)()), otherwise)


_KNOWN: WeakKeyDictionary[nn.Module, tuple[object, Accepts]] = WeakKeyDictionary()
