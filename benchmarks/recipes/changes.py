"""Changes of settings as values: ``{"model.clusters": 16, "guide": "ClusterThenFlow"}``."""

import inspect
import json
from argparse import ArgumentError
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, is_dataclass, replace
from types import NoneType, UnionType
from typing import TYPE_CHECKING, TypeGuard, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml
from jsonargparse import ArgumentParser
from torch import nn

from priorzoo.benchmarks.recipes import parts
from priorzoo.benchmarks.recipes.recipe import Changes, Part, Recipe, Stage, part
from priorzoo.inference.trust import PATH

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Settings = TypeVar("Settings", bound="DataclassInstance")

PROSE = {"summary", "paper", "published"}  # of a recipe; nothing that is trained depends on them


def apply(recipe: Recipe, changes: Changes) -> Recipe:
    """The recipe with changes.

    Args:
        recipe: which is left as it is.
        changes: by dotted option, in order: a field of the recipe (``steps``), an argument of a
            part (``model.clusters``), a part by the public name or the import path of its class
            (``guide``; arguments that the new class has too are kept), an attribute of a KL policy
            (``kl.z.analytic``) or an argument of a penalty (``penalties.consistency.weight``).

    A length in steps replaces one in epochs, and the other way round. The numbers of training and
    validation rows are those of the recipe's own data; with other data they are all and none,
    unless they are given too.

    Raises:
        ValueError: in one line, for an unknown option, with the nearest one, and for a value of
            another type.
    """
    made = change(recipe, changes)
    asked = [unit for unit in ("steps", "epochs") if changes.get(unit) is not None]
    if len(asked) == 2:
        given = f"{changes['steps']} and {changes['epochs']}"
        raise ValueError(f"Expected --steps or --epochs but got both, {given}.")
    more: dict[str, object] = {"epochs" if unit == "steps" else "steps": None for unit in asked}
    if made.data != recipe.data:
        free = {"train": None, "validation": 0}
        more |= {name: value for name, value in free.items() if name not in changes}
    made = change(made, more)
    for place, chosen in _parts(made).items():
        for name in parts.filled(made, place) & chosen.init_args.keys():
            said = parts.option(f"{place}.{name}")
            raise ValueError(f"Expected no {said}, which is filled in; leave it out.")
    return made


def differences(base: Recipe, recipe: Recipe) -> dict[str, object]:
    """The fewest changes that make one recipe of another, as values that JSON can write.

    An argument that is left out counts as the default of its class.
    """
    before, after = _changeable(base), _changeable(recipe)
    found: dict[str, object] = {}
    for name, value in after.items():
        found |= _differing(name, value, before[name])
    if "data" in found:  # which resets these two
        found |= {"train": recipe.train, "validation": recipe.validation}
    for name in list(found):
        fewer = {key: value for key, value in found.items() if key != name}
        with suppress(ValueError):  # an argument that only the new class has
            found = fewer if _changeable(apply(base, fewer)) == after else found
    return found


def _differing(name: str, new: object, old: object) -> dict[str, object]:
    """The changes between two values of an option, each as JSON has it."""
    if new == old:
        return {}
    inner, before = new, old if isinstance(old, dict) else {}
    found: dict[str, object] = {}
    if isinstance(new, dict) and "class_path" in new:
        path = new["class_path"]
        if path != before.get("class_path"):
            found[name] = {"class_path": path} if "." in name else _short(path, name)
        inner, before = new["init_args"], before.get("init_args", {})
    elif name.count(".") > name.startswith("kl.") or not isinstance(new, dict):
        return {name: _without_none(new)}
    elif before.keys() - new.keys():
        return {name: new}
    assert isinstance(inner, dict)
    for key, value in inner.items():
        found |= _differing(f"{name}.{key}", value, before.get(key, ...))
    return found


def resolved(recipe: Recipe) -> Recipe:
    """The recipe with the arguments that its parts leave out at the defaults of their classes."""
    plain, made = (bool, int, float, str, list, tuple, NoneType), dict[str, object]()
    for name, chosen in _parts(recipe).items():
        known = {key: one.default for key, one in parts.arguments(recipe, name).items()}
        defaults = {key: value for key, value in known.items() if isinstance(value, plain)}
        made[name] = replace(chosen, init_args={**defaults, **chosen.init_args})
    return change(recipe, made)


def written(recipe: Recipe) -> dict[str, object]:
    """All settings of a recipe as JSON has them, defaults of classes included."""
    return json.loads(json.dumps(asdict(resolved(recipe))))


def _changeable(recipe: Recipe) -> dict[str, object]:
    return {name: value for name, value in written(recipe).items() if name not in PROSE}


def _parts(recipe: Recipe) -> dict[str, Part]:
    return {name: value for name, value in vars(recipe).items() if isinstance(value, Part)}


def change(settings: Settings, changes: Changes) -> Settings:
    """Any dataclass with changes, see :func:`apply`."""
    hints = {k: v for k, v in get_type_hints(type(settings)).items() if k not in PROSE}
    made: dict[str, object] = {}
    for name, value in changes.items():
        head, *path = name.removesuffix(".class_path").replace(".init_args.", ".").split(".")
        if head not in hints:
            raise ValueError(
                parts.unknown_name("option", parts.option(name), [*map(parts.option, hints)])
            )
        made[head] = _put(made.get(head, getattr(settings, head)), path, value, head)
    read = {name: _read(value, hints[name], name) for name, value in made.items()}
    return replace(settings, **read)


