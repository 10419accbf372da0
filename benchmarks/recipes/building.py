"""From a recipe to a model, a guide, an objective and a training."""

import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from priorzoo import guides, models
from priorzoo.benchmarks.recipes.recipe import Part, Recipe, Stage, part
from priorzoo.inference import Objective, Penalty, StoredRows, Training, check_pair
from priorzoo.inference.construction import locate
from priorzoo.inference.training.settings import length_of
from priorzoo.models.contract import DeclaresNetworks, Sizes
from priorzoo.models.inlets import Feature
from priorzoo.models.likelihoods import outputs_of

# Arguments that every network may take, the last one if it is an encoder.
OF_NETWORKS = ("inputs", "outputs", "clusters", "shape", "features")
OF_TRAINING = (
    *("schedule_unit", "batch_size", "clip", "average", "precision", "step", "every"),
    *("on_nonfinite", "rollbacks"),
)
LAYERS = ("code", "clusters", "hidden", "channels")  # sizes that a recipe chooses
Kind = TypeVar("Kind")
Arguments = Mapping[str, object]


def build_pair(recipe: Recipe, shape: Sequence[int]) -> tuple[nn.Module, nn.Module]:
    """Build the recipe's model, then its guide, for flat rows of pictures of a shape.

    Networks are built in the sizes that the classes declare, see :class:`DeclaresNetworks`; an
    argument that model and guide both name is one network. A constructor may also name
    ``likelihood`` and ``rows``, the number of values in a row; a likelihood ``rows``; an encoder
    ``features``, those of the likelihood if it has any; a guide ``model`` and, without a default,
    any argument of the model, such as its ``code``. All else comes from the recipe's arguments and
    from the constructor's defaults.

    Raises:
        ValueError: for a class or argument that does not exist, or one that is left unfilled.
    """
    for place in ("model", "guide", "encoder", "decoder"):
        _check_sizes(place, getattr(recipe, place))
    rows = math.prod(shape)
    likelihood = _fill(recipe.likelihood, {"rows": rows})
    features: Sequence[Feature] | None = getattr(likelihood, "features", None)
    facts = {"rows": rows, "outputs": outputs_of(likelihood, rows)}
    networks: dict[str, nn.Module] = {}

    def made(chosen: Part, known: Arguments, more: Arguments) -> nn.Module:
        for name, sizes in declared(chosen, known).items():
            if name not in networks and name not in chosen.init_args:
                read = features if sizes.role == "encoder" else None
                networks[name] = _network(getattr(recipe, sizes.role), sizes, shape, read)
        return _fill(chosen, {"likelihood": likelihood} | dict(more) | networks)

    of_model = facts | _arguments(recipe.model)
    model = made(recipe.model, of_model, {"rows": rows})
    open_ones = _required(locate(recipe.guide.class_path)) & of_model.keys()
    handed = {name: of_model[name] for name in open_ones}
    return model, made(recipe.guide, of_model | _arguments(recipe.guide), handed | {"model": model})


def declared(chosen: Part, facts: Arguments) -> Mapping[str, Sizes]:
    """The networks that the class of a part takes, in the order of its constructor's arguments.

    A class that declares none takes those whose arguments have the same name in classes of the zoo,
    where these agree in the sizes.

    Raises:
        ValueError: for a size that the class asks for and nothing says.
    """
    kind = locate(chosen.class_path)
    if isinstance(kind, DeclaresNetworks):
        wanted = inspect.signature(kind.networks).parameters
        missing = [name for name in wanted if facts.get(name) is None]
        if missing:
            raise ValueError(
                f"Expected {', '.join(missing)} for the networks of {kind.__name__} but neither "
                "the model nor the recipe says it; give it as an argument."
            )
        found = dict(kind.networks(**{name: facts[name] for name in wanted}))
    else:
        found = _as_in_the_zoo(facts)
    return {name: found[name] for name in inspect.signature(kind).parameters if name in found}


