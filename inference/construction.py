"""Describing modules as JSON values, and constructing them again from these."""

import importlib
import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pyro.infer.autoguide import AutoGuide
from torch import nn
from torch.nn.utils.parametrize import type_before_parametrizations

from priorzoo.inference.annotations import schema_of
from priorzoo.inference.failures import one_line
from priorzoo.inference.rebuilding import without_compilation
from priorzoo.inference.schema import Either, Many, Map, Plain, Record, Text, check
from priorzoo.inference.trust import KNOWN, OWN, PATH, is_within

DEFINED = (*OWN, "torch.nn.modules")  # where the classes are that a configuration may name
DAMAGED = "damaged; train the run again"
CLASS = {"class_path": Text(500)}
ENTRY = Either(
    (
        Record({"same_as": Text(10_000)}, others=None),
        Record(CLASS | {"init_args": Map(Plain())}, others=None),
        Record(CLASS | {"children": Many(Record({}))}, others=None),
    )
)


def describe(module: nn.Module, place: str, seen: dict[int, str]) -> dict[str, Any]:
    """Class path and constructor arguments of a module as JSON values.

    Args:
        module: the module to describe.
        place: its name from the root, such as ``guide.encoder``.
        seen: names of the modules already described, by identity; a module that occurs again is
            written as a reference to the first.
    """
    module = without_compilation(module)
    if isinstance(module, AutoGuide):
        raise ValueError(
            f"Expected a guide whose class can construct it again but {place} is an automatic "
            f"{type(module).__name__}, made of a function; save its state_dict() yourself, or "
            "write the guide as a module."
        )
    if id(module) in seen:
        return {"same_as": seen[id(module)]}
    seen[id(module)] = place
    kind = type_before_parametrizations(module)
    entry: dict[str, Any] = {"class_path": f"{kind.__module__}.{kind.__qualname__}"}
    _check_class(kind, entry["class_path"], place)
    if kind in (nn.Sequential, nn.ModuleList):
        parts = module.named_children()
        return entry | {"children": [describe(part, f"{place}.{i}", seen) for i, part in parts]}
    arguments: dict[str, Any] = {}
    torchs = kind.__module__.startswith("torch.nn.")
    for name, parameter in inspect.signature(kind).parameters.items():
        if torchs and name in ("device", "dtype", "_weight"):
            continue
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if not hasattr(module, name):
            raise ValueError(
                f"Expected {kind.__name__} to keep its argument {name!r} as an attribute of that "
                f"name, so that it can be saved; add self.{name} = {name} to its constructor."
            )
        value = getattr(module, name)
        if torchs and isinstance(value, nn.Parameter):  # such as bias=True, kept as a parameter
            value = True
        arguments[name] = _plain(value, f"{place}.{name}", seen)
    return entry | {"init_args": arguments}


def build(entry: Mapping[str, Any], place: str, seen: dict[str, nn.Module]) -> nn.Module:
    """Construct a module from its :func:`describe` entry, with newly initialised parameters.

    Raises:
        ValueError: for an entry that is damaged, and for a class that has changed.
    """
    check(ENTRY, entry, place, "the configuration", DAMAGED)
    if "same_as" in entry:
        if entry["same_as"] not in seen:
            raise ValueError(
                f"Expected a module before {place} but there is no {entry['same_as']!r:.60}: the "
                f"configuration is {DAMAGED}."
            )
        return seen[entry["same_as"]]
    kind = locate(entry["class_path"])
    if is_within(entry["class_path"], KNOWN) and not is_within(f"{kind.__module__}.", DEFINED):
        raise ValueError(
            f"Expected a class of its own at {entry['class_path']!r} but got {kind!r}; name the "
            "module that defines it."
        )
    return _constructed(kind, entry, place, seen)


def _constructed(
    kind: type[Any], entry: Mapping[str, Any], place: str, seen: dict[str, nn.Module]
) -> nn.Module:
    parts: list[nn.Module] = []
    arguments: dict[str, Any] = {}
    if "children" in entry:
        parts = [build(part, f"{place}.{i}", seen) for i, part in enumerate(entry["children"])]
    else:
        if is_within(f"{kind.__module__}.", OWN):
            check(schema_of(kind), entry["init_args"], place, "the configuration", DAMAGED)
        arguments = {
            name: _revive(value, f"{place}.{name}", seen)
            for name, value in entry["init_args"].items()
        }
    try:
        module = kind(parts) if kind is nn.ModuleList else kind(*parts, **arguments)
    except Exception as error:  # of any type, from constructors
        said = one_line(error)
        raise ValueError(
            f"Expected {entry['class_path']} as it was saved but it has changed: {said:.300}"
        ) from error
    seen[place] = module
    return module


def locate(class_path: str, family: type = nn.Module) -> type[Any]:
    """The class at an import path such as ``package.file.Class``, a subclass of ``family``."""
    kind = _imported(class_path, "class")
    if not (isinstance(kind, type) and issubclass(kind, family)):
        raise ValueError(f"Expected a {family.__name__} at {class_path!r} but got {kind!r}.")
    return kind


def locate_function(path: str) -> Callable[..., Any]:
    """The function at an import path such as ``package.file.function``."""
    found = _imported(path, "function")
    if not callable(found):
        raise ValueError(f"Expected a function at {path!r} but got {found!r}.")
    function: Callable[..., Any] = found
    return function


def _imported(path: str, what: str) -> object:
    home, _, name = path.rpartition(".")
    try:
        if not PATH.fullmatch(path):  # of other names, the importer would import the beginning
            raise ImportError("it is no import path")
        return getattr(importlib.import_module(home), name)
    except (ImportError, AttributeError, ValueError) as error:
        script = "; run the script or notebook cell that defines it first, or move it to a module"
        raise ValueError(
            f"Expected a {what} at {path!r} but it cannot be imported: {error}"
            f"{script if home == '__main__' else ''}"
        ) from error


def _plain(value: object, place: str, seen: dict[int, str]) -> object:
    if isinstance(value, nn.Module):
        return describe(value, place, seen)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(v, f"{place}.{i}", seen) for i, v in enumerate(value)]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ValueError(
        f"Expected a module or a plain value at {place} but got a {type(value).__name__}; pass "
        "numbers, strings or lists to the constructor, and create other objects inside it."
    )


def _revive(value: object, place: str, seen: dict[str, nn.Module]) -> object:
    if isinstance(value, dict):
        return build(value, place, seen)
    if isinstance(value, list):
        return [_revive(part, f"{place}.{i}", seen) for i, part in enumerate(value)]
    return value


def _check_class(kind: type, class_path: str, place: str) -> None:
    """Check that a class can be imported; warn if it may be another one when it is loaded."""
    try:
        found = locate(class_path)
    except ValueError as error:
        raise ValueError(
            f"Expected the class of {place} at {class_path} but it is not there; define it at the "
            "top level of a Python module."
        ) from error
    if found is not kind:
        warnings.warn(
            f"Expected the present class at {class_path} but {place} is of one that was defined "
            "before; it is saved, and will be loaded as the present one.",
            stacklevel=5,
        )
    if kind.__module__ == "__main__":
        warnings.warn(
            f"Expected the class of {place} in a module but {class_path} is in a script or "
            "notebook; before load, define it there too, or move it to a module now.",
            stacklevel=5,
        )
