"""Counts of words as weights, which an encoder reads in place of the counts."""

from typing import Literal

import torch
from torch import Tensor, nn

Weighting = Literal["none", "tf-idf", "log-tf-idf"]


class TfIdf(nn.Module):
    r"""Maps counts of words to TF-IDF weights of length 1.

    .. math:: w_p \propto \mathrm{tf}(x_p) \Big(1 + \log \frac{1 + N}{1 + N_p}\Big)

    where N_p of N documents hold word p. The term frequency tf is the count itself or, if
    ``sublinear``, 1 + log x of words that occur. Both are as in scikit-learn's ``TfidfTransformer``
    with its other settings at their defaults. Until :meth:`learn`, all words weigh the same.

    Args:
        words: number P of words.
        sublinear: whether further occurrences of a word in a document count less.
    """

    def __init__(self, words: int, sublinear: bool = False) -> None:
        super().__init__()
        self.words, self.sublinear = words, sublinear
        self.idf = nn.Buffer(torch.ones(words))

    @torch.no_grad()
    def learn(self, x: Tensor) -> None:
        """Set the weights of words by the counts ``(N, P)`` of N documents.

        Raises:
            ValueError: for another number of words.
        """
        if x.shape[1:] != self.idf.shape:
            raise ValueError(
                f"Expected counts (N, {self.words}) of {self.words} words but got "
                f"{tuple(x.shape)}; give rows of the documents that the network reads."
            )
        held = (x > 0).sum(0).double()
        self.idf.copy_(1 + torch.log((1 + len(x)) / (1 + held)))

    def forward(self, x: Tensor) -> Tensor:
        counts = x.clamp(min=0)
        if self.sublinear:
            counts = torch.where(counts > 0, 1 + counts.clamp(min=1e-6).log(), 0.0)
        weights = counts * self.idf.to(x)
        return nn.functional.normalize(weights, dim=-1)
