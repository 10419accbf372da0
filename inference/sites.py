"""Sites of a program's trace: functions that find and classify them, handlers that change them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions.util import broadcast_shape
from torch import Tensor, nn

from priorzoo.inference.batch import Labels
from priorzoo.inference.running import PROGRAM_LOCK, running
from priorzoo.models.distributions.log_space import log_density
from priorzoo.models.pyro_internals import AnyMessage, Messenger, site_is_subsample

Site = dict[str, Any]  # a Pyro message; its fields depend on its type
PARTICLES = "particles"  # name of the plate over particles


class Means(Messenger):
    """Sets every latent site that is neither enumerated nor discrete to its mean."""

    def _pyro_sample(self, msg: AnyMessage) -> None:
        site = cast(Site, msg)
        if site["done"] or site["is_observed"] or site_is_subsample(msg):
            return
        scored = is_scored(site) and not site["fn"].support.is_discrete
        if site["fn"].has_rsample or scored:
            site["value"] = _mean(site)
            site["done"] = True


def _mean(site: Site) -> Tensor:
    try:
        mean: Tensor = site["fn"].mean
    except NotImplementedError as error:
        kind = type(getattr(site["fn"], "base_dist", site["fn"])).__name__
        raise ValueError(
            f"Expected a distribution with a mean at site {site['name']!r} but got {kind}; define "
            "its property mean."
        ) from error
    return mean


class Clamp(Messenger):
    """Sets discrete sites to their labels if these are known; -1 stands for unknown.

    The distribution before is kept in the site's ``infer["free"]``.
    """

    def __init__(self, labels: Labels) -> None:
        super().__init__()
        self.labels = labels

    def _pyro_sample(self, msg: AnyMessage) -> None:
        site = cast(Site, msg)
        if site["name"] not in self.labels or site["done"] or site["is_observed"]:
            return
        free, label = site["fn"], self.labels[site["name"]].unsqueeze(-1)
        choices = torch.arange(free.logits.shape[-1], device=label.device)
        certain = torch.zeros_like(free.logits).masked_fill(label != choices, -torch.inf)
        site["fn"] = dist.Categorical(logits=torch.where(label < 0, free.logits, certain))
        site["infer"] = {**site["infer"], "free": free}


def sample_sites(trace: poutine.Trace) -> Iterator[tuple[str, Site]]:
    """Names and sites of the random variables in a trace, without plates and deterministic sites.

    Factors are among them, as observed sites.
    """
    for name, node in trace.nodes.items():
        site = cast(Site, node)
        drawn = site["type"] == "sample" and not site_is_subsample(node)
        if drawn and not site["infer"].get("_deterministic"):
            yield name, site


def latent_sites(trace: poutine.Trace) -> dict[str, Site]:
    """The unobserved random variables of a trace."""
    return {name: site for name, site in sample_sites(trace) if not site["is_observed"]}


def site_of(trace: poutine.Trace, name: str) -> Site:
    """The site of this name, which must be in the trace."""
    return cast(Site, trace.nodes[name])


def is_enumerated(site: Site) -> bool:
    """Whether the site is enumerated: all its values are along a dimension of its own."""
    return site["infer"].get("_enumerate_dim") is not None


def is_marked(site: Site) -> bool:
    """Whether the program marks the site to be enumerated."""
    return bool(site["infer"].get("enumerate") == "parallel")


def is_local(site: Site) -> bool:
    """Whether the site has one value for each datum, and not one for the whole data set."""
    return any(frame.name == "data" for frame in site["cond_indep_stack"])


def is_auxiliary(site: Site) -> bool:
    """Whether the guide declares that the site is a variable of its own, not of the model."""
    return bool(site["infer"].get("is_auxiliary"))


def plates_of(site: Site) -> dict[str, int]:
    """The dimensions of the plates around a site by name, particles included."""
    frames = site["cond_indep_stack"]
    return {frame.name: frame.dim for frame in frames if frame.dim is not None}


def shape_of(site: Site) -> torch.Size:
    """The shape of the log probability of a site, with its scale and mask."""
    value: torch.Size = site["value"].shape
    found = [site["fn"].batch_shape, value[: len(value) - site["fn"].event_dim]]
    found += [part.shape for part in (site["scale"], site["mask"]) if isinstance(part, Tensor)]
    # torch.broadcast_shapes imports sympy, which takes a third of a second.
    return torch.Size(broadcast_shape(*found))


def rows_of(site: Site, value: Tensor) -> Tensor:
    """A value of a site in plate ``data``, ``(B, ...)``, without dimensions of 1 to the left.

    Programs that add up a plate of their own with ``keepdim`` leave such dimensions.
    """
    kept = 1 + len(site["fn"].event_shape)
    while value.dim() > kept and len(value) == 1:
        value = value.squeeze(0)
    return value


def is_scored(site: Site) -> bool:
    """Whether the site's gradient estimator uses, at least in part, the score of its draw."""
    return bool(getattr(site["fn"], "scored", False))


def log_prob(site: Site) -> Tensor:
    """Log density of the site at its value, unscaled, in its batch shape; see `log_density`.

    For sites of :func:`marginal_sites` it is the density with auxiliary sites summed out.
    """
    if "marginal" in site:
        return cast(Tensor, site["marginal"])
    with PROGRAM_LOCK, pyro.validation_enabled(False), _unchecked(site["fn"]):
        return log_density(site["fn"], site["value"])


@contextmanager
def _unchecked(fn: object) -> Iterator[None]:
    """Without checks of values, which would synchronise with the device.

    A distribution made before the program was run, such as the prior of a ``PyroSample``, may have
    the checks of that time.
    """
    parts = [fn]
    for part in parts:  # grows: the distributions within distributions
        parts += [v for v in vars(part).values() if isinstance(v, torch.distributions.Distribution)]
    checked = [part for part in parts if vars(part).get("_validate_args")]
    for part in checked:
        vars(part)["_validate_args"] = False
    try:
        yield
    finally:
        for part in checked:
            vars(part)["_validate_args"] = True


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Put modules in evaluation mode inside ``with``, and restore their modes afterwards."""
    with running(*modules):
        modes = [(part, part.training) for module in modules for part in module.modules()]
        for part, _ in modes:
            part.training = False
        try:
            yield
        finally:
            for part, mode in modes:
                part.training = mode
