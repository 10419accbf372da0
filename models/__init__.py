"""Generative stories, one file a paper; networks, likelihoods, and distributions Pyro lacks."""

from priorzoo.models.gmvae import GMVAE
from priorzoo.models.likelihoods import Bernoulli, Gaussian, Multinomial
from priorzoo.models.m2 import M2, ModifiedM2
from priorzoo.models.networks import MLP, ConvDecoder, ConvEncoder
from priorzoo.models.nggp_mixture import NGGPMixture
from priorzoo.models.plates import data_plate
from priorzoo.models.stick_breaking import StickBreakingVAE
from priorzoo.models.vae import VAE

__all__ = [
    "GMVAE",
    "M2",
    "MLP",
    "VAE",
    "Bernoulli",
    "ConvDecoder",
    "ConvEncoder",
    "Gaussian",
    "ModifiedM2",
    "Multinomial",
    "NGGPMixture",
    "StickBreakingVAE",
    "data_plate",
]