def _as_in_the_zoo(facts: Arguments) -> dict[str, Sizes]:
    """Networks by the names of their arguments, where all classes of the zoo agree in the sizes."""
    found: dict[str, set[Sizes]] = {}
    for kind in (*vars(models).values(), *vars(guides).values()):
        if isinstance(kind, type) and isinstance(kind, DeclaresNetworks):
            wanted = inspect.signature(kind.networks).parameters
            if all(isinstance(facts.get(name), int) for name in wanted):
                for name, sizes in kind.networks(**{name: facts[name] for name in wanted}).items():
                    found.setdefault(name, set()).add(sizes)
    return {name: sizes.pop() for name, sizes in found.items() if len(sizes) == 1}


def filled(kind: type, model: type | None = None) -> set[str]:
    """Arguments of a class that :func:`build_pair` fills in, so that no option is needed for them.

    Args:
        kind: of a model or a guide.
        model: of the model, where ``kind`` is a guide.
    """
    names = {"rows", "likelihood", "model"}
    if model is not None:
        names |= set(inspect.signature(model).parameters) & _required(kind)
    if isinstance(kind, DeclaresNetworks):
        wanted = inspect.signature(kind.networks).parameters
        known = dict.fromkeys(wanted, 1) | _defaults(model or kind, wanted)
        names |= set(kind.networks(**known | _defaults(kind, wanted)))
    return names & set(inspect.signature(kind).parameters)


def build_objective(recipe: Recipe, model: nn.Module, guide: nn.Module) -> Objective:
    """The recipe's objective of a pair."""
    kind = locate(recipe.objective.class_path, Objective)
    penalties = {
        name: locate(chosen.class_path, Penalty)(**chosen.init_args)
        for name, chosen in recipe.penalties.items()
    }
    known = {"kl": recipe.kl, "particles": recipe.particles, "penalties": penalties}
    taken = inspect.signature(kind).parameters
    given = {name: value for name, value in known.items() if name in taken}
    return kind(model, guide, **given, **recipe.objective.init_args)


def build_training(
    recipe: Recipe, model: nn.Module, guide: nn.Module, data: Tensor | StoredRows, **settings: Any
) -> Training:
    """The training of a pair as the recipe says.

    Args:
        data: rows ``(N, P)``, in memory or in files.
        settings: further arguments of :class:`Training`, which go before those of the recipe.
    """
    schedule = _schedule(recipe, data)
    own: dict[str, Any] = {name: getattr(recipe, name) for name in OF_TRAINING} | {
        "objective": build_objective(recipe, model, guide),
        "optimiser": lambda parameters: make(recipe.optimiser, Optimizer, parameters),
        "schedule": None if schedule is None else lambda o: make(schedule, LRScheduler, o),
    }
    return Training(model, guide, data, **own | settings)


def _schedule(recipe: Recipe, data: Tensor | StoredRows) -> Part | None:
    """The recipe's schedule, with the ``total_steps`` that its class asks for."""
    chosen = recipe.schedule
    if chosen is None or chosen.init_args.keys() & {"total_steps", "epochs"}:
        return chosen
    if "total_steps" not in inspect.signature(locate(chosen.class_path, LRScheduler)).parameters:
        return chosen
    in_memory = isinstance(data, Tensor)  # the length of rows in files is a number of batches
    epoch = math.ceil(len(data) / recipe.batch_size) if in_memory else len(data)
    steps = length_of(recipe.steps, recipe.epochs, epoch)
    total = steps if recipe.schedule_unit == "step" else steps // epoch
    return replace(chosen, init_args={"total_steps": max(1, total), **chosen.init_args})


