"""A recipe as options: typed, nested, from YAML or the command line, with the nearest name."""

import inspect
import re
from argparse import ArgumentError
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from functools import partial
from typing import Any

import torch
from jsonargparse import ArgumentParser, Namespace, set_parsing_settings
from torch import nn

from priorzoo.benchmarks.data.sets import nearest
from priorzoo.benchmarks.recipes.building import INJECTED, SIZES
from priorzoo.benchmarks.recipes.recipe import Part, Recipe, Stage
from priorzoo.inference import ELBO, KL, Linear
from priorzoo.inference.saving import describe, locate

FAMILIES: Mapping[str, type] = {
    "model": nn.Module,
    "guide": nn.Module,
    "likelihood": nn.Module,
    "encoder": nn.Module,
    "decoder": nn.Module,
    "objective": ELBO,
    "optimiser": torch.optim.Optimizer,
    "schedule": torch.optim.lr_scheduler.LRScheduler,
}
FILLED: Mapping[str, set[str]] = {
    "model": set(INJECTED) - {"code", "clusters"},
    "guide": set(INJECTED),
    "likelihood": set(),
    "encoder": set(SIZES),
    "decoder": set(SIZES),
    "objective": {"model", "guide", "kl", "particles", "penalties"},
    "optimiser": {"params"},
    "schedule": {"optimizer"},
}
PROSE = {"summary", "paper", "published"}
NESTED: Mapping[str, Any] = {
    "penalties": dict[str, dict[str, Any]],
    "stages": list[dict[str, Any]],
    "moves": dict[str, dict[str, Any]],
}


def new_parser(command: str, description: str) -> ArgumentParser:
    """A parser of one command that raises ``argparse.ArgumentError``; see :func:`explain`."""
    set_parsing_settings(instantiate_subclass_spec_in_any=False)  # parts of stages stay as written
    return ArgumentParser(
        prog=f"priorzoo {command}",
        description=description,
        exit_on_error=False,
        allow_abbrev=False,
    )


def parse(parser: ArgumentParser, words: Sequence[str]) -> Any:
    """What the words say, with classes of settings built.

    Raises:
        ValueError: in one line, for what the parser does not understand.
    """
    try:
        return parser.instantiate(parser.parse_args(list(words)))
    except ArgumentError as error:
        raise ValueError(explain(error.message, parser)) from error


def explain(message: str, parser: ArgumentParser) -> str:
    """An error of the parser in one line that names the nearest word it would have understood."""
    unknown = re.search(r"[Uu]nrecognized arguments: (--[\w.-]+)", message)
    if unknown:
        return unknown_name("option", unknown[1], parser._option_string_actions)
    unknown = re.search(r"class_path '([\w.]+)':\s.*?Option '(\w+)' is not accepted", message, re.S)
    if unknown:
        names = list(inspect.signature(locate(unknown[1], object)).parameters)
        return unknown_name(f"argument of {unknown[1]}", unknown[2], names)
    lines = [line.strip(" -") for line in message.splitlines()]
    return " ".join(line for line in lines if line and not line.startswith(_NOISE))


_NOISE = (
    "Does not validate against any",
    "Subtypes:",
    "Errors:",
    "Given value",
    "Expected a <class 'NoneType'>",
    "Expected a path but",
)


