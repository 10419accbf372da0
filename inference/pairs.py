"""A model beside its guide: running both on the same draws, and finding out why they do not fit."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn

from priorzoo.inference.randomness import Stream

Transform = Callable[[Tensor], Tensor]
Labels = Mapping[str, Tensor]
Site = Any  # one of Pyro's messages, whose fields depend on their type


class Means(Messenger):
    """Puts every latent site that is neither enumerated nor discrete at its mean."""

    def _pyro_sample(self, msg: Site) -> None:
        if msg["done"] or msg["is_observed"] or site_is_subsample(msg):
            return
        scored = is_scored(msg) and not msg["fn"].support.is_discrete
        if msg["fn"].has_rsample or scored:
            msg["value"] = msg["fn"].mean
            msg["done"] = True


class Clamp(Messenger):
    """Puts discrete sites at their labels where these are known; -1 stands for unknown.

    What the site was before is kept in its ``infer["free"]``.
    """

    def __init__(self, labels: Labels) -> None:
        super().__init__()
        self.labels = labels

    def _pyro_sample(self, msg: Site) -> None:
        if msg["name"] not in self.labels or msg["done"] or msg["is_observed"]:
            return
        free, label = msg["fn"], self.labels[msg["name"]].unsqueeze(-1)
        choices = torch.arange(free.logits.shape[-1], device=label.device)
        certain = torch.zeros_like(free.logits).masked_fill(label != choices, -torch.inf)
        msg["fn"] = dist.Categorical(logits=torch.where(label < 0, free.logits, certain))
        msg["infer"] = {**msg["infer"], "free": free}


class Guessed(Messenger):
    """Keeps the sites of the first program that runs inside, the guide."""

    def __init__(self) -> None:
        super().__init__()
        self.sites: dict[str, Site] = {}

    def _pyro_post_sample(self, msg: Site) -> None:
        self.sites.setdefault(msg["name"], msg)


def run_pair(
    model: nn.Module,
    guide: nn.Module,
    x: Tensor,
    size: int | None = None,
    *,
    particles: int = 1,
    means: bool = False,
    labels: Labels | None = None,
) -> tuple[poutine.Trace, poutine.Trace]:
    """Trace the guide, and the model replayed on its draws, without host synchronisation.

    Sites that the guide marks ``infer={"enumerate": "parallel"}`` take all their values, along a
    dimension of their own to the left of the plates: -2 for the first, or -3 below ``particles``.

    Args:
        x: rows ``(B, P)``.
        size: number N of data that the rows stand for; None for B.
        particles: number S of draws; above 1 they lie along dim -2.
        means: put reparameterised sites at their means instead of drawing them.
        labels: values ``(B,)`` of discrete sites where they are known, and -1 where not.
    """
    vectorised = particles > 1
    with pyro.validation_enabled(False), poutine.enum(first_available_dim=-2 - vectorised):

        def run(program: Any) -> poutine.Trace:
            program = Means()(program) if means else program
            if vectorised:
                program = pyro.plate("particles", particles, dim=-2)(program)
            return poutine.trace(program).get_trace(x, size)

        drawn = run(Clamp(labels)(guide) if labels else guide)
        return drawn, run(poutine.replay(model, trace=drawn))


def sample_sites(trace: poutine.Trace) -> Iterator[tuple[str, Site]]:
    """Names and sites of the random variables in a trace, plates left out."""
    for name in trace.nodes:
        site: Site = trace.nodes[name]
        if site["type"] == "sample" and not site_is_subsample(site):
            yield name, site


def latent_sites(trace: poutine.Trace) -> dict[str, Site]:
    """The unobserved random variables of a trace."""
    return {name: site for name, site in sample_sites(trace) if not site["is_observed"]}


def site_of(trace: poutine.Trace, name: str) -> Site:
    """The site of a name, which the trace must have."""
    return trace.nodes[name]


def is_enumerated(site: Site) -> bool:
    """Whether the site takes all its values, each along a dimension of its own."""
    return site["infer"].get("_enumerate_dim") is not None


def is_local(site: Site) -> bool:
    """Whether the site has one value for each datum, and not one for the whole data set."""
    return any(frame.name == "data" for frame in site["cond_indep_stack"])


def is_scored(site: Site) -> bool:
    """Whether the site's gradient goes, at least in part, through the score of its draw."""
    return bool(getattr(site["fn"], "scored", False))


