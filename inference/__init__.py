"""Objectives, the step, the loop, evaluation, prediction and saving."""

from priorzoo.inference.baselines import Baselined
from priorzoo.inference.collapsed import Collapsed
from priorzoo.inference.evaluation import evaluate, importance_bound
from priorzoo.inference.growth import grow_model
from priorzoo.inference.loop import Training, fit
from priorzoo.inference.objective import ELBO, KL
from priorzoo.inference.pairs import check_data, check_pair
from priorzoo.inference.prediction import (
    cluster_probabilities,
    codes,
    component_means,
    draw,
    reconstructions,
)
from priorzoo.inference.randomness import Stream
from priorzoo.inference.saving import load, save
from priorzoo.inference.schedules import Linear
from priorzoo.inference.step import descend

__all__ = [
    "ELBO",
    "KL",
    "Baselined",
    "Collapsed",
    "Linear",
    "Stream",
    "Training",
    "check_data",
    "check_pair",
    "cluster_probabilities",
    "codes",
    "component_means",
    "descend",
    "draw",
    "evaluate",
    "fit",
    "grow_model",
    "importance_bound",
    "load",
    "reconstructions",
    "save",
]
