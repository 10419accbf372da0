"""Guides: amortised variational posteriors, one file for each family."""

from priorzoo.guides.exact import CodesThenCluster, CodeThenCluster, cluster_posterior
from priorzoo.guides.facets import FacetCode
from priorzoo.guides.factorial import FactorialCode
from priorzoo.guides.flows import ClusterThenFlow, FlowCode
from priorzoo.guides.gaussian import ClusterThenCode, Code, MeanField, MeanFieldCodes
from priorzoo.guides.nggp import CollapsedCode
from priorzoo.guides.nonparametric import CodeAndPlace
from priorzoo.guides.quantised import Quantised
from priorzoo.guides.sticks import Sticks

__all__ = [
    "ClusterThenCode",
    "ClusterThenFlow",
    "Code",
    "CodeAndPlace",
    "CodeThenCluster",
    "CodesThenCluster",
    "CollapsedCode",
    "FacetCode",
    "FactorialCode",
    "FlowCode",
    "MeanField",
    "MeanFieldCodes",
    "Quantised",
    "Sticks",
    "cluster_posterior",
]
