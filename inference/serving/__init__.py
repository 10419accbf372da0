"""Predictions without Pyro: one graph of tensor operations, run here or exported."""
