"""Variational autoencoders with structured priors, as probabilistic programs in Pyro.

The public names of :mod:`priorzoo.models`, :mod:`priorzoo.guides` and :mod:`priorzoo.inference` are
names of ``priorzoo`` too; each is imported when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING

# Type checkers and editors follow the star imports; at run time __getattr__ finds the same names,
# so that importing priorzoo does not import torch.
if TYPE_CHECKING:
    from priorzoo.guides import *  # noqa: F403
    from priorzoo.inference import *  # noqa: F403
    from priorzoo.models import *  # noqa: F403

    __version__: str

_FLOORS = ("models", "guides", "inference")


def __getattr__(name: str) -> object:
    if name in (*_FLOORS, "benchmarks", "cli"):
        return import_module(f"priorzoo.{name}")
    if name == "__version__":
        from importlib.metadata import version

        return version("priorzoo")
    for floor in _FLOORS if not name.startswith("_") else ():
        module = import_module(f"priorzoo.{floor}")
        if name in module.__all__:
            return getattr(module, name)
    raise AttributeError(f"module 'priorzoo' has no attribute {name!r}")


def __dir__() -> list[str]:
    names = (name for floor in _FLOORS for name in import_module(f"priorzoo.{floor}").__all__)
    return sorted({*names, *_FLOORS, "benchmarks", "cli", "__version__"})