@contextmanager
def learning(stage: Stage, model: nn.Module, guide: nn.Module) -> Iterator[None]:
    """Inside ``with``, only the parameters that a stage names learn.

    Raises:
        ValueError: for a name that no parameter begins with.
    """
    parameters = dict(nn.ModuleDict({"model": model, "guide": guide}).named_parameters())
    for prefix in stage.learn:
        if not any(name.startswith(prefix) for name in parameters):
            raise ValueError(
                f"Expected stage {stage.name!r} to name parameters to learn but none "
                f"begins with {prefix!r}; there are {', '.join(parameters)}."
            )
    chosen = tuple(stage.learn or parameters)
    others = [p for n, p in parameters.items() if p.requires_grad and not n.startswith(chosen)]
    nn.ParameterList(others).requires_grad_(False)
    try:
        yield
    finally:
        nn.ParameterList(others).requires_grad_(True)


def make(chosen: Part, family: type[Kind], first: object) -> Kind:
    """An optimiser of parameters, or a schedule of an optimiser."""
    kind = locate(chosen.class_path, family)
    try:
        return kind(first, **chosen.init_args)
    except (RuntimeError, TypeError, ZeroDivisionError) as error:
        raise ValueError(f"{kind.__name__} cannot be built: {error}") from error


def fits(recipe: Recipe, kind: type[nn.Module]) -> bool:
    """Whether a guide of another class fits the recipe's model, see :func:`check_pair`."""
    try:
        check_pair(*build_pair(replace(recipe, guide=part(kind)), (8, 8)))
    except (ValueError, ImportError):
        return False
    return True


def _network(
    chosen: Part, sizes: Sizes, shape: Sequence[int], features: Sequence[Feature] | None
) -> nn.Module:
    of_it = (sizes.inputs, sizes.outputs, sizes.given, tuple(shape), features)
    return _fill(chosen, dict(zip(OF_NETWORKS, of_it, strict=True)))


def _arguments(chosen: Part) -> dict[str, object]:
    """The arguments of a part, those left out at the defaults of its class."""
    kind = locate(chosen.class_path)
    return _defaults(kind, inspect.signature(kind).parameters) | dict(chosen.init_args)


def _required(kind: type) -> set[str]:
    parameters = inspect.signature(kind).parameters.values()
    return {p.name for p in parameters if p.default is p.empty}


def _defaults(kind: type, names: Mapping[str, object]) -> dict[str, object]:
    parameters = inspect.signature(kind).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty and p.name in names}


def _check_sizes(place: str, chosen: Part) -> None:
    """Layers of no width are built by torch with a warning, and learn nothing."""
    for name in LAYERS:
        value = chosen.init_args.get(name)
        sizes = value if isinstance(value, (list, tuple)) else [value]
        if any(isinstance(size, int) and size < 1 for size in sizes):
            raise ValueError(f"Expected {place}.{name} of at least 1 but got {value}.")


def _fill(chosen: Part, known: Arguments) -> nn.Module:
    """Call the class of a part with its own arguments and what it names of the rest."""
    kind = locate(chosen.class_path)
    names = list(inspect.signature(kind).parameters)
    arguments = {name: known[name] for name in names if name in known}
    own = {name: _nested(value) for name, value in chosen.init_args.items()}
    unknown = [name for name in own if name not in names]
    if unknown:
        raise ValueError(f"Expected arguments among {names} for {kind.__name__} but got {unknown}.")
    try:
        return kind(**arguments | own)
    except (TypeError, RuntimeError, ZeroDivisionError) as error:
        hint = "" if isinstance(kind, DeclaresNetworks) else _hint(kind)
        raise ValueError(f"{kind.__name__} cannot be built: {error}.{hint}") from error


def _hint(kind: type) -> str:
    return (
        f" If it takes networks, add to {kind.__name__} a static method networks(rows, code) -> "
        "{argument: Sizes(inputs, outputs)}, by which they are built."
    )


def _nested(value: object) -> object:
    """An argument, with each module that it describes by its class, as a part or from options."""
    if isinstance(value, Part):
        return _fill(value, {})
    if isinstance(value, list):
        return [_nested(each) for each in value]
    if isinstance(value, Mapping) and "class_path" in value:
        return _fill(Part(value["class_path"], value.get("init_args") or {}), {})
    return value
