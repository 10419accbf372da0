"""Settings that the recipes of several papers start from."""

from dataclasses import replace
from typing import Any

import torch

from priorzoo.benchmarks.recipes.recipe import Part, Recipe, Stage, part
from priorzoo.guides import Code
from priorzoo.inference import KL, Linear, StandardPrior
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


def mlps(*hidden: int, **more: object) -> dict[str, Any]:
    """Encoder and decoder with hidden layers of these widths; the decoder's are in reverse.

    Further arguments are those of :class:`MLP`, alike for both.
    """
    both = {"encoder": hidden, "decoder": hidden[::-1]}
    return {name: part(MLP, hidden=[*sizes], **more) for name, sizes in both.items()}


def one_cycle(**arguments: object) -> Part:
    """A learning rate that rises and falls once, and leaves the momentum as it is."""
    return part(torch.optim.lr_scheduler.OneCycleLR, cycle_momentum=False, **arguments)


def cosine(peak: float | list[float], last: float = 0.01, held: float = 0.0) -> Part:
    """A learning rate that stays at its peak, and then falls by half a cosine; moved at each step.

    Args:
        peak: of all parameters, or of each group.
        last: what the rate ends at, as a share of the peak.
        held: the share of the steps in which it stays.
    """
    rise = {"div_factor": 1.0, "final_div_factor": 1 / last, "pct_start": held}
    return one_cycle(max_lr=peak, **rise)


def plain_stage(steps: int, name: str = "plain", **settings: Any) -> Stage:
    """A stage of a plain VAE with prior N(0, I), in whose codes clusters are then looked for.

    The weight of its KL term rises from 0 to 1 in the first half.

    Args:
        steps, name, settings: fields of the stage.
    """
    rising = {"z": KL(Linear(0.0, 1.0, fraction=0.5), analytic=True)}
    return Stage(name, steps=steps, objective=part(StandardPrior), kl=rising, **settings)


DIGITS = replace(
    REFERENCE,
    summary="a small VAE on the embedded digits",
    paper="",
    model=part(VAE, code=8),
    likelihood=part(Gaussian, scale=0.3, spread="shared"),
    **mlps(128),
    data="digits",
    binarise="none",
    train=1_200,
    validation=200,
    batch_size=50,
    steps=4_000,
    every=200,
)


def digits(title: str, model: Part, guide: Part, note: str = "", **settings: Any) -> Recipe:
    """A recipe for scikit-learn's digits, small enough for tests and first tries.

    Args:
        title, note: the parts of the summary before and after the name of the data.
        model, guide: of the recipe.
        settings: further fields of the recipe.
    """
    summary = f"a small {title} on the embedded digits{note}"
    return replace(DIGITS, summary=summary, model=model, guide=guide, **settings)
