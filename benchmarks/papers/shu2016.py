"""Shu, "Gaussian Mixture VAE: Lessons in Variational Inference", 2016."""

from dataclasses import replace
from typing import Any

from priorzoo.benchmarks.papers.paper import ENTROPY, MAJORITY, NEGATIVE, Line, Paper, lengths
from priorzoo.benchmarks.recipes import DIGITS, REFERENCE, Changes, Part, Recipe, digits, part
from priorzoo.guides import ClusterThenCode
from priorzoo.models import GMVAE, M2, MLP, ModifiedM2

SOURCE = "Shu, Gaussian Mixture VAE: Lessons in Variational Inference, 2016"

# Means over the runs of Shu's logs after so many steps, at 500 steps an epoch.
_LOGS = "mean of Shu's logged runs at as many steps, majority, K = 10"
_STEPS = (10_000, 25_000, 50_000, 100_000, 250_000)
_NEGATIVE = {
    "m2": (96.3, 94.3, 93.1, 92.7, 92.2),
    "modified-m2": (99.8, 97.0, 95.5, 94.5),
    "gmvae": (97.0, 95.0, 94.2, 93.5, 93.1),
}
_ACCURACY = {
    "m2": (0.123, 0.114, 0.114, 0.114, 0.114),
    "modified-m2": (0.556, 0.618, 0.649, 0.690),
    "gmvae": (0.666, 0.722, 0.766, 0.799, 0.835),
}
_SPREAD = {"m2": None, "modified-m2": 0.06, "gmvae": 0.05}


def _compared(name: str, summary: str, model: Part, **more: Any) -> Recipe:
    """A recipe of the comparison, all of which share the reference's settings."""
    first = {"-elbo": _NEGATIVE[name][0], "accuracy_majority": _ACCURACY[name][0]}
    published = {f"{metric} at 10,000 steps": value for metric, value in first.items()}
    more |= {"model": model, "guide": part(ClusterThenCode)}
    return replace(REFERENCE, summary=summary, paper=SOURCE, published=published, **more)


_SMALL = {"code": 8, "clusters": 10}
RECIPES = {
    "vae": REFERENCE,
    "m2": _compared(
        "m2", "M2 without labels, which leaves its cluster unused", part(M2, code=64, clusters=10)
    ),
    "modified-m2": _compared(
        "modified-m2",
        "modified M2 (relu), a mixture by construction, with a variance floor",
        part(ModifiedM2, code=64, clusters=10, link="relu", offset=True),
        decoder=part(MLP, hidden=[512]),
    ),
    "gmvae": _compared(
        "gmvae",
        "Gaussian-mixture VAE with the reference's settings",
        part(GMVAE, code=64, clusters=10, offset=True),
    ),
    "digits-vae": DIGITS,
    "digits-m2": digits("M2", part(M2, **_SMALL), part(ClusterThenCode)),
    "digits-modified-m2": digits("modified M2", part(ModifiedM2, **_SMALL), part(ClusterThenCode)),
    "digits-gmvae": digits("Gaussian-mixture VAE", part(GMVAE, **_SMALL), part(ClusterThenCode)),
}


def _logged(title: str, recipe: str, steps: int, changes: Changes) -> Line:
    """A line that Shu's logs have values for."""
    negative, accuracy = (
        dict(zip(_STEPS, values[recipe], strict=False)) for values in (_NEGATIVE, _ACCURACY)
    )
    majority = MAJORITY.beside(accuracy, _LOGS, spread=_SPREAD[recipe])
    measures = (NEGATIVE.beside(negative, _LOGS), ENTROPY, majority)
    return Line(title, recipe, lengths(100, 10_000, steps), changes, measures)


def _changed(title: str, recipe: str, standard: int, changes: Changes) -> Line:
    """A line of settings that Shu did not try."""
    lasts = lengths(standard / 100, standard, 250_000)
    return Line(title, recipe, lasts, changes, (NEGATIVE, ENTROPY, MAJORITY))


_RELU, _CLOSED = "modified M2 (relu)", "modified M2 (relu), KL of z in closed form"
_FLOW = {"guide": "ClusterThenFlow"}
PAPER = Paper(
    "shu2016",
    "M2, modified M2 and the explicit mixture on MNIST",
    SOURCE,
    (
        _logged("M2", "m2", 250_000, {}),
        _logged(_RELU, "modified-m2", 100_000, {}),
        _logged(_CLOSED, "modified-m2", 100_000, {"kl.z.analytic": True}),
        _logged("Gaussian-mixture VAE", "gmvae", 250_000, {}),
        _changed("Gaussian-mixture VAE, K = 16", "gmvae", 10_000, {"model.clusters": 16}),
        _changed("M2, flow for q(z given x, y)", "m2", 5_000, _FLOW),
        _changed("Gaussian-mixture VAE, flow for q(z given x, y)", "gmvae", 5_000, _FLOW),
        _changed("Gaussian-mixture VAE, digits of 8 x 8", "digits-gmvae", 2_000, {}),
    ),
    "The reference's modified M2 ends in NaN between 113,000 and 128,000 steps in all its runs.",
    ("elbo", "accuracy_majority", "entropy"),
    recipes=RECIPES,
    logs={
        "M2": "m2",
        _RELU: "modified_m2_method=relu",
        "Gaussian-mixture VAE": "gmvae",
        "Gaussian-mixture VAE, K = 16": "gmvae_k=16",
    },
)
