"""Inference for :class:`NGGPMixture`: the objective, and moves that change the set of clusters."""
