"""Recipes and published values of the papers, data sets, training, scores, charts and reports."""

from priorzoo.benchmarks.papers import PAPERS, RECIPES

__all__ = ["PAPERS", "RECIPES"]
