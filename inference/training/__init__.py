"""The training step, three ways to run it, the loop, checkpoints and optimisers."""
