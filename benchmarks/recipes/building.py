"""From a recipe to a model and a guide: sizes and networks are handed out by parameter name."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch import nn

from priorzoo.benchmarks.recipes.recipe import Part, Recipe, part
from priorzoo.inference import ELBO, KL, Penalty, check_pair
from priorzoo.inference.saving import locate

INJECTED = {
    "likelihood": "what the recipe's likelihood builds",
    "decoder": "network from a code to the likelihood's parameters",
    "conditional_decoder": "network from a code and a cluster to the likelihood's parameters",
    "encoder": "network from x to location and raw variance of a code, or what the model says",
    "conditional_encoder": "network from x and a cluster to location and raw variance of a code",
    "joint_encoder": "network from x to location and raw variance of a code, then of a second",
    "classifier": "network from x to the logits of the clusters",
    "locator": "network from x to a place in the model's plane",
    "model": "the model, for a guide that reads its prior",
    "code": "size D of the model's code, for a guide",
    "clusters": "number K of the model's clusters, for a guide",
}
SIZES = ("inputs", "outputs", "clusters", "shape")
LAYERS = ("code", "clusters", "hidden", "channels")  # sizes that a recipe chooses


def build_pair(recipe: Recipe, shape: Sequence[int]) -> tuple[nn.Module, nn.Module]:
    """Build the recipe's model, then its guide, for flat rows of pictures of a shape.

    A constructor that names one of :data:`INJECTED` receives it; all else comes from the recipe's
    arguments and from the constructor's defaults. A model that one declares oneself therefore fits
    in as soon as its parameters bear these names.

    Raises:
        ValueError: for a class or argument that does not exist, or one that is left unfilled.
    """
    for place in ("model", "guide", "encoder", "decoder"):
        _check_sizes(place, getattr(recipe, place))
    width = math.prod(shape)
    likelihood = _fill(recipe.likelihood, {})
    chosen = _arguments(recipe.model)
    code, clusters = chosen.get("code"), chosen.get("clusters")
    twice = None if code is None else 2 * code
    both = None if code is None else 2 * (code + chosen.get("second_code", 0))
    outputs = width * getattr(likelihood, "width", 1)

    def network(kind: Part, *sizes: Any) -> Callable[[], nn.Module]:
        return partial(_fill, kind, dict(zip(SIZES, (*sizes, tuple(shape)), strict=True)))

    networks = {
        "decoder": network(recipe.decoder, code, outputs, None),
        "conditional_decoder": network(recipe.decoder, code, outputs, clusters),
        "encoder": network(recipe.encoder, width, twice, None),
        "conditional_encoder": network(recipe.encoder, width, twice, clusters),
        "joint_encoder": network(recipe.encoder, width, both, None),
        "classifier": network(recipe.encoder, width, clusters, None),
        "locator": network(recipe.encoder, width, chosen.get("plane"), None),
    }
    model = _fill(recipe.model, {"likelihood": likelihood}, networks)
    if code is not None and hasattr(model, "width"):  # numbers for each dimension of its code
        networks["encoder"] = network(recipe.encoder, width, model.width * code, None)
    known = {"likelihood": likelihood, "model": model, "code": code, "clusters": clusters}
    return model, _fill(recipe.guide, known, networks)


def build_objective(
    recipe: Recipe,
    model: nn.Module,
    guide: nn.Module,
    objective: Part | None = None,
    kl: Mapping[str, KL] | None = None,
) -> ELBO:
    """The recipe's objective of a pair; another class or other KL policies if given."""
    objective = recipe.objective if objective is None else objective
    kind: type[ELBO] = locate(objective.class_path, ELBO)
    penalties = {
        name: locate(chosen.class_path, Penalty)(**chosen.init_args)
        for name, chosen in recipe.penalties.items()
    }
    kl = recipe.kl if kl is None else kl
    return kind(model, guide, kl, recipe.particles, penalties, **objective.init_args)


def fits(recipe: Recipe, kind: type[nn.Module]) -> bool:
    """Whether a guide of another class fits the recipe's model, see :func:`check_pair`."""
    try:
        check_pair(*build_pair(replace(recipe, guide=part(kind)), (8, 8)))
    except (ValueError, ImportError):
        return False
    return True


def _arguments(chosen: Part) -> dict[str, Any]:
    """The arguments of a part, those left out at the defaults of its class."""
    parameters = inspect.signature(locate(chosen.class_path)).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    return defaults | dict(chosen.init_args)


def _check_sizes(place: str, chosen: Part) -> None:
    """Layers of no width are built by torch with a warning, and learn nothing."""
    for name in LAYERS:
        value = chosen.init_args.get(name)
        sizes = value if isinstance(value, (list, tuple)) else [value]
        if any(isinstance(size, int) and size < 1 for size in sizes):
            raise ValueError(f"Expected {place}.{name} of at least 1 but got {value}.")


def _fill(
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
    except (TypeError, RuntimeError, ZeroDivisionError) as error:
        raise ValueError(
            f"{kind.__name__} cannot be built: {error}. Filled in by name are {list(INJECTED)}."
        ) from error
    return made


def _nested(value: Any) -> Any:
    """An argument, or the module that it describes by its class, as a part or read from options."""
    if isinstance(value, Part):
        return _fill(value, {})
    if isinstance(value, Mapping) and "class_path" in value:
        return _fill(Part(value["class_path"], value.get("init_args") or {}), {})
    return value
