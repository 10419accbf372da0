"""Rows of bytes, which become grey values or draws from them one batch at a time."""

import torch
from torch import Tensor

from priorzoo.inference.batch import binarised


class Pixels:
    """A transform of bytes 0 to 255 to grey values in [0, 1], or to Bernoulli draws from them.

    Rows stored as bytes take a quarter of the memory and are converted one batch at a time.

    Args:
        binarise: whether to draw binary values, new ones at every call.
    """

    def __init__(self, binarise: bool = False) -> None:
        self.binarise = binarise

    def __call__(self, x: Tensor) -> Tensor:
        grey = x.to(torch.get_default_dtype()) / 255
        return binarised(grey) if self.binarise else grey

    def values(self) -> Tensor:
        """All values that it can make of bytes, ``(n,)``."""
        grey = torch.arange(256, dtype=torch.get_default_dtype()) / 255
        return grey[[0, -1]] if self.binarise else grey
