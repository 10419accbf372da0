"""Distributions that Pyro lacks, exponential families, and gradient estimators of draws."""
