"""Changes of settings as values: ``{"model.clusters": 16, "guide": "ClusterThenFlow"}``."""

import inspect
import json
from argparse import ArgumentError
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, fields, is_dataclass, replace
from types import NoneType, UnionType
from typing import TypeGuard, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml
from jsonargparse import ArgumentParser
from torch import nn

from priorzoo.benchmarks.recipes.parts import (
    arguments,
    filled,
    find,
    is_kind,
    named,
    parameters,
    public,
    unknown_name,
)
from priorzoo.benchmarks.recipes.recipe import Part, Recipe, part

Changes = Mapping[str, object]
Settings = TypeVar("Settings")

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
    if asked:
        made = change(made, {"epochs" if asked == ["steps"] else "steps": None})
    if made.data != recipe.data:
        free = {"train": None, "validation": 0}
        made = change(made, {k: v for k, v in free.items() if k not in changes})
    for place, chosen in _parts(made).items():
        for name in filled(made, place) & chosen.init_args.keys():
            raise ValueError(f"Expected no --{place}.{name}, which is filled in; leave it out.")
    return made


def differences(base: Recipe, recipe: Recipe) -> dict[str, object]:
    """The fewest changes that make one recipe of another, as values that JSON can write.

    An argument that is left out counts as the default of its class.
    """
    before, after = _changeable(base), _changeable(recipe)
    old = dict(pair for name, value in before.items() for pair in _flat(name, value))
    found: dict[str, object] = {}
    for name, value in after.items():
        if _lacks_keys(value, before[name]):
            found[name] = value
        else:
            found |= {k: v for k, v in _flat(name, value) if k not in old or old[k] != v}
    if "data" in found:  # which resets these two
        found |= {"train": recipe.train, "validation": recipe.validation}
    for name in list(found):
        fewer = {key: value for key, value in found.items() if key != name}
        with suppress(ValueError):  # an argument that only the new class has
            found = fewer if _changeable(apply(base, fewer)) == after else found
    return found


def resolved(recipe: Recipe) -> Recipe:
    """The recipe with the arguments that its parts leave out at the defaults of their classes."""
    return change(recipe, {name: _complete(recipe, name) for name in _parts(recipe)})


def written(recipe: Recipe) -> dict[str, object]:
    """All settings of a recipe as JSON has them, defaults of classes included."""
    plain: dict[str, object] = json.loads(json.dumps(asdict(resolved(recipe))))
    return plain


def _changeable(recipe: Recipe) -> dict[str, object]:
    return {name: value for name, value in written(recipe).items() if name not in PROSE}


def _parts(recipe: Recipe) -> dict[str, Part]:
    found = {item.name: getattr(recipe, item.name) for item in fields(recipe)}
    return {name: value for name, value in found.items() if isinstance(value, Part)}


def change(settings: Settings, changes: Changes, within: str = "") -> Settings:
    """Any dataclass with changes, see :func:`apply`; ``within`` is the option that it stands at."""
    hints = get_type_hints(type(settings))
    made: dict[str, object] = {}
    for name, value in changes.items():
        head, *rest = name.removesuffix(".class_path").replace(".init_args.", ".").split(".")
        if head not in hints or head in PROSE:
            known = [f"--{within}{known}" for known in hints if known not in PROSE]
            raise ValueError(unknown_name("option", f"--{within}{name}", known))
        old = made.get(head, getattr(settings, head))
        made[head] = _changed(rest, value, hints[head], old, within + head)
    return replace(settings, **made)  # type: ignore[type-var]


def read_value(text: str) -> object:
    """The value that the text of an option stands for: JSON, YAML, or the text itself.

    >>> [read_value(text) for text in ("16", "1e-3", "null", "[400, 200]", "{y: 1}", "bf16")]
    [16, 0.001, None, [400, 200], {'y': 1}, 'bf16']
    """
    for read in (json.loads, yaml.safe_load):  # YAML takes 1e-3 for text, JSON does not
        with suppress(ValueError, yaml.YAMLError):
            value: object = read(text)
            return value
    return text


def _changed(path: Sequence[str], value: object, hint: object, old: object, place: str) -> object:
    """What stands at an option, with a value set at a path within it."""
    if not path:
        return _read(value, hint, old, place)
    head, *rest = path
    if isinstance(old, Mapping) and "class_path" in old:
        old = Part(old["class_path"], old.get("init_args") or {})
    if isinstance(old, Part):
        return _with_argument(old, head, rest, value, place)
    for kind in _alternatives(hint):
        if _is_settings(kind) and isinstance(old, (kind, NoneType)):
            start: object = kind() if old is None else old
            return change(start, {".".join(path): value}, f"{place}.")
        if is_kind(get_origin(kind), Mapping):
            entries = dict(old) if isinstance(old, Mapping) else {}
            inner, within = get_args(kind)[1], f"{place}.{head}"
            return {**entries, head: _changed(rest, value, inner, entries.get(head), within)}
    raise ValueError(
        f"Expected no --{place}.{'.'.join(path)}, as --{place} is {old!r}; give --{place} first."
    )


