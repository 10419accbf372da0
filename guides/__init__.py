"""Amortised inference programs, one file a family."""

from priorzoo.guides.factorial import FactorialCode
from priorzoo.guides.gaussian import ClusterThenCode, Code

__all__ = ["ClusterThenCode", "Code", "FactorialCode"]
