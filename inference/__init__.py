"""Objectives, the step, the loop, evaluation, prediction and saving."""

from priorzoo.inference.baselines import Baselined
from priorzoo.inference.batches import Pixels
from priorzoo.inference.collapsed import Collapsed
from priorzoo.inference.conjugate import ConjugateELBO, Pretraining, predictive
from priorzoo.inference.diagnostics import degeneracy, occupancy
from priorzoo.inference.evaluation import evaluate, importance_bound
from priorzoo.inference.growth import grow_model, move_clusters
from priorzoo.inference.loop import Training, fit
from priorzoo.inference.memory import Memory, reconstructions_through, remember
from priorzoo.inference.objective import ELBO, KL, Autoencoder, Draws, Penalty
from priorzoo.inference.optimisers import ConjugateAdam, RobbinsMonro, Together
from priorzoo.inference.pairs import check_data, check_pair
from priorzoo.inference.penalties import Classification, ConsistencyViolation
from priorzoo.inference.prediction import (
    cluster_probabilities,
    codes,
    component_means,
    draw,
    enumerates,
    reconstructions,
)
from priorzoo.inference.randomness import Stream
from priorzoo.inference.replicas import Replicas
from priorzoo.inference.saving import load, save
from priorzoo.inference.schedules import Linear
from priorzoo.inference.seeding import seed_components
from priorzoo.inference.step import descend

__all__ = [
    "ELBO",
    "KL",
    "Autoencoder",
    "Baselined",
    "Classification",
    "Collapsed",
    "ConjugateAdam",
    "ConjugateELBO",
    "ConsistencyViolation",
    "Draws",
    "Linear",
    "Memory",
    "Penalty",
    "Pixels",
    "Pretraining",
    "Replicas",
    "RobbinsMonro",
    "Stream",
    "Together",
    "Training",
    "check_data",
    "check_pair",
    "cluster_probabilities",
    "codes",
    "component_means",
    "degeneracy",
    "descend",
    "draw",
    "enumerates",
    "evaluate",
    "fit",
    "grow_model",
    "importance_bound",
    "load",
    "move_clusters",
    "occupancy",
    "predictive",
    "reconstructions",
    "reconstructions_through",
    "remember",
    "save",
    "seed_components",
]
