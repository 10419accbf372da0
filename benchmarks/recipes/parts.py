"""The classes and functions that a recipe names: where they are found, and what they take."""

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from types import ModuleType
from typing import get_args

import torch
from torch import nn

from priorzoo import guides, inference, models
from priorzoo.benchmarks.data.sets import nearest
from priorzoo.benchmarks.recipes import building
from priorzoo.benchmarks.recipes.recipe import Recipe
from priorzoo.inference import Objective, Penalty
from priorzoo.inference.construction import locate, locate_function
from priorzoo.inference.trust import KNOWN, OWN, is_within

# Where the short name of a class or function is looked up, and of which class it must be.
NETWORKS = ((models,), nn.Module)
FUNCTIONS = ((inference,), None)
SHELVES: Mapping[str, tuple[tuple[ModuleType, ...], type | None]] = {
    "guide": ((guides,), nn.Module),
    "objective": ((inference,), Objective),
    "penalties": ((inference,), Penalty),
    "optimiser": ((inference, torch.optim), torch.optim.Optimizer),
    "schedule": ((torch.optim.lr_scheduler,), torch.optim.lr_scheduler.LRScheduler),
    "begin": FUNCTIONS,
    "moves": FUNCTIONS,
}


def option(place: str) -> str:
    """A setting as an option of the command line.

    >>> option("batch_size"), option("model.learn_weights")
    ('--batch-size', '--model.learn-weights')
    """
    return f"--{place.replace('_', '-')}"


def arguments(recipe: Recipe, place: str) -> dict[str, inspect.Parameter]:
    """The arguments of a part that may be chosen: all but those that the builder fills in."""
    left_out = filled(recipe, place)
    found = parameters(find(getattr(recipe, place).class_path, place))
    return {name: one for name, one in found.items() if name not in left_out}


def filled(recipe: Recipe, place: str) -> set[str]:
    """The arguments of a part that are filled in when the recipe is built."""
    names = list(parameters(find(getattr(recipe, place).class_path, place)))
    if place in ("optimiser", "schedule"):
        return set(names[:1])
    if place == "objective":
        return {"model", "guide", *(item.name for item in fields(Recipe))}.intersection(names)
    if place == "likelihood":
        return {"rows"}.intersection(names)
    if place in ("encoder", "decoder"):
        return set(building.OF_NETWORKS).intersection(names)
    if place not in ("model", "guide"):
        return set()
    kinds = [locate(getattr(recipe, each).class_path) for each in ("model", "guide")]
    return building.filled(kinds[0]) if place == "model" else building.filled(kinds[1], kinds[0])


def parameters(kind: Callable[..., object]) -> dict[str, inspect.Parameter]:
    """What a class or function takes by name, with annotations as types."""
    try:
        found = inspect.signature(kind, eval_str=True).parameters
    except NameError:  # of a type that is imported for the type checker alone
        found = inspect.signature(kind).parameters
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {name: one for name, one in found.items() if one.kind not in variable}


def find(name: str, place: str) -> Callable[..., object]:
    """The class or function of an import path or of a public name of the floor it belongs to.

    Raises:
        ValueError: for an unknown name, with the nearest one, or a class of another kind.
    """
    if "." in name:
        family = _shelf(place)[1]
        return _function(name) if family is None else locate(name, family)
    known = public(place)
    if name not in known:
        raise ValueError(unknown_name(f"class for {option(place)}", name, known))
    return known[name]


def _function(path: str) -> Callable[..., object]:
    """A function of the user's, or one of the zoo that works on a pair and rows under a seed.

    Raises:
        ValueError: for another function of priorzoo or torch.
    """
    found = locate_function(path)
    if is_within(path, KNOWN):
        if not (inspect.isfunction(found) and is_within(f"{found.__module__}.", OWN)):
            raise ValueError(f"Expected a function of priorzoo at {path!r} but got {found!r:.100}.")
        taken = list(inspect.signature(found).parameters)
        if taken[:2] != ["model", "guide"] or "seed" not in taken:
            raise ValueError(
                f"Expected a function of model, guide, rows and seed at {path!r} but it takes "
                f"{', '.join(taken)}; choose another."
            )
    return found


def public(place: str) -> dict[str, Callable[..., object]]:
    """The classes or functions that may stand at an option, by their public names."""
    floors, family = _shelf(place)
    return {
        name: kind
        for floor in floors
        for name, kind in vars(floor).items()
        if name[0] != "_"
        and (inspect.isfunction(kind) if family is None else is_kind(kind, family))
    }


def _shelf(place: str) -> tuple[tuple[ModuleType, ...], type | None]:
    first, _, within = place.partition(".")
    if within and first not in ("penalties", "moves", "stages"):
        return NETWORKS  # an argument
    return SHELVES.get(place.rpartition(".")[2] if first == "stages" else first, NETWORKS)


def unknown_name(what: str, name: str, known: Sequence[str] | Mapping[str, object]) -> str:
    """One line that says a name is unknown, and which is nearest or which there are."""
    return f"Unknown {what} {name!r}; {nearest(name, known)}"


def named(hint: object) -> str:
    """A type as a message says it.

    >>> from typing import Literal
    >>> named(int | None), named(Literal["a", "b"])
    ('int or None', "one of 'a', 'b'")
    """
    if isinstance(hint, type) and not get_args(hint):
        return hint.__name__
    text = re.sub(r"\b(?:[A-Za-z_]\w*\.)+", "", str(hint))
    text = re.sub(r"Literal\[(.*?)\]", r"one of \1", text)
    text = re.sub(r"Optional\[(.*)\]", r"\1 | None", text)
    return text.replace(" | ", " or ")


def is_kind(kind: object, family: type) -> bool:
    """Whether something is a class of a family."""
    return isinstance(kind, type) and issubclass(kind, family)
