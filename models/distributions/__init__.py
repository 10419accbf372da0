"""Distributions that Pyro does not have, exponential families, and gradient estimators."""
