"""Running a model and its guide on the same draws, and checking that they fit each other."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import TypeVar

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor, nn

from priorzoo.inference.auxiliary import marginal_sites, unmatched
from priorzoo.inference.batch import Batch, Context, in_precision
from priorzoo.inference.dimensions import (
    PlateDepthError,
    PlateLimit,
    Snapshot,
    check_dimensions,
    is_recorded,
    keep_depth,
    known_depth,
    measured_depth,
)
from priorzoo.inference.gradients import Unbiased, bias, missing_gradient
from priorzoo.inference.randomness import Stream
from priorzoo.inference.running import keeping_state, running
from priorzoo.inference.sites import (
    PARTICLES,
    Clamp,
    Means,
    Site,
    evaluating,
    plates_of,
    sample_sites,
    site_of,
)
from priorzoo.inference.supports import describe, same_support
from priorzoo.models.contract import accepted, check_context
from priorzoo.models.pyro_internals import sites_of_rows

Result = TypeVar("Result")


def run_pair(
    model: Callable[..., object],
    guide: Callable[..., object],
    batch: Batch,
    *,
    particles: int = 1,
    means: bool = False,
) -> tuple[poutine.Trace, poutine.Trace]:
    """Trace the guide, and the model replayed on its draws, without host synchronisation.

    Sites that the guide marks ``infer={"enumerate": "parallel"}`` take all their values, along a
    dimension of their own to the left of the plates of both programs: beside the plate ``data`` it
    is -2 for the first, or -3 with particles.

    Args:
        batch: rows ``(B, P)``; discrete sites are set to its labels if these are known.
        particles: number S of draws; if it is above 1, they are along the dimension to the left of
            the plates.
        means: whether reparameterised sites are set to their means instead of drawn.

    Returns:
        The traces of guide and model.

    Raises:
        ValueError: for a pair whose sites do not fit, see :func:`check_traces`.
    """
    check_context(batch.context, len(batch.x), model, guide)
    programs = inspect.unwrap(model), inspect.unwrap(guide)
    modules = [program for program in programs if isinstance(program, nn.Module)]
    known = known_depth(programs)
    snapshot = Snapshot(modules) if known is None and not is_recorded() else None
    try:
        traces = _run(model, guide, batch, particles, means, known or 1)
    except Exception as error:  # dimensions that collide raise errors of any type
        if known and not isinstance(error, PlateDepthError):
            raise
        depth = plate_depth(model, guide, batch, known=False)
        if depth <= (known or 1):
            raise
        if snapshot is not None:
            snapshot.restore()
        traces = _run(model, guide, batch, particles, means, depth)
    else:
        keep_depth(programs, known or 1)
    check_traces(*traces)
    return traces


def plate_depth(
    model: Callable[..., object],
    guide: Callable[..., object],
    batch: Batch,
    known: bool = True,
) -> int:
    """The number of dimensions that the plates of both programs take: see :func:`measured_depth`.

    Args:
        known: whether to return the number of an earlier run, if there was one.
    """
    programs = inspect.unwrap(model), inspect.unwrap(guide)
    found = known_depth(programs) if known else None
    run = partial(_run, model, guide, batch, 1, False, None)
    return found or keep_depth(programs, measured_depth(programs, run))


def check_traces(guide_trace: poutine.Trace, model_trace: poutine.Trace) -> None:
    """Check the sites of a guide and its model, run on the same draws.

    Raises:
        ValueError: for sites that only one of them has, for sites with dimensions that belong to no
            plate, and, where gradients are computed, for sites whose gradients are biased.
    """
    of_guide = dict(sample_sites(guide_trace))
    problems = unmatched(dict(sample_sites(model_trace)), of_guide)
    if torch.is_grad_enabled():
        problems += [problem for name, site in of_guide.items() for problem in bias(name, site)]
    if problems:
        raise ValueError(f"Expected a guide that fits its model but {'; '.join(problems)}.")
    check_dimensions(guide_trace, model_trace)


def _run(
    model: Callable[..., object],
    guide: Callable[..., object],
    batch: Batch,
    particles: int,
    means: bool,
    depth: int | None,
) -> tuple[poutine.Trace, poutine.Trace]:
    """The traces of guide and model; nothing is enumerated if ``depth`` is None."""
    vectorised = particles > 1

    def run(program: Callable[..., object], context: Context) -> poutine.Trace:
        program = Means()(program) if means else program
        if vectorised:
            program = pyro.plate(PARTICLES, particles, dim=-1 - (depth or 1))(program)
        return poutine.trace(program).get_trace(batch.x, batch.size, **context)

    with ExitStack() as stack:
        stack.enter_context(running(model, guide))
        stack.enter_context(pyro.validation_enabled(False))
        if depth is not None:
            stack.enter_context(poutine.enum(first_available_dim=-1 - depth - vectorised))
            stack.enter_context(PlateLimit(depth))  # before anything is enumerated
        drawing = Unbiased()(guide)
        clamped = Clamp(batch.labels)(drawing) if batch.labels else drawing
        guide_trace = run(clamped, accepted(guide, batch.context))
        replayed = poutine.replay(model, trace=_drawn(guide_trace))
        return guide_trace, run(replayed, accepted(model, batch.context))


def _drawn(guide_trace: poutine.Trace) -> poutine.Trace:
    """The trace without observed sites, whose values the model must not take over."""
    drawn = guide_trace.copy()
    for name, site in sample_sites(guide_trace):
        if site["is_observed"]:
            drawn.remove_node(name)
    return drawn


def check_pair(
    model: nn.Module, guide: nn.Module, x: Tensor | None = None, context: Context | None = None
) -> None:
    """Check that a guide fits its model; if not, the error explains why in one line.

    Both are traced on the first two rows of ``x``, or on two rows drawn from the model if ``x`` is
    None, and on the first two rows of the ``context``.

    Raises:
        ValueError: for sites that only one of them has, or whose shapes or supports differ, or that
            have no gradient estimator, and for networks of the wrong sizes.
    """
    check_context(context or {}, None if x is None else len(x), model, guide)
    few = {name: value[:2] for name, value in (context or {}).items()}
    batch = in_precision(model, Batch(torch.empty(0) if x is None else x[:2], context=few))
    with without_side_effects(model, guide):
        of_model, of_guide = accepted(model, batch.context), accepted(guide, batch.context)
        two = _attempt(model, "size=2", lambda: poutine.trace(model).get_trace(size=2, **of_model))
        _check_event(site_of(two, "x"))
        rows: Tensor = site_of(two, "x")["value"] if x is None else batch.x
        where = f"rows {tuple(rows.shape[1:])}, which {type(model).__name__} draws"
        drawing = poutine.trace(Unbiased()(guide))
        observed = _attempt(model, where, lambda: poutine.trace(model).get_trace(rows, **of_model))
        trace = _attempt(guide, where, lambda: drawing.get_trace(rows, **of_guide))
        _check_amortised(guide)
        problems = list(_problems(dict(sample_sites(observed)), dict(sample_sites(trace))))
        if problems:
            pair = f"{type(guide).__name__} does not fit {type(model).__name__}: "
            raise ValueError(pair + "; ".join(problems) + ".")
        depth = plate_depth(model, guide, replace(batch, x=rows))
        with poutine.enum(first_available_dim=-1 - depth):
            enumerated = _attempt(guide, where, lambda: drawing.get_trace(rows, **of_guide))
            replayed = poutine.trace(poutine.replay(model, trace=_drawn(enumerated)))
            replay = _attempt(
                model, "the guide's draws", lambda: replayed.get_trace(rows, **of_model)
            )
        check_traces(enumerated, replay)
        marginal_sites(enumerated, replay)


def _check_event(site: Site) -> None:
    plates = plates_of(site)
    # If the plate of rows is elsewhere, check_dimensions explains it.
    if len(plates) > 1 and plates.get("data", -1) == -1:
        raise ValueError(
            f"Expected a row of site {site['name']!r} to be one event but the site is in the "
            f"plates {list(plates)}; leave it in the plate of rows alone, and make its other "
            "dimensions part of the event by to_event."
        )


def _check_amortised(guide: nn.Module) -> None:
    for part in guide.modules():
        sites = sites_of_rows(part)
        if sites:
            raise ValueError(
                f"Expected a guide that computes the parameters of each row from x but "
                f"{type(part).__name__} has its own for {sites}, in the order of the rows, and "
                "batches are random rows; use a network."
            )


@contextmanager
def without_side_effects(*modules: nn.Module) -> Iterator[None]:
    """Restore random state, modes, parameters, buffers and settings after ``with``."""
    parameters = [p for module in modules for p in module.parameters()]
    device = parameters[0].device if parameters else torch.device("cpu")
    with (
        evaluating(*modules),
        keeping_state(*modules),
        torch.no_grad(),
        Stream(0, device),
        pyro.validation_enabled(False),
    ):
        yield


def _attempt(program: nn.Module, on: str, run: Callable[[], Result]) -> Result:
    try:
        return run()
    except (RuntimeError, TypeError, IndexError, AttributeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{type(program).__name__} cannot run on {on}: {reason}") from error


def _problems(of_model: Mapping[str, Site], of_guide: Mapping[str, Site]) -> Iterator[str]:
    yield from unmatched(of_model, of_guide)
    for name, site in of_model.items():
        if name in of_guide and not site["is_observed"] and not of_guide[name]["is_observed"]:
            yield from _differences(name, site, of_guide[name])


def _differences(name: str, model_site: Site, guide_site: Site) -> Iterator[str]:
    sites = (model_site, guide_site)
    shapes = [tuple(site["value"].shape) for site in sites]
    supports = [describe(site["fn"]) for site in sites]
    if shapes[0] != shapes[1]:
        yield f"site {name!r} of 2 rows is {shapes[0]} in the model, {shapes[1]} in the guide"
    elif isinstance(guide_site["fn"], dist.Delta):  # a point, of a discrete site too
        if not model_site["fn"].support.check(guide_site["value"]).all():
            yield f"site {name!r} is a point outside its support, {supports[0]}, in the guide"
    elif not same_support(*(site[part] for part in ("fn", "value") for site in sites)):
        yield f"site {name!r} has support {supports[0]} in the model, {supports[1]} in the guide"
    yield from bias(name, guide_site)
    yield from missing_gradient(name, guide_site)
