"""From a recipe to a model and a guide: sizes and networks are handed out by parameter name."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from torch import nn

from priorzoo.benchmarks.recipes import Part, Recipe
from priorzoo.inference.saving import locate

INJECTED = {
    "likelihood": "what the recipe's likelihood builds",
    "decoder": "network from a code to the likelihood's parameters",
    "conditional_decoder": "network from a code and a cluster to the likelihood's parameters",
    "encoder": "network from x to location and raw variance of a code",
    "conditional_encoder": "network from x and a cluster to location and raw variance of a code",
    "classifier": "network from x to the logits of the clusters",
    "locator": "network from x to a place in the model's plane",
    "model": "the model, for a guide that reads its prior",
    "code": "size D of the model's code, for a guide",
    "clusters": "number K of the model's clusters, for a guide",
}
SIZES = ("inputs", "outputs", "clusters", "shape")


def build_pair(recipe: Recipe, shape: Sequence[int]) -> tuple[nn.Module, nn.Module]:
    """Build the recipe's model, then its guide, for flat rows of pictures of a shape.

    A constructor that names one of :data:`INJECTED` receives it; all else comes from the recipe's
    arguments and from the constructor's defaults. A model that one declares oneself therefore fits
    in as soon as its parameters bear these names.

    Raises:
        ValueError: for a class or argument that does not exist, or one that is left unfilled.
    """
    width = math.prod(shape)
    likelihood = _make(recipe.likelihood, {})
    chosen = _arguments(recipe.model)
    code, clusters = chosen.get("code"), chosen.get("clusters")
    twice = None if code is None else 2 * code
    outputs = width * getattr(likelihood, "width", 1)

    def network(kind: Part, *sizes: Any) -> Callable[[], nn.Module]:
        return partial(_make, kind, dict(zip(SIZES, (*sizes, tuple(shape)), strict=True)))

    networks = {
        "decoder": network(recipe.decoder, code, outputs, None),
        "conditional_decoder": network(recipe.decoder, code, outputs, clusters),
        "encoder": network(recipe.encoder, width, twice, None),
        "conditional_encoder": network(recipe.encoder, width, twice, clusters),
        "classifier": network(recipe.encoder, width, clusters, None),
        "locator": network(recipe.encoder, width, chosen.get("plane"), None),
    }
    model = _make(recipe.model, {"likelihood": likelihood}, networks)
    known = {"likelihood": likelihood, "model": model, "code": code, "clusters": clusters}
    return model, _make(recipe.guide, known, networks)


def _arguments(chosen: Part) -> dict[str, Any]:
    """The arguments of a part, those left out at the defaults of its class."""
    parameters = inspect.signature(locate(chosen.class_path)).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    return defaults | dict(chosen.init_args)


def _make(
    chosen: Part,
    known: Mapping[str, Any],
    networks: Mapping[str, Callable[[], nn.Module]] | None = None,
) -> nn.Module:
    """Call the class of a part with its own arguments and what it names of the rest."""
    kind = locate(chosen.class_path)
    names = list(inspect.signature(kind).parameters)
    arguments = {name: known[name] for name in names if name in known}
    arguments |= {name: (networks or {})[name]() for name in names if name in (networks or {})}
    own = {name: _nested(value) for name, value in chosen.init_args.items()}
    unknown = [name for name in own if name not in names]
    if unknown:
        raise ValueError(f"Expected arguments among {names} for {kind.__name__} but got {unknown}.")
    try:
        made: nn.Module = kind(**arguments | own)
    except TypeError as error:
        raise ValueError(
            f"{kind.__name__} cannot be built: {error}. Filled in by name are {list(INJECTED)}."
        ) from error
    return made


def _nested(value: Any) -> Any:
    """An argument, or the module that it describes by its class, as a part or read from options."""
    if isinstance(value, Part):
        return _make(value, {})
    if isinstance(value, Mapping) and "class_path" in value:
        return _make(Part(value["class_path"], value.get("init_args") or {}), {})
    return value
