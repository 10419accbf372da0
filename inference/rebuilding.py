"""Comparing a pair with a new one that its constructors build from the saved configuration."""

from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from priorzoo.inference.batch import Batch
from priorzoo.inference.failures import FAILURES
from priorzoo.inference.pairs import run_pair, without_side_effects
from priorzoo.inference.prediction import draw
from priorzoo.inference.sites import log_prob, sample_sites
from priorzoo.models.contract import needed

Pair = tuple[nn.Module, nn.Module]
WRAPPED = "_orig_mod."  # where torch.compile keeps the module
CHANGED = "Expected a pair as its constructors build it"
REMEDY = (
    "an attribute, a hook or a function was changed after construction, or a class defined again: "
    "make the change in the constructor of a class of your own."
)


def without_compilation(module: nn.Module) -> nn.Module:
    """The module that ``torch.compile`` has wrapped, or the module itself."""
    inner = getattr(module, WRAPPED[:-1], None)
    return inner if isinstance(inner, nn.Module) else module


def plain_state(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers by their names without compilation."""
    state = module.state_dict(keep_vars=True)
    return {name.replace(WRAPPED, ""): tensor for name, tensor in state.items()}


def check_names(pair: nn.Module, rebuilt: nn.Module) -> None:
    """Check that two pairs have parameters and buffers of the same names, shapes and sharing.

    Raises:
        ValueError: if they differ, or if lazy modules of the first have no parameters yet.
    """
    state, other = plain_state(pair), plain_state(rebuilt)
    empty = [name for name, tensor in state.items() if is_lazy(tensor)]
    if empty:
        raise ValueError(
            f"Expected parameters to save but {empty} have no shape yet; lazy modules create them "
            "in the first call: train the pair, or run it once."
        )
    problems: dict[str, Collection[object]] = {
        "were added": [name for name in state if name not in other],
        "were removed": [name for name in other if name not in state],
        "have a different shape": [
            n for n in state if n in other and not _fits(state[n], other[n])
        ],
        "share a tensor in one of the pairs only": _shared(state) ^ _shared(other),
    }
    for what, names in problems.items():
        listed = sorted(map(str, names))
        if listed:
            raise ValueError(
                f"{CHANGED} but {listed} {what}: a module was changed after its "
                "construction, for example by weight_norm, an added layer or tied weights; make "
                "the change in the constructor of a class of your own."
            )


def check_outputs(pair: Pair, rebuilt: Pair) -> None:
    """Check that two pairs with the same parameters compute the same values on two rows.

    The rows are drawn from the model. Pairs that need context, or whose values differ between two
    runs with the same seed, are not compared.

    Raises:
        ValueError: if they differ, with the name of a site.
    """
    if needed(pair[0]) | needed(pair[1]):
        return
    device = next((p.device for part in pair for p in part.parameters()), torch.device("cpu"))
    try:
        with without_side_effects(*pair):
            x = draw(pair[0], 2, means=False)
        expected, twice = _outputs(*pair, x), _outputs(*pair, x)
    except FAILURES:
        return  # nothing to compare with
    if _difference(expected, twice):
        return
    places = [next((p.device for p in part.parameters()), device) for part in rebuilt]
    try:
        found = _outputs(rebuilt[0].to(device), rebuilt[1].to(device), x)
    except FAILURES as error:
        raise ValueError(f"{CHANGED} but one built again cannot run: {error}; {REMEDY}") from error
    finally:
        for part, place in zip(rebuilt, places, strict=True):
            part.to(place)
    name = _difference(expected, found)
    if name:
        raise ValueError(f"{CHANGED} but {name} differs when it is built again; {REMEDY}")


def _outputs(model: nn.Module, guide: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Values and log densities of all sites."""
    found: dict[str, Tensor] = {}
    with without_side_effects(model, guide):
        traces = run_pair(model, guide, Batch(x))
        for whose, trace in zip(("guide", "model"), traces, strict=True):
            for name, site in sample_sites(trace):
                found[f"the value of site {name!r} in the {whose}"] = site["value"]
                found[f"the density of site {name!r} in the {whose}"] = log_prob(site)
    return found


def _difference(expected: dict[str, Tensor], found: dict[str, Tensor]) -> str:
    """Name of the first entry that differs by more than rounding errors; empty if there is none."""
    for name, value in expected.items():
        other = found.get(name, value.new_empty(0, 0))
        if value.shape != other.shape:
            return name
        if not torch.allclose(value.double(), other.double(), 1e-3, 1e-4, equal_nan=True):
            return name
    return "" if expected.keys() == found.keys() else "the list of sites"


def _fits(tensor: Tensor, other: Tensor) -> bool:
    return is_lazy(other) or tensor.shape == other.shape


def _shared(state: dict[str, Tensor]) -> set[tuple[str, ...]]:
    """Groups of names that share one tensor."""
    names: dict[int, list[str]] = {}
    for name, tensor in state.items():
        names.setdefault(id(tensor), []).append(name)
    return {tuple(each) for each in names.values() if len(each) > 1}