def check_pair(model: nn.Module, guide: nn.Module, x: Tensor | None = None) -> None:
    """Explain in one line why this guide cannot serve this model, or do nothing.

    Both are traced on two rows, which are drawn from the model if ``x`` is None.

    Raises:
        ValueError: for sites that only one of them has, or whose shapes or supports differ, or that
            are neither enumerated nor reparameterised, and for networks that do not fit.
    """
    with _trying(model, guide):
        told = _attempt(model, "size=2", lambda: poutine.trace(model).get_trace(size=2))
        rows: Tensor = site_of(told, "x")["value"] if x is None else x[:2]
        where = f"rows {tuple(rows.shape[1:])}, which {type(model).__name__} draws"
        drawn = _attempt(guide, where, lambda: poutine.trace(guide).get_trace(rows))
        stories = {name: site for name, site in sample_sites(told) if name != "x"}
        problems = list(_problems(stories, latent_sites(drawn)))
        if problems:
            pair = f"{type(guide).__name__} does not fit {type(model).__name__}: "
            raise ValueError(pair + "; ".join(problems) + ".")
        with poutine.enum(first_available_dim=-2):
            every = _attempt(guide, where, lambda: poutine.trace(guide).get_trace(rows))
            replayed = poutine.replay(model, trace=every)
            _attempt(model, "the guide's draws", lambda: replayed(rows))


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Inside ``with``, modules are in evaluation mode; outside, as they were."""
    modes = [(part, part.training) for module in modules for part in module.modules()]
    for part, _ in modes:
        part.training = False
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


@contextmanager
def _trying(*modules: nn.Module) -> Iterator[None]:
    """Run programs without leaving a trace in random state, networks or settings."""
    numbers = [p for module in modules for p in module.parameters()]
    device = numbers[0].device if numbers else torch.device("cpu")
    with evaluating(*modules), torch.no_grad(), Stream(0, device), pyro.validation_enabled(False):
        yield


def _attempt(program: nn.Module, on: str, run: Callable[[], Any]) -> Any:
    try:
        return run()
    except (RuntimeError, TypeError, IndexError, AttributeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{type(program).__name__} cannot run on {on}: {reason}") from error


def _problems(stories: dict[str, Site], guesses: dict[str, Site]) -> Iterator[str]:
    yield from _one_sided(stories, guesses)
    for name in stories:
        if name in guesses:
            yield from _differences(name, stories[name], guesses[name])


def _one_sided(stories: dict[str, Site], guesses: dict[str, Site]) -> Iterator[str]:
    factors = {name for name, site in stories.items() if site["is_observed"]}
    missing = [name for name in stories if name not in guesses and name not in factors]
    extra = [
        name
        for name, site in guesses.items()
        if name not in stories and not site["infer"].get("is_auxiliary")
    ]
    if missing:
        yield f"the guide lacks the latent sites {missing}"
    if extra:
        yield f"the model lacks the guide's sites {extra}"


def _differences(name: str, told: Site, guessed: Site) -> Iterator[str]:
    shapes = [tuple(site["value"].shape) for site in (told, guessed)]
    supports = [_support(site) for site in (told, guessed)]
    if shapes[0] != shapes[1]:
        yield f"site {name!r} of 2 rows is {shapes[0]} in the model, {shapes[1]} in the guide"
    if supports[0] != supports[1]:
        yield f"site {name!r} has support {supports[0]} in the model, {supports[1]} in the guide"
    enumerated = guessed["infer"].get("enumerate") == "parallel"
    if not enumerated and not guessed["fn"].has_rsample and not is_scored(guessed):
        yield f"the guide neither enumerates nor reparameterises site {name!r}"


def _support(site: Site) -> str:
    fn = site["fn"]
    if fn.has_enumerate_support:
        return f"{len(fn.enumerate_support(expand=False))} values"
    return str(fn.support)


def check_data(
    model: nn.Module, x: Tensor, name: str = "x", transform: Transform | None = None
) -> None:
    """Refuse rows that the model cannot score.

    Args:
        x: rows ``(N, P)``.
        name: what the message calls them.
        transform: what each batch goes through first. The rows themselves are checked where it is
            ``torch.bernoulli``, and otherwise the first of them once transformed.

    Raises:
        ValueError: for no rows, a wrong shape or type, NaN or infinity, or values outside the
            support of the likelihood.
    """
    with _trying(model):
        if transform is not None and transform is not torch.bernoulli:
            x = transform(x[:100])
        site = site_of(poutine.trace(model).get_trace(size=1), "x")
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
    """Refuse labels that no site of so many choices can take.

    Args:
        label: ``(N,)`` integers, -1 for unknown.
        name: of the site.
        choices: K.
        data: the rows they belong to.

    Raises:
        ValueError: for data that are no rows in memory, a wrong length or type, and other values.
    """
    if not isinstance(data, Tensor):
        raise ValueError("Expected rows in memory beside labels but got an iterable of batches.")
    if label.shape != (len(data),) or label.is_floating_point():
        raise ValueError(
            f"Expected integer labels of {name!r} of shape ({len(data)},), one a row, but got "
            f"{label.dtype} of shape {tuple(label.shape)}."
        )
    if label.min() < -1 or label.max() >= choices:
        raise ValueError(
            f"Expected labels of {name!r} from 0 to {choices - 1}, or -1 for unknown, but got them "
            f"from {int(label.min())} to {int(label.max())}."
        )
