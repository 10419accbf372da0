"""The settings of a recipe on the command line: reading them, and the help that lists them."""

import inspect
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import get_type_hints

import yaml

from priorzoo.benchmarks.recipes.changes import PROSE, read_value, written
from priorzoo.benchmarks.recipes.parts import arguments, find, named, option, public, unknown_name
from priorzoo.benchmarks.recipes.recipe import Part, Recipe
from priorzoo.inference.failures import one_line
from priorzoo.inference.files import read_text
from priorzoo.inference.schema import Plain, check

WIDTH = 100  # of a line of help
IDLE = {  # settings that another value of a setting leaves without effect
    "rollbacks": ("on_nonfinite", "raise"),
    "init_steps": ("n_init", 1),
    "schedule_unit": ("schedule", None),
}
SINGLE = ("particles", "n_init")  # which are shown from two on
ALIKE = ("fused", "cycle_momentum")  # arguments that all recipes set alike, where they have them
FIELDS = [item.name for item in fields(Recipe) if item.name not in PROSE]


def read_words(words: Sequence[str], others: Sequence[str]) -> dict[str, object]:
    """``--option value`` and ``--option=value`` as changes; an option without a value is true.

    Names are spelt with hyphens, ``--batch-size``, or with underscores.

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
        name = name.replace("-", "_")
        if not word.startswith("--") or name.partition(".")[0] not in FIELDS:
            known = [*others, *map(option, FIELDS)]
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
        found = yaml.safe_load(read_text(path))
    except RecursionError:
        raise ValueError(f"Expected YAML in {path} but it is nested too deep.") from None
    except yaml.YAMLError as error:
        said = one_line(error)
        raise ValueError(f"Expected YAML in {path} but got {said}") from error
    if not isinstance(found, dict):
        raise ValueError(f"Expected options and values in {path} but got a {type(found).__name__}.")
    check(Plain(32, 100_000), found, "the settings", path, "write fewer")
    if not all(isinstance(name, str) for name in found):
        raise ValueError(f"Expected names of options in {path} but got {list(found)!r:.60}.")
    return found


def as_yaml(recipe: Recipe) -> str:
    """All settings of a recipe, as ``--config`` reads them."""
    kept = {name: value for name, value in written(recipe).items() if name not in PROSE}
    return yaml.safe_dump(kept, sort_keys=False)


def settings_help(recipe: Recipe, everything: bool) -> str:
    """A line for each setting with its value, and its type and meaning if everything is asked for.

    Without, settings are left out that are empty or have no effect, and arguments at the defaults
    of their class or that all recipes set alike.
    """
    lines: list[str] = []
    for place, value, kind, told, chosen in _settings(recipe):
        said = f"{option(place)} {_shown(value)}"
        if everything:
            lines.append(f"  {said}  ({kind})" if kind else f"  {said}")
            lines += [f"      {told}"] if told else []
        elif chosen:
            choices = f"{kind}; " if kind.startswith("one of") else ""
            line = f"  {said:<38} {choices}{told if kind else ''}".rstrip()
            lines.append(line if len(line) <= WIDTH else f"{line[: WIDTH - 4]} ...")
    return "\n".join(lines)


def _idle(recipe: Recipe, name: str) -> bool:
    """Whether a setting has no effect: by the value of another, or as there is only one of it."""
    if name in SINGLE:
        return getattr(recipe, name) == 1
    other, value = IDLE.get(name, ("", None))
    return name in IDLE and getattr(recipe, other) == value


def _settings(recipe: Recipe) -> Iterator[tuple[str, object, str, str, bool]]:
    """Each option with its value, its type, its meaning, and whether the recipe chooses it."""
    told, hints = described(Recipe), get_type_hints(Recipe)
    for name in FIELDS:
        value = getattr(recipe, name)
        if not isinstance(value, Part):
            chosen = (bool(value) or name == "epochs") and not _idle(recipe, name)
            yield name, value, named(hints[name]), told.get(name, ""), chosen
            continue
        of_class = described(find(value.class_path, name))
        known = f"one of {', '.join(sorted(public(name)))}, or an import path"
        yield name, value.class_path.rpartition(".")[2], "", known, True
        for key, one in arguments(recipe, name).items():
            kind = "any value" if one.annotation is one.empty else named(one.annotation)
            default = "" if one.default is one.empty else one.default
            given = value.init_args.get(key, default)
            chosen = key in value.init_args and key not in ALIKE
            yield f"{name}.{key}", given, kind, of_class.get(key, ""), chosen


def described(kind: Callable[..., object], section: str = "Args") -> dict[str, str]:
    """What a section of a docstring says of each name, such as each argument of a class."""
    text = (inspect.getdoc(kind) or "").partition(f"{section}:\n")[2].partition("\n\n")[0]
    found: dict[str, str] = {}
    for names, words in re.findall(r"^    ([\w, ]+): (.*(?:\n {6,}.*)*)", text, re.M):
        plain = re.sub(r"\s+", " ", re.sub(r":\w+:`|`", "", words))
        found |= dict.fromkeys(names.split(", "), plain)
    return found


def _shown(value: object) -> str:
    if isinstance(value, (Mapping, tuple)):
        return json.dumps(value, default=lambda one: getattr(one, "__dict__", str(one)))
    return "null" if value is None else str(value)
