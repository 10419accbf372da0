"""Amortised inference programs, one file a family."""

from priorzoo.guides.gaussian import ClusterThenCode, Code
from priorzoo.guides.nonparametric import CodeAndPlace

__all__ = ["ClusterThenCode", "Code", "CodeAndPlace"]
