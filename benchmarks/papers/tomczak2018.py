"""Tomczak & Welling, "VAE with a VampPrior", 2018."""

from dataclasses import replace

from priorzoo.benchmarks.papers.paper import MAJORITY, NEGATIVE, Line, Paper, lengths
from priorzoo.benchmarks.recipes import REFERENCE, digits, part
from priorzoo.guides import CodeThenCluster
from priorzoo.models import VampPrior

SOURCE = "Tomczak & Welling, VAE with a VampPrior, 2018"
RECIPES = {
    "vampprior": replace(
        REFERENCE,
        summary="a mixture prior of posteriors at learnt pseudo-inputs, with the VAE's networks",
        paper=SOURCE,
        model=part(VampPrior, code=64, clusters=100),
        guide=part(CodeThenCluster),
    ),
    "digits-vampprior": digits(
        "VAE with a VampPrior",
        part(VampPrior, code=8, clusters=30, bounded=False),
        part(CodeThenCluster),
    ),
}

_MEASURES, _WIDE = (NEGATIVE, MAJORITY), {"model.clusters": 500}
PAPER = Paper(
    "tomczak2018",
    "A mixture of posteriors as the prior, beside the standard normal, on MNIST",
    SOURCE,
    (
        Line("VAE", "vae", lengths(50, 10_000, 500_000), {}, (NEGATIVE,)),
        Line("VampPrior, K = 100", "vampprior", lengths(50, 10_000, 500_000), {}, _MEASURES),
        Line("VampPrior, K = 500", "vampprior", lengths(50, None, 500_000), _WIDE, _MEASURES),
    ),
    "Both have the same networks, codes, batches and steps. The paper has K = 500; its values are "
    "importance-weighted bounds on another binarisation, and so stand beside neither.",
    recipes=RECIPES,
)
