"""The interfaces of models, guides, likelihoods and networks.

Models and guides are plain ``nn.Module``s and need not inherit from anything here: the protocols
document how they are called. A class that a recipe or the command line should be able to build
declares its networks by :class:`Sizes`.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, Protocol, TypedDict, Unpack, get_args, get_origin, runtime_checkable

from pyro.distributions import TorchDistribution
from torch import Tensor, nn


@dataclass(frozen=True)
class Sizes:
    """Input and output width of a network that a model or guide takes as an argument.

    Args:
        inputs, outputs: numbers of input and output units.
        given: number K of clusters if the network is conditioned on a cluster, which is then its
            second argument; None otherwise.
        role: whether the network is built from the recipe's ``encoder`` or ``decoder`` settings.
    """

    inputs: int
    outputs: int
    given: int | None = None
    role: Literal["encoder", "decoder"] = "encoder"


def decodes(outputs: int, code: int) -> dict[str, Sizes]:
    """The networks of a model with one ``decoder``, which takes codes ``(..., code)``."""
    return {"decoder": Sizes(code, outputs, role="decoder")}


def encodes(rows: int, code: int) -> dict[str, Sizes]:
    """The networks of a guide with one ``encoder``, which gives a Gaussian code."""
    return {"encoder": Sizes(rows, 2 * code)}


class Beside(TypedDict, total=False):
    """What a program of the zoo may be told of each row beside ``x``.

    A program names these by ``**beside: Unpack[Beside]``, or some of them as parameters.

    - ``observed``: ``(B, P)`` booleans, False for missing cells of ``x``. In these, ``x`` holds any
      value in the likelihood's support; it has no influence.
    - ``exposure``: ``(B,)`` positive numbers that multiply the rates of counts.
    - ``covariates``: ``(B, C)`` numbers that the decoder sees, and other networks that take them.
    """

    observed: Tensor
    exposure: Tensor
    covariates: Tensor


WEIGHTS = "weights"  # what the bound is told of each row, and no program


class Program(Protocol):
    """A model or a guide.

    Both open :func:`data_plate` and sample their sites. The data's site in the model is named
    ``x``. To draw from the prior, the model is called with ``x=None`` and a ``size``. Further
    inputs of each row (an exposure, covariates) are passed as keyword arguments if the program
    names them: as parameters, or all of :class:`Beside` by ``**beside: Unpack[Beside]``.
    """

    def __call__(self, x: Tensor, size: int | None = None) -> Tensor | None: ...


@runtime_checkable
class DeclaresNetworks(Protocol):
    """A class whose network arguments a recipe can build.

    ``networks`` receives its arguments by name: ``rows``, the number of values in a row of data;
    ``outputs``, the number of parameters of the likelihood for a row; and any constructor arguments
    of the model, or of the guide itself. It returns the sizes of each network by the name of the
    constructor argument. A network that model and guide both declare by the same name is shared.
    """

    @staticmethod
    def networks(**sizes: object) -> Mapping[str, Sizes]: ...


@runtime_checkable
class CountsData(Protocol):
    """A model whose prior of a cluster depends on the number of data, such as an NGGP mixture.

    ``counted`` is that number, int64, 0-dim, as its objective has counted; 0 before the training.
    """

    counted: Tensor


@runtime_checkable
class PlacesClusters(Protocol):
    """A model with a finite mixture as prior of its code ``z``, whose clusters ``y`` can be placed.

    ``clusters`` is K.
    """

    clusters: int

    def place_cluster(self, k: int, loc: Tensor, variance: Tensor) -> None:
        """Make p(z | y = k) a Gaussian with mean and variances ``(D,)``, in place.

        Where weights are learnt, cluster k gets the weight 1/K.
        """


class Likelihood(Protocol):
    """Maps the decoder's output to p(x | z); reads ``width`` outputs for each value of x.

    A likelihood with rates also takes ``exposure``, by keyword. Missing cells are left out of the
    density of an ``Independent`` distribution, or by its method ``marginal(observed)``.
    """

    width: int

    def __call__(self, output: Tensor) -> TorchDistribution: ...


def accepted(program: Callable[..., object], context: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The part of the context that a program names; all if it takes any ``**context``.

    ``weights`` of rows are not among it: they are told to the bound.

    Raises:
        ValueError: if the context lacks a required argument of the program.
    """
    missing = needed(program) - (context.keys() - {WEIGHTS})
    if missing:
        raise ValueError(
            f"Expected context {', '.join(sorted(missing))} for {_name(program)} but got "
            f"{list(context)}; give context={{name: a value for each row}}."
        )
    names = named(program)
    told = {name: value for name, value in context.items() if name != WEIGHTS}
    return {name: value for name, value in told.items() if names is None or name in names}