def _with_argument(old: Part, name: str, path: Sequence[str], value: object, place: str) -> Part:
    known = parameters(find(old.class_path, place))
    if name not in known:
        kind = old.class_path.rpartition(".")[2]
        raise ValueError(unknown_name(f"argument of {kind}", name, known))
    hint, default = known[name].annotation, known[name].default
    before = old.init_args.get(name, None if default is inspect.Parameter.empty else default)
    made = _changed(path, value, hint, before, f"{place}.{name}")
    return replace(old, init_args={**old.init_args, name: made})


def _read(value: object, hint: object, old: object, place: str) -> object:
    """A value as its type has it: parts, policies and stages from mappings, the rest checked."""
    kinds = _alternatives(hint)
    if value is None and NoneType in kinds:
        return None
    if isinstance(value, Mapping) and "class_path" in value:
        return _part(value, old, place)
    for kind in kinds:
        if isinstance(kind, type) and is_dataclass(kind) and isinstance(value, kind):
            return value
        if (kind is Part or is_kind(kind, nn.Module)) and isinstance(value, (str, Mapping)):
            return _part(value, old, place)
        if _is_settings(kind) and isinstance(value, Mapping):
            return _built(kind, value, place)
        origin, inner = get_origin(kind), get_args(kind)
        if is_kind(origin, Mapping) and isinstance(value, Mapping):
            return {str(k): _read(v, inner[1], None, f"{place}.{k}") for k, v in value.items()}
        if origin is tuple and _is_settings(inner[0]) and isinstance(value, (list, tuple)):
            return tuple(_read(v, inner[0], None, f"{place}.{i}") for i, v in enumerate(value))
    return _checked(value, hint, place)


def _part(value: str | Mapping[str, object], old: object, place: str) -> Part:
    """A part by the name of its class, or by a mapping of its class and its arguments."""
    given = {"class_path": value} if isinstance(value, str) else dict(value)
    name = given.pop("class_path", old.class_path if isinstance(old, Part) else "")
    kind = find(str(name), place)
    made = part(kind)
    if isinstance(old, Part):
        known = parameters(kind)
        made = replace(made, init_args={k: v for k, v in old.init_args.items() if k in known})
    inner = given.pop("init_args", None)
    for key, one in {**given, **(inner if isinstance(inner, Mapping) else {})}.items():
        made = _with_argument(made, str(key), [], one, place)
    return made


def _built(kind: type, value: Mapping[str, object], place: str) -> object:
    hints = get_type_hints(kind)
    for name in value:
        if name not in hints:
            raise ValueError(unknown_name(f"field of {kind.__name__}", name, list(hints)))
    made = {k: _read(v, hints[k], None, f"{place}.{k}") for k, v in value.items()}
    try:
        return kind(**made)
    except TypeError as error:
        raise ValueError(f"{kind.__name__} at --{place} cannot be built: {error}") from error


def _checked(value: object, hint: object, place: str) -> object:
    """A plain value if it is of a type; one without annotation may be anything."""
    if hint is inspect.Parameter.empty or isinstance(hint, str):  # no type at run time
        return value
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=hint)
    try:
        found: object = parser.parse_object({"value": value}).value
    except ArgumentError as error:
        raise ValueError(f"Expected {named(hint)} for --{place} but got {value!r}.") from error
    return found


def _flat(name: str, value: object) -> Iterator[tuple[str, object]]:
    """What stands at an option as dotted options and plain values."""
    inner = value.get("init_args") if isinstance(value, dict) else None
    if isinstance(value, dict) and isinstance(inner, dict):
        path = value["class_path"]
        yield name, {"class_path": path} if "." in name else _short(path, name)
    elif "." not in name or (name.startswith("kl.") and name.count(".") == 1):
        inner = value
    if not isinstance(inner, dict):
        yield name, _without_none(value)
        return
    for key, one in inner.items():
        yield from _flat(f"{name}.{key}", one)


def _lacks_keys(new: object, old: object) -> bool:
    if not (isinstance(new, dict) and isinstance(old, dict)) or "class_path" in new:
        return False
    return bool(old.keys() - new.keys())


def _complete(recipe: Recipe, place: str) -> Part:
    chosen: Part = getattr(recipe, place)
    known = {name: one.default for name, one in arguments(recipe, place).items()}
    plain = (bool, int, float, str, list, tuple, NoneType)
    defaults = {name: value for name, value in known.items() if isinstance(value, plain)}
    return replace(chosen, init_args={**defaults, **chosen.init_args})


def _without_none(value: object) -> object:
    """A schedule without the units of its length that are not used."""
    if isinstance(value, dict) and "class_path" not in value:
        return {key: _without_none(one) for key, one in value.items() if one is not None}
    return value


def _short(class_path: str, place: str) -> str:
    """The public name of a class where it has one, else its import path."""
    name = class_path.rpartition(".")[2]
    return name if public(place).get(name) is find(class_path, place) else class_path


def _alternatives(hint: object) -> tuple[object, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _is_settings(kind: object) -> TypeGuard[type]:
    return isinstance(kind, type) and is_dataclass(kind) and kind is not Part
