"""The interfaces of models, guides, likelihoods and networks.

Models and guides are plain ``nn.Module``s and need not inherit from anything here: the protocols
document how they are called. A class that a recipe or the command line should be able to build
declares its networks by :class:`Sizes`.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

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


class Program(Protocol):
    """A model or a guide.

    Both open :func:`data_plate` and sample their sites. The data's site in the model is named
    ``x``. To draw from the prior, the model is called with ``x=None`` and a ``size``. Further
    inputs of each row (an exposure, covariates) are passed as keyword arguments if the program has
    parameters of these names.
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


class Likelihood(Protocol):
    """Maps the decoder's output to p(x | z); reads ``width`` outputs for each value of x."""

    width: int

    def __call__(self, output: Tensor) -> TorchDistribution: ...


def accepted(program: Callable[..., object], context: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The part of the context that a program has parameters for; all if it takes ``**context``.

    Raises:
        ValueError: if the context lacks a required argument of the program.
    """
    missing = needed(program) - context.keys()
    if missing:
        inner = inspect.unwrap(program)
        name = getattr(inner, "__name__", type(inner).__name__)
        raise ValueError(
            f"Expected context {', '.join(sorted(missing))} for {name} but got {list(context)}; "
            "give context={name: a value for each row}."
        )
    parameters = _parameters(program)
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return dict(context)
    return {name: value for name, value in context.items() if name in parameters}


def check_context(
    context: Mapping[str, Tensor], rows: int | None, *programs: Callable[..., object]
) -> None:
    """Check that each context tensor has a value for each row and is used by a program.

    Args:
        rows: number of rows; None if unknown.
        programs: model and guide; if none are given, only the number of rows is checked.

    Raises:
        ValueError: for unused context, another number of values, or missing required context.
    """
    unnamed = context.keys() - {name for each in programs for name in accepted(each, context)}
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
    """Names of a program's required arguments other than ``x`` and ``size``."""
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = _parameters(program).items()
    required = {name for name, p in parameters if p.default is p.empty and p.kind in named}
    return required - {"x", "size"}


def _parameters(program: Callable[..., object]) -> Mapping[str, inspect.Parameter]:
    inner = inspect.unwrap(program)
    return inspect.signature(inner.forward if isinstance(inner, nn.Module) else inner).parameters