def named(program: Callable[..., object]) -> frozenset[str] | None:
    """The keywords that a program or a network names; None if it takes any."""
    found: set[str] = set()
    for name, parameter in _parameters(program).items():
        if parameter.kind is not parameter.VAR_KEYWORD:
            found.add(name)
        elif get_origin(parameter.annotation) is Unpack:
            (keys,) = get_args(parameter.annotation)
            found |= keys.__annotations__.keys()
        else:
            return None
    return frozenset(found)


def check_context(
    context: Mapping[str, Tensor], rows: int | None, *programs: Callable[..., object]
) -> None:
    """Check that each context tensor has a value for each row and is used by a program.

    Args:
        rows: number of rows; None if unknown.
        programs: model and guide; if none are given, only the number of rows is checked.

    Raises:
        ValueError: for unused context, another number of values, missing required context, or
            missing cells that a program does not know of.
    """
    for each in programs if "observed" in context else ():
        if "observed" not in accepted(each, context):
            raise ValueError(
                f"Expected a program that knows of missing cells but {_name(each)} does not name "
                "observed; add the parameter observed to its forward, or fill the cells."
            )
    used = {WEIGHTS, *(name for each in programs for name in accepted(each, context))}
    unnamed = context.keys() - used
    if programs and unnamed:
        raise ValueError(
            f"Expected context that is a parameter of the model's or guide's forward but got "
            f"{', '.join(sorted(unnamed))}; add the parameter to forward, or leave it out."
        )
    for name, value in context.items():
        if rows is not None and len(value) != rows:
            raise ValueError(
                f"Expected context {name!r} with a value for each of {rows} rows but got "
                f"{len(value)}; give one for each row."
            )


def needed(program: Callable[..., object]) -> set[str]:
    """Names of a program's required arguments other than ``x`` and ``size``.

    With those in the attribute ``needs`` of its modules, such as networks of covariates.
    """
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = _parameters(program).items()
    required = {name for name, p in parameters if p.default is p.empty and p.kind in named}
    inner = inspect.unwrap(program)
    for part in inner.modules() if isinstance(inner, nn.Module) else ():
        required |= vars(part).get("needs", frozenset())
    return required - {"x", "size"}


def _name(program: Callable[..., object]) -> str:
    inner = inspect.unwrap(program)
    return str(getattr(inner, "__name__", type(inner).__name__))


def _parameters(program: Callable[..., object]) -> Mapping[str, inspect.Parameter]:
    inner = inspect.unwrap(program)
    forward = inner.forward if isinstance(inner, nn.Module) else inner
    if inspect.ismethod(forward):
        return _of_method(forward.__func__)
    return _read(forward)


@lru_cache(maxsize=1000)
def _of_method(function: Callable[..., object]) -> Mapping[str, inspect.Parameter]:
    """What a method takes beside the object; remembered, since each step asks for it."""
    own = list(_read(function).items())[1:]
    return dict(own)


def _read(forward: Callable[..., object]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(forward, eval_str=True).parameters
    except (NameError, AttributeError, TypeError):  # of types imported for the type checker alone
        return inspect.signature(forward).parameters
