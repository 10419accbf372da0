"""What a recipe is, and how a model, a guide and an objective are built from it."""

from priorzoo.benchmarks.recipes.common import (
    DIGITS,
    REFERENCE,
    cosine,
    digits,
    mlps,
    one_cycle,
    plain_stage,
)
from priorzoo.benchmarks.recipes.recipe import Changes, Part, Recipe, Stage, part

__all__ = [
    "DIGITS",
    "REFERENCE",
    "Changes",
    "Part",
    "Recipe",
    "Stage",
    "cosine",
    "digits",
    "mlps",
    "one_cycle",
    "part",
    "plain_stage",
]
