"""Finds and checks the dimensions of plates, particles and enumerated sites.

From the right these are: the plates of both programs, the particles, and then one dimension for
each enumerated site.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import cast
from weakref import WeakKeyDictionary

import torch
from pyro import poutine
from torch import nn
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.nn.parameter import is_lazy

from priorzoo.inference.randomness import random_states, set_random_states
from priorzoo.inference.running import places_of
from priorzoo.inference.sites import (
    PARTICLES,
    Site,
    evaluating,
    is_enumerated,
    is_local,
    is_marked,
    plates_of,
    sample_sites,
    shape_of,
)
from priorzoo.models.pyro_internals import AnyMessage, Messenger

_depths: WeakKeyDictionary[object, int] = WeakKeyDictionary()


class PlateDepthError(ValueError):
    """Raised by :class:`PlateLimit` for a plate to the left of the dimensions of plates."""


class PlateDepth(Messenger):
    """Finds how many dimensions the plates of a program take, at least one.

    Sites to enumerate get their first value: a draw would fail if their probabilities are NaN.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found = 1

    def _pyro_sample(self, msg: AnyMessage) -> None:
        self.found = max(self.found, _depth(msg))
        site = cast(Site, msg)
        if is_marked(site) and not site["done"] and not site["is_observed"]:
            first, fn = site["fn"].enumerate_support(expand=False)[0], site["fn"]
            site["value"], site["done"] = first.expand(fn.batch_shape + fn.event_shape), True


class PlateLimit(Messenger):
    """Raises an error if a plate is to the left of the ``depth`` rightmost dimensions."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.depth = depth

    def _pyro_sample(self, msg: AnyMessage) -> None:
        if _depth(msg) > self.depth:
            raise PlateDepthError(
                f"Expected plates at dims -1 to -{self.depth} but {msg['name']!r} is in a plate "
                "further left; run the pair once before its operations are recorded."
            )


def _depth(msg: AnyMessage) -> int:
    dims = plates_of(cast(Site, msg))
    return max((-dim for name, dim in dims.items() if name != PARTICLES), default=1)


def known_depth(programs: Iterable[object]) -> int | None:
    """The number of dimensions that the plates of these programs took when they were last run."""
    found = [_depths.get(program) for program in programs]
    return max(depth for depth in found if depth) if all(found) else None


def keep_depth(programs: Iterable[object], depth: int) -> int:
    """Remember this number for as long as the programs exist."""
    for program in programs:
        _depths[program] = max(depth, _depths.get(program, 1))
    return depth


def measured_depth(programs: Iterable[object], run: Callable[[], object]) -> int:
    """Run the programs to find the number of dimensions that their plates take.

    The random state and buffers are restored. While a graph is recorded the programs are not run,
    since their operations would become part of the graph.

    Args:
        programs: model and guide, without handlers around them.
        run: runs both.
    """
    if is_recorded():
        return known_depth(programs) or 1
    modules = [program for program in programs if isinstance(program, nn.Module)]
    snapshot = Snapshot(modules)
    with torch.no_grad(), evaluating(*modules), PlateDepth() as depth:
        try:
            run()
        finally:
            snapshot.restore()
    return depth.found


def is_recorded() -> bool:
    """Whether operations are being recorded as a graph."""
    return get_proxy_mode() is not None


class Snapshot:
    """A copy of the random state and of buffers, to restore them.

    Args:
        modules: modules with the buffers; the random state is that of the CPU and their devices.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        places = [place for module in modules for place in places_of(module)]
        self.buffers = [
            (home, name, tensor, tensor.clone())
            for home, name, tensor in places
            if not isinstance(tensor, nn.Parameter) and not is_lazy(tensor)
        ]
        self.devices = {tensor.device for *_, tensor in places}
        self.random = random_states(self.devices)

    @torch.no_grad()
    def restore(self) -> None:
        """Restore the random state and the buffers."""
        for home, name, tensor, value in self.buffers:
            tensor.copy_(value)
            home[name] = tensor
        set_random_states(self.random, self.devices)


def check_dimensions(guide_trace: poutine.Trace, model_trace: poutine.Trace) -> None:
    """Check that every dimension of every site belongs to a plate or to an enumerated site.

    Raises:
        ValueError: if one does not, or if a site outside the plates of an enumerated site depends
            on it.
    """
    summed: dict[int, tuple[str, Site]] = {}
    for name, site in sample_sites(guide_trace):
        if is_enumerated(site):
            _check_enumerated(name, site, summed)
            summed[site["infer"]["_enumerate_dim"]] = name, site
    for trace in (guide_trace, model_trace):
        for name, site in sample_sites(trace):
            _check_shape(name, site, summed)


def _check_enumerated(name: str, site: Site, summed: Mapping[int, tuple[str, Site]]) -> None:
    dim = site["infer"]["_enumerate_dim"]
    if dim in summed:
        raise ValueError(
            f"Expected a dimension for each enumerated site but {summed[dim][0]!r} and {name!r} "
            "share one by pyro.markov; write the loop with range."
        )
    if site["infer"].get("num_samples") is not None:
        raise ValueError(
            f"Expected every value of the enumerated site {name!r} but its infer has num_samples; "
            "leave num_samples out."
        )


def _check_shape(name: str, site: Site, summed: Mapping[int, tuple[str, Site]]) -> None:
    plates, shape = plates_of(site), shape_of(site)
    if plates.get("data", -1) != -1:
        raise ValueError(
            f"Expected plate 'data' at dim -1 but it is at {plates['data']} around site {name!r}; "
            "give your own plates dims to its left."
        )
    for dim in varying(shape):
        if dim in summed:
            above, home = summed[dim][0], plates_of(summed[dim][1])
            if not home.keys() <= plates.keys():
                raise ValueError(
                    f"Expected sites that depend on the enumerated site {above!r} inside its "
                    f"plates {list(home)} but {name!r} is in {list(plates)}; sample it in these "
                    f"plates, or draw {above!r} with a score-function gradient."
                )
        elif dim not in plates.values() and not _is_summable(site, summed):
            raise ValueError(
                f"Expected log-probabilities of site {name!r} to vary along its plates "
                f"{list(plates)} and enumerated sites only but they have size {shape[dim]} along "
                f"dim {dim}; open a plate there, or make it part of the event by to_event."
            )


def _is_summable(site: Site, summed: Mapping[int, tuple[str, Site]]) -> bool:
    """Whether dimensions that belong to no plate can be summed: of global sites, drawn once."""
    return not is_local(site) and not summed and PARTICLES not in plates_of(site)


def varying(shape: torch.Size) -> Iterator[int]:
    """The dimensions that have more than one entry, as negative numbers."""
    return (dim for dim in range(-len(shape), 0) if shape[dim] > 1)