def unknown_name(what: str, name: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    """One line that says a name is unknown, and which is nearest or which there are."""
    return f"Unknown {what} {name!r}; {nearest(name, known)}"


def add_recipe(parser: ArgumentParser, recipe: Recipe) -> None:
    """Give a parser an option for each field of a recipe, with the recipe's value as default."""
    for item in fields(Recipe):
        value = getattr(recipe, item.name)
        if item.name in FAMILIES:
            parser.add_subclass_arguments(
                FAMILIES[item.name],
                item.name,
                skip=FILLED[item.name],
                instantiate=False,
                required=False,
                help=f"class and arguments of the {item.name}",
            )
            if value is not None:
                parser.set_defaults({item.name: asdict(value)})
        elif item.name in NESTED:
            parser.add_argument(f"--{item.name}", type=NESTED[item.name], default=_nested(value))
        elif item.name not in PROSE:
            parser.add_argument(f"--{item.name}", type=item.type, default=value)


def read_recipe(recipe: Recipe, settings: Any) -> Recipe:
    """The recipe with the fields that were parsed; a length given alone replaces the other.

    Raises:
        ValueError: when both ``steps`` and ``epochs`` are given.
    """
    chosen: dict[str, Any] = {}
    for item in fields(Recipe):
        if item.name in settings:
            value = settings[item.name]
            chosen[item.name] = _part(value) if item.name in FAMILIES else value
    for name, built in (("penalties", _penalty), ("moves", partial(_built, Part))):
        parts = _mapped(chosen[name])
        chosen[name] = {key: built(value) for key, value in parts.items()}
    chosen["stages"] = tuple(_stage(value) for value in _mapped(chosen["stages"]))
    steps, epochs = chosen["steps"], chosen["epochs"]
    if steps is not None and epochs is not None:
        if steps != recipe.steps and epochs != recipe.epochs:
            raise ValueError(f"Expected --steps or --epochs but got both, {steps} and {epochs}.")
        chosen["steps" if epochs != recipe.epochs else "epochs"] = None
    if chosen["data"] != recipe.data:  # whose split is that of the recipe's own data
        for name, free in (("train", None), ("validation", 0)):
            if chosen[name] == getattr(recipe, name):
                chosen[name] = free
    return replace(recipe, **chosen)


def _nested(value: Any) -> Any:
    """Parts and stages as mappings, as YAML and JSON write them."""
    if isinstance(value, Mapping):
        return {name: asdict(chosen) for name, chosen in value.items()}
    return [asdict(stage) for stage in value]


def _mapped(value: Any) -> Any:
    """Mappings where the parser has made namespaces of them."""
    if isinstance(value, Namespace):
        return value.as_dict()
    if isinstance(value, Mapping):
        return {name: _mapped(part) for name, part in value.items()}
    return [_mapped(part) for part in value] if isinstance(value, list) else value


def _stage(value: Mapping[str, Any]) -> Stage:
    made = dict(value)
    for name in ("begin", "objective"):
        if made.get(name) is not None:
            made[name] = _built(Part, made[name])
    if made.get("kl") is not None:
        made["kl"] = {site: _policy(policy) for site, policy in made["kl"].items()}
    made["learn"] = tuple(made.get("learn") or ())
    return _built(Stage, made)


def _policy(value: Mapping[str, Any]) -> KL:
    made = dict(value)
    if isinstance(made.get("weight"), Mapping):
        made["weight"] = _built(Linear, made["weight"])
    return _built(KL, made)


def _penalty(value: Mapping[str, Any]) -> Part:
    made: Part = _built(Part, value)
    weight = made.init_args.get("weight")
    if not isinstance(weight, Mapping):
        return made
    return Part(made.class_path, {**made.init_args, "weight": _built(Linear, weight)})


def _built(kind: type[Any], value: Mapping[str, Any]) -> Any:
    """A dataclass from a mapping, whose misspelt fields are named."""
    names = [item.name for item in fields(kind)]
    for name in value:
        if name not in names:
            raise ValueError(unknown_name(f"field of {kind.__name__}", name, names))
    try:
        return kind(**value)
    except TypeError as error:
        raise ValueError(f"{kind.__name__} cannot be built: {error}") from error


def _part(value: Any) -> Part | None:
    if value is None:
        return None
    arguments = value.get("init_args")
    chosen = {} if arguments is None else arguments.as_dict()
    return Part(value["class_path"], {name: _written(v, name) for name, v in chosen.items()})


def _written(value: Any, name: str) -> Any:
    """An argument as JSON can write it; the parser builds a module that is one."""
    return describe(value, name, {}) if isinstance(value, nn.Module) else value
