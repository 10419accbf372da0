"""The settings of a recipe on the command line: reading them, and the help that lists them."""

import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Literal, get_origin, get_type_hints

import yaml

from priorzoo.benchmarks.recipes.changes import PROSE, read_value, written
from priorzoo.benchmarks.recipes.parts import arguments, find, named, public, unknown_name
from priorzoo.benchmarks.recipes.recipe import Part, Recipe

WIDTH = 100  # of a line of help
FIELDS = [item.name for item in fields(Recipe) if item.name not in PROSE]


def read_words(words: Sequence[str], others: Sequence[str]) -> dict[str, object]:
    """``--option value`` and ``--option=value`` as changes; an option without a value is true.

    Args:
        words: what the command's own parser left over.
        others: that parser's options, to name the nearest of all.

    Raises:
        ValueError: for what is no setting of a recipe.
    """
    found: dict[str, object] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, equals, text = word.removeprefix("--").partition("=")
        if not word.startswith("--") or name.partition(".")[0] not in FIELDS:
            known = [*others, *(f"--{item}" for item in FIELDS)]
            raise ValueError(unknown_name("option", word.partition("=")[0], known))
        if not equals:
            text = rest.pop(0) if rest and not rest[0].startswith("--") else "true"
        found.pop(name, None)
        found[name] = read_value(text)
    return found


def read_file(path: str) -> dict[str, object]:
    """The settings that a YAML file holds.

    Raises:
        ValueError: for a file that is no mapping.
    """
    try:
        found = yaml.safe_load(Path(path).read_text("utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(
            f"Expected YAML in {path} but got {' '.join(str(error).split())}"
        ) from error
    if not isinstance(found, dict):
        raise ValueError(f"Expected options and values in {path} but got {found!r:.40}.")
    return found


def as_yaml(recipe: Recipe) -> str:
    """All settings of a recipe, as ``--config`` reads them."""
    kept = {name: value for name, value in written(recipe).items() if name not in PROSE}
    return yaml.safe_dump(kept, sort_keys=False)


def settings_help(recipe: Recipe, everything: bool) -> str:
    """A line for each setting with its value, and its type and meaning if everything is asked for.

    Without, settings are left out that are empty, and arguments at the defaults of their class.
    """
    told, hints = described(Recipe), get_type_hints(Recipe)
    lines: list[str] = []
    for name in FIELDS:
        value = getattr(recipe, name)
        if isinstance(value, Part):
            lines += _part_help(recipe, name, everything)
        elif everything:
            lines += [
                f"  --{name} {_shown(value)}  ({named(hints[name])})",
                f"      {told.get(name, '')}",
            ]
        elif value or name == "epochs":
            choices = f"{named(hints[name])}; " if get_origin(hints[name]) is Literal else ""
            lines.append(f"  {f'--{name} {_shown(value)}':<38} {choices}{told.get(name, '')}")
    return "\n".join(line if everything else _cut(line) for line in lines)


def described(kind: Callable[..., object]) -> dict[str, str]:
    """What the docstring of a class says of each argument."""
    text = (inspect.getdoc(kind) or "").partition("Args:\n")[2].partition("\n\n")[0]
    found: dict[str, str] = {}
    for names, words in re.findall(r"^    ([\w, ]+): (.*(?:\n {6,}.*)*)", text, re.M):
        found |= dict.fromkeys(
            names.split(", "), re.sub(r"\s+", " ", re.sub(r":\w+:`|`", "", words))
        )
    return found


def _part_help(recipe: Recipe, name: str, everything: bool) -> list[str]:
    chosen: Part = getattr(recipe, name)
    kind = find(chosen.class_path, name)
    lines = [f"  --{name} {chosen.class_path.rpartition('.')[2]}"]
    if everything:
        lines.append(f"      one of {', '.join(sorted(public(name)))}, or an import path")
    told = described(kind)
    for key, parameter in arguments(recipe, name).items():
        value = chosen.init_args.get(key, parameter.default)
        shown = "" if value is inspect.Parameter.empty else _shown(value)
        if everything:
            untyped = parameter.annotation is inspect.Parameter.empty
            of = "any value" if untyped else named(parameter.annotation)
            lines += [f"  --{name}.{key} {shown}  ({of})"]
            lines += [f"      {told[key]}"] if key in told else []
        elif key in chosen.init_args:
            lines.append(f"  {f'--{name}.{key} {shown}':<38} {told.get(key, '')}")
    return lines


def _shown(value: object) -> str:
    if isinstance(value, (Mapping, tuple)):
        return json.dumps(value, default=lambda one: getattr(one, "__dict__", str(one)))
    return "null" if value is None else str(value)


def _cut(line: str) -> str:
    line = line.rstrip()
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 4]} ..."
