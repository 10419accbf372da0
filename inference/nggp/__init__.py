"""Inference for mixtures with an open number of clusters: the objective and moves of clusters."""
