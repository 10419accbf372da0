"""Grids of recipes and baselines over settings and seeds, in worker processes."""
