"""Settings that the recipes of several papers start from."""

from dataclasses import replace

from priorzoo.benchmarks.recipes.recipe import Recipe, part
from priorzoo.guides import Code
from priorzoo.models import MLP, VAE, Gaussian

REFERENCE = Recipe(
    summary="the variational autoencoder with the settings of Shu's comparison",
    paper="Kingma & Welling, Auto-Encoding Variational Bayes, 2014",
    model=part(VAE, code=64),
    guide=part(Code),
    train=55_000,
    validation=5_000,
    steps=10_000,
    every=500,
)

DIGITS = replace(
    REFERENCE,
    paper="",
    likelihood=part(Gaussian, scale=0.3, spread="shared"),
    encoder=part(MLP, hidden=[128]),
    decoder=part(MLP, hidden=[128]),
    data="digits",
    binarise="none",
    train=1_200,
    validation=200,
    batch_size=50,
    steps=4_000,
    every=200,
)
