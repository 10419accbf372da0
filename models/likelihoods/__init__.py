"""Likelihoods: they map a decoder's output to p(x | z), the last part of a generative model."""

from priorzoo.models.likelihoods.binary import Bernoulli, Pixel
from priorzoo.models.likelihoods.categories import Categorical, Codes, Ordinal
from priorzoo.models.likelihoods.columns import Columns
from priorzoo.models.likelihoods.continuous import Gaussian, LogNormal, StudentT
from priorzoo.models.likelihoods.counts import (
    Counts,
    Multinomial,
    NegativeBinomial,
    Poisson,
    ZeroInflatedNegativeBinomial,
)
from priorzoo.models.likelihoods.sizes import outputs_of

__all__ = [
    "Bernoulli",
    "Categorical",
    "Codes",
    "Columns",
    "Counts",
    "Gaussian",
    "LogNormal",
    "Multinomial",
    "NegativeBinomial",
    "Ordinal",
    "Pixel",
    "Poisson",
    "StudentT",
    "ZeroInflatedNegativeBinomial",
    "outputs_of",
]
