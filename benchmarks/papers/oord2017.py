"""van den Oord et al., "Neural Discrete Representation Learning", 2017."""

from dataclasses import replace

import torch
from torch import Tensor

from priorzoo.benchmarks.data.sets import Dataset
from priorzoo.benchmarks.papers.paper import NEGATIVE, Line, Paper, lengths, metric
from priorzoo.benchmarks.recipes import REFERENCE, digits, part
from priorzoo.benchmarks.scores.registry import scores
from priorzoo.benchmarks.scores.run import Run
from priorzoo.guides import Quantised
from priorzoo.inference import Quantisation, codes
from priorzoo.models import VQVAE

SOURCE = "van den Oord et al., Neural Discrete Representation Learning, 2017"
RECIPES = {
    "vq-vae": replace(
        REFERENCE,
        summary="a code of 8 vectors from a codebook of 64, passed straight through",
        paper=SOURCE,
        model=part(VQVAE, code=8, clusters=64, positions=8),
        guide=part(Quantised),
        penalties={"quantisation": part(Quantisation)},
    ),
    "digits-vq-vae": digits(
        "VQ-VAE",
        part(VQVAE, code=4, clusters=16, positions=4),
        part(Quantised),
        penalties={"quantisation": part(Quantisation)},
    ),
}


@scores.register(VQVAE)
def score_codebook(model: VQVAE, run: Run, dataset: Dataset, x: Tensor) -> dict[str, float]:
    """Use of the codebook by rows ``x``, over all positions.

    - ``codes_in_use``: how many of the K vectors are chosen at least once;
    - ``perplexity``: the exponential of the entropy of their frequencies, K if all are alike.
    """
    z = codes(model, run.guide, x).unflatten(-1, (model.positions, model.code))
    with torch.no_grad():
        chosen = torch.cdist(z.flatten(0, 1), model.codebook).argmin(-1)
    share = chosen.bincount(minlength=model.clusters).double() / len(chosen)
    entropy = torch.special.entr(share).sum()
    return {"codes_in_use": float((share > 0).sum()), "perplexity": float(entropy.exp())}


_MEASURES = NEGATIVE, metric("codes_in_use", "codes in use"), metric("perplexity", "perplexity")
PAPER = Paper(
    "oord2017",
    "A vector-quantised code, on MNIST",
    SOURCE,
    (Line("VQ-VAE, 8 positions, K = 64", "vq-vae", lengths(50, 10_000, 250_000), {}, _MEASURES),),
    "Of -ELBO, 8 log 64 = 33.27 nats are those of the code, which is uniform. The paper has images "
    "and audio through convolutions, and no values for MNIST.",
    recipes=RECIPES,
)
