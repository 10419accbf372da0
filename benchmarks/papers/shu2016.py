"""Shu, "Gaussian Mixture VAE: Lessons in Variational Inference", 2016."""

from collections.abc import Mapping
from dataclasses import replace

from priorzoo.benchmarks.papers.paper import ENTROPY, MAJORITY, NEGATIVE, Line, Paper, lengths
from priorzoo.benchmarks.recipes.common import DIGITS, REFERENCE
from priorzoo.benchmarks.recipes.recipe import part
from priorzoo.guides import ClusterThenCode
from priorzoo.models import GMVAE, M2, MLP, VAE, ModifiedM2

SOURCE = "Shu, Gaussian Mixture VAE: Lessons in Variational Inference, 2016"
RECIPES = {
    "vae": REFERENCE,
    "m2": replace(
        REFERENCE,
        summary="M2 without labels, which leaves its cluster unused",
        paper=SOURCE,
        model=part(M2, code=64, clusters=10),
        guide=part(ClusterThenCode),
        published={"-elbo at 10,000 steps": 96.3, "accuracy_majority at 10,000 steps": 0.123},
    ),
    "modified-m2": replace(
        REFERENCE,
        summary="modified M2 (relu), a mixture by construction, with a variance floor",
        paper=SOURCE,
        model=part(ModifiedM2, code=64, clusters=10, link="relu", offset=True),
        guide=part(ClusterThenCode),
        decoder=part(MLP, hidden=[512]),
        published={"-elbo at 10,000 steps": 99.8, "accuracy_majority at 10,000 steps": 0.556},
    ),
    "gmvae": replace(
        REFERENCE,
        summary="Gaussian-mixture VAE with the reference's settings",
        paper=SOURCE,
        model=part(GMVAE, code=64, clusters=10, offset=True),
        guide=part(ClusterThenCode),
        published={"-elbo at 10,000 steps": 97.0, "accuracy_majority at 10,000 steps": 0.666},
    ),
    "digits-vae": replace(
        DIGITS, summary="a small VAE on the embedded digits", model=part(VAE, code=8)
    ),
} | {
    f"digits-{name}": replace(
        DIGITS,
        summary=f"a small {title} on the embedded digits",
        model=part(kind, code=8, clusters=10),
        guide=part(ClusterThenCode),
    )
    for name, title, kind in (
        ("m2", "M2", M2),
        ("modified-m2", "modified M2", ModifiedM2),
        ("gmvae", "Gaussian-mixture VAE", GMVAE),
    )
}

# Means over the runs of Shu's logs, at 500 steps an epoch.
_LOGS = "mean of Shu's logged runs at as many steps, majority, K = 10"
_PUBLISHED = {
    "m2": (
        {10_000: 96.3, 25_000: 94.3, 50_000: 93.1, 100_000: 92.7, 250_000: 92.2},
        {10_000: 0.123, 25_000: 0.114, 50_000: 0.114, 100_000: 0.114, 250_000: 0.114},
        None,
    ),
    "modified-m2": (
        {10_000: 99.8, 25_000: 97.0, 50_000: 95.5, 100_000: 94.5},
        {10_000: 0.556, 25_000: 0.618, 50_000: 0.649, 100_000: 0.690},
        0.06,
    ),
    "gmvae": (
        {10_000: 97.0, 25_000: 95.0, 50_000: 94.2, 100_000: 93.5, 250_000: 93.1},
        {10_000: 0.666, 25_000: 0.722, 50_000: 0.766, 100_000: 0.799, 250_000: 0.835},
        0.05,
    ),
}


def _logged(title: str, recipe: str, steps: int) -> Line:
    """A line that Shu's logs have values for."""
    negative, accuracy, spread = _PUBLISHED[recipe]
    measures = (
        replace(NEGATIVE, published=negative, protocol=_LOGS),
        ENTROPY,
        replace(MAJORITY, published=accuracy, spread=spread, protocol=_LOGS),
    )
    return Line(title, recipe, lengths(100, 10_000, steps), {}, measures)


def _changed(
    title: str, recipe: str, changes: Mapping[str, object], standard: int = 10_000
) -> Line:
    """A line of settings that Shu did not try."""
    lasts = lengths(standard / 100, standard, 250_000)
    return Line(title, recipe, lasts, changes, (NEGATIVE, ENTROPY, MAJORITY))


_FLOW = {"guide": "ClusterThenFlow"}
PAPER = Paper(
    "shu2016",
    "M2, modified M2 and the explicit mixture on MNIST",
    SOURCE,
    (
        _logged("M2", "m2", 250_000),
        _logged("modified M2 (relu)", "modified-m2", 100_000),
        replace(
            _logged("modified M2 (relu), KL of z in closed form", "modified-m2", 100_000),
            changes={"kl.z.analytic": True},
        ),
        _logged("Gaussian-mixture VAE", "gmvae", 250_000),
        _changed("Gaussian-mixture VAE, K = 16", "gmvae", {"model.clusters": 16}),
        _changed("M2, flow for q(z given x, y)", "m2", _FLOW, 5_000),
        _changed("Gaussian-mixture VAE, flow for q(z given x, y)", "gmvae", _FLOW, 5_000),
    ),
    "The reference's modified M2 ends in NaN between 113,000 and 128,000 steps in all its runs.",
    ("elbo", "accuracy_majority", "entropy"),
    recipes=RECIPES,
    logs={
        "M2": "m2",
        "modified M2 (relu)": "modified_m2_method=relu",
        "Gaussian-mixture VAE": "gmvae",
        "Gaussian-mixture VAE, K = 16": "gmvae_k=16",
    },
)
