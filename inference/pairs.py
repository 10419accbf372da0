"""Running a model and its guide on the same draws."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import pyro
import torch
from pyro import poutine
from torch import nn

from priorzoo.inference.auxiliary import unmatched
from priorzoo.inference.batch import Batch, Context
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
from priorzoo.inference.gradients import Unbiased, bias, unlisted
from priorzoo.inference.randomness import Stream
from priorzoo.inference.running import keeping_state, running
from priorzoo.inference.sites import (
    PARTICLES,
    Clamp,
    Means,
    evaluating,
    sample_sites,
)
from priorzoo.inference.whole_draws import on_share
from priorzoo.models.contract import accepted, check_context


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
    problems += [problem for name, site in of_guide.items() for problem in unlisted(name, site)]
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
        if batch.share is not None:
            stack.enter_context(on_share(batch.share))
        if depth is not None:
            stack.enter_context(poutine.enum(first_available_dim=-1 - depth - vectorised))
            stack.enter_context(PlateLimit(depth))  # before anything is enumerated
        drawing = Unbiased()(guide)
        clamped = Clamp(batch.labels)(drawing) if batch.labels else drawing
        guide_trace = run(clamped, accepted(guide, batch.context))
        replayed = poutine.replay(model, trace=without_observed(guide_trace))
        return guide_trace, run(replayed, accepted(model, batch.context))


def without_observed(guide_trace: poutine.Trace) -> poutine.Trace:
    """The trace without observed sites, whose values the model must not take over."""
    drawn = guide_trace.copy()
    for name, site in sample_sites(guide_trace):
        if site["is_observed"]:
            drawn.remove_node(name)
    return drawn


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
