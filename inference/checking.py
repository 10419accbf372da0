"""Checking that a guide fits its model, with an error that says in one line why it does not."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TypeVar

import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor, nn

from priorzoo.inference.auxiliary import marginal_sites, unmatched
from priorzoo.inference.batch import Batch, Context, in_precision
from priorzoo.inference.failures import FAILURES, first_line
from priorzoo.inference.gradients import Unbiased, bias, missing_gradient, unlisted
from priorzoo.inference.pairs import (
    check_traces,
    plate_depth,
    without_observed,
    without_side_effects,
)
from priorzoo.inference.sites import Site, plates_of, rows_of, sample_sites, site_of
from priorzoo.inference.supports import describe, same_support
from priorzoo.models.contract import accepted, check_context
from priorzoo.models.pyro_internals import sites_of_rows

Result = TypeVar("Result")


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
        rows = rows_of(site_of(two, "x"), site_of(two, "x")["value"]) if x is None else batch.x
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
            replayed = poutine.trace(poutine.replay(model, trace=without_observed(enumerated)))
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


def _attempt(program: nn.Module, on: str, run: Callable[[], Result]) -> Result:
    try:
        return run()
    except FAILURES as error:
        name = type(program).__name__
        raise ValueError(f"{name} cannot run on {on}: {first_line(error)}") from error


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
    for problems in (unlisted, bias, missing_gradient):
        yield from problems(name, guide_site)
