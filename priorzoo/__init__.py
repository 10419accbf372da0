"""Variational autoencoders with structured priors, as probabilistic programs in Pyro."""
