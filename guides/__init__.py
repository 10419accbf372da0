"""Amortised inference programs, one file a family."""

from priorzoo.guides.collapsed import CollapsedCode
from priorzoo.guides.gaussian import ClusterThenCode, Code
from priorzoo.guides.sticks import Sticks

__all__ = ["ClusterThenCode", "Code", "CollapsedCode", "Sticks"]