def import_paths(changes: Changes) -> list[str]:
    """The dotted names among the values of parts in changes, which :func:`apply` may import."""
    heads = {name for name, hint in get_type_hints(Recipe).items() if _holds_parts(hint)}
    level: list[object] = [
        value for name, value in changes.items() if name.partition(".")[0] in heads
    ]
    found = []
    while level:
        value = level.pop()
        if isinstance(value, str) and PATH.fullmatch(value):
            found.append(value)
        elif isinstance(value, Mapping):
            level += value.values()
        elif isinstance(value, (list, tuple)):
            level += value
    return found


def _holds_parts(hint: object) -> bool:
    return hint in (Part, Stage) or any(map(_holds_parts, get_args(hint)))


def read_value(text: str) -> object:
    """The value that the text of an option stands for: JSON, YAML, or the text itself.

    >>> [read_value(text) for text in ("16", "1e-3", "null", "[400, 200]", "{y: 1}", "bf16")]
    [16, 0.001, None, [400, 200], {'y': 1}, 'bf16']
    """
    for read in (json.loads, yaml.safe_load):  # YAML takes 1e-3 for text, JSON does not
        with suppress(ValueError, yaml.YAMLError):
            return read(text)
    return text


def as_text(value: object) -> str:
    """A value as :func:`read_value` reads it back.

    >>> as_text([400, 200]), as_text("relu"), as_text("16")
    ('[400, 200]', 'relu', '"16"')
    """
    return value if isinstance(value, str) and read_value(value) == value else json.dumps(value)


def _put(old: object, path: Sequence[str], value: object, place: str) -> object:
    """What stands at an option, as plain values, once a value is set there or within it."""
    before = _plain({"class_path": old} if path and isinstance(old, str) else old)
    if path:
        head, *rest = path
        return {**before, head: _put(before.get(head), rest, value, f"{place}.{head}")}
    if "class_path" not in before or not isinstance(value, (str, Mapping)):
        return value
    new = {"class_path": value} if isinstance(value, str) else _plain(value)
    known = parts.parameters(parts.find(str(new.get("class_path", before["class_path"])), place))
    kept = {"class_path", *known, *new}  # of another class, only the arguments that both take
    return {name: one for name, one in (before | new).items() if name in kept}


def _plain(value: object) -> dict[str, object]:
    """What a mapping or dataclass holds; of a part, its class and beside it its arguments."""
    held = vars(value) if is_dataclass(value) else value
    found = dict(held) if isinstance(held, Mapping) else {}
    return found | (found.pop("init_args", None) or {}) if "class_path" in found else found


def _read(value: object, hint: object, place: str) -> object:
    """A value as its type has it: parts, policies and stages from mappings, the rest checked."""
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if isinstance(value, tuple(k for k in kinds if k is NoneType or _is_data(k))):
        return value
    for kind in kinds:
        origin, inner = get_origin(kind), get_args(kind)
        of_class = kind is Part or parts.is_kind(kind, nn.Module)
        if (of_class and isinstance(value, str)) or "class_path" in _plain(value):
            return _part({"class_path": value} if isinstance(value, str) else _plain(value), place)
        if isinstance(value, Mapping) and of_class:
            said = parts.option(place)
            raise ValueError(f"Expected a class for {said}; give {said} first.")
        if isinstance(value, Mapping) and _is_data(kind):
            return _built(kind, value, place)
        if isinstance(value, Mapping) and parts.is_kind(origin, Mapping):
            return {key: _read(one, inner[1], f"{place}.{key}") for key, one in value.items()}
        if origin is tuple and _is_data(inner[0]) and isinstance(value, (list, tuple)):
            return tuple(_read(one, inner[0], f"{place}.{i}") for i, one in enumerate(value))
    return _checked(value, hint, place)


def _part(given: Changes, place: str) -> Part:
    kind = parts.find(str(given["class_path"]), place)
    known, read = parts.parameters(kind), dict[str, object]()
    for name, one in given.items():
        if name not in {"class_path", *known}:
            raise ValueError(parts.unknown_name(f"argument of {kind.__name__}", name, known))
        if name != "class_path":
            read[name] = _read(one, known[name].annotation, f"{place}.{name}")
    return part(kind, **read)


def _built(kind: type, given: Changes, place: str) -> object:
    hints = get_type_hints(kind)
    for name in given.keys() - hints.keys():
        known = [parts.option(f"{place}.{one}") for one in hints]
        raise ValueError(parts.unknown_name("option", parts.option(f"{place}.{name}"), known))
    made = {name: _read(one, hints[name], f"{place}.{name}") for name, one in given.items()}
    try:
        return kind(**made)
    except TypeError as error:
        said = f"{kind.__name__} at {parts.option(place)}"
        raise ValueError(f"{said} cannot be built: {error}") from error


def _checked(value: object, hint: object, place: str) -> object:
    """A plain value if it is of a type; one without annotation may be anything."""
    if hint is inspect.Parameter.empty or isinstance(hint, str):  # no type at run time
        return value
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=hint)
    try:
        return parser.parse_object({"value": value}).value
    except ArgumentError as error:
        raise ValueError(
            f"Expected {parts.named(hint)} for {parts.option(place)} but got {value!r}."
        ) from error


def _without_none(value: object) -> object:
    """A schedule without the units of its length that are not used."""
    if isinstance(value, dict) and "class_path" not in value:
        return {key: _without_none(one) for key, one in value.items() if one is not None}
    return value


def _short(class_path: str, place: str) -> str:
    """The public name of a class where it has one, else its import path."""
    name = class_path.rpartition(".")[2]
    return name if parts.public(place).get(name) is parts.find(class_path, place) else class_path


def _is_data(kind: object) -> TypeGuard[type]:
    return isinstance(kind, type) and is_dataclass(kind)
