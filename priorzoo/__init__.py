"""Variational autoencoders with structured priors, as probabilistic programs in Pyro.

The public names of :mod:`priorzoo.models`, :mod:`priorzoo.guides` and :mod:`priorzoo.inference` are
names of ``priorzoo`` too, and so are the estimators for scikit-learn of
:mod:`priorzoo.estimators` and :func:`place_mixture`, by which VaDE begins; each is imported when it
is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING

# Type checkers and editors follow the star imports; at run time __getattr__ finds the same names,
# so that importing priorzoo does not import torch.
if TYPE_CHECKING:
    from priorzoo.benchmarks.papers.jiang2017 import place_mixture as place_mixture
    from priorzoo.estimators import Clusterer as Clusterer
    from priorzoo.estimators import DensityEstimator as DensityEstimator
    from priorzoo.estimators import Embedder as Embedder
    from priorzoo.guides import *  # noqa: F403
    from priorzoo.inference import *  # noqa: F403
    from priorzoo.models import *  # noqa: F403

    __version__: str

_FLOORS = ("models", "guides", "inference")
_ROOMS = ("benchmarks", "cli", "estimators")
_ESTIMATORS = ("Clusterer", "DensityEstimator", "Embedder")
_ELSEWHERE = {
    **dict.fromkeys(_ESTIMATORS, "estimators"),
    "place_mixture": "benchmarks.papers.jiang2017",
}


def __getattr__(name: str) -> object:
    if name in (*_FLOORS, *_ROOMS):
        return import_module(f"priorzoo.{name}")
    if name in _ELSEWHERE:
        return getattr(import_module(f"priorzoo.{_ELSEWHERE[name]}"), name)
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
    return sorted({*names, *_FLOORS, *_ROOMS, *_ELSEWHERE, "__version__"})
