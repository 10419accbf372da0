"""Generative models, one file for each paper; networks, likelihoods and further distributions."""

from priorzoo.models.components import Components
from priorzoo.models.contract import Beside, Sizes
from priorzoo.models.dilokthanakul import DilokthanakulGMVAE
from priorzoo.models.distributions.estimators import estimated
from priorzoo.models.distributions.exponential import (
    Dirichlet,
    Gamma,
    Natural,
    NormalGamma,
    NormalWishart,
    conjugate,
)
from priorzoo.models.facets import FacetMixture
from priorzoo.models.factorial import FactorialMixture
from priorzoo.models.gmvae import GMVAE
from priorzoo.models.ladder import LadderDecoder, LadderEncoder
from priorzoo.models.likelihoods import (
    Bernoulli,
    Categorical,
    Columns,
    Gaussian,
    LogNormal,
    Multinomial,
    NegativeBinomial,
    Ordinal,
    Poisson,
    StudentT,
    ZeroInflatedNegativeBinomial,
)
from priorzoo.models.m2 import M2, ModifiedM2
from priorzoo.models.networks import MLP, ConvDecoder, ConvEncoder
from priorzoo.models.nggp.mixture import NGGPMixture
from priorzoo.models.nonparametric import KernelMean, LeaveOneOutGP, NonparametricVAE
from priorzoo.models.observation import encode, sample_x
from priorzoo.models.plates import data_plate
from priorzoo.models.sets import SetEncoder
from priorzoo.models.stick_breaking import StickBreakingVAE
from priorzoo.models.vae import VAE
from priorzoo.models.vamp_prior import VampPrior
from priorzoo.models.vq_vae import VQVAE

__all__ = [
    "GMVAE",
    "M2",
    "MLP",
    "VAE",
    "VQVAE",
    "Bernoulli",
    "Beside",
    "Categorical",
    "Columns",
    "Components",
    "ConvDecoder",
    "ConvEncoder",
    "DilokthanakulGMVAE",
    "Dirichlet",
    "FacetMixture",
    "FactorialMixture",
    "Gamma",
    "Gaussian",
    "KernelMean",
    "LadderDecoder",
    "LadderEncoder",
    "LeaveOneOutGP",
    "LogNormal",
    "ModifiedM2",
    "Multinomial",
    "NGGPMixture",
    "Natural",
    "NegativeBinomial",
    "NonparametricVAE",
    "NormalGamma",
    "NormalWishart",
    "Ordinal",
    "Poisson",
    "SetEncoder",
    "Sizes",
    "StickBreakingVAE",
    "StudentT",
    "VampPrior",
    "ZeroInflatedNegativeBinomial",
    "conjugate",
    "data_plate",
    "encode",
    "estimated",
    "sample_x",
]
