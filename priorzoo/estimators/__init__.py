"""Estimators for scikit-learn: clusters, densities and codes of tables and matrices."""

from importlib.util import find_spec

if find_spec("sklearn") is None:
    raise ModuleNotFoundError(
        "The estimators need scikit-learn; run: pip install 'priorzoo[estimators]'.",
        name="sklearn",
    )

from priorzoo.estimators.clusterer import Clusterer
from priorzoo.estimators.density import DensityEstimator, Embedder

__all__ = ["Clusterer", "DensityEstimator", "Embedder"]
