"""What a model, a guide, a likelihood and a network owe to each other and to a recipe.

Models and guides are plain ``nn.Module``s. Nothing here must be inherited: the protocols say what
is called, and :class:`Sizes` is for those that a recipe or the command line shall build.
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
        inputs, outputs: values in a row that the network reads and returns.
        given: number K of clusters that the network is conditioned on; None for none. Such a
            network is called with the cluster as its second argument.
        role: whether the recipe's ``encoder`` or its ``decoder`` is built in these sizes.
    """

    inputs: int
    outputs: int
    given: int | None = None
    role: Literal["encoder", "decoder"] = "encoder"


def decodes(outputs: int, code: int) -> dict[str, Sizes]:
    """The networks of a model that takes one ``decoder``, from codes ``(..., code)``."""
    return {"decoder": Sizes(code, outputs, role="decoder")}


def encodes(rows: int, code: int) -> dict[str, Sizes]:
    """The networks of a guide that takes one ``encoder``, to a Gaussian code."""
    return {"encoder": Sizes(rows, 2 * code)}


class Program(Protocol):
    """A model or a guide.

    Both open :func:`data_plate` and sample their sites. A model is also called with ``x=None`` and
    a ``size``, to draw from its prior; it names the site of the data ``x``. What else belongs to a
    row (an exposure, covariates) comes as a keyword that the program names in its signature.
    """

    def __call__(self, x: Tensor, size: int | None = None) -> Tensor | None: ...


@runtime_checkable
class DeclaresNetworks(Protocol):
    """A class whose network arguments a recipe can build.

    The parameters of ``networks`` name what it needs to know: ``rows``, the number of values in a
    row of data; ``outputs``, the number of parameters of the likelihood for a row; and constructor
    arguments of the model, or of the guide itself. It returns the sizes of each network by the name
    of the constructor's argument. Where model and guide name the same one, they share the network.
    """

    @staticmethod
    def networks(**sizes: object) -> Mapping[str, Sizes]: ...


class Likelihood(Protocol):
    """From the decoder's output to p(x | z); ``width`` numbers are needed for each value of x."""

    width: int

    def __call__(self, output: Tensor) -> TorchDistribution: ...


def accepted(program: Callable[..., object], context: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What of the context a program names in its signature; all if it takes ``**context``.

    Raises:
        ValueError: for a program that cannot be called without what the context lacks.
    """
    missing = needed(program) - context.keys()
    if missing:
        inner = inspect.unwrap(program)
        name = getattr(inner, "__name__", type(inner).__name__)
        raise ValueError(
            f"Expected {name} to be given {', '.join(sorted(missing))} but got {list(context)}; "
            "give context={name: a value for each row}."
        )
    parameters = _parameters(program)
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return dict(context)
    return {name: value for name, value in context.items() if name in parameters}


def check_context(
    context: Mapping[str, Tensor], rows: int | None, *programs: Callable[..., object]
) -> None:
    """Refuse context that none of the programs names, or without a value for each of the rows.

    Args:
        rows: how many there are; None if nobody knows.
        programs: model and guide; none to check the rows alone.

    Raises:
        ValueError: which names it, and for a program that lacks context.
    """
    unnamed = context.keys() - {name for each in programs for name in accepted(each, context)}
    if programs and unnamed:
        raise ValueError(
            f"Expected context that model or guide name in their signature but neither names "
            f"{', '.join(sorted(unnamed))}; add the keyword to forward, or leave it out."
        )
    for name, value in context.items():
        if rows is not None and len(value) != rows:
            raise ValueError(
                f"Expected context {name!r} with a value for each of {rows} rows but got "
                f"{len(value)}."
            )


def needed(program: Callable[..., object]) -> set[str]:
    """What a program cannot be called without, beside ``x`` and ``size``."""
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = _parameters(program).items()
    required = {name for name, p in parameters if p.default is p.empty and p.kind in named}
    return required - {"x", "size"}


def _parameters(program: Callable[..., object]) -> Mapping[str, inspect.Parameter]:
    inner = inspect.unwrap(program)
    return inspect.signature(inner.forward if isinstance(inner, nn.Module) else inner).parameters
