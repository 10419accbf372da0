"""Programs on the share of a batch: their draws, and functions of all rows, are of the whole batch.

Stock programs know nothing of processes; a handler and a mode of torch change what they draw.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from priorzoo.inference.shares import Share
from priorzoo.inference.sites import Site
from priorzoo.models.pyro_internals import AnyMessage, Messenger, site_is_subsample

# Random operations by the names of torch's functions and methods: those that fill a tensor, that
# take its shape, that take a size, that take parameters of the draw, and that change networks.
FILLS = {"normal_", "uniform_", "exponential_", "cauchy_", "log_normal_", "geometric_", "random_"}
FILLS |= {"bernoulli_"}
LIKE = {"rand_like", "randn_like", "randint_like"}
OF_SIZE = {"rand", "randn", "randint"}
OF_PARAMETERS = {"bernoulli", "multinomial", "poisson", "binomial", "normal", "_standard_gamma"}
OF_PARAMETERS |= {"_sample_dirichlet", "alpha_dropout", "feature_alpha_dropout"}
OF_PARAMETERS |= {"dropout1d", "dropout2d", "dropout3d"}


class WholeDraws(TorchFunctionMode):
    """Random operations draw for the whole batch, of which the process keeps its own rows.

    All processes draw the same numbers, those of one process with the whole batch. Parameters of a
    draw that differ between rows are put together for it. Rows are along the dimension nearest to
    ``axis``, on its left, that has as many elements as the process has rows; without an axis, along
    the first such dimension. Where a network is as wide as that, another dimension may be taken for
    the rows: the draws are then independent, but not those of one process.

    Args:
        share: the rows of the process.
    """

    def __init__(self, share: Share) -> None:
        super().__init__()
        self.share = share
        self.axis: int | None = None
        self.paused = False

    @contextmanager
    def of_site(self, site: Site) -> Iterator[None]:
        """Inside ``with``, a site is drawn: with an axis of rows, or with none if it is global."""
        before = self.axis, self.paused
        dims = [frame.dim for frame in site["cond_indep_stack"] if frame.name == "data"]
        self.axis = dims[0] - site["fn"].event_dim if dims else None
        self.paused = not dims
        try:
            yield
        finally:
            self.axis, self.paused = before

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: object,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        name, named = getattr(function, "__name__", ""), dict(kwargs or {})
        if self.paused:
            return function(*args, **named)
        if name in FILLS:
            return self._fill(function, *args, **named)
        if name in LIKE:
            return self._like(function, *args, **named)
        if name == "dropout":
            return self._dropout(function, *args, **named)
        if name in OF_SIZE or (name == "normal" and _has_size(args, named)):
            return self._of_size(function, args, named)
        if name in OF_PARAMETERS:
            return self._of_parameters(function, args, named)
        return function(*args, **named)

    def _fill(
        self, fill: Callable[..., Tensor], values: Tensor, *args: object, **named: object
    ) -> Tensor:
        row = self._row(values.shape)
        if row is None:
            return fill(values, *args, **named)
        whole = values.new_empty(self._wide(values.shape))
        fill(whole, *map(self._every, args), **named)
        return values.copy_(self.share.own(whole, row))

    def _like(
        self, draw: Callable[..., Tensor], values: Tensor, *args: object, **named: object
    ) -> Tensor:
        whole = draw(values.new_empty(self._wide(values.shape)), *args, **named)
        return self._own(whole, values.shape)

    def _dropout(
        self, drop: Callable[..., Tensor], input: Tensor, p: float, training: bool, **_: object
    ) -> Tensor:
        if not training or not p:
            return input
        whole = drop(input.new_ones(self._wide(input.shape)), p, training)
        return input * self._own(whole, input.shape)

    def _of_size(
        self, draw: Callable[..., Tensor], args: Sequence[Any], named: Mapping[str, Any]
    ) -> Tensor:
        if draw.__name__ in ("rand", "randn") and args and isinstance(args[0], int):
            args = (args,)
        size = named.get("size", next((arg for arg in args if _is_size(arg)), ()))
        wide = [self._wide(arg) if _is_size(arg) else arg for arg in args]
        named = {key: self._wide(arg) if key == "size" else arg for key, arg in named.items()}
        return self._own(draw(*wide, **named), size)

    def _of_parameters(
        self, draw: Callable[..., Tensor], args: Sequence[Any], named: Mapping[str, Any]
    ) -> Tensor:
        found = [self._row(arg.shape) for arg in args if isinstance(arg, Tensor)]
        rows = [row for row in found if row is not None]
        if not rows:
            return draw(*args, **named)
        return self.share.own(draw(*map(self._every, args), **named), rows[0])

    def _every(self, value: object) -> object:
        """A parameter for all rows, with gradients of the process's own."""
        if not isinstance(value, Tensor):
            return value
        row = self._row(value.shape)
        if row is None:
            return value
        share, whole = self.share, self.share.every(value.detach(), row)
        after = share.start + share.count
        return torch.cat(
            [
                whole.narrow(row, 0, share.start),
                value.narrow(row, 0, share.count),
                whole.narrow(row, after, share.whole - after),
            ],
            row,
        )

    def _own(self, whole: Tensor, shape: Sequence[int]) -> Tensor:
        row = self._row(shape)
        return whole if row is None else self.share.own(whole, row)

    def _wide(self, shape: Sequence[int]) -> list[int]:
        row, wide = self._row(shape), list(shape)
        if row is not None:
            wide[row] = self.share.whole
        return wide

    def _row(self, shape: Sequence[int]) -> int | None:
        """The dimension of the rows in this shape, counted from the right; None if it has none."""
        found = [dim for dim in range(-len(shape), 0) if shape[dim] == self.share.rows]
        if self.axis is None:
            return found[0] if found else None
        return max((dim for dim in found if dim <= self.axis), default=None)


@contextmanager
def on_share(share: Share) -> Iterator[None]:
    """Runs programs on the share of a batch inside ``with``: enter it before all other handlers."""
    draws = WholeDraws(share)
    with draws, _OnShare(draws):
        yield


class _OnShare(Messenger):
    def __init__(self, draws: WholeDraws) -> None:
        super().__init__()
        self.draws, self.share = draws, draws.share

    def _pyro_sample(self, msg: AnyMessage) -> None:
        site = cast(Site, msg)
        given = site["done"] or site["is_observed"] or site["value"] is not None
        if not given and not site_is_subsample(msg):
            with self.draws.of_site(site):
                site["value"] = site["fn"](*site["args"], **site["kwargs"])
            site["done"] = True

    def _pyro_over_batch(self, msg: AnyMessage) -> None:
        function, *values = msg["args"]
        whole = function(*(self.share.every(value, -2) for value in values))
        msg["value"], msg["done"] = self.share.own(whole, -1), True


def _is_size(value: object) -> bool:
    return isinstance(value, (tuple, list, torch.Size))


def _has_size(args: Sequence[object], named: Mapping[str, object]) -> bool:
    return "size" in named or any(map(_is_size, args))
